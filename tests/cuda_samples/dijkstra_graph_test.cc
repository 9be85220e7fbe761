#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "dijkstra/emulation.h"
#include "dijkstra/graph.h"
#include "dijkstra/layout.h"
#include "dijkstra/reference.h"

namespace samples::dijkstra {
namespace {

TEST(Graph, GoldenValues) {
  // From a second implementation, golden.py beside this file.
  const GraphSpec spec = {42, 1000, 8, 100};
  const std::uint64_t degrees[] = {2, 14, 16, 0, 2, 14};
  for (std::uint64_t v = 0; v < 6; ++v) EXPECT_EQ(out_degree(spec, v), degrees[v]) << v;
  const Edge edges[] = {{520, 70}, {883, 67}, {355, 7}, {941, 11}};
  for (std::uint64_t e = 0; e < 4; ++e) {
    EXPECT_EQ(edge_at(spec, e).target, edges[e].target) << e;
    EXPECT_EQ(edge_at(spec, e).weight, edges[e].weight) << e;
  }
}

TEST(Graph, HasTheEdgesItSaysAndAllInRange) {
  for (const GraphSpec& spec :
       {GraphSpec{1, 1, 0, 1}, GraphSpec{1, 1, 3, 1}, GraphSpec{2, 2, 5, 9},
        GraphSpec{3, 1001, 4, 7}, GraphSpec{4, 1000, 1, kMaxWeight}, GraphSpec{5, 50, 0, 3}}) {
    const HostGraph graph = build_graph(spec);
    ASSERT_EQ(graph.vertices(), spec.vertices);
    EXPECT_EQ(graph.offsets.front(), 0U);
    EXPECT_EQ(graph.offsets.back(), spec.vertices * spec.degree);
    EXPECT_TRUE(std::is_sorted(graph.offsets.begin(), graph.offsets.end()));
    for (std::uint64_t v = 0; v < spec.vertices; ++v) {
      EXPECT_EQ(graph.offsets[v + 1] - graph.offsets[v], out_degree(spec, v));
      EXPECT_LE(out_degree(spec, v), 2 * spec.degree);
    }
    for (const Edge& edge : graph.edges) {
      ASSERT_LT(edge.target, spec.vertices);
      ASSERT_GE(edge.weight, 1U);
      ASSERT_LE(edge.weight, spec.max_weight);
    }
  }
}

TEST(Graph, UsesItsWholeRange) {
  const GraphSpec spec = {7, 100, 8, 5};
  std::vector<int> targets(100), weights(6), degrees(17);
  for (const Edge& edge : build_graph(spec).edges) ++targets[edge.target], ++weights[edge.weight];
  for (std::uint64_t v = 0; v < 100; ++v) ++degrees[out_degree(spec, v)];
  EXPECT_GT(*std::min_element(targets.begin(), targets.end()), 0);
  EXPECT_GT(*std::min_element(weights.begin() + 1, weights.end()), 100);
  EXPECT_GT(degrees.front() + degrees.back(), 0);
}

TEST(Graph, AnotherSeedIsAnotherGraph) {
  const HostGraph a = build_graph({1, 100, 4, 1000}), b = build_graph({2, 100, 4, 1000});
  EXPECT_NE(a.offsets, b.offsets);
  int same = 0;
  for (std::size_t e = 0; e < a.edges.size(); ++e) same += a.edges[e].target == b.edges[e].target;
  EXPECT_LT(same, 30);
}

std::vector<std::uint64_t> floyd_warshall(const HostGraph& graph, std::uint32_t source) {
  const std::size_t n = graph.vertices();
  std::vector<std::vector<std::uint64_t>> d(n, std::vector<std::uint64_t>(n, kUnreached));
  for (std::size_t v = 0; v < n; ++v) {
    d[v][v] = 0;
    for (std::uint64_t e = graph.offsets[v]; e < graph.offsets[v + 1]; ++e) {
      std::uint64_t& distance = d[v][graph.edges[e].target];
      distance = std::min<std::uint64_t>(distance, graph.edges[e].weight);
    }
  }
  for (std::size_t k = 0; k < n; ++k) {
    for (std::size_t i = 0; i < n; ++i) {
      for (std::size_t j = 0; j < n; ++j) {
        if (d[i][k] == kUnreached || d[k][j] == kUnreached) continue;
        d[i][j] = std::min(d[i][j], d[i][k] + d[k][j]);
      }
    }
  }
  return d[source];
}

TEST(Reference, AgreesWithFloydAndWarshall) {
  for (std::uint64_t seed = 0; seed < 60; ++seed) {
    const GraphSpec spec = {seed, 1 + seed % 37, seed % 4, 1 + (seed * seed) % 50};
    const HostGraph graph = build_graph(spec);
    for (std::uint32_t source = 0; source < spec.vertices; source += 7) {
      EXPECT_EQ(reference_distances(graph, source), floyd_warshall(graph, source)) << seed;
    }
  }
}

TEST(Layout, ArraysFitAndDoNotOverlap) {
  for (const std::uint64_t vertices : {1ULL, 2ULL, 31ULL, 1000ULL, 11'240'000ULL}) {
    for (const std::uint64_t degree : {0ULL, 1ULL, 8ULL}) {
      const std::optional<Layout> layout = layout_for(vertices, degree);
      ASSERT_TRUE(layout);
      std::uint64_t end = 0;
      for (const Layout::Array& array : layout->arrays) {
        EXPECT_GE(array.offset, end) << array.name;
        EXPECT_EQ(array.offset % 256, 0U) << array.name;
        end = array.offset + array.bytes;
      }
      EXPECT_LE(end, layout->total);
      EXPECT_EQ(layout->total % (2 << 20), 0U);
    }
  }
}

TEST(Layout, TheDefaultIsTheThesiss) {
  const GraphSpec spec;
  const std::optional<Layout> layout = layout_for(spec.vertices, spec.degree);
  ASSERT_TRUE(layout);
  EXPECT_EQ(layout->total, 1'124'073'472U);
  EXPECT_EQ((layout->total + kUsualContextBytes) >> 20, 1328U);
  EXPECT_NE(describe(spec, *layout).find("(1,328 MiB)"), std::string::npos);
}

TEST(Layout, WhatDoesNotFitIn64BitsIsSaid) {
  EXPECT_TRUE(layout_for(kMaxVertices, kMaxDegree));
  EXPECT_FALSE(layout_for(UINT64_MAX, 1));
  EXPECT_FALSE(layout_for(1ULL << 32, 1ULL << 32));
  EXPECT_FALSE(layout_for(1ULL << 40, 1ULL << 21));
  EXPECT_FALSE(reference_bytes({0, UINT64_MAX, 8, 1}));
  EXPECT_TRUE(reference_bytes({0, kMaxVertices, kMaxDegree, 1}));
}

}  // namespace
}  // namespace samples::dijkstra
