// Restoring: what was recorded is all that is needed.
#include "tests/coordinator_core/harness.h"

namespace pesc::coordinator {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

AttemptKey key(uint64_t job, uint32_t rank, uint32_t attempt = 1) {
  return {job_id(job), rank, attempt};
}

TEST(Restore, OpenLeasesHaveOneFullLeaseToComeBack) {
  Harness h;
  h.attach(1, worker_info(1, 1));
  h.submit(1, spec_of(1)).IgnoreError();
  h.now += 50'000;
  h.restore();
  h.attach(9, worker_info(2, 4));
  EXPECT_THAT(h.held(2), IsEmpty()) << "no running rank is started again";
  h.at(h.now + 59'999, WorkerReported{1, 9, {}, 0, {}, {}, {}, 0});
  EXPECT_THAT(h.held(1), ElementsAre(key(1, 0)));
  EXPECT_THAT(h.attach(10, worker_info(1, 1), {key(1, 0)}).stop, IsEmpty());
  h.end(10, key(1, 0), EndReason::succeeded);
  EXPECT_EQ(h.view(1).state, JobState::succeeded);
  EXPECT_EQ(h.core->attempts(job_id(1), 0), 1u);
}

TEST(Restore, AnAttemptTakenBackIsRecordedAndHasItsLeaseToo) {
  Harness h;
  h.attach(1, worker_info(1, 1));
  h.submit(1, spec_of(1)).IgnoreError();
  h.detach(1);
  h.at(*h.core->next_deadline());
  h.attach(2, worker_info(1, 1), {key(1, 0)});
  EXPECT_EQ(describe(h.last.records.at(0)), "AttemptLeased j1/0#1 w1");
  h.restore();
  EXPECT_EQ(h.view(1).counts.running, 1u);
  h.attach(3, worker_info(2, 1));
  EXPECT_THAT(h.held(2), IsEmpty());
}

TEST(Restore, ALostAttemptMayStillSucceed) {
  Harness h;
  h.attach(1, worker_info(1, 1));
  h.submit(1, spec_of(1)).IgnoreError();
  h.detach(1);
  h.at(*h.core->next_deadline());
  h.restore();
  h.attach(2, worker_info(1, 1), {key(1, 0)});
  h.end(2, key(1, 0), EndReason::succeeded);
  EXPECT_EQ(h.view(1).state, JobState::succeeded);
}

TEST(Restore, NumbersAreNeverUsedAgain) {
  Harness h;
  JobSpec spec = spec_of(1);
  spec.retries = 1000;
  h.submit(1, spec).IgnoreError();
  for (uint32_t attempt = 1; attempt <= 40; ++attempt) {
    h.attach(attempt, worker_info(1, 1));
    h.settle();
    if (h.held(1).empty()) h.at(*h.core->next_deadline());
    h.report(attempt, h.held(1));
    while (h.held(1).empty()) {
      h.at(*h.core->next_deadline());
      h.report(attempt, h.held(1));
    }
    ASSERT_THAT(h.held(1), ElementsAre(key(1, 0, attempt)));
    h.end(attempt, key(1, 0, attempt), EndReason::exit_code);
    h.restore();
  }
}

TEST(Restore, TriesSurviveAndARetryForgetsThem) {
  Harness h;
  h.attach(1, worker_info(1, 1));
  JobSpec spec = spec_of(1);
  spec.retries = 1;
  h.submit(1, spec).IgnoreError();
  h.end(1, key(1, 0, 1), EndReason::exit_code);
  h.restore();
  h.at(*h.core->next_deadline());
  h.attach(2, worker_info(1, 1));
  h.end(2, key(1, 0, 2), EndReason::exit_code);
  EXPECT_EQ(h.view(1).state, JobState::failed);
  h.detach(2);
  h.retry(1).IgnoreError();
  h.restore();
  EXPECT_EQ(h.view(1).state, JobState::waiting);
  h.attach(3, worker_info(1, 1));
  h.end(3, key(1, 0, 3), EndReason::exit_code);
  EXPECT_EQ(h.view(1).state, JobState::running) << "its tries began anew";
}

TEST(Restore, ACancelGoesOn) {
  Harness h;
  h.attach(1, worker_info(1, 1));
  h.submit(1, spec_of(3)).IgnoreError();
  h.cancel(1).IgnoreError();
  h.restore();
  const AnswerAttach answer = h.attach(2, worker_info(1, 1), {key(1, 0)});
  ASSERT_THAT(answer.stop, SizeIs(1));
  EXPECT_EQ(answer.stop[0].reason, EndReason::cancelled);
  h.end(2, key(1, 0), EndReason::succeeded);
  EXPECT_EQ(h.view(1).state, JobState::cancelled);
}

// Records of one step are one transaction, but a history from a backup may end anywhere.
TEST(Restore, AHistoryThatWasCutIsSettled) {
  Harness h;
  h.attach(1, worker_info(1, 1));
  h.submit(1, spec_of(1)).IgnoreError();
  h.end(1, key(1, 0), EndReason::succeeded);
  ASSERT_TRUE(std::holds_alternative<JobFinished>(h.log.back()));
  h.log.pop_back();
  h.core = h.restored_from_log();
  EXPECT_EQ(h.view(1).state, JobState::succeeded);
  EXPECT_EQ(h.core->next_deadline(), h.now);
  h.step(TimerFired{4321});
  EXPECT_THAT(h.records<JobFinished>(), SizeIs(1));

  Harness stopped;
  stopped.submit(1, spec_of(5)).IgnoreError();
  stopped.cancel(1).IgnoreError();
  stopped.log.resize(2);  // JobAdded, JobStopped
  stopped.core = stopped.restored_from_log();
  stopped.step(TimerFired{});
  EXPECT_EQ(stopped.view(1).state, JobState::cancelled);
}

TEST(Restore, RecordsOfUnknownJobsAreIgnored) {
  Core core{CoreConfig{}};
  core.apply(AttemptLeased{key(1, 0), worker_id(1)});
  core.apply(AttemptEnded{key(1, 0), outcome_of(EndReason::succeeded), true, RankState::succeeded});
  core.apply(RanksCancelled{job_id(1), 0, 5});
  core.apply(JobStopped{job_id(1)});
  core.apply(JobFinished{job_id(1)});
  core.apply(RanksReopened{job_id(1), {1, 2}});
  core.apply(JobErased{job_id(1)});
  core.apply(JobAdded{job_id(2), "ada", std::make_shared<JobSpec>(spec_of(2)), 0});
  core.apply(AttemptLeased{{job_id(2), 5, 1}, worker_id(1)});
  core.apply(RanksCancelled{job_id(2), 4, 3});
  core.apply(RanksReopened{job_id(2), {0, 1, 99}});
  core.apply(AttemptEnded{{job_id(2), 0, 3}, {}, true, RankState::succeeded});
  core.finish_restore(5);
  EXPECT_EQ(core.check_invariants(), "");
  EXPECT_EQ(core.job(job_id(2))->counts.waiting, 2u);
}

}  // namespace
}  // namespace pesc::coordinator
