#pragma once

#include "two_gpus/machine.h"

namespace samples::two_gpus {

// The whole program but for the GPUs, which `on_gpus` supplies. Returns the exit code.
int run_program(int argc, char** argv, const MachineFactory& on_gpus);

}  // namespace samples::two_gpus
