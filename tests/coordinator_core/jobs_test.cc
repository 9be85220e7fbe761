// Submit, cancel, retry, remove; states of a job.
#include "tests/coordinator_core/harness.h"

namespace pesc::coordinator {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

AttemptKey key(uint64_t job, uint32_t rank, uint32_t attempt = 1) {
  return {job_id(job), rank, attempt};
}
std::string text(const absl::Status& status) { return std::string(status.message()); }

TEST(Submit, IsRecordedBeforeItIsAnswered) {
  Harness h;
  EXPECT_TRUE(h.submit(1, spec_of(3)).ok());
  EXPECT_EQ(describe(h.last),
            "JobAdded j1 ada\n"
            "> Answer OK\n"
            "> JobChanged j1\n");
  EXPECT_EQ(h.view(1).state, JobState::waiting);
  EXPECT_EQ(h.view(1).counts.waiting, 3u);
}

TEST(Submit, SentAgainIsAnsweredWithoutARecord) {
  Harness h;
  EXPECT_TRUE(h.submit(1, spec_of(3)).ok());
  EXPECT_TRUE(h.submit(1, spec_of(3)).ok());
  EXPECT_THAT(h.last.records, IsEmpty());
}

TEST(Submit, TheSameIdForAnotherJobIsRefused) {
  Harness h;
  EXPECT_TRUE(h.submit(1, spec_of(3)).ok());
  EXPECT_EQ(h.submit(1, spec_of(4)).code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(h.submit(1, spec_of(3), "bob").code(), absl::StatusCode::kAlreadyExists);
  EXPECT_THAT(h.core->jobs(), SizeIs(1));
}

TEST(Submit, ABadDescriptionIsRefusedAndNothingStored) {
  Harness h;
  EXPECT_EQ(h.submit(1, spec_of(0)).code(), absl::StatusCode::kInvalidArgument);
  h.step(JobSubmitted{1, job_id(2), "ada", nullptr, 0});
  EXPECT_EQ(h.actions<Answer>().at(0).status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(h.log, IsEmpty());
}

TEST(Job, UnknownIdsAreNamed) {
  Harness h;
  for (const absl::Status& status : {h.cancel(5), h.retry(5), h.remove(5)}) {
    EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
    EXPECT_THAT(text(status), HasSubstr(to_string(job_id(5))));
  }
}

TEST(Job, SucceedsWhenAllRanksDo) {
  Harness h;
  h.attach(1, worker_info(1, 2));
  EXPECT_TRUE(h.submit(1, spec_of(2)).ok());
  EXPECT_EQ(h.view(1).state, JobState::running);
  h.end(1, key(1, 1), EndReason::succeeded);
  EXPECT_EQ(h.view(1).state, JobState::running);
  h.end(1, key(1, 0), EndReason::succeeded);
  EXPECT_EQ(h.view(1).state, JobState::succeeded);
  EXPECT_EQ(h.view(1).finished_unix_ms, h.unix_ms + 1);
  EXPECT_THAT(h.core->committed_ranks(job_id(1), 0, 10), testing::ElementsAre(1, 0));
  EXPECT_THAT(h.core->committed_ranks(job_id(1), 1, 10), testing::ElementsAre(0));
  EXPECT_THAT(h.core->committed_ranks(job_id(1), 2, 10), IsEmpty());
}

TEST(Cancel, WaitingRanksAtOnceRunningOnesWhenTheyReport) {
  Harness h;
  h.attach(1, worker_info(1, 2));
  h.submit(1, spec_of(10)).IgnoreError();
  EXPECT_TRUE(h.cancel(1).ok());
  EXPECT_EQ(describe(h.last),
            "JobStopped j1 by user\n"
            "RanksCancelled j1 2-9\n"
            "> Answer OK\n"
            "> SendUpdate s1 #2 stop j1/0#1 cancelled stop j1/1#1 cancelled\n"
            "> JobChanged j1\n");
  EXPECT_EQ(h.view(1).counts.cancelled, 8u);
  EXPECT_EQ(h.view(1).state, JobState::running);
  h.end(1, key(1, 0), EndReason::cancelled);
  // It succeeded before the stop came: revoked is revoked.
  const AnswerReport answer = h.end(1, key(1, 1), EndReason::succeeded);
  EXPECT_THAT(answer.acknowledged, testing::ElementsAre(key(1, 1)));
  EXPECT_EQ(h.core->rank_state(job_id(1), 1), RankState::cancelled);
  EXPECT_EQ(h.view(1).state, JobState::cancelled);
  EXPECT_EQ(h.view(1).committed, 10u);
}

TEST(Cancel, IsFinalWhenTheLeaseExpires) {
  Harness h;
  h.attach(1, worker_info(1, 2));
  h.submit(1, spec_of(1)).IgnoreError();
  h.cancel(1).IgnoreError();
  h.at(*h.core->next_deadline());
  EXPECT_EQ(h.view(1).state, JobState::cancelled);
}

TEST(Cancel, AgainChangesNothing) {
  Harness h;
  h.submit(1, spec_of(1)).IgnoreError();
  h.cancel(1).IgnoreError();
  EXPECT_TRUE(h.cancel(1).ok());
  EXPECT_THAT(h.last.records, IsEmpty());
}

TEST(Cancel, OfTenMillionRanksIsOneRange) {
  Harness h;
  h.submit(1, spec_of(10'000'000)).IgnoreError();
  h.cancel(1).IgnoreError();
  EXPECT_THAT(h.records<RanksCancelled>(), SizeIs(1));
  EXPECT_EQ(h.view(1).state, JobState::cancelled);
}

TEST(Retry, RunsFailedAndCancelledRanksAgain) {
  Harness h;
  h.attach(1, worker_info(1, 2));
  h.submit(1, spec_of(5)).IgnoreError();
  h.end(1, key(1, 0), EndReason::succeeded);
  h.end(1, key(1, 1), EndReason::exit_code);
  h.cancel(1).IgnoreError();
  EXPECT_EQ(h.retry(1).code(), absl::StatusCode::kFailedPrecondition);
  for (const AttemptKey& held : h.held(1)) h.end(1, held, EndReason::cancelled);
  EXPECT_EQ(h.view(1).state, JobState::cancelled);
  uint32_t count = 0;
  EXPECT_TRUE(h.retry(1, &count).ok());
  EXPECT_EQ(count, 4u);
  EXPECT_EQ(h.view(1).state, JobState::running);
  EXPECT_EQ(h.view(1).committed, 1u);
  EXPECT_EQ(h.view(1).detail, "");
  while (h.view(1).counts.running > 0) {
    const AttemptKey next = h.held(1).at(0);
    EXPECT_GT(next.attempt, next.rank == 4 ? 0u : 1u) << "numbers are never used again";
    h.end(1, next, EndReason::succeeded);
  }
  EXPECT_EQ(h.view(1).state, JobState::succeeded);
  EXPECT_TRUE(h.retry(1, &count).ok());
  EXPECT_EQ(count, 0u);
}

TEST(Retry, GivesAllTriesAgain) {
  Harness h;
  h.attach(1, worker_info(1, 1));
  JobSpec spec = spec_of(1);
  spec.retries = 1;
  h.submit(1, spec).IgnoreError();
  for (int round = 0; round < 2; ++round) {
    h.end(1, h.held(1).at(0), EndReason::exit_code);
    EXPECT_EQ(h.view(1).state, JobState::running);
    h.at(*h.core->next_deadline());
    h.end(1, h.held(1).at(0), EndReason::exit_code);
    EXPECT_EQ(h.view(1).state, JobState::failed);
    h.retry(1).IgnoreError();
  }
  EXPECT_EQ(h.core->attempts(job_id(1), 0), 5u);
}

TEST(Remove, FinishedJobsOnly) {
  Harness h;
  h.attach(1, worker_info(1, 1));
  h.submit(1, spec_of(1)).IgnoreError();
  EXPECT_EQ(h.remove(1).code(), absl::StatusCode::kFailedPrecondition);
  h.end(1, key(1, 0), EndReason::succeeded);
  EXPECT_TRUE(h.remove(1).ok());
  EXPECT_THAT(h.records<JobErased>(), SizeIs(1));
  EXPECT_FALSE(h.core->job(job_id(1)).has_value());
  // A late report of a removed job is acknowledged, or its worker would keep it for ever.
  EXPECT_THAT(h.end(1, key(1, 0), EndReason::succeeded).acknowledged, SizeIs(1));
  EXPECT_THAT(h.report(1, {key(1, 0)}).stop, SizeIs(1));
}

TEST(RefusedArguments, StopsTheJobAndSaysWhichFlagHelps) {
  Harness h;
  h.attach(1, worker_info(1, 4));
  JobSpec spec = spec_of(100);
  spec.retries = 2;
  h.submit(1, spec).IgnoreError();
  AttemptOutcome outcome = outcome_of(EndReason::exit_code, 10);
  outcome.refused_arguments = true;
  outcome.detail = "usage: sim\nsim: unknown option --app_dir\n";
  for (uint32_t rank = 0; rank < 3; ++rank) h.end(1, key(1, rank), outcome);
  EXPECT_THAT(h.view(1).detail, HasSubstr("it said: sim: unknown option --app_dir"));
  EXPECT_THAT(h.view(1).detail, HasSubstr("--inject env"));
  for (const AttemptKey& held : h.held(1)) h.end(1, held, outcome);
  EXPECT_EQ(h.view(1).state, JobState::failed);
  EXPECT_EQ(h.core->attempts(job_id(1), 99), 0u);
}

TEST(RefusedArguments, OneSuccessProvesOtherwise) {
  Harness h;
  h.attach(1, worker_info(1, 4));
  h.submit(1, spec_of(10)).IgnoreError();
  h.end(1, key(1, 3), EndReason::succeeded);
  AttemptOutcome outcome = outcome_of(EndReason::exit_code, 10);
  outcome.refused_arguments = true;
  for (uint32_t rank : {0u, 1u, 2u}) h.end(1, key(1, rank), outcome);
  EXPECT_EQ(h.view(1).detail, "");
  EXPECT_EQ(h.view(1).state, JobState::running);
}

}  // namespace
}  // namespace pesc::coordinator
