#pragma once

#include "runtime/cli/cli.h"

namespace pesc::cli {

// Prints what this machine offers and lacks; 0 when ranks can run here and the named coordinator,
// if any, answers, 3 when it does not, 1 when something else is broken.
int doctor(const Common& common);

}  // namespace pesc::cli
