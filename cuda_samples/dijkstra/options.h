#pragma once

#include <cstdint>

#include "dijkstra/graph.h"

namespace samples::dijkstra {

struct Options {
  GraphSpec graph;
  std::uint64_t source = 0;
  std::uint64_t checkpoint_seconds = 60;
  bool verify = false, dry_run = false, cpu = false, no_distances = false;
  // Not an argument. A few milliseconds of work on a large graph: the GPU does not wait for the CPU
  // to look, and a signal is seen at once.
  unsigned phases_per_look = 32;
};

// False: --help was asked for. Throws Failure(kUsage).
bool parse_options(int argc, char** argv, Options* out);

}  // namespace samples::dijkstra
