#include "dijkstra/reference.h"

#include <functional>
#include <queue>
#include <utility>

#include "common/checked.h"

namespace samples::dijkstra {

std::vector<std::uint64_t> reference_distances(const HostGraph& graph, std::uint32_t source) {
  std::vector<std::uint64_t> distances(graph.vertices(), kUnreached);
  using Entry = std::pair<std::uint64_t, std::uint32_t>;
  std::priority_queue<Entry, std::vector<Entry>, std::greater<>> heap;
  distances[source] = 0;
  heap.emplace(0, source);
  while (!heap.empty()) {
    const auto [distance, vertex] = heap.top();
    heap.pop();
    if (distance != distances[vertex]) continue;  // a better way was found after it was pushed
    for (std::uint64_t e = graph.offsets[vertex]; e < graph.offsets[vertex + 1]; ++e) {
      const Edge edge = graph.edges[e];
      const std::uint64_t candidate = distance + edge.weight;
      if (candidate >= distances[edge.target]) continue;
      distances[edge.target] = candidate;
      heap.emplace(candidate, edge.target);
    }
  }
  return distances;
}

std::optional<std::uint64_t> reference_bytes(const GraphSpec& spec) {
  const Checked vertices(spec.vertices);
  const Checked edges = vertices * spec.degree;
  // The graph, two sets of distances, and the heap, which holds an entry of 16 bytes per improved
  // distance: about as many as vertices on random graphs, doubled as a vector grows.
  return (vertices * 8 + edges * 8 + vertices * 16 + vertices * 32).value();
}

}  // namespace samples::dijkstra
