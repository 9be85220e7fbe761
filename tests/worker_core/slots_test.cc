// What the keeper is given ahead, to begin it by itself.
#include <gmock/gmock.h>

#include "tests/worker_core/machine.h"

namespace pesc::worker {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

AttemptOutcome not_begun(EndReason reason) {
  AttemptOutcome outcome;
  outcome.reason = reason;
  outcome.exit_code = 126;
  return outcome;
}

AttemptOutcome ran(EndReason reason = EndReason::succeeded) {
  AttemptOutcome outcome = outcome_of(reason);
  outcome.started_unix_ms = 1'700'000'000'000;
  return outcome;
}

// Two cpus, both taken by ranks 0 and 1; `waiting` more are prepared.
class Slots : public ::testing::Test {
 protected:
  void fill(uint32_t waiting, uint32_t cpus_milli = 1000) {
    m(Connected{});
    m(KeeperFound{true});
    std::vector<AttemptKey> keys;
    for (uint32_t rank = 0; rank < 2 + waiting; ++rank) keys.push_back(key_of(rank));
    m.lease(keys, cpus_milli);
    for (const AttemptKey& key : keys) {
      m(Prepared{key});
      for (const Start& start : m.got<Start>()) starts.push_back(start);
    }
  }
  Machine m;
  std::vector<Start> starts;
};

TEST_F(Slots, TheKeeperGetsOneMoreForEachThatRuns) {
  fill(4);
  ASSERT_EQ(starts.size(), 4u);
  EXPECT_EQ(starts[0].most_of_job, 0u);
  EXPECT_EQ(starts[1].most_of_job, 0u);
  EXPECT_EQ(starts[2].key, key_of(2));
  EXPECT_EQ(starts[2].most_of_job, 2u);
  EXPECT_EQ(starts[3].most_of_job, 2u);
  EXPECT_EQ(m.state(key_of(3)), AttemptState::next);
  EXPECT_EQ(m.state(key_of(4)), AttemptState::ready);
  EXPECT_EQ(m.core.cpus_used_milli(), 2000u);
}

TEST_F(Slots, AnEndTakesTheFirstOfThemIntoItsSlotAndTheKeeperGetsAnother) {
  fill(4);
  m(Exited{key_of(1), ran()});
  EXPECT_EQ(m.state(key_of(2)), AttemptState::starting);
  EXPECT_EQ(m.state(key_of(3)), AttemptState::next);
  EXPECT_EQ(m.core.cpus_used_milli(), 2000u);
  ASSERT_THAT(m.keys<Start>(), ElementsAre(key_of(4)));
  EXPECT_EQ(m.got<Start>()[0].most_of_job, 2u);
  m(Started{key_of(2), 1});
  EXPECT_EQ(m.state(key_of(2)), AttemptState::running);
  m(Exited{key_of(2), ran()});
  EXPECT_EQ(m.state(key_of(3)), AttemptState::starting);
}

TEST_F(Slots, NotWithAKeeperThatDoesNotKnowIt) {
  m(KeeperFound{false});
  m(Connected{});
  m.lease({key_of(0), key_of(1), key_of(2)});
  for (uint32_t rank = 0; rank < 3; ++rank) m(Prepared{key_of(rank)});
  EXPECT_EQ(m.state(key_of(2)), AttemptState::ready);
}

TEST_F(Slots, OnlyWhatIsFirstAndOfAJobThatRuns) {
  fill(0);
  UpdateReceived update{.number = ++m.number};
  AttemptKey other = key_of(0);
  other.job = JobId{8};
  update.leases.push_back({other, spec_of()});
  update.leases.push_back({key_of(5), spec_of()});
  m(update);
  m(Prepared{other});
  m(Prepared{key_of(5)});
  EXPECT_THAT(m.keys<Start>(), IsEmpty());
  EXPECT_EQ(m.state(other), AttemptState::ready);
  EXPECT_EQ(m.state(key_of(5)), AttemptState::ready) << "it would overtake the other job";
  m(Exited{key_of(0), ran()});
  EXPECT_EQ(m.state(other), AttemptState::starting);
  EXPECT_EQ(m.state(key_of(5)), AttemptState::next);
}

TEST_F(Slots, NothingThatHasAGpuOrIsOfAGang) {
  fill(0);
  UpdateReceived update{.number = ++m.number};
  update.leases.push_back({key_of(5), spec_of()});
  update.leases.back().grant.gpus = {"GPU-a"};
  m(update);
  m(Prepared{key_of(5)});
  EXPECT_EQ(m.state(key_of(5)), AttemptState::ready);
  update = {.number = ++m.number};
  update.leases.push_back({key_of(6), spec_of()});
  update.leases.back().hold = true;
  m(update);
  m(Prepared{key_of(6)});
  EXPECT_EQ(m.state(key_of(6)), AttemptState::ready);
}

TEST_F(Slots, AStopReachesTheKeeperWhetherItHasBegunOrNot) {
  fill(2);
  m.stop(key_of(2), EndReason::revoked);
  ASSERT_EQ(m.got<Stop>().size(), 1u);
  EXPECT_FALSE(m.got<Stop>()[0].unless_begun);
  m(Exited{key_of(2), not_begun(EndReason::revoked)});
  ASSERT_EQ(m.reported().size(), 1u);
  EXPECT_EQ(m.reported()[0].outcome.reason, EndReason::revoked);
  EXPECT_EQ(m.core.cpus_used_milli(), 2000u);
  EXPECT_THAT(m.got<Pack>(), IsEmpty());

  m.stop(key_of(3), EndReason::cancelled);
  m(Exited{key_of(0), ran()});  // the keeper had begun it by then
  EXPECT_EQ(m.state(key_of(3)), AttemptState::starting);
  m(Exited{key_of(3), ran(EndReason::signal)});
  ASSERT_EQ(m.got<Pack>().size(), 1u);
  EXPECT_EQ(m.got<Pack>()[0].outcome.reason, EndReason::cancelled);
  EXPECT_EQ(m.core.cpus_used_milli(), 1000u);
}

TEST_F(Slots, ABusyWorkerTakesBackWhatHasNotBegun) {
  fill(2);
  m(BusyChanged{"its owner is here"});
  ASSERT_EQ(m.got<Stop>().size(), 2u);
  EXPECT_TRUE(m.got<Stop>()[0].unless_begun);
  // One end was under way: the keeper has begun rank 2, and not rank 3.
  m(Exited{key_of(0), ran()});
  m(Exited{key_of(3), not_begun(EndReason::vacated)});
  EXPECT_EQ(m.state(key_of(2)), AttemptState::starting) << "what has begun runs on";
  ASSERT_EQ(m.reported().size(), 1u);
  EXPECT_EQ(m.reported()[0].outcome.detail, "its worker is busy: its owner is here");
  m(Started{key_of(2), 1});
  m(Exited{key_of(2), ran()});
  EXPECT_EQ(m.got<Pack>()[0].outcome.reason, EndReason::succeeded);
  EXPECT_EQ(m.core.cpus_used_milli(), 1000u);
}

TEST_F(Slots, ADrainingWorkerEndsWithWhatRuns) {
  fill(2);
  m(DrainRequested{});
  EXPECT_EQ(m.got<Stop>().size(), 2u);
  for (uint32_t rank : {2, 3}) m(Exited{key_of(rank), not_begun(EndReason::vacated)});
  for (uint32_t rank : {0, 1}) m.end(key_of(rank));
  m(Acknowledged{m.core.holding()});
  EXPECT_EQ(m.got<Drained>().size(), 1u);
}

TEST_F(Slots, AreGoneWithTheirKeeper) {
  fill(2);
  m(KeeperLost{});
  EXPECT_EQ(m.core.cpus_used_milli(), 0u);
  for (uint32_t rank = 0; rank < 4; ++rank) {
    EXPECT_EQ(m.state(key_of(rank)), AttemptState::finished);
  }
  // The next one says for itself what it knows.
  std::vector<AttemptKey> keys = {key_of(10), key_of(11), key_of(12)};
  m.lease(keys);
  for (const AttemptKey& key : keys) m(Prepared{key});
  EXPECT_EQ(m.state(key_of(12)), AttemptState::ready);
  m(KeeperFound{true});
  EXPECT_EQ(m.state(key_of(12)), AttemptState::next);
}

TEST_F(Slots, WhatWasAdoptedBeyondTheLimitMakesRoomWithItsEnd) {
  Machine small({.cpus_milli = 1000});
  small(KeeperFound{true});
  for (uint32_t rank : {0, 1}) small(Adopted{key_of(rank), spec_of(), true, {}});
  small(Connected{});
  small.lease({key_of(2)});
  small(Prepared{key_of(2)});
  EXPECT_EQ(small.state(key_of(2)), AttemptState::ready);
  small(Exited{key_of(0), ran()});
  EXPECT_EQ(small.state(key_of(2)), AttemptState::next);
  small(Exited{key_of(1), ran()});
  EXPECT_EQ(small.state(key_of(2)), AttemptState::starting);
}

}  // namespace
}  // namespace pesc::worker
