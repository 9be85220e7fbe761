// How jobs end early, and what is done near their end: max_failures, time limits, second attempts,
// what a cancelled attempt brings.
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

// ---- max_failures -------------------------------------------------------------------------------

TEST(MaxFailures, StopTheJobAndSayWhy) {
  Harness h;
  h.attach(1, worker_info(1, 2));
  JobSpec spec = spec_of(100);
  spec.max_failures = 2;
  h.submit(1, spec).IgnoreError();
  h.end(1, key(1, 0), EndReason::exit_code);
  EXPECT_EQ(h.view(1).state, JobState::running);
  h.end(1, key(1, 1), EndReason::exit_code);
  EXPECT_EQ(describe(h.last),
            "AttemptEnded j1/1#1 exit_code final failed\n"
            "JobStopped j1 by core\n"
            "RanksCancelled j1 3-99\n"
            "> AnswerReport OK ack j1/1#1 stop j1/2#1 revoked\n"
            "> SendUpdate s1 #3 stop j1/2#1 revoked\n"
            "> JobChanged j1\n");
  EXPECT_THAT(h.view(1).detail, HasSubstr("2 ranks have failed for good, and --max-failures is 2"));
  h.end(1, key(1, 2), EndReason::revoked);
  EXPECT_EQ(h.view(1).state, JobState::failed);
}

TEST(MaxFailures, CountOnlyRanksThatFailedForGood) {
  Harness h;
  h.attach(1, worker_info(1, 1));
  JobSpec spec = spec_of(3);
  spec.max_failures = 1;
  spec.retries = 1;
  h.submit(1, spec).IgnoreError();
  h.end(1, key(1, 0), EndReason::exit_code);
  EXPECT_THAT(h.records<JobStopped>(), IsEmpty());
  h.restore();
  h.attach(2, worker_info(1, 1), {key(1, 1)});
  h.now += 1000;
  h.end(2, key(1, 1), EndReason::succeeded);
  ASSERT_THAT(h.held(1), ElementsAre(key(1, 0, 2)));
  h.end(2, key(1, 0, 2), EndReason::exit_code);
  EXPECT_THAT(h.records<JobStopped>(), SizeIs(1));
  EXPECT_EQ(h.view(1).state, JobState::failed);
}

TEST(AllFailEarly, StopsAfterTwentyWithoutASuccess) {
  Harness h;
  h.attach(1, worker_info(1, 2));
  h.submit(1, spec_of(1000)).IgnoreError();
  for (int i = 0; i < 19; ++i) h.end(1, h.held(1).at(0), EndReason::exit_code, 100);
  EXPECT_EQ(h.view(1).state, JobState::running);
  h.restore();
  h.attach(2, worker_info(1, 2), h.held(1));
  h.end(2, h.held(1).at(0), EndReason::exit_code, 100);
  EXPECT_THAT(h.records<JobStopped>(), SizeIs(1));
  EXPECT_THAT(h.view(1).detail,
              HasSubstr("20 attempts have failed within a second of their start and none has "
                        "succeeded; the last: exit code 1: it went wrong"));
  EXPECT_THAT(h.view(1).detail, HasSubstr("--max-failures"));
}

TEST(AllFailEarly, ASuccessOrLaterFailuresOrTheUserDisarmIt) {
  for (int how = 0; how < 3; ++how) {
    Harness h;
    h.attach(1, worker_info(1, 2));
    JobSpec spec = spec_of(1000);
    if (how == 2) spec.max_failures = kNoMaxFailures;
    h.submit(1, spec).IgnoreError();
    if (how == 0) h.end(1, h.held(1).at(0), EndReason::succeeded);
    for (int i = 0; i < 50; ++i) {
      h.end(1, h.held(1).at(0), EndReason::exit_code, how == 1 && i == 7 ? 1001 : 100);
    }
    EXPECT_EQ(h.view(1).state, JobState::running) << how;
  }
}

// A small job has its retries: they are bounded.
TEST(AllFailEarly, LeavesASmallJobItsRetries) {
  Harness h;
  h.attach(1, worker_info(1, 1));
  JobSpec spec = spec_of(1);
  spec.retries = 3;
  h.submit(1, spec).IgnoreError();
  for (uint32_t attempt = 1; attempt <= 4; ++attempt) {
    if (h.held(1).empty()) h.at(*h.core->next_deadline());
    h.end(1, key(1, 0, attempt), EndReason::exit_code, 1);
  }
  EXPECT_EQ(h.view(1).state, JobState::failed);
  EXPECT_EQ(h.view(1).detail, "");
}

// ---- the job's time limit -----------------------------------------------------------------------

JobSpec limited(uint32_t repetitions, uint64_t limit_ms) {
  JobSpec spec = spec_of(repetitions);
  spec.job_time_limit_ms = limit_ms;
  return spec;
}

TEST(JobTimeLimit, StopsTheJob) {
  Harness h;
  h.attach(1, worker_info(1, 2));
  h.submit(1, limited(5, 30'000)).IgnoreError();
  h.end(1, key(1, 0), EndReason::succeeded);
  EXPECT_EQ(h.core->next_deadline(), h.now + 30'000);
  h.at(h.now + 30'000);
  EXPECT_EQ(describe(h.last),
            "JobStopped j1 by core\n"
            "RanksCancelled j1 3-4\n"
            "> SendUpdate s1 #3 stop j1/1#1 time_limit stop j1/2#1 time_limit\n"
            "> JobChanged j1\n");
  EXPECT_THAT(h.view(1).detail, HasSubstr("time limit of 30.0s was over with 1 of 5 ranks done"));
  h.restore();
  const AnswerAttach answer = h.attach(2, worker_info(1, 2), {key(1, 1), key(1, 2)});
  ASSERT_THAT(answer.stop, SizeIs(2));
  EXPECT_EQ(answer.stop[0].reason, EndReason::time_limit);
  h.end(2, key(1, 1), EndReason::time_limit);
  h.end(2, key(1, 2), EndReason::time_limit);
  EXPECT_EQ(h.view(1).state, JobState::failed);
  EXPECT_EQ(h.view(1).counts.failed, 2u);
  EXPECT_EQ(h.view(1).counts.cancelled, 2u);
}

TEST(JobTimeLimit, CountsFromTheSubmissionAcrossRestarts) {
  Harness h;
  h.attach(1, worker_info(1, 2));
  h.submit(1, limited(5, 600'000)).IgnoreError();
  h.now = 77;  // another boot
  h.unix_ms += 400'001;
  h.restore();
  EXPECT_EQ(h.core->next_deadline(), h.now) << "the wall time is asked for";
  h.at(h.now, TimerFired{h.unix_ms});
  h.now += 50'000;
  h.attach(2, worker_info(1, 2), {key(1, 0), key(1, 1)});
  h.now += 50'000;
  h.report(2, h.held(1));
  h.now += 50'000;
  h.report(2, h.held(1));
  h.at(77 + 199'999);
  EXPECT_THAT(h.last.records, IsEmpty());
  h.at(77 + 200'000);
  EXPECT_THAT(h.records<JobStopped>(), SizeIs(1));
}

TEST(JobTimeLimit, IsNothingToAJobThatHasEnded) {
  Harness h;
  h.attach(1, worker_info(1, 1));
  h.submit(1, limited(1, 30'000)).IgnoreError();
  h.end(1, key(1, 0), EndReason::exit_code);
  ASSERT_EQ(h.view(1).state, JobState::failed);
  h.now += 1'000'000;
  h.restore();
  h.step(TimerFired{h.unix_ms + 1'000'000});
  EXPECT_THAT(h.last.records, IsEmpty());
  h.attach(2, worker_info(1, 1));
  h.retry(1).IgnoreError();
  EXPECT_THAT(h.held(1), SizeIs(1)) << "a retry has as much time again";
  h.at(h.now + 30'000);
  EXPECT_THAT(h.records<JobStopped>(), SizeIs(1));
}

// A job that failed, and is retried a while after that.
struct Retried : testing::Test {
  Harness h;
  void SetUp() override {
    h.attach(1, worker_info(1, 1));
    h.submit(1, limited(1, 600'000)).IgnoreError();
    h.end(1, key(1, 0), EndReason::exit_code);
    h.now += 5'000'000;
    h.unix_ms += 5'000'000;
    h.retry(1).IgnoreError();
    ASSERT_THAT(h.held(1), SizeIs(1));
  }
  // The coordinator starts anew, after another boot.
  void restart(int64_t later_ms) {
    h.now = 77;
    h.unix_ms += later_ms;
    h.restore();
    h.at(h.now, TimerFired{h.unix_ms});
  }
  bool stops_after(TimeMs ms) {
    const TimeMs end = h.now + ms;
    while (h.now + 50'000 < end) {
      h.now += 50'000;
      h.attach(2, worker_info(1, 1), h.held(1));
    }
    h.at(end - 1);
    if (!h.records<JobStopped>().empty()) return false;
    h.at(end);
    return h.records<JobStopped>().size() == 1;
  }
};

TEST_F(Retried, CountsFromTheRetryAcrossRestarts) {
  restart(150'000);
  restart(250'000);
  EXPECT_TRUE(stops_after(200'000));
}

TEST_F(Retried, EndsAtOnceWhenItsTimeWasOverWhileTheCoordinatorWasAway) {
  restart(600'001);
  EXPECT_THAT(h.records<JobStopped>(), SizeIs(1));
}

TEST_F(Retried, HasItsWholeTimeAfterAClockThatWasSetBack) {
  restart(-100'000);
  EXPECT_TRUE(stops_after(600'000));
}

TEST_F(Retried, HasItsWholeTimeWhereTheJournalDoesNotKnowTheMoment) {
  Core core(h.config);
  for (Record record : h.rows.replay()) {
    if (auto* reopened = std::get_if<RanksReopened>(&record)) reopened->unix_ms = 0;
    core.apply(record);
  }
  core.finish_restore(77);
  core.step(TimerFired{h.unix_ms + 400'000}, 77);
  for (TimeMs at = 50'000; at < 600'000; at += 50'000) {
    const WorkerAttached attached{1, 9, worker_info(1, 1), h.held(1), 0};
    core.step(attached, 77 + at);
  }
  EXPECT_THAT(core.step(TimerFired{}, 77 + 599'999).records, IsEmpty());
  EXPECT_EQ(core.job(job_id(1))->detail, "");
  EXPECT_EQ(core.step(TimerFired{}, 77 + 600'000).records.size(), 1u);
  EXPECT_THAT(core.job(job_id(1))->detail, HasSubstr("time limit"));
}

// ---- second attempts ----------------------------------------------------------------------------

// Four ranks on a worker of three cpus and one of one; rank 3, on the second, is slow.
struct Straggler : testing::Test {
  Harness h;
  void begin(JobSpec spec = spec_of(4)) {
    h.attach(1, worker_info(1, 3));
    h.attach(2, worker_info(2, 1));
    h.submit(1, spec).IgnoreError();
    slow = h.held(2).at(0);
    h.now += 10'000;
    while (!h.held(1).empty()) h.end(1, h.held(1).at(0), EndReason::succeeded, 10'000);
    h.report(2, {slow});
  }
  // Reports every few seconds; returns when a lease was sent, or the time is over.
  bool leased_within(TimeMs ms) {
    for (const TimeMs end = h.now + ms; h.now < end; h.now += 1000) {
      h.report(1, h.held(1));
      if (!h.leased().empty()) return true;
      h.report(2, h.held(2));
      if (!h.leased().empty()) return true;
      h.step(TimerFired{h.unix_ms});
      if (!h.leased().empty()) return true;
    }
    return false;
  }
  AttemptKey slow;
};

TEST_F(Straggler, GetsASecondAttemptElsewhereAndTheFirstWins) {
  begin();
  EXPECT_FALSE(leased_within(10'000)) << "not slow yet";
  ASSERT_TRUE(leased_within(20'000));
  const AttemptLeased second = h.records<AttemptLeased>().at(0);
  EXPECT_TRUE(second.second);
  EXPECT_EQ(second.worker, worker_id(1));
  EXPECT_EQ(second.key, key(1, slow.rank, 2));
  EXPECT_FALSE(leased_within(100'000)) << "one is enough";
  h.end(1, second.key, EndReason::succeeded, 10'000);
  EXPECT_EQ(h.view(1).state, JobState::succeeded);
  EXPECT_EQ(h.view(1).tally.second_attempts, 1u);
  EXPECT_EQ(h.view(1).tally.second_won, 1u);
  EXPECT_EQ(h.stops(2).at(0).key, slow);
  h.restore();
  EXPECT_EQ(h.view(1).tally.second_won, 1u);
}

TEST_F(Straggler, ItsFailureOrThatOfTheFirstUsesUpNothing) {
  begin();
  ASSERT_TRUE(leased_within(40'000));
  h.end(2, slow, EndReason::exit_code, 40'000);
  EXPECT_FALSE(h.records<AttemptEnded>().at(0).final);
  EXPECT_EQ(h.view(1).counts.running, 1u);
  h.restore();
  h.attach(3, worker_info(1, 3), {key(1, slow.rank, 2)});
  h.end(3, key(1, slow.rank, 2), EndReason::exit_code, 40'000);
  EXPECT_EQ(h.view(1).state, JobState::failed) << "the last one open counts";
}

TEST_F(Straggler, ItsOwnWordIsTaken) {
  begin();
  h.now += 30'000;
  h.step(WorkerReported{1, 2, {slow}, UINT64_MAX, {}, {{slow, 0.95, "nearly"}}, {}, h.unix_ms});
  EXPECT_FALSE(leased_within(20'000)) << "it ends sooner than a fresh one would";
  h.step(WorkerReported{1, 2, {slow}, UINT64_MAX, {}, {{slow, 0.3, "not so"}}, {}, h.unix_ms});
  EXPECT_THAT(h.leased(), SizeIs(1));
}

TEST_F(Straggler, OnlyWhenWantedAndNotForGangs) {
  JobSpec spec = spec_of(4);
  spec.second_attempts = false;
  begin(spec);
  EXPECT_FALSE(leased_within(200'000));
}

TEST_F(Straggler, NeverOnItsOwnWorker) {
  begin();
  h.detach(1);
  h.attach(9, worker_info(2, 4), {slow});
  for (int i = 0; i < 100; ++i) {
    h.now += 1000;
    h.report(9, {slow});
    EXPECT_THAT(h.records<AttemptLeased>(), IsEmpty());
  }
}

// ---- counts -------------------------------------------------------------------------------------

TEST(Counts, WhatIsLeasedAheadWaits) {
  Harness h;
  h.attach(1, worker_info(1, 4));
  h.submit(1, spec_of(100)).IgnoreError();
  h.end(1, key(1, 0), EndReason::succeeded, 200);
  EXPECT_THAT(h.held(1), SizeIs(8));
  EXPECT_EQ(h.view(1).counts.running, 4u);
  EXPECT_EQ(h.view(1).counts.waiting, 95u);
  int ahead = 0;
  for (const RunningRank& running : h.core->running(job_id(1))) ahead += running.ahead;
  EXPECT_EQ(ahead, 4);
  uint32_t running = 0;
  for (uint32_t rank = 0; rank < 100; ++rank) {
    running += h.core->rank_state(job_id(1), rank) == RankState::running;
  }
  EXPECT_EQ(running, 4u) << "rank by rank too";
  bool said = false;
  for (const WhyLine& line : h.core->why(job_id(1), h.now)) {
    said = said || (line.reason == "next on worker pc1, when a cpu there is free" &&
                    line.ranks == "5-8" && line.state == RankState::waiting);
  }
  EXPECT_TRUE(said);
  h.restore();
  EXPECT_EQ(h.view(1).counts.running, 8u) << "what its worker runs is not known yet";
  h.attach(2, worker_info(1, 4), h.held(1));
  EXPECT_EQ(h.view(1).counts.running, 4u);
}

// ---- what a cancelled attempt brings ------------------------------------------------------------

TEST(Cancelled, AttemptsKeepTheirOutput) {
  Harness h;
  h.attach(1, worker_info(1, 1));
  h.submit(1, spec_of(1)).IgnoreError();
  h.cancel(1).IgnoreError();
  AttemptOutcome outcome = outcome_of(EndReason::cancelled);
  outcome.output = {sha256("half of it"), 10};
  h.end(1, key(1, 0), outcome);
  const AttemptEnded ended = h.records<AttemptEnded>().at(0);
  EXPECT_EQ(ended.outcome.output, outcome.output);
  EXPECT_EQ(ended.outcome.reason, EndReason::cancelled);
  EXPECT_EQ(ended.state, RankState::cancelled);
}

}  // namespace
}  // namespace pesc::coordinator
