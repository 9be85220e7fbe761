#pragma once

#include "dijkstra/machine.h"

namespace samples::dijkstra {

// The whole program but for the GPU, which `on_gpu` supplies. Returns the exit code.
int run_program(int argc, char** argv, const MachineFactory& on_gpu);

}  // namespace samples::dijkstra
