#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "dijkstra/graph.h"

namespace samples::dijkstra {

constexpr std::uint64_t kUnreached = UINT64_MAX;

// Dijkstra's algorithm with a binary heap, on one core of the CPU.
std::vector<std::uint64_t> reference_distances(const HostGraph& graph, std::uint32_t source);

// What the reference needs of the computer's memory, at most; nothing: more than 64 bits can say.
std::optional<std::uint64_t> reference_bytes(const GraphSpec& spec);

}  // namespace samples::dijkstra
