// A random directed graph that is a pure function of four numbers: any thread on any device makes
// any edge, in any order, and gets the same one.
//
// Vertices are 0 ... vertices-1. Out-degrees are uniform on 0 ... 2*degree, drawn in complementary
// pairs (vertex 2k gets h, vertex 2k+1 gets 2*degree-h; a last vertex without a partner gets
// `degree`), so that there are exactly vertices*degree edges, and where a vertex's edges begin in
// the CSR arrays needs no scan. Targets are uniform (self-loops and parallel edges occur), weights
// uniform on 1 ... max_weight.
#pragma once

#include <cstdint>
#include <vector>

#include "common/host_device.h"
#include "common/philox.h"

namespace samples::dijkstra {

struct GraphSpec {
  std::uint64_t seed = 0;
  std::uint64_t vertices = 11'240'000;
  std::uint64_t degree = 8;
  std::uint64_t max_weight = 1000;

  PESC_HOST_DEVICE std::uint64_t edges() const { return vertices * degree; }
  bool operator==(const GraphSpec& other) const {
    return seed == other.seed && vertices == other.vertices && degree == other.degree &&
           max_weight == other.max_weight;
  }
};

// Vertex numbers have 32 bits, and so have counts of vertices; distances have 64: the longest
// possible path, (2^32 - 3) edges of weight 2^32 - 1, cannot overflow them.
constexpr std::uint64_t kMaxVertices = 4'294'967'294;
constexpr std::uint64_t kMaxDegree = 1'000'000;
constexpr std::uint64_t kMaxWeight = 4'294'967'294;

struct alignas(8) Edge {
  std::uint32_t target;
  std::uint32_t weight;
};

PESC_HOST_DEVICE inline std::uint64_t out_degree(const GraphSpec& spec, std::uint64_t vertex) {
  if (vertex + 1 == spec.vertices && vertex % 2 == 0) return spec.degree;
  const std::uint64_t h =
      random_below(random_at(spec.seed, vertex / 2, 1).low(), 2 * spec.degree + 1);
  return vertex % 2 == 0 ? h : 2 * spec.degree - h;
}

// Where the vertex's edges begin; of `vertices`, where the last one's end.
PESC_HOST_DEVICE inline std::uint64_t first_edge(const GraphSpec& spec, std::uint64_t vertex) {
  if (vertex == spec.vertices) return spec.edges();
  const std::uint64_t pair = vertex / 2 * 2;
  return pair * spec.degree + (vertex == pair ? 0 : out_degree(spec, pair));
}

PESC_HOST_DEVICE inline Edge edge_at(const GraphSpec& spec, std::uint64_t edge) {
  const Random128 bits = random_at(spec.seed, edge, 2);
  return {static_cast<std::uint32_t>(random_below(bits.low(), spec.vertices)),
          static_cast<std::uint32_t>(1 + random_below(bits.high(), spec.max_weight))};
}

// The same graph in the computer's memory, for the reference.
struct HostGraph {
  std::vector<std::uint64_t> offsets;  // vertices + 1
  std::vector<Edge> edges;

  std::uint64_t vertices() const { return offsets.size() - 1; }
};

HostGraph build_graph(const GraphSpec& spec);

}  // namespace samples::dijkstra
