// Ranks that wait for the build of their program.
#include <gmock/gmock.h>

#include "tests/worker_core/machine.h"

namespace pesc::worker {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

struct Builds : testing::Test {
  Builds() : m({.cpus_milli = 2000, .max_preparing = 1}) { m(Connected{5000}); }

  void lease_built(std::vector<AttemptKey> keys) {
    UpdateReceived update{.number = ++m.number};
    for (const AttemptKey& key : keys) {
      auto spec = std::make_shared<JobSpec>(*spec_of());
      spec->build = "make";
      update.leases.push_back({key, spec});
      update.leases.back().grant.gpus = {"GPU-a"};
    }
    m(update);
  }

  Machine m;
};

TEST_F(Builds, OtherRanksArePreparedMeanwhile) {
  lease_built({key_of(0)});
  ASSERT_THAT(m.keys<Prepare>(), ElementsAre(key_of(0)));
  EXPECT_THAT(m.got<Prepare>()[0].gpus, ElementsAre("GPU-a"));
  m.lease({key_of(50)});
  EXPECT_THAT(m.keys<Prepare>(), IsEmpty()) << "one at a time";
  m(BuildAwaited{key_of(0), "being built"});
  EXPECT_EQ(m.state(key_of(0)), AttemptState::building);
  EXPECT_THAT(m.keys<Prepare>(), ElementsAre(key_of(50)));
  m(Prepared{key_of(50)});
  EXPECT_THAT(m.keys<Start>(), ElementsAre(key_of(50)));
  m(BuildDone{key_of(0)});
  EXPECT_THAT(m.keys<Prepare>(), ElementsAre(key_of(0)));
  m(Prepared{key_of(0)});
  EXPECT_THAT(m.keys<Start>(), ElementsAre(key_of(0)));
}

TEST_F(Builds, TheHeartbeatSaysWhatIsWaitedFor) {
  lease_built({key_of(0), key_of(1)});
  m(BuildAwaited{key_of(0), "being built"});
  ASSERT_EQ(m.got<SendReport>().size(), 1u);
  ASSERT_EQ(m.got<SendReport>()[0].progress.size(), 1u);
  EXPECT_EQ(m.got<SendReport>()[0].progress[0].trouble, "being built");
  EXPECT_LT(m.got<SendReport>()[0].progress[0].fraction, 0);
  m(BuildAwaited{key_of(1), "being built"});
  EXPECT_THAT(m.got<SendReport>(), IsEmpty()) << "with the next heartbeat";
  m.wait(5000);
  ASSERT_EQ(m.got<SendReport>()[0].progress.size(), 1u);
  EXPECT_EQ(m.got<SendReport>()[0].progress[0].key, key_of(1));
  m(BuildDone{key_of(0)});
  m.wait(5000);
  ASSERT_EQ(m.got<SendReport>()[0].progress.size(), 1u);
  EXPECT_EQ(m.got<SendReport>()[0].progress[0].trouble, "");
}

TEST_F(Builds, AFailedOneEndsTheAttemptWithItsLog) {
  lease_built({key_of(0)});
  m(BuildAwaited{key_of(0), "being built"});
  PrepareFailed failed{key_of(0), EndReason::build_failed, "exit code 2: no such file"};
  failed.exit_code = 2;
  failed.output = blob_of(300);
  m(failed);
  ASSERT_EQ(m.reported().size(), 1u);
  const AttemptOutcome outcome = m.reported()[0].outcome;
  EXPECT_EQ(outcome.reason, EndReason::build_failed);
  EXPECT_EQ(outcome.exit_code, 2);
  EXPECT_EQ(outcome.detail, "exit code 2: no such file");
  EXPECT_EQ(outcome.output, blob_of(300));
  EXPECT_EQ(outcome.started_unix_ms, 0) << "it never ran";
  EXPECT_THAT(m.keys<Pack>(), IsEmpty());
}

TEST_F(Builds, WhatMayPassIsTriedAgain) {
  lease_built({key_of(0)});
  m(BuildAwaited{key_of(0), "being built"});
  m(PrepareFailed{key_of(0), EndReason::inputs_unavailable, "the keeper ended", true});
  EXPECT_EQ(m.state(key_of(0)), AttemptState::leased);
  m.wait(2000);
  EXPECT_THAT(m.keys<Prepare>(), ElementsAre(key_of(0)));
}

TEST_F(Builds, AStopEndsTheWait) {
  lease_built({key_of(0), key_of(1)});
  m(BuildAwaited{key_of(0), "being built"});
  m.stop(key_of(0), EndReason::cancelled);
  EXPECT_THAT(m.keys<CancelPrepare>(), ElementsAre(key_of(0)));
  EXPECT_EQ(m.state(key_of(0)), AttemptState::finished);
  m(BuildAwaited{key_of(1), "being built"});
  m(BuildDone{key_of(0)});  // too late
  EXPECT_EQ(m.state(key_of(0)), AttemptState::finished);
  m(BusyChanged{"its owner is there"});
  EXPECT_THAT(m.keys<CancelPrepare>(), ElementsAre(key_of(1)));
  EXPECT_EQ(m.reported().at(0).outcome.reason, EndReason::vacated);
}

}  // namespace
}  // namespace pesc::worker
