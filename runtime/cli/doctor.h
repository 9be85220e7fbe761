#pragma once

#include "runtime/cli/cli.h"

namespace pesc::cli {

// Prints what this machine offers and lacks; 0 when ranks can run here, and the named coordinator,
// if any, answers.
int doctor(const Common& common);

}  // namespace pesc::cli
