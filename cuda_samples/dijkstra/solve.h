#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/surroundings.h"
#include "dijkstra/machine.h"
#include "dijkstra/options.h"

namespace samples::dijkstra {

struct Outcome {
  bool stopped = false;  // saved, not finished; the rest is unset
  std::vector<std::uint64_t> distances;
  std::uint64_t phases = 0, settled = 0, relaxed_edges = 0;
  double seconds = 0;  // of searching, over all attempts
};

// Builds the graph, goes on from the checkpoint if there is a good one, and searches.
Outcome solve(const Options& options, Machine& machine, const Surroundings& around);

// The difference between two sets of distances in words; nothing when they are equal.
std::string difference(const std::vector<std::uint64_t>& found,
                       const std::vector<std::uint64_t>& expected);

}  // namespace samples::dijkstra
