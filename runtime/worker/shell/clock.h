// The worker's `now`: goes on while a PC sleeps.
#pragma once

#include <time.h>

#include <cstdint>

namespace pesc::worker {

inline int64_t boot_ms() {
  timespec ts{};
  clock_gettime(CLOCK_BOOTTIME, &ts);
  return int64_t{ts.tv_sec} * 1000 + ts.tv_nsec / 1'000'000;
}

}  // namespace pesc::worker
