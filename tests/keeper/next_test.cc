// Attempts that begin when another of their job ends.
#include <gmock/gmock.h>

#include "harness.h"

namespace pesc::worker {
namespace {

class KeeperNext : public KeeperTest {
 protected:
  // Runs until its FIFO has a reader.
  LaunchRequest holding(const std::string& fifo, uint32_t rank) {
    return request({"sh", "-c", "echo > " + fifo}, rank);
  }
  LaunchRequest next(uint32_t most, uint32_t rank) {
    LaunchRequest result = request({"true"}, rank);
    result.most_of_job = most;
    return result;
  }
  static void let_go(const std::string& fifo) {
    std::string line;
    std::ifstream(fifo) >> line;
  }
};

TEST_F(KeeperNext, OneBeginsWithEachEndAndTheEndIsToldFirst) {
  const std::string first_fifo = make_fifo("first"), second_fifo = make_fifo("second");
  Kept kept(directory.path());
  const LaunchRequest first = holding(first_fifo, 0), second = holding(second_fifo, 1);
  for (const LaunchRequest& start : {first, second, next(2, 2), next(2, 3)}) {
    kept.keeper->start(start);
  }
  kept.wait_started(first.key);
  kept.wait_started(second.key);
  EXPECT_TRUE(kept.keeper->holds_next());
  EXPECT_TRUE(kept.exits.empty());
  let_go(first_fifo);
  // Both in the slot of the first one, one after the other.
  kept.wait_exit({{42}, 3, 1});
  EXPECT_TRUE(kept.exits.contains(first.key));
  EXPECT_TRUE(kept.exits.contains({{42}, 2, 1}));
  EXPECT_FALSE(kept.exits.contains(second.key));
  let_go(second_fifo);
  EXPECT_EQ(kept.wait_exit(second.key).outcome.reason, EndReason::succeeded);
}

TEST_F(KeeperNext, BeginsAtOnceWhenTheEndWasFasterThanTheRequest) {
  Kept kept(directory.path());
  kept.keeper->start(request({"true"}, 0));
  kept.wait_exit({{42}, 0, 1});
  kept.keeper->start(next(1, 1));
  EXPECT_EQ(kept.wait_exit({{42}, 1, 1}).outcome.reason, EndReason::succeeded);
}

TEST_F(KeeperNext, AnotherJobsEndBeginsNothing) {
  const std::string fifo = make_fifo();
  Kept kept(directory.path());
  const LaunchRequest holder = holding(fifo, 0);
  kept.keeper->start(holder);
  kept.keeper->start(next(1, 1));
  LaunchRequest other = request({"true"}, 0);
  other.key.job = {43};
  kept.keeper->start(other);
  kept.wait_exit(other.key);
  EXPECT_TRUE(kept.read_output({{42}, 1, 1}).found);
  EXPECT_FALSE(kept.exits.contains({{42}, 1, 1}));
  let_go(fifo);
  kept.wait_exit({{42}, 1, 1});
}

TEST_F(KeeperNext, OneThatWaitsIsTakenBackAndOneThatRunsIsNot) {
  const std::string fifo = make_fifo();
  Kept kept(directory.path());
  const LaunchRequest holder = holding(fifo, 0);
  kept.keeper->start(holder);
  kept.keeper->start(next(1, 1));
  kept.keeper->start(next(1, 2));
  kept.keeper->stop({{42}, 1, 1}, EndReason::vacated, 0, true);
  kept.keeper->stop(holder.key, EndReason::vacated, 0, true);
  const KeptExit taken = kept.wait_exit({{42}, 1, 1});
  EXPECT_EQ(taken.outcome.reason, EndReason::vacated);
  EXPECT_EQ(taken.outcome.started_unix_ms, 0);
  EXPECT_FALSE(kept.exits.contains(holder.key));
  let_go(fifo);
  EXPECT_EQ(kept.wait_exit(holder.key).outcome.reason, EndReason::succeeded);
  EXPECT_GT(kept.wait_exit({{42}, 2, 1}).outcome.started_unix_ms, 0);
}

TEST_F(KeeperNext, OneThatCannotStartMakesWayForTheNext) {
  const std::string fifo = make_fifo();
  Kept kept(directory.path());
  const LaunchRequest holder = holding(fifo, 0);
  kept.keeper->start(holder);
  LaunchRequest broken = next(1, 1);
  broken.argv = {"no-such-program"};
  kept.keeper->start(broken);
  kept.keeper->start(next(1, 2));
  kept.wait_started(holder.key);
  let_go(fifo);
  EXPECT_EQ(kept.wait_exit({{42}, 2, 1}).outcome.reason, EndReason::succeeded);
  EXPECT_EQ(kept.exits[broken.key].outcome.reason, EndReason::cannot_start);
}

TEST_F(KeeperNext, IsForgottenWithTheWorkerThatGaveIt) {
  const std::string fifo = make_fifo();
  const LaunchRequest holder = holding(fifo, 0);
  {
    Kept first(directory.path(), false);
    first.keeper->start(holder);
    first.keeper->start(next(1, 1));
    first.wait_started(holder.key);
    EXPECT_TRUE(first.read_output({{42}, 1, 1}).found);
  }
  Kept second(directory.path(), false);
  second.until([&] { return second.welcome.has_value(); });
  ASSERT_EQ(second.welcome->size(), 1u);
  EXPECT_EQ(second.welcome->front().key, holder.key);
  let_go(fifo);
  second.wait_exit(holder.key);
  EXPECT_FALSE(second.read_output({{42}, 1, 1}).found);
  second.keeper->shutdown(0);
  second.until([&] { return second.lost.has_value(); });
}

TEST_F(KeeperNext, AShutdownRefusesWhatHasNotBegun) {
  const std::string fifo = make_fifo();
  Kept kept(directory.path());
  const LaunchRequest holder = act("exit_on_term", {fifo}, 0);
  kept.keeper->start(holder);
  kept.keeper->start(next(1, 1));
  kept.wait_ready(holder.key, fifo);
  kept.keeper->shutdown(60'000);
  EXPECT_EQ(kept.wait_exit(holder.key).outcome.reason, EndReason::vacated);
  const KeptExit refused = kept.wait_exit({{42}, 1, 1});
  EXPECT_EQ(refused.outcome.reason, EndReason::vacated);
  EXPECT_EQ(refused.outcome.started_unix_ms, 0);
}

}  // namespace
}  // namespace pesc::worker
