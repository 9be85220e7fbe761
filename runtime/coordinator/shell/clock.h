// The shell's time.
#pragma once

#include <cstdint>

#include "runtime/coordinator/core/core.h"

namespace pesc::coordinator {

TimeMs boottime_ms();  // CLOCK_BOOTTIME: goes on while a PC sleeps, as the loop's timer does
int64_t unix_ms();

}  // namespace pesc::coordinator
