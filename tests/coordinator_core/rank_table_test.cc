#include "runtime/coordinator/core/rank_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace pesc::coordinator {
namespace {

using ::testing::ElementsAre;

TEST(RankTable, FreshRanksAreACounter) {
  RankTable table;
  table.reset(100'000'000);
  EXPECT_EQ(table.fresh(), 100'000'000u);
  EXPECT_EQ(table.state(99'999'999), RankState::waiting);
  table.claim(0);
  table.set_running(0, true);
  EXPECT_EQ(table.started(), 1u);
  EXPECT_EQ(table.counts().running, 1u);
}

TEST(RankTable, CountsManyAttempts) {
  RankTable table;
  table.reset(3);
  for (uint32_t attempts = 1; attempts < 100; ++attempts) {
    table.set_attempts(1, attempts);
    EXPECT_EQ(table.attempts(1), attempts);
    EXPECT_EQ(table.attempts(0), 0u);
  }
  EXPECT_EQ(table.check(), "");
}

TEST(RankTable, RanksPassedOverAreUnclaimed) {
  RankTable table;
  table.reset(10);
  table.claim(3);
  EXPECT_EQ(table.unclaimed(), 3u);
  EXPECT_EQ(table.next_unclaimed(), 0u);
  table.claim(0);
  EXPECT_EQ(table.next_unclaimed(), 1u);
  table.unclaim(0);
  EXPECT_EQ(table.next_unclaimed(), 0u);
  EXPECT_EQ(table.check(), "");
}

TEST(RankTable, ReopeningTakesRanksOffTheOrderOfCommits) {
  RankTable table;
  table.reset(8);
  table.finalise(2, RankState::succeeded);
  table.finalise(0, RankState::failed);
  table.finalise(1, RankState::succeeded);
  table.cancel_waiting(3, 7);
  EXPECT_THAT(table.committed_ranks(0, 100), ElementsAre(2, 0, 1, 3, 4, 5, 6, 7));
  EXPECT_THAT(table.committed_ranks(2, 3), ElementsAre(1, 3, 4));
  EXPECT_TRUE(table.all_final());
  table.reopen({0, 3, 4, 5, 6, 7});
  EXPECT_THAT(table.committed_ranks(0, 100), ElementsAre(2, 1));
  EXPECT_EQ(table.unclaimed(), 1u);
  EXPECT_EQ(table.fresh(), 5u) << "what never started is fresh again";
  EXPECT_EQ(table.check(), "");
}

}  // namespace
}  // namespace pesc::coordinator
