// When checkpoints are saved.
#include <gmock/gmock.h>
#include <signal.h>

#include <optional>

#include "tests/worker_core/machine.h"

namespace pesc::worker {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class WorkerCheckpoints : public ::testing::Test {
 protected:
  // A running attempt of such a job, with a coordinator.
  void run(std::shared_ptr<JobSpec> spec) {
    m(Connected{kHeartbeat});
    m(UpdateReceived{1, {{key_of(0), spec}}, {}, {}});
    m(Prepared{key_of(0)});
    m(Started{key_of(0), 1});
  }
  std::shared_ptr<JobSpec> spec(uint64_t every_ms = 0) {
    auto spec = std::make_shared<JobSpec>(*spec_of());
    spec->checkpoint_every_ms = every_ms;
    spec->retries = 1;
    return spec;
  }
  void mark() { m(CheckpointMarked{key_of(0)}); }
  void saved(bool saved = true) { m(CheckpointSaved{key_of(0), saved, ""}); }
  void failed(const std::string& why) { m(CheckpointSaved{key_of(0), false, why}); }
  // What the next heartbeat says of it; nothing: it does not name it.
  std::optional<Progressed> told() {
    m.wait(kHeartbeat);
    for (const SendReport& report : m.got<SendReport>()) {
      if (!report.progress.empty()) return report.progress[0];
    }
    return std::nullopt;
  }
  void exit(EndReason reason, int signal = 0) {
    AttemptOutcome outcome = outcome_of(reason);
    outcome.signal = signal;
    m(Exited{key_of(0), outcome});
  }
  void stopped_for_good(EndReason reason) {
    run(spec());
    mark();
    m.stop(key_of(0), reason);
    failed("it is not wanted any more");
    m.wait(1'000'000);
    EXPECT_FALSE(saves());
    mark();
    EXPECT_FALSE(saves());
    exit(EndReason::time_limit);
    EXPECT_FALSE(saves());
    EXPECT_NE(m.state(key_of(0)), AttemptState::saving);
  }
  bool saves() const { return m.got<SaveCheckpoint>().size() == 1; }
  bool packs() const { return m.got<Pack>().size() == 1; }

  static constexpr uint64_t kHeartbeat = 10'000'000;
  Machine m{{.cpus_milli = 1000, .checkpoint_rest_factor = 20}};
};

TEST_F(WorkerCheckpoints, TheProgramsWordIsFollowedAtOnce) {
  run(spec());
  EXPECT_FALSE(saves());
  mark();
  EXPECT_THAT(m.keys<SaveCheckpoint>(), ElementsAre(key_of(0)));
}

TEST_F(WorkerCheckpoints, TheNextRestsInProportionToWhatTheLastTook) {
  run(spec());
  mark();
  m.now += 400;
  mark();  // while the first is on its way: one at a time
  EXPECT_FALSE(saves());
  saved();
  EXPECT_FALSE(saves());
  EXPECT_EQ(m.core.next_deadline(), m.now + 20 * 400);
  m.wait(20 * 400 - 1);
  EXPECT_FALSE(saves());
  m.wait(1);
  EXPECT_TRUE(saves());
  saved();
  m.wait(60'000);
  EXPECT_FALSE(saves()) << "what was marked is saved";
}

TEST_F(WorkerCheckpoints, ANightThatTheMachineSleptCostsNothing) {
  constexpr TimeMs kNight = 8 * 3'600'000;
  run(spec());
  mark();
  m.now += 300 + kNight;
  m(WasAbsent{kNight});
  m.now += 100;
  saved();
  mark();
  EXPECT_EQ(m.core.next_deadline(), m.now + 20 * 400);
  m.wait(20 * 400);
  EXPECT_TRUE(saves());
  // More than since it began: it cost nothing.
  m.now += 50;
  m(WasAbsent{kNight});
  saved();
  mark();
  EXPECT_EQ(m.core.next_deadline(), m.now + 1'000);
}

TEST_F(WorkerCheckpoints, CheapOnesAreNotWithoutEnd) {
  run(spec());
  mark();
  saved();
  mark();
  EXPECT_FALSE(saves());
  EXPECT_EQ(m.core.next_deadline(), m.now + 1'000);
  m.wait(1'000);
  EXPECT_TRUE(saves());
}

TEST_F(WorkerCheckpoints, OneThatFailedStaysToBeDone) {
  run(spec());
  mark();
  saved(false);
  EXPECT_FALSE(saves());
  m.wait(1'000);
  EXPECT_TRUE(saves());
}

TEST_F(WorkerCheckpoints, TheIntervalIsForProgramsThatSayNothing) {
  run(spec(5'000));
  EXPECT_EQ(m.core.next_deadline(), m.now + 5'000);
  m.wait(5'000);
  EXPECT_TRUE(saves());
  saved(false);
  m.wait(4'999);
  EXPECT_FALSE(saves()) << "the next interval is soon enough";
  m.wait(1);
  EXPECT_TRUE(saves());
  saved();
  m.wait(1'000);
  mark();
  EXPECT_TRUE(saves());
  saved();
  m.wait(100'000);
  EXPECT_FALSE(saves()) << "it has learnt to say when";
}

TEST_F(WorkerCheckpoints, AwayFromTheCoordinatorTheyWait) {
  run(spec(5'000));
  m(Disconnected{});
  m.wait(20'000);
  mark();
  EXPECT_FALSE(saves());
  m(Connected{kHeartbeat});
  EXPECT_TRUE(saves());
}

TEST_F(WorkerCheckpoints, AnAdoptedOneThatHasMarkedIsSavedOnce) {
  m(Adopted{key_of(0), spec(), true, {}, true});
  EXPECT_FALSE(saves());
  m(Connected{kHeartbeat});
  EXPECT_TRUE(saves());
  saved();
  m.wait(100'000);
  EXPECT_FALSE(saves());
}

TEST_F(WorkerCheckpoints, AnAdoptedEndIsSavedBeforeItIsPacked) {
  m(Adopted{key_of(0), spec(), false, outcome_of(EndReason::vacated), true});
  EXPECT_EQ(m.state(key_of(0)), AttemptState::saving);
  m(Connected{kHeartbeat});
  EXPECT_TRUE(saves());
  saved();
  EXPECT_TRUE(packs());
}

// What it began from may be what it died of: changed a little, it would be a new checkpoint.
TEST_F(WorkerCheckpoints, AProgramThatDiesAtOnceIsNotSaved) {
  run(spec());
  AttemptOutcome outcome = outcome_of(EndReason::exit_code);
  outcome.duration_ms = 1'999;
  m(Exited{key_of(0), outcome});
  EXPECT_FALSE(saves());
  EXPECT_TRUE(packs());
}

TEST_F(WorkerCheckpoints, OneThatIsToldToLeaveAtOnceIsSavedAllTheSame) {
  run(spec());
  m.stop(key_of(0), EndReason::vacated);
  AttemptOutcome outcome = outcome_of(EndReason::exit_code);
  outcome.duration_ms = 5;
  m(Exited{key_of(0), outcome});
  EXPECT_TRUE(saves());
}

TEST_F(WorkerCheckpoints, AVacatedProgramIsSavedAfterItsEnd) {
  run(spec());
  m.stop(key_of(0), EndReason::vacated);
  exit(EndReason::signal, SIGTERM);
  EXPECT_TRUE(saves());
  EXPECT_FALSE(packs());
  EXPECT_EQ(m.state(key_of(0)), AttemptState::saving);
  EXPECT_EQ(m.core.cpus_used_milli(), 0u) << "its cpus are free for others";
  saved();
  EXPECT_TRUE(packs());
}

TEST_F(WorkerCheckpoints, ASuccessNeedsNone) {
  run(spec(1'000));
  exit(EndReason::succeeded);
  EXPECT_FALSE(saves());
  EXPECT_TRUE(packs());
}

TEST_F(WorkerCheckpoints, AFailureThatIsFinalNeedsNone) {
  auto once = spec();
  once->retries = 0;
  run(once);
  mark();
  saved();
  mark();
  exit(EndReason::exit_code);
  EXPECT_FALSE(saves());
  EXPECT_TRUE(packs());
}

TEST_F(WorkerCheckpoints, WhatWasKilledIsSavedOnlyWhereItHadSaidSo) {
  run(spec());
  exit(EndReason::signal, SIGKILL);
  EXPECT_FALSE(saves());
  EXPECT_TRUE(packs());
}

TEST_F(WorkerCheckpoints, APendingEventOutlivesTheKill) {
  run(spec());
  mark();
  saved();
  mark();  // it rests still
  EXPECT_FALSE(saves());
  exit(EndReason::out_of_memory, SIGKILL);
  EXPECT_TRUE(saves());
}

TEST_F(WorkerCheckpoints, AProgramThatMarksIsNotSavedBetweenItsWords) {
  run(spec());
  mark();
  saved();
  exit(EndReason::exit_code);
  EXPECT_FALSE(saves());
  EXPECT_TRUE(packs());
}

TEST_F(WorkerCheckpoints, TheEndWaitsForTheSaveThatIsUnderWay) {
  run(spec());
  mark();
  exit(EndReason::exit_code);
  EXPECT_EQ(m.state(key_of(0)), AttemptState::saving);
  EXPECT_FALSE(saves());
  saved();
  EXPECT_TRUE(packs());
}

TEST_F(WorkerCheckpoints, ASuccessDoesNotWaitForTheSaveThatIsUnderWay) {
  run(spec());
  mark();
  exit(EndReason::succeeded);
  EXPECT_TRUE(packs());
  saved();
  EXPECT_THAT(m.last, IsEmpty());
}

TEST_F(WorkerCheckpoints, TheLastIsGivenUpAfterThreeFailures) {
  run(spec());
  m.stop(key_of(0), EndReason::vacated);
  exit(EndReason::signal, SIGTERM);
  for (int i = 0; i < 2; ++i) {
    saved(false);
    EXPECT_FALSE(packs());
    m.wait(1'000);
    EXPECT_TRUE(saves());
  }
  saved(false);
  EXPECT_TRUE(packs());
}

TEST_F(WorkerCheckpoints, AwayTheLastWaitsHoweverOftenItFails) {
  run(spec());
  m.stop(key_of(0), EndReason::vacated);
  exit(EndReason::signal, SIGTERM);
  for (int i = 0; i < 5; ++i) {
    m(Disconnected{});
    saved(false);
    EXPECT_FALSE(packs());
    m.wait(1'000'000);
    EXPECT_FALSE(saves());
    m(Connected{kHeartbeat});
    EXPECT_TRUE(saves());
  }
  saved();
  EXPECT_TRUE(packs());
}

TEST_F(WorkerCheckpoints, NobodyWaitsForTheLastOfWhatIsNotWanted) {
  run(spec());
  m.stop(key_of(0), EndReason::vacated);
  exit(EndReason::signal, SIGTERM);
  m.stop(key_of(0), EndReason::revoked);
  ASSERT_EQ(m.reported().size(), 1u);
  EXPECT_EQ(m.reported()[0].outcome.reason, EndReason::revoked);
  saved();
  EXPECT_THAT(m.last, IsEmpty());
}

TEST_F(WorkerCheckpoints, ARevokedGangMemberSavesWhatItHadMarked) {
  auto gang = spec();
  gang->parallel = true;
  run(gang);
  mark();
  saved();
  mark();
  m.stop(key_of(0), EndReason::revoked);
  exit(EndReason::signal, SIGTERM);
  EXPECT_TRUE(saves());
  saved();
  ASSERT_EQ(m.reported().size(), 1u);
  EXPECT_EQ(m.reported()[0].outcome.reason, EndReason::revoked);
}

TEST_F(WorkerCheckpoints, OneThatIsNotSavedIsToldUntilOneIs) {
  run(spec());
  mark();
  failed("\"state\" changes while it is read");
  auto report = told();
  ASSERT_TRUE(report);
  EXPECT_EQ(report->key, key_of(0));
  EXPECT_EQ(report->trouble, "checkpoint not saved: \"state\" changes while it is read");
  EXPECT_LT(report->fraction, 0) << "the program has said nothing";
  EXPECT_TRUE(saves());
  EXPECT_FALSE(told()) << "it is told once";
  m(Progressed{key_of(0), 0.5, "half"});
  report = told();
  ASSERT_TRUE(report);
  EXPECT_EQ(report->fraction, 0.5);
  EXPECT_NE(report->trouble, "") << "what the program says does not mend it";
  saved();
  report = told();
  ASSERT_TRUE(report);
  EXPECT_EQ(report->trouble, "");
  EXPECT_EQ(report->fraction, 0.5);
  EXPECT_EQ(report->text, "half");
}

TEST_F(WorkerCheckpoints, ANewSessionIsToldOfItAgain) {
  run(spec());
  mark();
  failed("why");
  ASSERT_TRUE(told());
  m(Disconnected{});
  failed("there is no session");
  m(Connected{kHeartbeat});
  const auto report = told();
  ASSERT_TRUE(report);
  EXPECT_EQ(report->trouble, "checkpoint not saved: why");
}

TEST_F(WorkerCheckpoints, ALastOneThatIsNotSavedIsToldWithTheEnd) {
  run(spec());
  m.stop(key_of(0), EndReason::vacated);
  exit(EndReason::signal, SIGTERM);
  for (int i = 0; i < 3; ++i) {
    failed("why");
    m.wait(1'000);
  }
  m(Packed{key_of(0), {}, {}});
  ASSERT_EQ(m.reported().size(), 1u);
  EXPECT_THAT(m.reported()[0].outcome.detail, HasSubstr("checkpoint not saved: why"));
}

TEST_F(WorkerCheckpoints, WhatIsCancelledIsNotSavedAgain) {
  stopped_for_good(EndReason::cancelled);
}

TEST_F(WorkerCheckpoints, WhatIsRevokedIsNotSavedAgain) { stopped_for_good(EndReason::revoked); }

TEST_F(WorkerCheckpoints, ItIsPreparedFromTheOneItsLeaseNames) {
  m(Connected{kHeartbeat});
  const CheckpointRef checkpoint{3, blob_of(100)};
  m(UpdateReceived{1, {{key_of(0), spec_of(), checkpoint}}, {}, {}});
  ASSERT_EQ(m.got<Prepare>().size(), 1u);
  EXPECT_EQ(m.got<Prepare>()[0].checkpoint, checkpoint);
}

TEST(WorkerDetached, WhatRunsIsStoppedAtTheLimit) {
  Machine m({.cpus_milli = 1000, .detached_limit_ms = 3'600'000});
  m(Connected{});
  m.run(key_of(0));
  m.lease({key_of(1)});
  m(Disconnected{});
  EXPECT_EQ(m.core.next_deadline(), m.now + 3'600'000);
  m.wait(3'599'999);
  EXPECT_THAT(m.got<Stop>(), IsEmpty());
  m.wait(1);
  EXPECT_THAT(m.keys<Stop>(), ElementsAre(key_of(0)));
  EXPECT_EQ(m.got<Stop>()[0].reason, EndReason::vacated);
  EXPECT_EQ(m.core.next_deadline(), std::nullopt);
  AttemptOutcome outcome = outcome_of(EndReason::signal);
  outcome.signal = SIGKILL;
  m(Exited{key_of(0), outcome});
  m(Packed{key_of(0), {}, {}});
  m(Connected{});
  ASSERT_EQ(m.reported().size(), 2u);
  EXPECT_EQ(m.reported()[0].outcome.reason, EndReason::vacated);
  EXPECT_THAT(m.reported()[0].outcome.detail, HasSubstr("out of contact"));
  EXPECT_THAT(m.reported()[1].outcome.detail, HasSubstr("out of contact"));
}

TEST(WorkerDetached, ARestartedWorkerCountsFromItsStart) {
  Machine m({.cpus_milli = 1000, .detached_limit_ms = 1'000});
  m(Adopted{key_of(0), spec_of(), true, {}});
  m.wait(1'000);
  EXPECT_THAT(m.keys<Stop>(), ElementsAre(key_of(0)));
}

TEST(WorkerDetached, AContactBeginsItAnew) {
  Machine m({.cpus_milli = 1000, .detached_limit_ms = 1'000});
  m(Connected{});
  m.run(key_of(0));
  for (int i = 0; i < 3; ++i) {
    m(Disconnected{});
    m.wait(999);
    m(Connected{});
  }
  EXPECT_THAT(m.got<Stop>(), IsEmpty());
  EXPECT_EQ(m.state(key_of(0)), AttemptState::running);
}

}  // namespace
}  // namespace pesc::worker
