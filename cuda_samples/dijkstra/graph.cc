#include "dijkstra/graph.h"

namespace samples::dijkstra {

HostGraph build_graph(const GraphSpec& spec) {
  HostGraph graph;
  graph.offsets.resize(spec.vertices + 1);
  for (std::uint64_t v = 0; v <= spec.vertices; ++v) graph.offsets[v] = first_edge(spec, v);
  graph.edges.resize(spec.edges());
  for (std::uint64_t e = 0; e < spec.edges(); ++e) graph.edges[e] = edge_at(spec, e);
  return graph;
}

}  // namespace samples::dijkstra
