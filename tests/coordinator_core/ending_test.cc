// What is not wanted any more, and runs on for a while: until it has ended, its worker gives what
// it takes to nobody else.
#include "tests/coordinator_core/harness.h"

namespace pesc::coordinator {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr uint64_t kGiB = 1ull << 30;

AttemptKey key(uint64_t job, uint32_t rank, uint32_t attempt = 1) {
  return {job_id(job), rank, attempt};
}

WorkerInfo with_gpu(uint64_t n, const std::string& trouble = "") {
  WorkerInfo info = worker_info(n, 4, 16 * kGiB);
  Gpu gpu;
  gpu.uuid = "GPU-" + std::to_string(n);
  gpu.memory_bytes = 8 * kGiB;
  gpu.reports_memory = true;
  gpu.compute_capability = 806;
  gpu.trouble = trouble;
  info.gpus = {gpu};
  return info;
}

JobSpec exclusive(uint32_t repetitions) {
  JobSpec spec = spec_of(repetitions);
  spec.resources.gpus_milli = 1000;
  spec.resources.gpu_exclusive = true;
  return spec;
}

// Rank 0 of job 1 runs on worker 1, which is silent for a lease; it is tried again on worker 2, and
// succeeds there.
void lose_worker_1(Harness& h, const JobSpec& spec) {
  h.attach(1, with_gpu(1));
  h.submit(1, spec).IgnoreError();
  ASSERT_THAT(h.held(1), ElementsAre(key(1, 0)));
  h.detach(1);
  h.attach(2, with_gpu(2));
  for (int i = 0; i < 20 && h.held(2).empty(); ++i) {
    h.at(h.now + 5'000);
    h.report(2, h.held(2));
    h.settle();
  }
  ASSERT_THAT(h.held(2), ElementsAre(key(1, 0, 2)));
  h.end(2, key(1, 0, 2), EndReason::succeeded);
}

TEST(Ending, AGpuIsGivenToNobodyWhileALostRankStillHasIt) {
  Harness h;
  lose_worker_1(h, exclusive(1));
  h.submit(2, exclusive(2)).IgnoreError();
  ASSERT_THAT(h.held(2), SizeIs(1));
  const AnswerAttach answer = h.attach(3, with_gpu(1), {key(1, 0)});
  ASSERT_THAT(answer.stop, SizeIs(1)) << "its rank is decided";
  h.settle();
  EXPECT_THAT(h.held(1), IsEmpty()) << "until it has gone";
  h.report(3, {key(1, 0)}, {}, 0);
  EXPECT_THAT(h.held(1), IsEmpty());
  h.report(3, {key(1, 0)}, {{key(1, 0), outcome_of(EndReason::revoked)}}, 0);
  EXPECT_THAT(h.held(1), SizeIs(1));
}

TEST(Ending, MemoryIsNotGivenTwice) {
  Harness h;
  JobSpec large = spec_of(1);
  large.resources.memory_bytes = 12 * kGiB;
  lose_worker_1(h, large);
  JobSpec small = spec_of(8);
  small.resources.memory_bytes = 4 * kGiB;
  h.attach(3, with_gpu(1), {key(1, 0)});
  h.submit(2, small).IgnoreError();
  EXPECT_THAT(h.held(2), SizeIs(4));
  EXPECT_THAT(h.held(1), SizeIs(1)) << "12 of its 16 GiB are in use";
  h.report(3, h.held(1), {{key(1, 0), outcome_of(EndReason::revoked)}});
  EXPECT_THAT(h.held(1), SizeIs(4));
}

TEST(Ending, AfterARestartNobodyKnowsWhatItTakes) {
  Harness h;
  lose_worker_1(h, exclusive(1));
  h.restore();
  h.attach(4, with_gpu(1), {key(1, 0)});
  h.submit(2, spec_of(1)).IgnoreError();
  EXPECT_THAT(h.held(1), IsEmpty());
  EXPECT_THAT(h.core->workers().at(0).trouble, HasSubstr("not wanted any more"));
  EXPECT_THAT(h.core->why(job_id(2), h.now).at(0).reason, HasSubstr("not wanted any more"));
  h.report(4, {});
  EXPECT_THAT(h.held(1), ElementsAre(key(2, 0)));
  EXPECT_EQ(h.core->workers().at(0).trouble, "");
}

TEST(Ending, ASecondAttemptThatLostKeepsItsMemoryUntilItStops) {
  Harness h;
  JobSpec spec = spec_of(1);
  spec.resources.memory_bytes = 12 * kGiB;
  lose_worker_1(h, spec);
  // Cancelled: what it has is told to stop, and it holds its lease until it says that it has.
  h.submit(2, spec).IgnoreError();
  ASSERT_THAT(h.held(2), ElementsAre(key(2, 0)));
  h.cancel(2).IgnoreError();
  h.submit(3, spec).IgnoreError();
  EXPECT_THAT(h.held(2), ElementsAre(key(2, 0)));
  h.end(2, key(2, 0), EndReason::cancelled);
  EXPECT_THAT(h.held(2), ElementsAre(key(3, 0)));
}

TEST(Ending, AGangThatNoHealthyGpuWasThereForIsTriedWhenOneIs) {
  Harness h;
  h.attach(1, with_gpu(1, "Xid 79"));
  JobSpec gang = exclusive(1);
  gang.parallel = true;
  h.submit(1, gang).IgnoreError();
  ASSERT_THAT(h.held(1), IsEmpty());
  WorkerReported report{.request = 9, .session = 1, .last_update = 0};
  report.gpus = with_gpu(1).gpus;
  h.step(report);
  EXPECT_THAT(h.held(1), ElementsAre(key(1, 0)));
}

}  // namespace
}  // namespace pesc::coordinator
