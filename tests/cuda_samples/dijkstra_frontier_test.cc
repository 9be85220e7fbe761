// The algorithm itself, by the very steps that the GPU takes, run by the CPU in other orders and on
// several threads.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "dijkstra/emulation.h"
#include "dijkstra/reference.h"
#include "dijkstra/solve.h"

namespace samples::dijkstra {
namespace {

struct Search {
  std::vector<std::uint64_t> distances;
  Look look;
};

Search search(const GraphSpec& spec, std::uint32_t source, std::uint64_t shuffle,
              unsigned threads) {
  Emulation machine(spec, *layout_for(spec.vertices, spec.degree), shuffle, threads);
  machine.start(source);
  Look look = machine.run(0);
  while (look.fringe != 0) look = machine.run(1);
  return {machine.distances(), look};
}

std::string shown(const GraphSpec& spec) {
  return "seed " + std::to_string(spec.seed) + ", " + std::to_string(spec.vertices) +
         " vertices, degree " + std::to_string(spec.degree) + ", weights to " +
         std::to_string(spec.max_weight);
}

TEST(Frontier, FindsTheDistancesOfDijkstra) {
  for (std::uint64_t seed = 0; seed < 150; ++seed) {
    const GraphSpec spec = {seed, 1 + (seed * 37) % 300, seed % 9, 1 + (seed * seed * 31) % 2000};
    const auto source = static_cast<std::uint32_t>(seed % spec.vertices);
    const HostGraph graph = build_graph(spec);
    const std::vector<std::uint64_t> expected = reference_distances(graph, source);
    const Search found = search(spec, source, 0, 1);
    EXPECT_EQ(difference(found.distances, expected), "") << shown(spec);
    std::uint64_t reached = 0, relaxed = 0;
    for (std::uint64_t v = 0; v < spec.vertices; ++v) {
      if (expected[v] == kUnreached) continue;
      ++reached;
      relaxed += out_degree(spec, v);
    }
    EXPECT_EQ(found.look.settled, reached) << shown(spec);
    EXPECT_EQ(found.look.relaxed_edges, relaxed) << shown(spec) << ": each edge once";
  }
}

TEST(Frontier, DoesNotDependOnTheOrderOfItsThreads) {
  for (std::uint64_t seed = 0; seed < 12; ++seed) {
    const GraphSpec spec = {seed, 500 + seed * 100, 1 + seed % 8, 1 + seed * 300};
    const Search one = search(spec, 0, 0, 1);
    for (const std::uint64_t shuffle : {1ULL, 77ULL, 123456789ULL}) {
      const Search other = search(spec, 0, shuffle, shuffle == 77 ? 4 : 1);
      EXPECT_EQ(difference(other.distances, one.distances), "") << shown(spec);
      EXPECT_EQ(other.look.phases, one.look.phases) << shown(spec);
      EXPECT_EQ(other.look.relaxed_edges, one.look.relaxed_edges) << shown(spec);
    }
  }
}

// What the two criteria are for: many vertices at once. Dijkstra's own would take a phase per
// distinct distance.
TEST(Frontier, SettlesManyVerticesInAPhase) {
  const GraphSpec spec = {1, 20'000, 8, 1'000'000};
  const Search found = search(spec, 0, 0, 1);
  EXPECT_GT(found.look.settled, 19'000U);
  EXPECT_LT(found.look.phases, 200U);
}

TEST(Frontier, EachCriterionSettlesWhatItMay) {
  std::uint64_t distances[] = {10, 14, 20};
  std::uint32_t min_in[] = {1, 4, 5}, min_out[] = {3, 50, UINT32_MAX};
  Slices s = {};
  s.distances = distances;
  s.min_in = min_in;
  s.min_out = min_out;
  Bounds bounds = bounds_of(s, 0);
  for (const std::uint32_t v : {1U, 2U}) bounds = lower(bounds, bounds_of(s, v));
  EXPECT_EQ(bounds.nearest, 10U);
  EXPECT_EQ(bounds.reach, 13U) << "a vertex without edges bounds nothing";
  EXPECT_TRUE(settles(s, 0, bounds));
  EXPECT_TRUE(settles(s, 1, bounds)) << "by IN alone: 14 <= 10 + 4";
  EXPECT_FALSE(settles(s, 2, bounds));
  min_in[1] = 3;
  EXPECT_FALSE(settles(s, 1, bounds));
  EXPECT_TRUE(settles(s, 1, {10, 14})) << "by OUT alone";
}

TEST(Frontier, SmallestAndEmptiest) {
  EXPECT_EQ(search({1, 1, 0, 1}, 0, 0, 1).distances, std::vector<std::uint64_t>{0});
  EXPECT_EQ(search({1, 1, 5, 9}, 0, 0, 1).distances, std::vector<std::uint64_t>{0});
  const Search lonely = search({1, 100, 0, 1}, 99, 0, 1);
  EXPECT_EQ(lonely.look.settled, 1U);
  EXPECT_EQ(lonely.look.phases, 1U);
  EXPECT_EQ(lonely.distances[99], 0U);
  EXPECT_EQ(lonely.distances[0], kUnreached);
}

TEST(Frontier, DistancesMayExceed32Bits) {
  const GraphSpec spec = {3, 2000, 1, kMaxWeight};  // long thin paths of heavy edges
  const Search found = search(spec, 0, 0, 1);
  EXPECT_EQ(difference(found.distances, reference_distances(build_graph(spec), 0)), "");
}

TEST(Frontier, PhasesAfterTheEndChangeNothing) {
  const GraphSpec spec = {4, 300, 4, 100};
  Emulation machine(spec, *layout_for(spec.vertices, spec.degree));
  machine.start(0);
  Look look = machine.run(1000);
  ASSERT_EQ(look.fringe, 0U);
  const Look later = machine.run(3);
  EXPECT_EQ(later.phases, look.phases);
  EXPECT_EQ(later.settled, look.settled);
}

TEST(Frontier, ADifferenceIsNamed) {
  EXPECT_EQ(difference({0, 5, kUnreached}, {0, 5, kUnreached}), "");
  EXPECT_EQ(difference({0, 5, 7}, {0, 6, kUnreached}),
            "2 of 3 distances differ; the first is vertex 1: 5 instead of 6");
  EXPECT_EQ(difference({0, 5}, {0, kUnreached}),
            "1 of 2 distances differ; the first is vertex 1: 5 instead of unreachable");
  EXPECT_NE(difference({0}, {0, 1}), "");
}

}  // namespace
}  // namespace samples::dijkstra
