// Each planted bug must show in the core, or the simulator could never catch it.
#include "tests/coordinator_core/harness.h"

#ifdef PESC_PLANTED_BUGS
namespace pesc::coordinator {
namespace {

using ::testing::IsEmpty;
using ::testing::SizeIs;

AttemptKey key(uint64_t job, uint32_t rank, uint32_t attempt = 1) {
  return {job_id(job), rank, attempt};
}

// A core with one worker of one cpu; steps are not checked, since the bug may show there.
struct Planted : testing::Test {
  Core core{CoreConfig{}};
  TimeMs now = 1000;
  Step last;
  void begin(PlantedBug bug, uint32_t ranks) {
    core.plant(bug);
    do_step(WorkerAttached{1, 1, worker_info(1, 1), {}, 0});
    do_step(JobSubmitted{1, job_id(1), "ada", std::make_shared<JobSpec>(spec_of(ranks)), 0});
  }
  void do_step(const Event& event) { last = core.step(event, now); }
  void end(const AttemptKey& key, EndReason reason) {
    do_step(WorkerReported{1, 1, {}, 0, {{key, outcome_of(reason)}}, {}, {}, 0});
  }
  JobView view() { return *core.job(job_id(1)); }
};

TEST_F(Planted, CommitTwice) {
  begin(PlantedBug::commit_twice, 1);
  end(key(1, 0), EndReason::succeeded);
  end(key(1, 0), EndReason::succeeded);
  EXPECT_THAT(last.records, SizeIs(1));
}

TEST_F(Planted, LoseRequeue) {
  begin(PlantedBug::lose_requeue, 1);
  do_step(WorkerReported{1, 1, {}, UINT64_MAX, {}, {}, {}, 0});
  EXPECT_EQ(view().counts.waiting, 1u);
  EXPECT_NE(core.check_invariants(), "");
}

TEST_F(Planted, OvercommitWorker) {
  begin(PlantedBug::overcommit_worker, 5);
  EXPECT_EQ(view().counts.running, 2u);
  EXPECT_NE(core.check_invariants(), "");
}

TEST_F(Planted, AcceptRevoked) {
  begin(PlantedBug::accept_revoked, 1);
  do_step(JobCancelled{1, job_id(1), 0});
  end(key(1, 0), EndReason::succeeded);
  EXPECT_EQ(view().counts.succeeded, 1u);
}

TEST_F(Planted, ForgetCancel) {
  begin(PlantedBug::forget_cancel, 5);
  do_step(JobCancelled{1, job_id(1), 0});
  EXPECT_THAT(last.records, IsEmpty());
}

TEST_F(Planted, AcknowledgeBeforeRecord) {
  begin(PlantedBug::acknowledge_before_record, 1);
  end(key(1, 0), EndReason::succeeded);
  EXPECT_THAT(std::get<AnswerReport>(last.actions.at(0)).acknowledged, SizeIs(1));
  EXPECT_THAT(last.records, IsEmpty());
  do_step(TimerFired{});
  EXPECT_EQ(view().state, JobState::succeeded);
}

TEST_F(Planted, ReuseAttemptNumber) {
  begin(PlantedBug::reuse_attempt_number, 1);
  do_step(WorkerReported{1, 1, {}, UINT64_MAX, {}, {}, {}, 0});
  EXPECT_EQ(view().counts.running, 1u);
  EXPECT_EQ(core.attempts(job_id(1), 0), 1u);
}

}  // namespace
}  // namespace pesc::coordinator
#endif
