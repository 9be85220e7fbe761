// How attempts end: tries, back-off, losses, late and doubled reports, a peer's mistakes.
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

TEST(Failure, UsesUpTheRetriesThenIsFinal) {
  Harness h;
  h.attach(1, worker_info(1, 1));
  JobSpec spec = spec_of(1);
  spec.retries = 2;
  h.submit(1, spec).IgnoreError();
  const TimeMs start = h.now;
  h.end(1, key(1, 0, 1), EndReason::exit_code);
  EXPECT_EQ(h.core->next_deadline(), start + 1000);
  h.at(start + 1000);
  EXPECT_THAT(h.leased(), ElementsAre(key(1, 0, 2)));
  h.end(1, key(1, 0, 2), EndReason::signal);
  EXPECT_EQ(h.core->next_deadline(), start + 1000 + 2000) << "the back-off doubles";
  h.at(start + 3000);
  h.end(1, key(1, 0, 3), EndReason::cannot_start);
  EXPECT_EQ(h.view(1).state, JobState::failed);
  EXPECT_EQ(h.core->attempts(job_id(1), 0), 3u);
}

TEST(Failure, OfInputsIsFreeButNotForEver) {
  Harness h;
  h.attach(1, worker_info(1, 1));
  h.submit(1, spec_of(1)).IgnoreError();
  for (uint32_t attempt = 1; attempt <= 5; ++attempt) {
    ASSERT_EQ(h.view(1).state, JobState::running);
    if (h.held(1).empty()) h.at(*h.core->next_deadline());
    h.end(1, key(1, 0, attempt),
          attempt % 2 == 0 ? EndReason::disk_full : EndReason::inputs_unavailable);
  }
  EXPECT_EQ(h.view(1).state, JobState::failed);
  EXPECT_EQ(h.records<AttemptEnded>().at(0).outcome.reason, EndReason::inputs_unavailable);
}

TEST(Failure, OfTheWorkerIsAlwaysFree) {
  Harness h;
  h.submit(1, spec_of(1)).IgnoreError();
  for (uint64_t session = 1; session <= 20; ++session) {
    h.attach(session, worker_info(1, 1));
    if (h.held(1).empty()) h.at(*h.core->next_deadline());
    h.report(session, h.held(1));
    while (h.held(1).empty()) {
      h.at(*h.core->next_deadline());
      h.report(session, h.held(1));
    }
    if (session % 2 == 0) h.end(session, h.held(1).at(0), EndReason::vacated);
    h.detach(session);
  }
  EXPECT_EQ(h.view(1).state, JobState::running);
  EXPECT_GE(h.core->attempts(job_id(1), 0), 20u);
}

TEST(Failure, PrefersAnotherWorkerForTheNextTry) {
  Harness h;
  h.attach(1, worker_info(1, 8));
  h.attach(2, worker_info(2, 2));
  JobSpec spec = spec_of(1);
  spec.retries = 9;
  h.submit(1, spec).IgnoreError();
  ASSERT_THAT(h.held(1), SizeIs(1)) << "most free first";
  h.end(1, key(1, 0), EndReason::exit_code);
  h.at(*h.core->next_deadline());
  EXPECT_THAT(h.held(2), SizeIs(1));
  h.end(2, key(1, 0, 2), EndReason::exit_code);
  h.detach(1);
  h.at(*h.core->next_deadline());
  EXPECT_THAT(h.held(2), SizeIs(1)) << "the same one when there is no other";
}

TEST(Lease, DetachingEndsNothingUntilItExpires) {
  Harness h;
  h.attach(1, worker_info(1, 1));
  h.attach(2, worker_info(2, 1));
  h.submit(1, spec_of(1)).IgnoreError();
  h.detach(1);
  EXPECT_THAT(h.last.records, IsEmpty());
  h.now += 30'000;
  h.report(2, {});
  h.at(h.now + 29'999);
  EXPECT_THAT(h.held(1), SizeIs(1));
  h.at(h.now + 1);
  EXPECT_THAT(h.held(1), IsEmpty());
  EXPECT_THAT(h.held(2), ElementsAre(key(1, 0, 2)));
}

TEST(Lease, EveryReportRenewsAllOfAWorkers) {
  Harness h;
  h.attach(1, worker_info(1, 2));
  h.submit(1, spec_of(2)).IgnoreError();
  for (int i = 0; i < 10; ++i) {
    h.now += 40'000;
    h.report(1, h.held(1));
    EXPECT_THAT(h.last.records, IsEmpty());
  }
  EXPECT_EQ(h.core->next_deadline(), h.now + 60'000);
}

TEST(Lease, ASilentWorkerGetsNothingNew) {
  Harness h;
  h.attach(1, worker_info(1, 1));
  h.submit(1, spec_of(1)).IgnoreError();
  h.at(h.now + 60'000);
  EXPECT_EQ(h.view(1).counts.waiting, 1u);
  EXPECT_THAT(h.core->why(job_id(1), h.now).at(0).reason, HasSubstr("not been heard of"));
  h.report(1, {});
  EXPECT_THAT(h.leased(), ElementsAre(key(1, 0, 2)));
}

TEST(Lease, AnAbsentCoordinatorForgivesEveryone) {
  Harness h;
  h.attach(1, worker_info(1, 1));
  h.submit(1, spec_of(1)).IgnoreError();
  h.at(h.now + 8 * 3600 * 1000);
  EXPECT_THAT(h.last.records, IsEmpty());
  EXPECT_EQ(h.core->next_deadline(), h.now + 60'000);
}

// Suspended for less than a lease, but for longer than what was left of one: the reports are in its
// sockets, not yet read.
TEST(Lease, ACoordinatorThatWasAwayForLessThanALeaseForgivesOnce) {
  Harness h;
  h.attach(1, worker_info(1, 1));
  h.submit(1, spec_of(1)).IgnoreError();
  h.at(h.now + 60'000 + 20'000);
  EXPECT_THAT(h.last.records, IsEmpty());
  EXPECT_EQ(h.core->next_deadline(), h.now + 60'000);
  // One that is late every time loses the worker all the same.
  h.at(h.now + 60'000 + 20'000);
  EXPECT_EQ(h.view(1).counts.waiting, 1u);
  // And what is heard of again is forgiven again.
  h.report(1, {});
  ASSERT_THAT(h.held(1), ElementsAre(key(1, 0, 2)));
  h.at(h.now + 60'000 + 20'000);
  EXPECT_THAT(h.last.records, IsEmpty());
}

// Two attempts of one rank: the first worker was out of contact.
struct Split : testing::Test {
  Harness h;
  void SetUp() override {
    h.attach(1, worker_info(1, 1));
    h.submit(1, spec_of(1)).IgnoreError();
    h.detach(1);
    h.at(*h.core->next_deadline());
    h.attach(2, worker_info(2, 1));
    ASSERT_THAT(h.held(2), ElementsAre(key(1, 0, 2)));
  }
};

TEST_F(Split, TheLostAttemptIsTakenBackAndTheFirstWins) {
  EXPECT_THAT(h.attach(3, worker_info(1, 1), {key(1, 0, 1)}).stop, IsEmpty());
  EXPECT_THAT(h.held(1), ElementsAre(key(1, 0, 1)));
  h.end(3, key(1, 0, 1), EndReason::succeeded);
  EXPECT_EQ(describe(h.last),
            "AttemptEnded j1/0#2 revoked\n"
            "AttemptEnded j1/0#1 succeeded final succeeded\n"
            "JobFinished j1 succeeded\n"
            "> AnswerReport OK ack j1/0#1\n"
            "> SendUpdate s2 #2 stop j1/0#2 revoked\n"
            "> JobChanged j1\n");
  // The other one, which may have finished meanwhile, is acknowledged and dropped.
  EXPECT_THAT(h.end(2, key(1, 0, 2), EndReason::succeeded).acknowledged, SizeIs(1));
  EXPECT_THAT(h.last.records, IsEmpty());
}

TEST_F(Split, TheSecondMayWinToo) {
  h.end(2, key(1, 0, 2), EndReason::succeeded);
  const AnswerAttach answer = h.attach(3, worker_info(1, 1), {key(1, 0, 1)});
  ASSERT_THAT(answer.stop, SizeIs(1));
  EXPECT_EQ(answer.stop[0].reason, EndReason::revoked);
  EXPECT_THAT(h.end(3, key(1, 0, 1), EndReason::succeeded).acknowledged, SizeIs(1));
  EXPECT_THAT(h.last.records, IsEmpty());
}

TEST_F(Split, ASuccessReportedWithoutAnAttachOfTheLeaseCounts) {
  h.attach(3, worker_info(1, 1));
  h.end(3, key(1, 0, 1), EndReason::succeeded);
  EXPECT_EQ(h.view(1).state, JobState::succeeded);
}

TEST_F(Split, ALateFailureIsMoot) {
  h.attach(3, worker_info(1, 1));
  EXPECT_THAT(h.end(3, key(1, 0, 1), EndReason::exit_code).acknowledged, SizeIs(1));
  EXPECT_THAT(h.last.records, IsEmpty());
  EXPECT_EQ(h.view(1).counts.running, 1u);
}

TEST_F(Split, CancellingRevokesTheLostOneAsWell) {
  h.cancel(1).IgnoreError();
  EXPECT_THAT(h.attach(3, worker_info(1, 1), {key(1, 0, 1)}).stop, SizeIs(1));
  h.end(3, key(1, 0, 1), EndReason::succeeded);
  h.end(2, key(1, 0, 2), EndReason::cancelled);
  EXPECT_EQ(h.view(1).state, JobState::cancelled);
}

TEST(Report, SentAgainIsAcknowledgedAgainWithoutARecord) {
  Harness h;
  h.attach(1, worker_info(1, 1));
  h.submit(1, spec_of(1)).IgnoreError();
  h.end(1, key(1, 0), EndReason::succeeded);
  const AnswerReport again = h.end(1, key(1, 0), EndReason::succeeded);
  EXPECT_TRUE(again.status.ok());
  EXPECT_THAT(again.acknowledged, ElementsAre(key(1, 0)));
  EXPECT_THAT(h.last.records, IsEmpty());
}

TEST(Report, AFailureSentAgainIsNotCountedTwice) {
  Harness h;
  h.attach(1, worker_info(1, 1));
  JobSpec spec = spec_of(1);
  spec.retries = 1;
  h.submit(1, spec).IgnoreError();
  h.end(1, key(1, 0), EndReason::exit_code);
  h.end(1, key(1, 0), EndReason::exit_code);
  EXPECT_THAT(h.last.records, IsEmpty());
  EXPECT_EQ(h.view(1).state, JobState::running);
}

TEST(Report, APeersMistakesAreRefusedAndChangeNothing) {
  Harness h;
  h.attach(1, worker_info(1, 1));
  h.attach(2, worker_info(2, 1));
  h.submit(1, spec_of(2)).IgnoreError();
  const AttemptKey of_one = h.held(1).at(0);
  AttemptOutcome unknown;
  unknown.reason = static_cast<EndReason>(200);
  const std::vector<std::pair<uint64_t, FinishedAttempt>> bad = {
      {1, {{job_id(1), 9, 1}, outcome_of(EndReason::succeeded)}},
      {1, {{job_id(1), of_one.rank, 0}, outcome_of(EndReason::succeeded)}},
      {1, {{job_id(1), of_one.rank, 2}, outcome_of(EndReason::succeeded)}},
      {2, {of_one, outcome_of(EndReason::succeeded)}},
      {1, {of_one, unknown}},
  };
  for (const auto& [session, report] : bad) {
    // The good report beside a bad one is not taken either: the peer is not to be trusted.
    const AnswerReport answer = h.report(session, h.held(session), {report});
    EXPECT_EQ(answer.status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(answer.acknowledged, IsEmpty());
    EXPECT_THAT(h.last.records, IsEmpty());
  }
  EXPECT_THAT(h.report(1, {of_one, {job_id(1), 77, 1}, {job_id(1), 0, 9}}).stop, SizeIs(2));
}

TEST(Report, WhatAPeerSaysIsBounded) {
  Harness h;
  h.attach(1, worker_info(1, 1));
  h.submit(1, spec_of(1)).IgnoreError();
  AttemptOutcome outcome = outcome_of(EndReason::exit_code);
  outcome.detail = std::string(4095, 'x') + "äöü" + std::string(100'000, 'y');
  outcome.uncollected.assign(100, std::string(100'000, 'z'));
  h.end(1, key(1, 0), outcome);
  const AttemptOutcome stored = h.records<AttemptEnded>().at(0).outcome;
  EXPECT_EQ(stored.detail, std::string(4095, 'x')) << "never cut within a character";
  EXPECT_THAT(stored.uncollected, SizeIs(20));
  EXPECT_EQ(stored.uncollected[0].size(), 4096u);
}

// A worker that shuts down stays attached until its ranks have ended. What it gives back must not
// be placed there again and again.
TEST(Placement, NothingGoesToAWorkerThatGivesRanksBack) {
  Harness h;
  ASSERT_TRUE(h.submit(1, spec_of(4)).ok());
  h.attach(1, worker_info(1, 2));
  const AttemptKey given_back = h.held(1).at(0), running = h.held(1).at(1);
  h.end(1, given_back, EndReason::vacated);
  EXPECT_TRUE(h.records<AttemptLeased>().empty());
  h.end(1, running, EndReason::succeeded);  // no heartbeat: it may be on its way out still
  EXPECT_TRUE(h.records<AttemptLeased>().empty());
  EXPECT_THAT(h.core->why(job_id(1), h.now).at(0).reason, ::testing::HasSubstr("shut down"));
  h.attach(2, worker_info(2, 1));
  EXPECT_EQ(h.held(2).size(), 1u);
  // A heartbeat of the first one: it lives on, and has room.
  h.report(1, {});
  EXPECT_EQ(h.held(1).size(), 2u);
  // Reports are heartbeats: one that gives nothing back will do, after a while.
  ASSERT_TRUE(h.submit(2, spec_of(4)).ok());
  h.end(1, h.held(1).at(0), EndReason::vacated);
  h.now += TimeMs(h.config.heartbeat_ms);
  h.end(1, h.held(1).at(0), EndReason::succeeded);
  EXPECT_EQ(h.held(1).size(), 2u);
}

}  // namespace
}  // namespace pesc::coordinator
