// Jobs whose program the workers build: where that fails, and what becomes of the job.
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

JobSpec built_spec(uint32_t repetitions) {
  JobSpec spec = spec_of(repetitions);
  spec.build = "make";
  return spec;
}

// It never ran.
AttemptOutcome failed_build() {
  AttemptOutcome outcome;
  outcome.reason = EndReason::build_failed;
  outcome.exit_code = 2;
  outcome.detail = "exit code 2: sim.c:3: error";
  outcome.output = {sha256("log"), 300};
  return outcome;
}

AttemptOutcome ran(EndReason reason) {
  AttemptOutcome outcome = outcome_of(reason);
  outcome.started_unix_ms = 1;
  return outcome;
}

struct Builds : testing::Test {
  Harness h;
};

TEST_F(Builds, OneThatFailsOnAWorkerIsTriedOnAnother) {
  h.attach(1, worker_info(1, 2));
  h.attach(2, worker_info(2, 1));
  h.submit(1, built_spec(10)).IgnoreError();
  ASSERT_THAT(h.held(1), SizeIs(2));
  ASSERT_THAT(h.held(2), SizeIs(1));
  h.end(1, h.held(1).at(0), failed_build());
  EXPECT_EQ(h.records<AttemptEnded>().at(0).outcome.reason, EndReason::build_failed);
  EXPECT_FALSE(h.records<AttemptEnded>().at(0).final);
  h.end(1, h.held(1).at(0), failed_build());
  EXPECT_THAT(h.held(1), IsEmpty()) << "nothing of the job goes there any more";
  EXPECT_THAT(h.core->why(job_id(1), h.now).at(0).reason, HasSubstr("the build failed on pc1"));
  for (int i = 0; i < 10; ++i) {
    ASSERT_THAT(h.held(2), SizeIs(1)) << i;
    h.end(2, h.held(2).at(0), ran(EndReason::succeeded));
    h.now += 60'000;
    h.report(1, h.held(1));
    h.report(2, h.held(2));
  }
  EXPECT_EQ(h.view(1).state, JobState::succeeded);
  EXPECT_EQ(h.view(1).tally.ended[size_t(EndReason::build_failed)], 2u);
}

TEST_F(Builds, OneThatFailsEverywhereEndsTheJob) {
  h.attach(1, worker_info(1, 1));
  h.attach(2, worker_info(2, 1));
  JobSpec spec = built_spec(1000);
  spec.retries = 5;
  h.submit(1, spec).IgnoreError();
  h.end(1, h.held(1).at(0), failed_build());
  EXPECT_EQ(h.view(1).state, JobState::running) << "pc2 may be building it";
  const AttemptKey last = h.held(2).at(0);
  h.end(2, last, failed_build());
  const JobView view = h.view(1);
  EXPECT_EQ(view.state, JobState::failed);
  EXPECT_THAT(view.detail, HasSubstr("the build failed on every worker that was tried (pc1, pc2)"));
  EXPECT_THAT(view.detail, HasSubstr("exit code 2: sim.c:3: error"));
  EXPECT_THAT(view.detail, HasSubstr("pesc logs " + to_string(job_id(1)) + " --build"));
  EXPECT_EQ(view.counts.failed, 1u) << "the one that it was seen by";
  EXPECT_EQ(view.counts.cancelled, 999u);
  EXPECT_EQ(h.core->rank_state(job_id(1), last.rank), RankState::failed);
}

TEST_F(Builds, ARetryTriesAllWorkersAgain) {
  h.attach(1, worker_info(1, 1));
  h.submit(1, built_spec(3)).IgnoreError();
  h.end(1, h.held(1).at(0), failed_build());
  ASSERT_EQ(h.view(1).state, JobState::failed);
  ASSERT_TRUE(h.retry(1).ok());
  EXPECT_THAT(h.held(1), SizeIs(1));
}

TEST_F(Builds, ARestartForgetsNothing) {
  h.attach(1, worker_info(1, 1));
  h.attach(2, worker_info(2, 1));
  h.submit(1, built_spec(10)).IgnoreError();
  h.end(1, h.held(1).at(0), failed_build());
  const std::vector<AttemptKey> held = h.held(2);
  h.restore();
  h.attach(3, worker_info(1, 1));
  h.attach(4, worker_info(2, 1), held);
  EXPECT_THAT(h.held(1), IsEmpty());
}

// Where it was built it can run: such a job waits for that worker.
TEST_F(Builds, WhatWasBuiltSomewhereWaitsForThatWorker) {
  h.attach(1, worker_info(1, 1));
  h.attach(2, worker_info(2, 1));
  h.submit(1, built_spec(10)).IgnoreError();
  h.end(1, h.held(1).at(0), ran(EndReason::succeeded));
  h.detach(1);
  h.end(2, h.held(2).at(0), failed_build());
  EXPECT_EQ(h.view(1).state, JobState::running);
  h.at(h.now + 70'000);
  h.report(2, {});
  EXPECT_EQ(h.core->why(job_id(1), h.now).at(0).reason,
            "no worker that takes work can build the program: the build failed on pc2");
}

TEST_F(Builds, WhatCanNoLongerBeBuiltEnds) {
  h.attach(1, worker_info(1, 1));
  h.attach(2, worker_info(2, 1, 8ull << 30, "elsewhere"));
  JobSpec spec = built_spec(10);
  spec.room = "here";
  h.submit(1, spec).IgnoreError();
  h.attach(3, worker_info(3, 1, 8ull << 30, "here"));
  h.end(3, h.held(3).at(0), ran(EndReason::succeeded));
  h.end(3, h.held(3).at(0), failed_build());
  EXPECT_EQ(h.view(1).state, JobState::failed);
  EXPECT_THAT(h.view(1).detail, HasSubstr("the build failed on pc3: exit code 2"));
}

TEST_F(Builds, AWorkerThatTellsOfABuildThatNobodyAskedForIsNotBelieved) {
  h.attach(1, worker_info(1, 1));
  h.submit(1, spec_of(1)).IgnoreError();
  h.end(1, h.held(1).at(0), failed_build());
  EXPECT_EQ(h.records<AttemptEnded>().at(0).outcome.reason, EndReason::inputs_unavailable);
  EXPECT_EQ(h.view(1).state, JobState::running);
}

TEST_F(Builds, AfterManyWorkersNoMoreAreTried) {
  for (uint64_t n = 1; n <= 20; ++n) h.attach(n, worker_info(n, 1));
  h.submit(1, built_spec(1)).IgnoreError();
  int tried = 0;
  while (h.view(1).state == JobState::running) {
    for (uint64_t n = 1; n <= 20; ++n) {
      if (!h.held(n).empty()) {
        ++tried;
        h.end(n, h.held(n).at(0), failed_build());
        break;
      }
    }
    h.at(h.now + 60'000);
    for (uint64_t n = 1; n <= 20; ++n) h.report(n, h.held(n));
    ASSERT_LT(tried, 20);
  }
  EXPECT_EQ(tried, 8);
  EXPECT_EQ(h.view(1).state, JobState::failed);
}

TEST_F(Builds, AGangGoesElsewhereOrEnds) {
  h.attach(1, worker_info(1, 2));
  h.attach(2, worker_info(2, 2));
  JobSpec spec = built_spec(2);
  spec.parallel = true;
  h.submit(1, spec).IgnoreError();
  const uint64_t first = h.held(1).empty() ? 2 : 1, other = 3 - first;
  ASSERT_THAT(h.held(first), SizeIs(2));
  h.end(first, key(1, 0), failed_build());
  h.at(h.now + 5'000);
  h.report(first, {});
  ASSERT_THAT(h.held(other), SizeIs(2)) << h.view(1).detail;
  h.end(other, key(1, 1, 2), failed_build());
  h.end(other, key(1, 0, 2), EndReason::revoked);
  EXPECT_EQ(h.view(1).state, JobState::failed);
  EXPECT_THAT(h.view(1).detail, HasSubstr("(pc1, pc2)"));
}

// The same name and arguments: what other sources made it use says nothing.
TEST_F(Builds, OtherSourcesAreAnotherProgram) {
  h.attach(1, worker_info(1, 1));
  JobSpec spec = built_spec(1);
  spec.files = {{"sim.c", FileKind::file, {sha256("a"), 1}, 0644}};
  h.submit(1, spec).IgnoreError();
  AttemptOutcome large = ran(EndReason::succeeded);
  large.max_rss_bytes = 7ull << 30;
  h.end(1, h.held(1).at(0), large);
  h.submit(2, spec).IgnoreError();
  spec.files[0].blob.digest = sha256("b");
  h.submit(3, spec).IgnoreError();
  EXPECT_GT(h.core->workers().at(0).memory_used_bytes, 7ull << 30) << "the same sources";
  h.end(1, h.held(1).at(0), large);
  ASSERT_THAT(h.held(1), ElementsAre(key(3, 0)));
  EXPECT_EQ(h.core->workers().at(0).memory_used_bytes, 0u) << "nobody knows";
}

}  // namespace
}  // namespace pesc::coordinator
