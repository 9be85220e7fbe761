#include "runtime/worker/containment/cpu_sets.h"

#include <gtest/gtest.h>

namespace pesc::containment {
namespace {

using Cores = std::vector<int>;

TEST(CpuSets, TheLeastLoadedFirst) {
  CpuSets sets({0, 1, 2, 3});
  EXPECT_EQ(sets.take(1000), Cores{0});
  EXPECT_EQ(sets.take(2000), (Cores{1, 2}));
  EXPECT_EQ(sets.take(1000), Cores{3});
  EXPECT_EQ(sets.take(1000), Cores{0}) << "each has one: the lowest";
  sets.give_back({1, 2}, 2000);
  EXPECT_EQ(sets.take(1000), Cores{1});
}

TEST(CpuSets, PartsOfACoreComeTogetherWhereThereIsLeast) {
  CpuSets sets({4, 6, 8});
  EXPECT_EQ(sets.take(500), Cores{4});
  EXPECT_EQ(sets.take(500), Cores{6});
  EXPECT_EQ(sets.take(1500), (Cores{4, 8})) << "a core and a half are two, at least";
}

TEST(CpuSets, WhoMayHaveAllIsNotBound) {
  CpuSets sets({0, 1});
  EXPECT_TRUE(sets.take(2000).empty());
  EXPECT_TRUE(sets.take(64'000).empty());
  EXPECT_TRUE(sets.take(0).empty());
  EXPECT_EQ(sets.take(1000), Cores{0});
}

TEST(CpuSets, GivenBackTwiceHarmsNobody) {
  CpuSets sets({0, 1});
  const Cores taken = sets.take(1000);
  sets.give_back(taken, 1000);
  sets.give_back(taken, 1000);
  EXPECT_EQ(sets.take(1000), Cores{0});
  EXPECT_EQ(sets.take(1000), Cores{1});
}

}  // namespace
}  // namespace pesc::containment
