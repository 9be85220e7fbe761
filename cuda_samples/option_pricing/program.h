#pragma once

#include "option_pricing/machine.h"

namespace samples::option_pricing {

// The whole program but for the GPU, which `on_gpu` supplies. Returns the exit code.
int run_program(int argc, char** argv, const MachineFactory& on_gpu);

}  // namespace samples::option_pricing
