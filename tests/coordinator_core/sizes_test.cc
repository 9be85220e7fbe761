// Programs that were too large for where they were, and go on where there is more.
#include "tests/coordinator_core/harness.h"

namespace pesc::coordinator {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr uint64_t kMiB = 1ull << 20, kGiB = 1ull << 30;

AttemptKey key(uint32_t rank, uint32_t attempt = 1) { return {job_id(1), rank, attempt}; }

AttemptOutcome used(uint64_t rss, EndReason reason = EndReason::succeeded) {
  AttemptOutcome outcome = outcome_of(reason);
  outcome.max_rss_bytes = rss;
  return outcome;
}

AttemptOutcome used_gpu(uint64_t bytes, EndReason reason = EndReason::succeeded) {
  AttemptOutcome outcome = outcome_of(reason);
  outcome.peak_gpu_bytes = bytes;
  return outcome;
}

WorkerInfo with_gpu(uint64_t n, uint64_t bytes) {
  WorkerInfo info = worker_info(n, 4, 64 * kGiB);
  Gpu gpu;
  gpu.uuid = "GPU-" + std::to_string(n);
  gpu.memory_bytes = bytes;
  gpu.reports_memory = true;
  gpu.compute_capability = 806;
  info.gpus = {gpu};
  return info;
}

// A small worker with room for two, and a large one with room for one.
class Sizes : public ::testing::Test {
 protected:
  void attach() {
    h.attach(1, worker_info(1, 2, 512 * kMiB));
    h.attach(2, worker_info(2, 1, 16 * kGiB));
  }
  void later() {
    for (int i = 0; i < 5; ++i) {  // never silent for long
      h.at(h.now + 3'000);
      for (uint64_t worker : {1, 2}) h.report(worker, h.held(worker));
      h.settle();
    }
  }
  uint64_t outgrown() { return h.view(1).tally.ended.at(size_t(EndReason::outgrew_estimate)); }
  Harness h;
};

TEST_F(Sizes, WhatHadAllMemoryOfItsWorkerGoesOnWhereThereIsMore) {
  attach();
  h.submit(1, spec_of(3)).IgnoreError();
  ASSERT_THAT(h.held(1), ElementsAre(key(0), key(1)));
  ASSERT_THAT(h.held(2), ElementsAre(key(2)));
  for (uint32_t rank : {0, 1}) h.end(1, key(rank), used(512 * kMiB, EndReason::out_of_memory));
  EXPECT_EQ(h.view(1).counts.failed, 0u);
  EXPECT_EQ(outgrown(), 2u);
  later();
  EXPECT_THAT(h.held(1), IsEmpty()) << "it would be too small again";
  for (const AttemptKey& one : {key(2), key(0, 2), key(1, 2)}) {
    ASSERT_THAT(h.held(2), ElementsAre(one));
    h.end(2, one, used(2 * kGiB));
    later();
  }
  EXPECT_EQ(h.view(1).counts.succeeded, 3u);
}

TEST_F(Sizes, AKnownProgramIsNotSentWhereEvenItsSmallestRankWasTooLarge) {
  attach();
  h.submit(1, spec_of(9)).IgnoreError();
  h.end(1, key(0), used(512 * kMiB, EndReason::out_of_memory));
  const std::vector<AttemptKey> on_large = h.held(2);
  ASSERT_EQ(on_large.size(), 1u);
  h.end(2, on_large.front(), used(2 * kGiB));
  for (const AttemptKey& one : h.held(1)) h.end(1, one, used(512 * kMiB, EndReason::out_of_memory));
  later();
  EXPECT_THAT(h.held(1), IsEmpty());
  EXPECT_EQ(h.held(2).size(), 1u);
}

TEST_F(Sizes, OneRankThatLeaksSendsNoOthersToTheLargestWorker) {
  attach();
  h.submit(1, spec_of(9)).IgnoreError();
  h.end(1, key(0), used(100 * kMiB));
  h.end(1, key(1), used(512 * kMiB, EndReason::out_of_memory));
  later();
  EXPECT_FALSE(h.held(1).empty());
}

TEST_F(Sizes, WithoutALargerWorkerItTriesWhatThereIsAndFails) {
  h.attach(1, worker_info(1, 4, 512 * kMiB));
  h.submit(1, spec_of(1)).IgnoreError();
  h.end(1, key(0), used(512 * kMiB, EndReason::out_of_memory));
  EXPECT_EQ(h.view(1).counts.failed, 1u);
}

TEST_F(Sizes, WhenTheLargerOneIsGoneItDoesNotWaitForEver) {
  attach();
  h.submit(1, spec_of(3)).IgnoreError();
  ASSERT_THAT(h.held(1), ElementsAre(key(0), key(1)));
  for (uint32_t rank : {0, 1}) h.end(1, key(rank), used(512 * kMiB, EndReason::out_of_memory));
  later();
  ASSERT_THAT(h.held(1), IsEmpty());
  h.detach(2);
  h.settle();
  EXPECT_THAT(h.held(1), ElementsAre(key(0, 2))) << "all of its memory for each";
}

TEST_F(Sizes, WhatHadASmallGpuForItselfGoesOnWithALargerOne) {
  h.attach(1, with_gpu(1, 2 * kGiB));
  h.attach(2, with_gpu(2, 12 * kGiB));
  JobSpec spec = spec_of(4);
  spec.resources.gpus_milli = 1000;
  h.submit(1, spec).IgnoreError();
  ASSERT_EQ(h.held(1).size(), 1u);
  const AttemptKey small = h.held(1).front(), large = h.held(2).front();
  AttemptOutcome full = used_gpu(0, EndReason::gpu_out_of_memory);
  full.detail = "out of memory";
  h.end(1, small, full);
  EXPECT_EQ(h.view(1).counts.failed, 0u);
  h.end(2, large, used_gpu(3 * kGiB));
  // Another one was begun on the small GPU before that was known.
  for (const AttemptKey& one : h.held(1)) h.end(1, one, full);
  later();
  EXPECT_THAT(h.held(1), IsEmpty());
  EXPECT_FALSE(h.held(2).empty());
  EXPECT_EQ(h.view(1).counts.failed, 0u);
}

}  // namespace
}  // namespace pesc::coordinator
