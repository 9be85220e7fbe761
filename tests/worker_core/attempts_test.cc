#include <gmock/gmock.h>

#include "tests/worker_core/machine.h"

namespace pesc::worker {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

TEST(WorkerAttempts, AnAttemptLivesFromItsLeaseToTheAcknowledgement) {
  Machine m;
  m(Connected{5000});
  m.lease({key_of(0)});
  EXPECT_THAT(m.keys<Prepare>(), ElementsAre(key_of(0)));
  m(Prepared{key_of(0)});
  EXPECT_THAT(m.keys<Start>(), ElementsAre(key_of(0)));
  m(Started{key_of(0), 99});
  EXPECT_EQ(m.state(key_of(0)), AttemptState::running);
  EXPECT_EQ(m.core.cpus_used_milli(), 1000u);
  m(Exited{key_of(0), outcome_of()});
  EXPECT_THAT(m.keys<Pack>(), ElementsAre(key_of(0)));
  EXPECT_EQ(m.core.cpus_used_milli(), 0u);
  m(Packed{key_of(0), blob_of(100), {"left.csv"}});
  ASSERT_EQ(m.reported().size(), 1u);
  EXPECT_EQ(m.reported()[0].outcome.output, blob_of(100));
  EXPECT_THAT(m.reported()[0].outcome.uncollected, ElementsAre("left.csv"));
  EXPECT_THAT(m.got<Forget>(), IsEmpty());
  m(Acknowledged{{key_of(0)}});
  EXPECT_THAT(m.keys<Forget>(), ElementsAre(key_of(0)));
  EXPECT_THAT(m.core.holding(), IsEmpty());
}

TEST(WorkerAttempts, PreparesNoMoreThanWhatBeginsNext) {
  Machine m({.cpus_milli = 1000, .max_preparing = 2});
  m(Connected{});
  std::vector<AttemptKey> keys;
  for (uint32_t rank = 0; rank < 20; ++rank) keys.push_back(key_of(rank));
  m.lease(keys);
  std::vector<AttemptKey> asked = m.keys<Prepare>();
  for (size_t i = 0; i < asked.size(); ++i) {
    m(Prepared{asked[i]});
    for (const AttemptKey& key : m.keys<Prepare>()) asked.push_back(key);
  }
  EXPECT_EQ(asked.size(), 5u);  // one runs, four times as many are ready
  m(Exited{key_of(0), outcome_of()});
  EXPECT_THAT(m.keys<Prepare>(), ElementsAre(key_of(5)));
}

TEST(WorkerAttempts, StartsWithTheGpusOfItsLease) {
  Machine m;
  m(Connected{});
  UpdateReceived update{.number = 1};
  update.leases.push_back({key_of(0), spec_of(1000)});
  update.leases.back().grant.gpus = {"GPU-a", "GPU-b"};
  m(update);
  m(Prepared{key_of(0)});
  ASSERT_EQ(m.got<Start>().size(), 1u);
  EXPECT_THAT(m.got<Start>()[0].grant.gpus, ElementsAre("GPU-a", "GPU-b"));
}

TEST(WorkerAttempts, StartsInLeaseOrderWithinTheCpus) {
  Machine m;
  m(Connected{});
  m.lease({key_of(5), key_of(3), key_of(4)});
  EXPECT_THAT(m.keys<Prepare>(), ElementsAre(key_of(5), key_of(3), key_of(4)));
  m(Prepared{key_of(4)});
  EXPECT_THAT(m.keys<Start>(), ElementsAre(key_of(4)));  // nothing before it is ready
  m(Prepared{key_of(3)});
  EXPECT_THAT(m.keys<Start>(), ElementsAre(key_of(3)));
  m(Prepared{key_of(5)});
  EXPECT_THAT(m.keys<Start>(), IsEmpty());
  EXPECT_EQ(m.core.cpus_used_milli(), 2000u);
  m(Exited{key_of(3), outcome_of()});
  EXPECT_THAT(m.keys<Start>(), ElementsAre(key_of(5)));
}

TEST(WorkerAttempts, AWideRankIsNotOvertaken) {
  Machine m;
  m(Connected{});
  m.run(key_of(0));
  m.lease({key_of(1)}, 2000);
  m.lease({key_of(2)}, 1000);
  m(Prepared{key_of(2)});
  EXPECT_THAT(m.keys<Start>(), ElementsAre(key_of(2)));
  m.lease({key_of(3)}, 1000);
  m(Prepared{key_of(1)});
  m(Prepared{key_of(3)});
  m(Exited{key_of(0), outcome_of()});
  EXPECT_THAT(m.keys<Start>(), IsEmpty());
  m(Exited{key_of(2), outcome_of()});
  EXPECT_THAT(m.keys<Start>(), ElementsAre(key_of(1)));
}

TEST(WorkerAttempts, PreparesAheadUpToTheBound) {
  Machine m({.cpus_milli = 1000, .max_preparing = 2});
  m(Connected{});
  m.lease({key_of(0), key_of(1), key_of(2)});
  EXPECT_THAT(m.keys<Prepare>(), ElementsAre(key_of(0), key_of(1)));
  m(Prepared{key_of(1)});
  EXPECT_THAT(m.keys<Start>(), ElementsAre(key_of(1)));
  EXPECT_THAT(m.keys<Prepare>(), ElementsAre(key_of(2)));
}

TEST(WorkerAttempts, ALeaseSentTwiceIsOne) {
  Machine m;
  m(Connected{});
  m.run(key_of(0));
  m.lease({key_of(0)});
  EXPECT_THAT(m.last, IsEmpty());
  EXPECT_EQ(m.state(key_of(0)), AttemptState::running);
}

TEST(WorkerAttempts, ARankWiderThanTheWorkerIsReported) {
  Machine m({.cpus_milli = 1500});
  m(Connected{});
  m.lease({key_of(0)}, 2250);
  ASSERT_EQ(m.reported().size(), 1u);
  EXPECT_EQ(m.reported()[0].outcome.reason, EndReason::cannot_start);
  EXPECT_EQ(m.reported()[0].outcome.detail, "needs 2.25 cpus, the worker has 1.5");
  EXPECT_THAT(m.got<Prepare>(), IsEmpty());
}

TEST(WorkerAttempts, NothingStatedIsOneCpu) {
  Machine m;
  m(Connected{});
  m.lease({key_of(0)}, 0);
  m(Prepared{key_of(0)});
  EXPECT_EQ(m.core.cpus_used_milli(), 1000u);
}

TEST(WorkerAttempts, ALeaseWithoutItsJobIsReported) {
  Machine m;
  m(Connected{});
  m(UpdateReceived{1, {{key_of(0), nullptr}}, {}});
  ASSERT_EQ(m.reported().size(), 1u);
  EXPECT_EQ(m.reported()[0].outcome.reason, EndReason::inputs_unavailable);
}

TEST(WorkerAttempts, AStopBeforeTheStartEndsWithoutOne) {
  Machine m({.cpus_milli = 1000, .max_preparing = 2});
  m(Connected{});
  m.run(key_of(0));
  m.lease({key_of(1), key_of(2), key_of(3)});
  m(Prepared{key_of(1)});
  ASSERT_EQ(m.state(key_of(1)), AttemptState::ready);
  ASSERT_EQ(m.state(key_of(2)), AttemptState::preparing);
  m.stop(key_of(1), EndReason::cancelled);
  EXPECT_THAT(m.keys<CancelPrepare>(), ElementsAre(key_of(1)));
  ASSERT_EQ(m.reported().size(), 1u);
  EXPECT_EQ(m.reported()[0].outcome.reason, EndReason::cancelled);
  EXPECT_EQ(m.reported()[0].outcome.exit_code, -1);
  m.stop(key_of(2), EndReason::revoked);
  EXPECT_THAT(m.keys<CancelPrepare>(), ElementsAre(key_of(2)));
  m(Prepared{key_of(2)});  // it was on its way
  EXPECT_THAT(m.last, IsEmpty());
  m(Exited{key_of(0), outcome_of()});
  EXPECT_THAT(m.got<Start>(), IsEmpty());
}

TEST(WorkerAttempts, AStopBeforePreparationIsCheap) {
  Machine m({.cpus_milli = 1000, .max_preparing = 1});
  m(Connected{});
  m.lease({key_of(0), key_of(1)});
  ASSERT_EQ(m.state(key_of(1)), AttemptState::leased);
  m.stop(key_of(1), EndReason::revoked);
  EXPECT_THAT(m.got<CancelPrepare>(), IsEmpty());
  EXPECT_EQ(m.state(key_of(1)), AttemptState::finished);
}

TEST(WorkerAttempts, ARunningOneIsStoppedOnceWithItsGrace) {
  Machine m;
  m(Connected{});
  m.run(key_of(0));
  m.stop(key_of(0), EndReason::cancelled);
  ASSERT_EQ(m.got<Stop>().size(), 1u);
  EXPECT_EQ(m.got<Stop>()[0].grace_ms, 1234u);
  m.stop(key_of(0), EndReason::cancelled);
  EXPECT_THAT(m.got<Stop>(), IsEmpty());
  EXPECT_EQ(m.core.cpus_used_milli(), 1000u);  // until it is really gone
  m(Exited{key_of(0), outcome_of(EndReason::signal)});
  EXPECT_EQ(m.keys<Pack>().size(), 1u) << "what it had written is its user's";
  m(Packed{key_of(0), blob_of(100), {}});
  ASSERT_EQ(m.reported().size(), 1u);
  EXPECT_EQ(m.reported()[0].outcome.reason, EndReason::cancelled);
  EXPECT_EQ(m.reported()[0].outcome.output, blob_of(100));
}

// What it takes was promised to others.
TEST(WorkerAttempts, OneThatIsOverItsLimitEndsAtOnceAndSaysWhy) {
  for (const EndReason reason : {EndReason::gpu_memory_limit, EndReason::disk_limit}) {
    Machine m;
    m(Connected{});
    m.run(key_of(0));
    UpdateReceived update;
    update.stop.push_back({key_of(0), reason, "it took 3 GiB"});
    m(update);
    ASSERT_EQ(m.got<Stop>().size(), 1u);
    EXPECT_EQ(m.got<Stop>()[0].grace_ms, 0u);
    m(Exited{key_of(0), outcome_of(EndReason::signal)});
    m(Packed{key_of(0), blob_of(100), {}});
    ASSERT_EQ(m.reported().size(), 1u);
    EXPECT_EQ(m.reported()[0].outcome.reason, reason);
    EXPECT_EQ(m.reported()[0].outcome.detail, "it took 3 GiB");
    EXPECT_EQ(m.reported()[0].outcome.output, blob_of(100)) << "what it left is its user's";
  }
}

TEST(WorkerAttempts, WhatARevokedOneLeftIsNotWanted) {
  Machine m;
  m(Connected{});
  m.run(key_of(0));
  m.stop(key_of(0), EndReason::revoked);
  m(Exited{key_of(0), outcome_of(EndReason::signal)});
  EXPECT_THAT(m.got<Pack>(), IsEmpty());
  ASSERT_EQ(m.reported().size(), 1u);
  EXPECT_EQ(m.reported()[0].outcome.reason, EndReason::revoked);
}

TEST(WorkerAttempts, ACancelWhilePackingKeepsTheOutput) {
  Machine m;
  m(Connected{});
  m.run(key_of(0));
  m(Exited{key_of(0), outcome_of()});
  m.stop(key_of(0), EndReason::cancelled);
  m(Packed{key_of(0), blob_of(100), {}});
  ASSERT_EQ(m.reported().size(), 1u);
  EXPECT_EQ(m.reported()[0].outcome.reason, EndReason::cancelled);
  EXPECT_EQ(m.reported()[0].outcome.output, blob_of(100));
}

TEST(WorkerAttempts, AVacatedOneIsPacked) {
  Machine m;
  m(Connected{});
  m.run(key_of(0));
  m.stop(key_of(0), EndReason::vacated);
  m(Exited{key_of(0), outcome_of(EndReason::exit_code)});
  EXPECT_THAT(m.keys<SaveCheckpoint>(), ElementsAre(key_of(0)));
  m(CheckpointSaved{key_of(0), true, ""});
  ASSERT_EQ(m.got<Pack>().size(), 1u);
  EXPECT_EQ(m.got<Pack>()[0].outcome.reason, EndReason::vacated);
}

TEST(WorkerAttempts, AStopWhilePackingDropsTheOutput) {
  Machine m;
  m(Connected{});
  m.run(key_of(0));
  m(Exited{key_of(0), outcome_of()});
  m.stop(key_of(0), EndReason::revoked);
  EXPECT_THAT(m.reported(), IsEmpty());
  m(Packed{key_of(0), blob_of(1 << 30), {}});
  ASSERT_EQ(m.reported().size(), 1u);
  EXPECT_TRUE(m.reported()[0].outcome.output.empty());
  EXPECT_EQ(m.reported()[0].outcome.reason, EndReason::revoked);
}

TEST(WorkerAttempts, AStopOfAnEndedOneStillWaitsForTheAcknowledgement) {
  Machine m;
  m(Connected{});
  m(Disconnected{});
  m.run(key_of(0));
  m.end(key_of(0), blob_of(1 << 30));
  m.stop(key_of(0), EndReason::revoked);
  EXPECT_TRUE(m.holds(key_of(0)));
  m(Connected{});
  ASSERT_EQ(m.reported().size(), 1u);
  EXPECT_TRUE(m.reported()[0].outcome.output.empty());
  m(Acknowledged{{key_of(0)}});
  EXPECT_FALSE(m.holds(key_of(0)));
}

TEST(WorkerAttempts, PreparingIsTriedAgainUpToTheBound) {
  Machine m({.cpus_milli = 1000, .prepare_retry_ms = 2000, .max_prepare_tries = 2});
  m(Connected{60'000});
  m.lease({key_of(0)});
  m(PrepareFailed{key_of(0), EndReason::inputs_unavailable, "connection reset", true});
  EXPECT_EQ(m.core.next_deadline(), m.now + 2000);
  m.wait(1999);
  EXPECT_THAT(m.got<Prepare>(), IsEmpty());
  m.wait(1);
  EXPECT_THAT(m.keys<Prepare>(), ElementsAre(key_of(0)));
  m(PrepareFailed{key_of(0), EndReason::inputs_unavailable, "connection reset", true});
  ASSERT_EQ(m.reported().size(), 1u);
  EXPECT_EQ(m.reported()[0].outcome.detail, "connection reset");
}

TEST(WorkerAttempts, PreparingWithoutACoordinatorCostsNoTry) {
  Machine m({.cpus_milli = 1000, .max_prepare_tries = 2, .detached_limit_ms = 0});
  m(Connected{});
  m.lease({key_of(0)});
  m(Disconnected{});
  for (int i = 0; i < 5; ++i) {
    m(PrepareFailed{key_of(0), EndReason::inputs_unavailable, "no connection", true});
    EXPECT_EQ(m.core.next_deadline(), std::nullopt);
    m(Connected{});
    EXPECT_THAT(m.keys<Prepare>(), ElementsAre(key_of(0)));
    m(Disconnected{});
  }
  EXPECT_THAT(m.reported(), IsEmpty());
}

TEST(WorkerAttempts, AFailureThatCannotPassEndsAtOnce) {
  Machine m;
  m(Connected{});
  m.lease({key_of(0)});
  m(PrepareFailed{key_of(0), EndReason::disk_full, "no space", false});
  ASSERT_EQ(m.reported().size(), 1u);
  EXPECT_EQ(m.reported()[0].outcome.reason, EndReason::disk_full);
}

TEST(WorkerAttempts, AFailedPackIsTheReason) {
  Machine m;
  m(Connected{});
  m.run(key_of(0));
  m(Exited{key_of(0), outcome_of()});
  m(PackFailed{key_of(0), EndReason::disk_full, "no space left on device"});
  ASSERT_EQ(m.reported().size(), 1u);
  EXPECT_EQ(m.reported()[0].outcome.reason, EndReason::disk_full);
  EXPECT_EQ(m.reported()[0].outcome.detail, "no space left on device");
}

TEST(WorkerAttempts, WhatCannotBeStartedExitsWithoutHavingStarted) {
  Machine m;
  m(Connected{});
  m.lease({key_of(0)});
  m(Prepared{key_of(0)});
  m(Exited{key_of(0), outcome_of(EndReason::cannot_start)});
  EXPECT_EQ(m.state(key_of(0)), AttemptState::packing);
  m(Started{key_of(0), 1});
  EXPECT_EQ(m.state(key_of(0)), AttemptState::packing);
  EXPECT_EQ(m.core.cpus_used_milli(), 0u);
}

TEST(WorkerAttempts, UnknownKeysAreIgnored) {
  Machine m;
  m(Connected{60'000});
  const AttemptKey stranger = key_of(77);
  for (const Event& event : std::vector<Event>{
           Prepared{stranger}, PrepareFailed{stranger}, Started{stranger}, Exited{stranger, {}},
           Packed{stranger, {}, {}}, PackFailed{stranger}, Progressed{stranger, 0.5, ""},
           Acknowledged{{stranger}}, ReportFailed{{stranger}, ""},
           UpdateReceived{0, {}, {{stranger, EndReason::cancelled}}}}) {
    EXPECT_THAT(m(event), IsEmpty());
  }
  EXPECT_THAT(m.core.holding(), IsEmpty());
}

TEST(WorkerAttempts, AdoptsWhatItsPredecessorLeft) {
  Machine m({.cpus_milli = 1000});
  m(Adopted{key_of(0), spec_of(), true, {}});
  m(Adopted{key_of(1), spec_of(), true, {}});  // the worker had more cpus before
  m(Adopted{key_of(2), spec_of(), false, outcome_of()});
  EXPECT_THAT(m.keys<Pack>(), ElementsAre(key_of(2)));
  EXPECT_EQ(m.core.cpus_used_milli(), 2000u);
  m(Connected{});
  m.lease({key_of(3)});
  m(Prepared{key_of(3)});
  m(Exited{key_of(0), outcome_of()});
  EXPECT_THAT(m.got<Start>(), IsEmpty());
  m(Exited{key_of(1), outcome_of()});
  EXPECT_THAT(m.keys<Start>(), ElementsAre(key_of(3)));
}

TEST(WorkerAttempts, TheKeepersEndIsTheEndOfWhatRan) {
  Machine m;
  m(Connected{});
  m.run(key_of(0));
  m.lease({key_of(1)});
  m(Prepared{key_of(1)});
  m(KeeperLost{});
  ASSERT_EQ(m.reported().size(), 2u);
  EXPECT_EQ(m.reported()[0].outcome.reason, EndReason::worker_lost);
  EXPECT_THAT(m.reported()[0].outcome.detail, HasSubstr("keeper"));
  EXPECT_EQ(m.core.cpus_used_milli(), 0u);
}

TEST(WorkerAttempts, DrainingGivesBackWhatHasNotStarted) {
  Machine m({.cpus_milli = 1000});
  m(Connected{});
  m.run(key_of(0));
  m.lease({key_of(1)});
  m(Prepared{key_of(1)});
  m.lease({key_of(2)});
  m(DrainRequested{});
  ASSERT_EQ(m.reported().size(), 2u);
  EXPECT_EQ(m.reported()[0].outcome.reason, EndReason::vacated);
  m.lease({key_of(3)});  // was on its way
  ASSERT_EQ(m.reported().size(), 1u);
  m(Acknowledged{{key_of(1), key_of(2), key_of(3)}});
  EXPECT_THAT(m.got<Drained>(), IsEmpty());
  m.end(key_of(0));
  m(Acknowledged{{key_of(0)}});
  EXPECT_EQ(m.got<Drained>().size(), 1u);
}

TEST(WorkerAttempts, ABusyWorkerGivesBackWhatHasNotStartedAndSaysSoAtOnce) {
  Machine m({.cpus_milli = 1000});
  m(Connected{});
  m.run(key_of(0));
  m.lease({key_of(1)});
  m(Prepared{key_of(1)});
  m.lease({key_of(2)});
  m(BusyChanged{"its owner is here"});
  EXPECT_EQ(m.core.busy(), "its owner is here");
  ASSERT_EQ(m.reported().size(), 2u);
  EXPECT_EQ(m.reported()[0].outcome.reason, EndReason::vacated);
  EXPECT_EQ(m.reported()[0].outcome.detail, "its worker is busy: its owner is here");
  EXPECT_EQ(m.state(key_of(0)), AttemptState::running) << "how fast it may run is not the core's";
  m.lease({key_of(3)});  // was on its way
  ASSERT_EQ(m.reported().size(), 1u);
  m(Acknowledged{{key_of(1), key_of(2), key_of(3)}});
  m(BusyChanged{"its owner is here"});
  EXPECT_THAT(m.got<SendReport>(), IsEmpty()) << "nothing new";
  m(BusyChanged{""});
  EXPECT_EQ(m.got<SendReport>().size(), 1u) << "leases may come again";
  m.end(key_of(0));
  m.lease({key_of(4)});
  m(Prepared{key_of(4)});
  EXPECT_THAT(m.keys<Start>(), ElementsAre(key_of(4)));
}

TEST(WorkerAttempts, AWantedReportIsSentAtOnceAndOnce) {
  Machine m;
  m(ReportWanted{});
  EXPECT_THAT(m.got<SendReport>(), IsEmpty()) << "there is nobody to tell";
  m(Connected{5000});
  m(ReportWanted{});
  EXPECT_EQ(m.got<SendReport>().size(), 1u);
  m(TimerFired{});
  EXPECT_THAT(m.got<SendReport>(), IsEmpty());
}

TEST(WorkerAttempts, AnIdleWorkerIsDrainedAtOnce) {
  Machine m;
  m(DrainRequested{});
  EXPECT_EQ(m.got<Drained>().size(), 1u);
  m(TimerFired{});
  EXPECT_THAT(m.got<Drained>(), IsEmpty());
}

}  // namespace
}  // namespace pesc::worker
