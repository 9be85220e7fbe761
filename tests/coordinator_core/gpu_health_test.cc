// GPUs that fail ranks which succeed on others are set aside, and tried again.
#include "tests/coordinator_core/harness.h"

namespace pesc::coordinator {
namespace {

using ::testing::HasSubstr;
using ::testing::SizeIs;

constexpr uint64_t kGiB = 1ull << 30;

Gpu gpu(const std::string& uuid) {
  Gpu gpu;
  gpu.uuid = uuid;
  gpu.name = "Test " + uuid;
  gpu.memory_bytes = 8 * kGiB;
  gpu.reports_memory = true;
  gpu.compute_capability = 806;
  return gpu;
}

// One worker with a good GPU and a bad one, each for one rank at a time.
struct BadGpu : testing::Test {
  Harness h;
  std::map<AttemptKey, std::string> on;
  WorkerInfo info = worker_info(1, 16, 64 * kGiB);

  void SetUp() override {
    info.gpus = {gpu("GPU-bad"), gpu("GPU-good")};
    h.attach(1, info);
    take();
    JobSpec spec = spec_of(1000);
    spec.resources.gpus_milli = 1000;
    spec.resources.gpu_exclusive = true;
    spec.retries = 3;
    spec.max_failures = kNoMaxFailures;
    h.submit(1, spec).IgnoreError();
    take();
  }
  void take() {
    for (const SendUpdate& update : h.actions<SendUpdate>()) {
      for (const LeaseGrant& grant : update.leases) {
        if (!grant.gpus.empty()) on[grant.key] = grant.gpus.front();
      }
    }
  }
  std::optional<AttemptKey> there(const std::string& uuid) {
    for (const AttemptKey& each : h.held(1)) {
      if (on.contains(each) && on.at(each) == uuid) return each;
    }
    return std::nullopt;
  }
  AttemptOutcome end(const std::string& uuid, EndReason reason, uint64_t ms) {
    const std::optional<AttemptKey> found = there(uuid);
    EXPECT_TRUE(found.has_value()) << uuid;
    if (!found) return {};
    h.end(1, *found, reason, ms);
    take();
    const auto ended = h.records<AttemptEnded>();
    return ended.empty() ? AttemptOutcome() : ended.front().outcome;
  }
  void pass(TimeMs ms) {
    for (; ms > 0; ms -= 10'000) {
      h.now += std::min<TimeMs>(ms, 10'000);
      h.report(1, h.held(1));
      take();
      h.settle();
      take();
    }
  }
  std::string trouble(const std::string& uuid) {
    const std::vector<WorkerView> workers = h.core->workers();
    for (const Gpu& each : workers.at(0).info.gpus) {
      if (each.uuid == uuid) return each.trouble;
    }
    return "gone";
  }
};

TEST_F(BadGpu, IsSetAsideAloneAndSaysSo) {
  end("GPU-good", EndReason::succeeded, 30'000);
  EXPECT_EQ(end("GPU-bad", EndReason::exit_code, 50).reason, EndReason::exit_code)
      << "one failure is the program's";
  const AttemptOutcome second = end("GPU-bad", EndReason::exit_code, 50);
  EXPECT_EQ(second.reason, EndReason::gpu_fault) << "and costs no retry";
  EXPECT_THAT(second.detail, HasSubstr("failed at once on GPU-bad of pc1"));
  EXPECT_THAT(second.detail, HasSubstr("it went wrong"));
  end("GPU-bad", EndReason::exit_code, 50);
  EXPECT_FALSE(there("GPU-bad"));
  EXPECT_TRUE(there("GPU-good")) << "its neighbour goes on";
  EXPECT_THAT(trouble("GPU-bad"), HasSubstr("set aside for a while: 3 attempts in a row failed"));
  EXPECT_THAT(trouble("GPU-bad"), HasSubstr("it went wrong"));
  EXPECT_EQ(trouble("GPU-good"), "");
  EXPECT_EQ(h.core->workers().at(0).trouble, "") << "nothing is wrong with the worker";
  JobSpec both = spec_of(1);
  both.resources.gpus_milli = 2000;
  h.submit(2, both, "bob").IgnoreError();
  EXPECT_THAT(h.core->why(job_id(2), h.now).at(0).reason,
              HasSubstr("Test GPU-bad with 8 GiB and 8.6, out of service: set aside"));
}

TEST_F(BadGpu, ThatItsProgramsBlameIsSetAsideWhatSucceedsOrNot) {
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(end("GPU-bad", EndReason::gpu_fault, 60'000).reason, EndReason::gpu_fault);
  }
  EXPECT_FALSE(there("GPU-bad"));
}

TEST_F(BadGpu, IsTriedAgainAndForLongerEachTime) {
  end("GPU-good", EndReason::succeeded, 30'000);
  for (int i = 0; i < 3; ++i) end("GPU-bad", EndReason::exit_code, 50);
  pass(50'000);
  EXPECT_FALSE(there("GPU-bad"));
  pass(20'000);
  ASSERT_TRUE(there("GPU-bad")) << "a minute is over";
  EXPECT_EQ(trouble("GPU-bad"), "");
  end("GPU-bad", EndReason::exit_code, 50);
  EXPECT_FALSE(there("GPU-bad")) << "one more is enough";
  pass(110'000);
  EXPECT_FALSE(there("GPU-bad"));
  pass(20'000);
  ASSERT_TRUE(there("GPU-bad"));
  end("GPU-bad", EndReason::succeeded, 30'000);
  for (int i = 0; i < 2; ++i) end("GPU-bad", EndReason::exit_code, 50);
  EXPECT_TRUE(there("GPU-bad")) << "it had been well, and begins anew";
}

TEST_F(BadGpu, StaysAsideWhenItsWorkerTellsOfItsGpus) {
  end("GPU-good", EndReason::succeeded, 30'000);
  for (int i = 0; i < 3; ++i) end("GPU-bad", EndReason::exit_code, 50);
  WorkerReported report;
  report.session = 1;
  report.last_update = UINT64_MAX;
  report.holding = h.held(1);
  report.gpus = info.gpus;
  h.step(report);
  take();
  EXPECT_FALSE(there("GPU-bad"));
  EXPECT_THAT(trouble("GPU-bad"), HasSubstr("set aside"));
  report.gpus->front().trouble = "fell off the bus";
  h.step(report);
  EXPECT_EQ(trouble("GPU-bad"), "fell off the bus") << "the worker's own word comes first";
  pass(70'000);
  EXPECT_EQ(trouble("GPU-bad"), "fell off the bus") << "and stays";
  h.attach(2, info, h.held(1));
  take();
  EXPECT_TRUE(there("GPU-bad"));
}

TEST_F(BadGpu, IsNotBlamedForRanksThatFailOnTheOtherToo) {
  end("GPU-good", EndReason::succeeded, 30'000);
  // Two ranks that fail on both: after these the job's failures say nothing about GPUs.
  for (int round = 0; round < 40; ++round) {
    for (const char* uuid : {"GPU-bad", "GPU-good"}) {
      if (there(uuid)) end(uuid, EndReason::exit_code, 50);
    }
    pass(2'000);
  }
  EXPECT_EQ(trouble("GPU-good"), "");
  EXPECT_EQ(trouble("GPU-bad"), "");
}

TEST_F(BadGpu, ThatIsTheOnlyOneIsNotSetAside) {
  h.cancel(1).IgnoreError();
  info = worker_info(2, 16, 64 * kGiB, "red");
  info.gpus = {gpu("GPU-red")};
  h.attach(2, info);
  JobSpec spec = spec_of(100);
  spec.resources.gpus_milli = 1000;
  spec.room = "red";
  spec.max_failures = kNoMaxFailures;
  h.submit(2, spec).IgnoreError();
  for (int i = 0; i < 10; ++i) {
    ASSERT_THAT(h.held(2), SizeIs(1)) << i;
    h.end(2, h.held(2).front(), EndReason::gpu_fault, 50);
    h.now += 60'000;
    h.report(2, h.held(2));
  }
}

TEST_F(BadGpu, IsNeededSoonWhenNoOtherWouldDo) {
  end("GPU-good", EndReason::succeeded, 30'000);
  for (int i = 0; i < 3; ++i) end("GPU-bad", EndReason::exit_code, 50);
  JobSpec both = spec_of(1);
  both.resources.gpus_milli = 2000;
  h.submit(2, both, "bob").IgnoreError();
  pass(40'000);
  EXPECT_EQ(trouble("GPU-bad"), "") << "half a minute";
}

TEST_F(BadGpu, IsTrustedAgainByAPersonsWord) {
  end("GPU-good", EndReason::succeeded, 30'000);
  for (int i = 0; i < 3; ++i) end("GPU-bad", EndReason::exit_code, 50);
  h.step(WorkerDrained{1, "pc1", false});
  take();
  EXPECT_TRUE(there("GPU-bad"));
}

}  // namespace
}  // namespace pesc::coordinator
