#include "runtime/coordinator/shell/clock.h"

#include <time.h>

namespace pesc::coordinator {
namespace {

int64_t read_clock_ms(clockid_t clock) {
  timespec now{};
  clock_gettime(clock, &now);
  return int64_t{now.tv_sec} * 1000 + now.tv_nsec / 1'000'000;
}

}  // namespace

TimeMs boottime_ms() { return read_clock_ms(CLOCK_BOOTTIME); }
int64_t unix_ms() { return read_clock_ms(CLOCK_REALTIME); }

}  // namespace pesc::coordinator
