// Workers that get no work although they are there: black holes, drains, those that are silent.
#include "tests/coordinator_core/harness.h"

namespace pesc::coordinator {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

AttemptKey key(uint64_t job, uint32_t rank, uint32_t attempt = 1) {
  return {job_id(job), rank, attempt};
}

WorkerView worker(const Harness& h, uint64_t n) {
  for (const WorkerView& view : h.core->workers()) {
    if (view.info.id == worker_id(n)) return view;
  }
  return {};
}

// pc2 is a black hole, pc1 is well and slow.
struct BlackHole : testing::Test {
  Harness h;
  void SetUp() override {
    h.attach(1, worker_info(1, 1));
    h.attach(2, worker_info(2, 1));
    h.submit(1, spec_of(100)).IgnoreError();
    h.end(1, h.held(1).at(0), EndReason::succeeded, 30'000);
  }
  AttemptOutcome fail_at_once() {
    EXPECT_THAT(h.held(2), SizeIs(1));
    h.end(2, h.held(2).at(0), EndReason::exit_code, 50);
    return h.records<AttemptEnded>().at(0).outcome;
  }
  void pass(TimeMs ms) {
    for (; ms > 0; ms -= 10'000) {
      h.now += std::min<TimeMs>(ms, 10'000);
      h.report(1, h.held(1));
      h.report(2, h.held(2));
    }
  }
};

TEST_F(BlackHole, IsSetAsideAndSaysSo) {
  EXPECT_EQ(fail_at_once().reason, EndReason::exit_code) << "one failure is the program's";
  const AttemptOutcome second = fail_at_once();
  EXPECT_EQ(second.reason, EndReason::worker_faulty);
  EXPECT_EQ(second.exit_code, 1);
  EXPECT_THAT(second.detail, HasSubstr("failed at once on pc2"));
  EXPECT_THAT(second.detail, HasSubstr("exit code 1: it went wrong"));
  EXPECT_EQ(fail_at_once().reason, EndReason::worker_faulty);
  EXPECT_THAT(h.held(2), IsEmpty());
  EXPECT_EQ(worker(h, 2).trouble,
            "set aside for another 60 s: 3 attempts in a row failed at once there, last: exit code "
            "1: it went wrong");
  EXPECT_THAT(h.core->why(job_id(1), h.now).at(0).reason, HasSubstr("(pc2 is set aside for"));
  EXPECT_EQ(h.view(1).counts.failed, 1u);
}

// Seed 2059824 of the simulator: the last worker of a room was set aside again and again.
TEST(LastOfItsRoom, IsNotSetAsideForWorkersOfOthers) {
  Harness h;
  h.attach(1, worker_info(1, 1, 8ull << 30, "red"));
  h.attach(2, worker_info(2, 1, 8ull << 30, "red"));
  h.attach(3, worker_info(3, 1));
  JobSpec spec = spec_of(100);
  spec.room = "red";
  spec.max_failures = kNoMaxFailures;
  h.submit(1, spec).IgnoreError();
  h.end(1, h.held(1).at(0), EndReason::succeeded, 30'000);
  h.detach(1);
  for (int i = 0; i < 10; ++i) {
    ASSERT_THAT(h.held(2), SizeIs(1)) << "after " << i;
    h.end(2, h.held(2).at(0), EndReason::exit_code, 50);
    EXPECT_EQ(worker(h, 2).trouble, "");
  }
}

TEST(LastOfItsSize, IsNotSetAsideForSmallerOnes) {
  Harness h;
  h.attach(1, worker_info(1, 2));
  h.attach(2, worker_info(2, 2));
  h.attach(3, worker_info(3, 1));
  JobSpec spec = spec_of(100);
  spec.resources.cpus_milli = 2000;
  spec.max_failures = kNoMaxFailures;
  h.submit(1, spec).IgnoreError();
  h.end(1, h.held(1).at(0), EndReason::succeeded, 30'000);
  h.detach(1);
  for (int i = 0; i < 10; ++i) {
    ASSERT_THAT(h.held(2), SizeIs(1)) << "after " << i;
    h.end(2, h.held(2).at(0), EndReason::exit_code, 50);
    EXPECT_EQ(worker(h, 2).trouble, "");
  }
}

// One job's bad data must not take worker after worker away from the others, nor run everything
// twice.
TEST(OwnFault, OfTwoRanksIsEnough) {
  Harness h;
  for (uint64_t n = 1; n <= 3; ++n) h.attach(n, worker_info(n, 1));
  JobSpec spec = spec_of(60);
  spec.max_failures = kNoMaxFailures;
  h.submit(1, spec).IgnoreError();
  h.end(1, h.held(1).at(0), EndReason::succeeded, 30'000);
  uint32_t faulty = 0;
  for (int i = 0; i < 600; ++i) {
    const uint64_t n = 1 + i % 3;
    h.now += 200;
    h.report(n, h.held(n));
    if (h.held(n).empty()) continue;
    h.end(n, h.held(n).at(0), EndReason::exit_code, 50);
    for (const AttemptEnded& ended : h.records<AttemptEnded>()) {
      faulty += ended.outcome.reason == EndReason::worker_faulty;
    }
  }
  EXPECT_GE(h.view(1).counts.failed, 55u);
  EXPECT_LE(faulty, 12u)
      << "once two ranks have shown that the job is to blame, nothing is run twice";
}

TEST(CannotStart, IsTriedOnAnotherWorkerForFree) {
  Harness h;
  h.attach(1, worker_info(1, 1));
  h.attach(2, worker_info(2, 1));
  h.submit(1, spec_of(1)).IgnoreError();
  const uint64_t first = h.held(1).empty() ? 2 : 1, other = 3 - first;
  h.end(first, key(1, 0), EndReason::cannot_start, 5);
  const AttemptOutcome outcome = h.records<AttemptEnded>().at(0).outcome;
  EXPECT_EQ(outcome.reason, EndReason::worker_faulty);
  EXPECT_THAT(outcome.detail, HasSubstr("another worker is tried"));
  h.at(*h.core->next_deadline());
  ASSERT_THAT(h.held(other), ElementsAre(key(1, 0, 2)));
  h.end(other, key(1, 0, 2), EndReason::cannot_start, 5);
  EXPECT_EQ(h.records<AttemptEnded>().at(0).outcome.reason, EndReason::cannot_start);
  EXPECT_EQ(h.view(1).counts.failed, 1u) << "it is missing on both: the job's fault";
}

TEST(CannotStart, WhereNoOtherWorkerIsCountsAtOnce) {
  Harness h;
  h.attach(1, worker_info(1, 1));
  h.submit(1, spec_of(1)).IgnoreError();
  h.end(1, key(1, 0), EndReason::cannot_start, 5);
  EXPECT_EQ(h.view(1).counts.failed, 1u);
}

TEST_F(BlackHole, IsSetAsideForHalfAMinuteWhenItIsNeeded) {
  h.attach(2, worker_info(2, 4), h.held(2));
  while (!h.held(2).empty()) h.end(2, h.held(2).at(0), EndReason::exit_code, 50);
  ASSERT_THAT(worker(h, 2).trouble, HasSubstr("set aside for another 60 s"));
  h.now += 10'000;
  JobSpec wide = spec_of(1);
  wide.resources.cpus_milli = 3'000;
  h.submit(2, wide).IgnoreError();
  EXPECT_THAT(worker(h, 2).trouble, HasSubstr("set aside for another 30 s"));
  pass(10'000);
  EXPECT_THAT(worker(h, 2).trouble, HasSubstr("set aside for another 20 s")) << "no longer for it";
  pass(20'000);
  h.settle();
  ASSERT_THAT(h.held(2), SizeIs(1)) << worker(h, 2).trouble;
}

TEST_F(BlackHole, IsSetAsideForTenMinutesAtMost) {
  h.attach(2, worker_info(2, 4), h.held(2));
  while (!h.held(2).empty()) h.end(2, h.held(2).at(0), EndReason::exit_code, 50);
  for (int i = 0; i < 4; ++i) {
    for (TimeMs waited = 0; h.held(2).empty() && waited <= 600'000; waited += 10'000) pass(10'000);
    ASSERT_THAT(h.held(2), SizeIs(1));
    fail_at_once();
  }
  EXPECT_THAT(worker(h, 2).trouble, HasSubstr("set aside for another 600 s"));
}

TEST_F(BlackHole, OnProbationIsGivenOneRankOfAGang) {
  while (!h.held(2).empty()) h.end(2, h.held(2).at(0), EndReason::exit_code, 50);
  h.cancel(1).IgnoreError();
  for (const AttemptKey& k : h.held(1)) h.end(1, k, EndReason::cancelled);
  h.attach(2, worker_info(2, 4));
  pass(60'000);
  ASSERT_THAT(worker(h, 2).trouble, HasSubstr("on probation"));
  h.attach(3, worker_info(3, 1));
  JobSpec spec = spec_of(3);
  spec.parallel = true;
  h.submit(2, spec).IgnoreError();
  EXPECT_THAT(h.held(1), SizeIs(1));
  EXPECT_THAT(h.held(2), SizeIs(1)) << "of four cpus";
  EXPECT_THAT(h.held(3), SizeIs(1));
  h.submit(3, spec).IgnoreError();
  EXPECT_EQ(h.leased(3), 0u);
  h.step(WorkerDrained{1, "pc2", false});
  EXPECT_THAT(h.held(2), SizeIs(4)) << "a person says that it is well";
}

TEST_F(BlackHole, OnProbationIsGivenAllOfAGangThatNobodyElseHasRoomFor) {
  while (!h.held(2).empty()) h.end(2, h.held(2).at(0), EndReason::exit_code, 50);
  h.cancel(1).IgnoreError();
  for (const AttemptKey& k : h.held(1)) h.end(1, k, EndReason::cancelled);
  h.attach(2, worker_info(2, 4));
  h.attach(3, worker_info(3, 1));
  pass(60'000);
  JobSpec spec = spec_of(3);
  spec.parallel = true;
  h.step(WorkerReported{1, 3, h.held(3), UINT64_MAX, {}, {}, {}, h.unix_ms});
  h.submit(2, spec_of(1)).IgnoreError();
  const uint64_t busy = h.held(1).empty() ? h.held(2).empty() ? 3 : 2 : 1;
  h.submit(3, spec).IgnoreError();
  EXPECT_EQ(h.leased(3), 0u) << "it would fit one by one, in time";
  h.detach(3);
  if (busy != 3) h.end(busy, key(2, 0), EndReason::succeeded);
  EXPECT_EQ(h.leased(3), 3u);
  EXPECT_THAT(h.held(2), testing::Not(IsEmpty()));
}

TEST_F(BlackHole, IsTriedAgainWithOneAttemptAtATimeAndLongerEachTime) {
  h.attach(2, worker_info(2, 4), h.held(2));
  ASSERT_THAT(h.held(2), SizeIs(4));
  while (!h.held(2).empty()) h.end(2, h.held(2).at(0), EndReason::exit_code, 50);
  pass(60'000);
  EXPECT_THAT(h.held(2), SizeIs(1)) << "of four cpus";
  EXPECT_THAT(worker(h, 2).trouble, HasSubstr("on probation"));
  fail_at_once();
  EXPECT_THAT(h.held(2), IsEmpty());
  pass(119'000);
  EXPECT_THAT(h.held(2), IsEmpty());
  pass(1'000);
  ASSERT_THAT(h.held(2), SizeIs(1));
  h.end(2, h.held(2).at(0), EndReason::succeeded, 20'000);
  EXPECT_THAT(h.held(2), SizeIs(4)) << "it is well again";
  EXPECT_EQ(worker(h, 2).trouble, "");
}

TEST_F(BlackHole, WhatWaitsThereAheadOfTimeIsTakenBack) {
  for (int i = 0; i < 3; ++i) h.end(1, h.held(1).at(0), EndReason::succeeded, 10);
  pass(500);
  while (h.held(2).size() < 2) h.end(1, h.held(1).at(0), EndReason::succeeded, 10);
  std::vector<StopRequest> stops;
  while (stops.empty()) {
    h.end(2, h.held(2).at(0), EndReason::exit_code, 50);
    stops = h.stops(2);
    ASSERT_LT(h.log.size(), 500u);
  }
  EXPECT_THAT(stops, SizeIs(1));
  EXPECT_EQ(stops[0].reason, EndReason::vacated);
}

TEST_F(BlackHole, ARankThatFailsAtOnceElsewhereTooIsToBlameItself) {
  h.cancel(1).IgnoreError();
  h.end(1, h.held(1).at(0), EndReason::cancelled);
  h.end(2, h.held(2).at(0), EndReason::cancelled);
  JobSpec many = spec_of(9);
  many.retries = 9;
  h.submit(2, many).IgnoreError();
  h.end(1, h.held(1).at(0), EndReason::succeeded, 30'000);
  h.end(2, h.held(2).at(0), EndReason::succeeded, 30'000);
  // Each of the others fails at once wherever it is tried.
  for (int i = 0; i < 40 && h.view(2).state == JobState::running; ++i) {
    for (uint64_t n : {1, 2}) {
      if (!h.held(n).empty()) h.end(n, h.held(n).at(0), EndReason::exit_code, 10);
    }
    pass(20'000);
  }
  EXPECT_LE(h.view(2).tally.ended[size_t(EndReason::worker_faulty)], 14u);
  EXPECT_GT(h.view(2).tally.ended[size_t(EndReason::exit_code)], 20u);
}

TEST_F(BlackHole, IsNotSetAsideWhenNobodyElseIsWell) {
  h.detach(1);
  for (int i = 0; i < 10; ++i) fail_at_once();
  EXPECT_EQ(worker(h, 2).trouble, "");
  EXPECT_THAT(h.held(2), SizeIs(1));
}

// Its ranks are tried again on the other worker: one that fails there at once too clears it.
TEST_F(BlackHole, IsClearedByARankThatFailsAtOnceElsewhere) {
  for (int i = 0; i < 3; ++i) fail_at_once();
  ASSERT_THAT(h.held(2), IsEmpty());
  pass(2'000);
  h.end(1, h.held(1).at(0), EndReason::succeeded, 30'000);
  ASSERT_GT(h.held(1).at(0).attempt, 1u);
  h.end(1, h.held(1).at(0), EndReason::exit_code, 10);
  EXPECT_EQ(worker(h, 2).trouble, "");
  EXPECT_THAT(h.held(2), SizeIs(1));
}

TEST_F(BlackHole, ThatAnEntireJobFailsSaysNothingOfWorkers) {
  h.cancel(1).IgnoreError();
  h.end(1, h.held(1).at(0), EndReason::cancelled);
  h.end(2, h.held(2).at(0), EndReason::cancelled);
  h.submit(2, spec_of(10)).IgnoreError();
  for (int i = 0; i < 5; ++i) {
    h.end(1, h.held(1).at(0), EndReason::exit_code, 10);
    h.end(2, h.held(2).at(0), EndReason::exit_code, 10);
  }
  EXPECT_EQ(h.view(2).state, JobState::failed);
  EXPECT_EQ(h.view(2).tally.ended[size_t(EndReason::exit_code)], 10u);
  EXPECT_EQ(worker(h, 1).trouble, "");
  EXPECT_EQ(worker(h, 2).trouble, "");
}

// Ranks take hours: nothing has succeeded when the black hole begins to eat them.
TEST(Health, ABlackHoleDoesNotStopANewJob) {
  Harness h;
  h.attach(1, worker_info(1, 2));
  h.attach(2, worker_info(2, 2));
  h.submit(1, spec_of(1000)).IgnoreError();
  for (int second = 0; second < 600; ++second) {
    h.now += 1000;
    h.report(1, h.held(1));
    h.report(2, h.held(2));
    for (int i = 0; i < 5 && !h.held(2).empty(); ++i) {
      h.end(2, h.held(2).at(0), EndReason::exit_code, 100);
    }
  }
  EXPECT_EQ(h.view(1).state, JobState::running);
  EXPECT_LE(h.view(1).counts.failed, 5u);
  EXPECT_THAT(worker(h, 2).trouble, HasSubstr("set aside"));
}

TEST(Health, TriesOnFaultyWorkersAreFreeButNotForEver) {
  CoreConfig config;
  config.set_aside_ms = 1;
  config.set_aside_max_ms = 1;
  Harness h(config);
  h.attach(1, worker_info(1, 1));
  h.submit(1, spec_of(2)).IgnoreError();
  h.end(1, key(1, 0), EndReason::succeeded, 30'000);
  h.end(1, key(1, 1), EndReason::vacated);
  h.detach(1);
  h.attach(2, worker_info(2, 1));
  h.attach(3, worker_info(2, 1), h.held(2));
  int tries = 0;
  for (; h.view(1).state == JobState::running && tries < 50; ++tries) {
    while (h.held(2).empty()) {
      h.at(*h.core->next_deadline());
      h.report(3, h.held(2));
    }
    h.end(3, h.held(2).at(0), EndReason::exit_code, 10);
  }
  EXPECT_EQ(h.view(1).state, JobState::failed);
  EXPECT_LE(tries, 7);
}

// ---- drain --------------------------------------------------------------------------------------

AnswerDrain drain(Harness& h, const std::string& name, bool wanted = true) {
  h.step(WorkerDrained{14, name, wanted});
  return h.actions<AnswerDrain>().at(0);
}

TEST(Drain, VacatesAndGivesNothingMore) {
  Harness h;
  h.attach(1, worker_info(1, 2));
  h.submit(1, spec_of(4)).IgnoreError();
  drain(h, "pc1");
  EXPECT_EQ(describe(h.last),
            "WorkerDraining w1\n"
            "> AnswerDrain OK pc1 2\n"
            "> SendUpdate s1 #2 stop j1/0#1 vacated stop j1/1#1 vacated\n");
  EXPECT_TRUE(worker(h, 1).draining);
  EXPECT_EQ(worker(h, 1).trouble,
            "draining: it gets no work until `pesc drain pc1 --undo`; 2 of its attempts have not "
            "ended yet");
  EXPECT_THAT(h.report(1, h.held(1)).stop, SizeIs(2)) << "the message may have been lost";
  h.end(1, key(1, 0), EndReason::vacated);
  h.end(1, key(1, 1), EndReason::vacated);
  h.report(1, {});
  EXPECT_THAT(h.held(1), IsEmpty());
  EXPECT_EQ(h.core->why(job_id(1), h.now).at(0).reason.substr(0, 40),
            "no worker takes work: pc1 is draining");
  drain(h, "pc1");
  EXPECT_THAT(h.last.records, IsEmpty()) << "asked again";
  drain(h, to_string(worker_id(1)), false);
  EXPECT_EQ(describe(h.last.records.at(0)), "WorkerDraining w1 no more");
  EXPECT_THAT(h.held(1), SizeIs(2));
}

TEST(Drain, IsDurable) {
  Harness h;
  h.attach(1, worker_info(1, 2));
  drain(h, "pc1");
  h.restore();
  h.attach(2, worker_info(1, 2));
  h.submit(1, spec_of(1)).IgnoreError();
  EXPECT_THAT(h.held(1), IsEmpty());
  drain(h, "pc1", false);
  h.restore();
  h.attach(3, worker_info(1, 2));
  EXPECT_THAT(h.held(1), SizeIs(1));
}

TEST(Drain, NamesMustBeClear) {
  Harness h;
  h.attach(1, worker_info(1, 2));
  WorkerInfo same = worker_info(2, 2);
  same.name = "pc1";
  h.attach(2, same);
  const AnswerDrain unclear = drain(h, "pc1");
  EXPECT_EQ(unclear.status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(unclear.status.message()), HasSubstr(to_string(worker_id(1))));
  EXPECT_THAT(std::string(unclear.status.message()), HasSubstr(to_string(worker_id(2))));
  EXPECT_EQ(drain(h, "pc9").status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(h.last.records, IsEmpty());
  h.detach(2);
  EXPECT_TRUE(drain(h, "pc1").status.ok()) << "only one of them is there";
  EXPECT_TRUE(worker(h, 1).draining);
}

// ---- pause, and what a worker says of itself
// -------------------------------------------------------

AnswerDrain pause(Harness& h, const std::string& name, bool wanted = true) {
  h.step(WorkerPaused{15, name, wanted});
  return h.actions<AnswerDrain>().at(0);
}

TEST(Pause, GivesNothingMoreAndLeavesWhatRuns) {
  Harness h;
  h.attach(1, worker_info(1, 2));
  h.submit(1, spec_of(4)).IgnoreError();
  pause(h, "pc1");
  EXPECT_EQ(describe(h.last),
            "WorkerDraining w1 no more, paused\n"
            "> AnswerDrain OK pc1 2\n"
            "> SendUpdate s1 #2 pause\n");
  EXPECT_TRUE(worker(h, 1).paused);
  EXPECT_EQ(worker(h, 1).trouble,
            "paused: its ranks are frozen, and it gets no work until `pesc resume pc1`");
  h.end(1, key(1, 0), EndReason::succeeded);
  EXPECT_THAT(h.held(1), SizeIs(1)) << "no other rank takes its place";
  EXPECT_EQ(h.core->why(job_id(1), h.now).at(0).reason, "no worker takes work: pc1 is paused");
  pause(h, "pc1");
  EXPECT_THAT(h.last.records, IsEmpty()) << "asked again";
  EXPECT_THAT(h.actions<SendUpdate>(), IsEmpty());
  pause(h, "pc1", false);
  EXPECT_THAT(describe(h.last), HasSubstr(" resume\n"));
  EXPECT_THAT(h.held(1), SizeIs(2));
}

TEST(Pause, IsDurableAndSaidAtAttach) {
  Harness h;
  h.attach(1, worker_info(1, 2));
  pause(h, "pc1");
  h.restore();
  EXPECT_TRUE(h.attach(2, worker_info(1, 2)).paused);
  h.submit(1, spec_of(1)).IgnoreError();
  EXPECT_THAT(h.held(1), IsEmpty());
  pause(h, "pc1", false);
  h.restore();
  EXPECT_FALSE(h.attach(3, worker_info(1, 2)).paused);
  EXPECT_THAT(h.held(1), SizeIs(1));
}

TEST(Pause, AndDrainEndTogetherWithResume) {
  Harness h;
  h.attach(1, worker_info(1, 2));
  h.submit(1, spec_of(1)).IgnoreError();
  pause(h, "pc1");
  drain(h, "pc1");
  EXPECT_EQ(describe(h.last.records.at(0)), "WorkerDraining w1, paused");
  EXPECT_THAT(h.stops(1), SizeIs(1));
  drain(h, "pc1", false);
  EXPECT_TRUE(worker(h, 1).paused) << "that was the drain alone";
  drain(h, "pc1");
  pause(h, "pc1", false);
  EXPECT_FALSE(worker(h, 1).paused);
  EXPECT_FALSE(worker(h, 1).draining);
}

WorkerReported busy_report(const Harness& h, uint64_t session, const std::string& busy) {
  WorkerReported report{.request = 16, .session = session, .holding = h.held(session)};
  report.last_update = UINT64_MAX;
  report.busy = busy;
  return report;
}

TEST(Busy, AWorkerGetsNothingUntilItSaysOtherwise) {
  Harness h;
  h.attach(1, worker_info(1, 2));
  h.step(busy_report(h, 1, "its owner is here"));
  h.submit(1, spec_of(2)).IgnoreError();
  EXPECT_THAT(h.held(1), IsEmpty());
  EXPECT_EQ(worker(h, 1).trouble, "busy: its owner is here");
  EXPECT_EQ(h.core->why(job_id(1), h.now).at(0).reason,
            "no worker takes work: pc1 is busy: its owner is here");
  h.attach(2, worker_info(2, 1));
  EXPECT_THAT(h.held(2), SizeIs(1)) << "others take what they can";
  h.step(busy_report(h, 1, ""));
  EXPECT_THAT(h.held(1), SizeIs(1));
  EXPECT_EQ(worker(h, 1).trouble, "");
}

TEST(Busy, IsAReasonOfWhatRunsThere) {
  Harness h;
  h.attach(1, worker_info(1, 2));
  h.submit(1, spec_of(2)).IgnoreError();
  EXPECT_THAT(h.core->why(job_id(1), h.now), IsEmpty());
  h.step(busy_report(h, 1, "its owner is here, its ranks are frozen"));
  std::vector<WhyLine> lines = h.core->why(job_id(1), h.now);
  ASSERT_THAT(lines, SizeIs(1));
  EXPECT_EQ(lines[0].ranks, "0-1");
  EXPECT_EQ(lines[0].state, RankState::running);
  EXPECT_EQ(lines[0].reason,
            "on worker pc1, which is busy: its owner is here, its ranks are frozen");
  pause(h, "pc1");
  lines = h.core->why(job_id(1), h.now);
  ASSERT_THAT(lines, SizeIs(1));
  EXPECT_EQ(lines[0].reason,
            "on worker pc1, which is paused: its ranks are frozen until `pesc resume pc1`");
}

TEST(Busy, IsSaidAtAttachAndForgottenWithTheSession) {
  Harness h;
  WorkerInfo info = worker_info(1, 2);
  info.busy = "outside its hours";
  h.attach(1, info);
  h.submit(1, spec_of(1)).IgnoreError();
  EXPECT_THAT(h.held(1), IsEmpty());
  h.detach(1);
  h.attach(2, worker_info(1, 2));
  EXPECT_THAT(h.held(1), SizeIs(1));
}

TEST(Busy, WhatItGaveBackGoesElsewhere) {
  Harness h;
  h.attach(1, worker_info(1, 1));
  h.submit(1, spec_of(1)).IgnoreError();
  h.attach(2, worker_info(2, 1));
  WorkerReported report = busy_report(h, 1, "its owner is here");
  report.finished = {{key(1, 0), outcome_of(EndReason::vacated, 0)}};
  h.step(report);
  h.settle();
  h.at(h.now + 2'000);
  EXPECT_THAT(h.held(1), IsEmpty());
  EXPECT_THAT(h.held(2), SizeIs(1));
}

// ---- silence ------------------------------------------------------------------------------------

TEST(Silence, OfAWorkerIsAReasonOfItsRanks) {
  Harness h;
  h.attach(7, worker_info(7, 2));
  h.submit(1, spec_of(2)).IgnoreError();
  h.detach(7);
  const std::vector<WhyLine> lines = h.core->why(job_id(1), h.now + 34'000);
  ASSERT_THAT(lines, SizeIs(1));
  EXPECT_EQ(lines[0].ranks, "0-1");
  EXPECT_EQ(lines[0].state, RankState::running);
  EXPECT_EQ(lines[0].reason,
            "worker pc7 has not been heard of for 34 s; its ranks are placed again in 26 s");
  h.restore();
  EXPECT_EQ(h.core->why(job_id(1), h.now + 12'000).at(0).reason,
            "worker pc7 has not been heard of since the coordinator started, 12 s ago; its ranks "
            "are placed again in 48 s");
}

TEST(Silence, LongAgoIsForgotten) {
  constexpr TimeMs kDay = 24 * 3600 * 1000;
  Harness h;
  h.attach(1, worker_info(1, 1));
  h.submit(1, spec_of(1)).IgnoreError();
  h.detach(1);
  h.attach(2, worker_info(2, 1));
  h.detach(2);
  h.at(h.now + 8 * kDay);
  EXPECT_THAT(h.core->workers(), SizeIs(1)) << "one has a lease still";
  h.at(*h.core->next_deadline());
  EXPECT_THAT(h.core->workers(), IsEmpty());
  h.restore();
  EXPECT_THAT(h.core->workers(), SizeIs(2)) << "how long they have been away is not known any more";
  h.at(h.now + 8 * kDay);
  EXPECT_THAT(h.core->workers(), IsEmpty());
  h.attach(3, worker_info(2, 1));
  EXPECT_THAT(h.core->workers(), SizeIs(1));
}

}  // namespace
}  // namespace pesc::coordinator
