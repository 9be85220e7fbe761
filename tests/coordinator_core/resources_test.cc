// Placement by what beside cpus a rank takes: memory, disk, named resources, GPUs; stated or
// learned. Every step of the harness checks that no worker is given more than it has.
#include "runtime/coordinator/core/resources.h"

#include <random>

#include "tests/coordinator_core/harness.h"

namespace pesc::coordinator {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr uint64_t kMiB = 1ull << 20, kGiB = 1ull << 30;

AttemptKey key(uint64_t job, uint32_t rank, uint32_t attempt = 1) {
  return {job_id(job), rank, attempt};
}

Gpu gpu(const std::string& uuid, uint64_t memory, bool reports = true, uint32_t capability = 806) {
  Gpu gpu;
  gpu.uuid = uuid;
  gpu.name = "Test " + uuid;
  gpu.memory_bytes = memory;
  gpu.reports_memory = reports;
  gpu.compute_capability = capability;
  return gpu;
}

WorkerInfo with_gpus(uint64_t n, std::vector<Gpu> gpus, uint32_t cpus = 16) {
  WorkerInfo info = worker_info(n, cpus, 64 * kGiB);
  info.gpus = std::move(gpus);
  return info;
}

JobSpec on_gpus(uint32_t repetitions, uint32_t milli, uint64_t memory = 0) {
  JobSpec spec = spec_of(repetitions);
  spec.resources.gpus_milli = milli;
  spec.resources.gpu_memory_bytes = memory;
  return spec;
}

AttemptOutcome used(uint64_t gpu_bytes, uint64_t rss = 0, EndReason reason = EndReason::succeeded) {
  AttemptOutcome outcome = outcome_of(reason);
  outcome.peak_gpu_bytes = gpu_bytes;
  outcome.max_rss_bytes = rss;
  return outcome;
}

std::string why(Harness& h, uint64_t job) {
  const std::vector<WhyLine> lines = h.core->why(job_id(job), h.now);
  return lines.empty() ? "" : lines.at(0).reason;
}

std::vector<std::string> granted(const Harness& h) {
  std::vector<std::string> gpus;
  for (const SendUpdate& update : h.actions<SendUpdate>()) {
    for (const LeaseGrant& grant : update.leases) {
      gpus.insert(gpus.end(), grant.gpus.begin(), grant.gpus.end());
    }
  }
  return gpus;
}

TEST(Estimate, HasAMarginAndSettles) {
  EXPECT_EQ(estimate(0), 0u);
  for (uint64_t peak = 1; peak < 1ull << 50; peak = peak * 3 / 2 + 7) {
    EXPECT_GE(estimate(peak), peak + peak / 4);
    EXPECT_LE(estimate(peak), std::max<uint64_t>(peak + peak / 2, 2 * kMiB));
    EXPECT_LE(estimate(peak), estimate(peak + 1));
  }
  EXPECT_EQ(estimate(100 * kMiB), estimate(100 * kMiB - 1000)) << "noise changes nothing";
}

// ---- GPUs ---------------------------------------------------------------------------------------

TEST(Gpus, AnUnknownProgramRunsAloneThenAsManyAsFit) {
  Harness h;
  h.attach(1, with_gpus(1, {gpu("a", 12 * kGiB)}));
  h.submit(1, on_gpus(30, 1000)).IgnoreError();
  EXPECT_THAT(h.held(1), ElementsAre(key(1, 0)));
  EXPECT_THAT(granted(h), ElementsAre("a"));
  EXPECT_THAT(why(h, 1), HasSubstr("a GPU that nothing else uses"));
  h.end(1, key(1, 0), used(1328 * kMiB));
  const size_t fit = 12 * kGiB / estimate(1328 * kMiB);
  EXPECT_THAT(h.held(1), SizeIs(fit));
  EXPECT_GE(fit, 6u);
}

TEST(Gpus, StatedMemoryPacksAtOnce) {
  Harness h;
  h.attach(1, with_gpus(1, {gpu("a", 12 * kGiB), gpu("b", 4 * kGiB)}));
  h.submit(1, on_gpus(30, 1000, 3 * kGiB)).IgnoreError();
  EXPECT_THAT(h.held(1), SizeIs(4 + 1));
  EXPECT_EQ(h.core->workers().at(0).gpus.at(0).used_bytes, 12 * kGiB);
  EXPECT_EQ(h.core->workers().at(0).gpus.at(1).ranks, 1u);
}

TEST(Gpus, OneThatCannotReportServesOneRankAtATime) {
  Harness h;
  h.attach(1, with_gpus(1, {gpu("a", 2 * kGiB, false)}));
  h.submit(1, on_gpus(3, 1000, 100 * kMiB)).IgnoreError();
  EXPECT_THAT(h.held(1), ElementsAre(key(1, 0)));
}

// The thesis's scenario 5: most of 30 ranks of 1,328 MB go where several fit.
TEST(Gpus, TwoSmallOnesThatCannotReportAndALargeOne) {
  Harness h;
  h.attach(1, with_gpus(1, {gpu("a", 2 * kGiB, false)}));
  h.attach(2, with_gpus(2, {gpu("b", 2 * kGiB, false)}));
  h.attach(3, with_gpus(3, {gpu("c", 12 * kGiB)}));
  h.submit(1, on_gpus(30, 1000)).IgnoreError();
  uint32_t ended = 0, on_large = 0;
  for (int turn = 0; turn < 100 && h.view(1).counts.succeeded < 30; ++turn) {
    for (uint64_t worker : {1, 2, 3}) {
      EXPECT_LE(h.held(worker).size(), worker == 3 ? 12 * kGiB / (1328 * kMiB) : 1u);
      for (const AttemptKey& each : h.held(worker)) {
        h.end(worker, each, used(worker == 3 ? 1328 * kMiB : 0));
        ++ended;
        on_large += worker == 3;
      }
    }
  }
  EXPECT_EQ(h.view(1).counts.succeeded, 30u);
  EXPECT_EQ(ended, 30u);
  EXPECT_GT(on_large, 15u);
}

TEST(Gpus, PartsAddUpToOne) {
  Harness h;
  h.attach(1, with_gpus(1, {gpu("a", 12 * kGiB)}));
  h.submit(1, on_gpus(9, 300, kGiB)).IgnoreError();
  EXPECT_THAT(h.held(1), SizeIs(3));
}

TEST(Gpus, ExclusiveMeansIt) {
  Harness h;
  h.attach(1, with_gpus(1, {gpu("a", 12 * kGiB), gpu("b", 12 * kGiB)}));
  JobSpec spec = on_gpus(3, 1000, kGiB);
  spec.resources.gpu_exclusive = true;
  h.submit(1, spec).IgnoreError();
  EXPECT_THAT(h.held(1), SizeIs(2));
  h.submit(2, on_gpus(1, 500, kGiB)).IgnoreError();
  EXPECT_THAT(h.held(1), SizeIs(2)) << "nobody comes beside it either";
  h.end(1, key(1, 0), EndReason::succeeded);
  EXPECT_THAT(h.held(1), SizeIs(2));
}

TEST(Gpus, SeveralOfOneWorker) {
  Harness h;
  h.attach(1, with_gpus(1, {gpu("a", 4 * kGiB)}));
  h.submit(1, on_gpus(1, 2000, kGiB)).IgnoreError();
  EXPECT_THAT(why(h, 1), HasSubstr("needs what no worker attached has: 2 GPUs with 1 GiB free each "
                                   "(has Test a with 4 GiB and 8.6) on"));
  h.attach(2, with_gpus(2, {gpu("b", 4 * kGiB), gpu("c", 4 * kGiB)}));
  EXPECT_THAT(granted(h), ElementsAre("b", "c"));
}

TEST(Gpus, OfTheCapabilityAskedFor) {
  Harness h;
  h.attach(1, with_gpus(1, {gpu("old", 4 * kGiB, true, 705)}));
  JobSpec spec = on_gpus(1, 1000, kGiB);
  spec.resources.min_compute_capability = 800;
  h.submit(1, spec).IgnoreError();
  EXPECT_THAT(h.held(1), IsEmpty());
  EXPECT_THAT(why(h, 1), HasSubstr("compute capability 8.0"));
  h.attach(2, with_gpus(2, {gpu("new", 4 * kGiB, true, 1000)}));
  EXPECT_THAT(h.held(2), SizeIs(1));
}

// A screen, or the driver itself: no GPU of the lab would ever be whole.
TEST(Gpus, WhatWasLearnedDoesNotWaitForWhatTheScreenKeeps) {
  Harness h;
  Gpu screen = gpu("a", 4 * kGiB);
  screen.taken_bytes = 300 * kMiB;
  h.attach(1, with_gpus(1, {screen}));
  h.submit(1, on_gpus(2, 1000, 0)).IgnoreError();
  ASSERT_EQ(h.held(1), std::vector{key(1, 0)});
  h.end(1, key(1, 0), used(3600 * kMiB));
  EXPECT_EQ(h.held(1), std::vector{key(1, 1)});
}

TEST(Gpus, WhatOthersTookIsNotGiven) {
  Harness h;
  Gpu busy = gpu("a", 4 * kGiB);
  busy.taken_bytes = 3 * kGiB;
  h.attach(1, with_gpus(1, {busy}));
  h.submit(1, on_gpus(2, 1000, 2 * kGiB)).IgnoreError();
  EXPECT_THAT(h.held(1), IsEmpty());
  EXPECT_THAT(why(h, 1), HasSubstr("3 GiB of it taken by others"));
  busy.taken_bytes = 0;
  WorkerReported report;
  report.session = 1;
  report.last_update = UINT64_MAX;
  report.gpus = std::vector<Gpu>{busy};
  h.step(report);
  EXPECT_THAT(h.held(1), SizeIs(2)) << "it is free again, and nothing else has happened";
}

TEST(Gpus, ASickOneGetsNothingNewAndLosesNothing) {
  Harness h;
  h.attach(1, with_gpus(1, {gpu("a", 4 * kGiB), gpu("b", 4 * kGiB)}));
  h.submit(1, on_gpus(4, 1000, 4 * kGiB)).IgnoreError();
  ASSERT_THAT(h.held(1), SizeIs(2));
  Gpu sick = gpu("a", 4 * kGiB);
  sick.trouble = "fell off the bus";
  WorkerReported report;
  report.session = 1;
  report.last_update = UINT64_MAX;
  report.holding = h.held(1);
  report.gpus = std::vector<Gpu>{sick, gpu("b", 4 * kGiB)};
  h.step(report);
  EXPECT_THAT(h.held(1), SizeIs(2));
  h.end(1, key(1, 0), EndReason::gpu_fault);
  h.end(1, key(1, 1), EndReason::succeeded);
  EXPECT_THAT(h.held(1), SizeIs(1));
  report.holding = h.held(1);
  report.gpus = std::vector<Gpu>{};
  h.step(report);
  EXPECT_THAT(h.held(1), SizeIs(1)) << "what runs is not ended because the driver is gone";
  EXPECT_THAT(why(h, 1), HasSubstr("a GPU"));
}

TEST(Gpus, WhoRanOutOfMemoryTriesAloneForFree) {
  Harness h;
  h.attach(1, with_gpus(1, {gpu("a", 8 * kGiB)}));
  h.submit(1, on_gpus(3, 1000)).IgnoreError();
  h.end(1, key(1, 0), used(2 * kGiB));
  ASSERT_THAT(h.held(1), ElementsAre(key(1, 1), key(1, 2)));
  h.end(1, key(1, 1), used(3 * kGiB, 0, EndReason::gpu_out_of_memory));
  h.at(h.now + 120'000);
  h.report(1, h.held(1));
  EXPECT_THAT(h.held(1), ElementsAre(key(1, 2))) << "not beside another";
  h.end(1, key(1, 2), used(2 * kGiB));
  h.settle();
  EXPECT_THAT(h.held(1), ElementsAre(key(1, 1, 2)));
  h.end(1, key(1, 1, 2), used(8 * kGiB, 0, EndReason::gpu_out_of_memory));
  EXPECT_EQ(h.view(1).counts.failed, 1u) << "it had the GPU for itself: that is its own failure";
  EXPECT_EQ(h.view(1).counts.succeeded, 2u);
}

TEST(Gpus, LeasesAreCountedAgainAfterARestart) {
  Harness h;
  const WorkerInfo info = with_gpus(1, {gpu("a", 8 * kGiB)});
  h.attach(1, info);
  h.submit(1, on_gpus(9, 1000)).IgnoreError();
  h.end(1, key(1, 0), used(2 * kGiB));
  const std::vector<AttemptKey> running = h.held(1);
  ASSERT_THAT(running, SizeIs(3));
  h.restore();
  h.attach(2, info, running);
  EXPECT_EQ(h.held(1), running) << "the GPU is full, as before";
  EXPECT_EQ(h.core->workers().at(0).gpus.at(0).used_bytes, 3 * estimate(2 * kGiB));
  h.end(2, running.front(), used(2 * kGiB));
  EXPECT_THAT(h.held(1), SizeIs(3)) << "and what was learned is still known";
}

TEST(Gpus, AParallelJobGetsAllOfThemOrNone) {
  Harness h;
  h.attach(1, with_gpus(1, {gpu("a", 4 * kGiB)}));
  h.attach(2, with_gpus(2, {gpu("b", 4 * kGiB)}));
  h.submit(1, on_gpus(50, 1000, 4 * kGiB)).IgnoreError();
  ASSERT_EQ(h.leased(1), 2u);
  JobSpec gang = on_gpus(2, 1000, 4 * kGiB);
  gang.parallel = true;
  h.submit(2, gang, "bob").IgnoreError();
  EXPECT_EQ(h.leased(2), 0u);
  EXPECT_THAT(why(h, 2), HasSubstr("reserved for it"));
  h.end(1, key(1, 0), EndReason::succeeded);
  EXPECT_EQ(h.leased(1), 1u) << "the free one waits for the gang";
  h.end(2, key(1, 1), EndReason::succeeded);
  EXPECT_EQ(h.leased(2), 2u);
}

// Seed 3020916: all workers together had no room for it, by what was known of its program.
struct GangThatIsNotKnown : testing::Test {
  Harness h;
  void SetUp() override {
    WorkerInfo info = with_gpus(1, {gpu("a", 8 * kGiB)});
    info.room = "lab";
    h.attach(1, info);
    h.attach(2, with_gpus(2, {gpu("b", 8 * kGiB)}));
    JobSpec gang = on_gpus(2, 1000);
    gang.parallel = true;
    gang.room = "lab";
    h.submit(1, gang).IgnoreError();
    EXPECT_EQ(h.leased(1), 0u) << "each wants a GPU for itself, and there is one";
    EXPECT_THAT(why(h, 1), HasSubstr("needs room for 2 ranks"));
  }
};

TEST_F(GangThatIsNotKnown, IsTriedAgainWhenItsProgramTakesLess) {
  JobSpec same = on_gpus(1, 1000);
  same.room = "lab";
  h.submit(2, same, "bob").IgnoreError();
  ASSERT_THAT(h.held(1), ElementsAre(key(2, 0)));
  h.end(1, key(2, 0), used(kGiB));
  EXPECT_EQ(h.leased(1), 2u);
}

TEST_F(GangThatIsNotKnown, IsTriedAgainWhenThatWasSeenElsewhere) {
  h.submit(2, on_gpus(2, 1000), "bob").IgnoreError();
  while (!h.held(1).empty()) h.end(1, h.held(1).front(), EndReason::exit_code);
  ASSERT_THAT(h.held(2), SizeIs(1));
  h.end(2, h.held(2).front(), used(kGiB));
  EXPECT_EQ(h.leased(1), 2u);
}

// ---- memory, disk, names ------------------------------------------------------------------------

TEST(Memory, IsLearnedOfAProgramWithItsArguments) {
  Harness h;
  h.attach(1, worker_info(1, 64, 16 * kGiB));
  h.submit(1, spec_of(1)).IgnoreError();
  h.end(1, key(1, 0), used(0, 3 * kGiB));
  h.submit(2, spec_of(64)).IgnoreError();
  EXPECT_THAT(h.held(1), SizeIs(16 * kGiB / estimate(3 * kGiB)));
  JobSpec other = spec_of(10);
  other.arguments = {"--size", "small"};
  h.submit(3, other).IgnoreError();
  EXPECT_EQ(h.leased(3), 10u) << "another size of the problem is not known yet";
}

TEST(Memory, WhatOutgrewItsEstimateTriesWithMoreForFree) {
  Harness h;
  h.attach(1, worker_info(1, 1, 16 * kGiB));
  h.submit(1, spec_of(2)).IgnoreError();
  h.end(1, key(1, 0), used(0, kGiB));
  const std::vector<SendUpdate> updates = h.actions<SendUpdate>();
  const LeaseGrant grant = updates.at(0).leases.at(0);
  EXPECT_EQ(grant.memory_limit_bytes, 2 * estimate(kGiB));
  h.end(1, key(1, 1), used(0, grant.memory_limit_bytes, EndReason::out_of_memory));
  EXPECT_EQ(h.view(1).counts.failed, 0u);
  h.at(h.now + 60'000);
  h.report(1, {});
  h.settle();
  ASSERT_THAT(h.held(1), ElementsAre(key(1, 1, 2)));
  EXPECT_GE(h.core->workers().at(0).memory_used_bytes, 2 * estimate(kGiB));
  EXPECT_EQ(h.view(1).tally.ended.at(size_t(EndReason::outgrew_estimate)), 1u);
}

TEST(Memory, WhatWasStatedIsHeldTo) {
  Harness h;
  h.attach(1, worker_info(1, 1, 16 * kGiB));
  JobSpec spec = spec_of(1);
  spec.resources.memory_bytes = kGiB;
  h.submit(1, spec).IgnoreError();
  EXPECT_EQ(h.actions<SendUpdate>().at(0).leases.at(0).memory_limit_bytes, kGiB);
  h.end(1, key(1, 0), used(0, kGiB, EndReason::out_of_memory));
  EXPECT_EQ(h.view(1).counts.failed, 1u);
}

TEST(Memory, WhatWasStatedCountsInRowsThatDoNotSayWhatWasGiven) {
  Core core({});
  auto spec = std::make_shared<JobSpec>(spec_of(1));
  spec->resources.memory_bytes = 3 * kGiB;
  core.apply(WorkerSeen{worker_id(1), "pc1", ""});
  core.apply(JobAdded{job_id(1), "ada", spec, 1});
  core.apply(AttemptLeased{key(1, 0), worker_id(1)});  // as a journal of version 2 has it
  core.finish_restore(1'000);
  WorkerAttached attached;
  attached.session = 1;
  attached.info = worker_info(1, 4, 4 * kGiB);
  attached.holding = {key(1, 0)};
  core.step(attached, 2'000);
  EXPECT_EQ(core.check_invariants(), "");
  EXPECT_EQ(core.workers().at(0).memory_used_bytes, 3 * kGiB);
}

TEST(Memory, OneThatTookMoreThanAnyWorkerHasRunsAlone) {
  Harness h;
  h.attach(1, worker_info(1, 4, 4 * kGiB));
  h.submit(1, spec_of(3)).IgnoreError();
  ASSERT_THAT(h.held(1), SizeIs(3));
  h.end(1, key(1, 0), used(0, 4 * kGiB));
  h.end(1, key(1, 1), used(0, 4 * kGiB));
  h.end(1, key(1, 2), used(0, 4 * kGiB));
  h.submit(2, spec_of(3)).IgnoreError();
  EXPECT_THAT(h.held(1), SizeIs(1));
}

TEST(Named, AndDiskAreCountedLikeAnythingElse) {
  Harness h;
  WorkerInfo info = worker_info(1, 16);
  info.named = {{"licence", 2000}};
  info.disk_bytes = 10 * kGiB;
  h.attach(1, info);
  JobSpec licensed = spec_of(5);
  licensed.resources.named = {{"licence", 1000}};
  h.submit(1, licensed).IgnoreError();
  EXPECT_EQ(h.leased(1), 2u);
  EXPECT_THAT(why(h, 1), HasSubstr("1 of licence"));
  JobSpec large = spec_of(5);
  large.resources.disk_bytes = 4 * kGiB;
  h.submit(2, large).IgnoreError();
  EXPECT_EQ(h.leased(2), 2u);
  JobSpec nobody = spec_of(1);
  nobody.resources.named = {{"microscope", 1000}};
  h.submit(3, nobody).IgnoreError();
  EXPECT_THAT(why(h, 3), HasSubstr("1 of microscope (has 0)"));
}

// ---- what is held to
// -----------------------------------------------------------------------------

TEST(Gpus, WhoTookMoreThanItWasGivenRunsAgainWithMore) {
  Harness h;
  h.attach(1, with_gpus(1, {gpu("a", 8 * kGiB)}));
  h.submit(1, on_gpus(3, 1000)).IgnoreError();
  EXPECT_EQ(h.actions<SendUpdate>().at(0).leases.at(0).gpu_memory_limit_bytes, 0u) << "alone";
  h.end(1, key(1, 0), used(kGiB, kGiB));
  ASSERT_THAT(h.held(1), SizeIs(2));
  EXPECT_EQ(h.actions<SendUpdate>().at(0).leases.at(0).gpu_memory_limit_bytes, estimate(kGiB));
  h.end(1, key(1, 1), used(2 * kGiB, kGiB, EndReason::gpu_memory_limit));
  const AttemptOutcome ended = h.records<AttemptEnded>().at(0).outcome;
  EXPECT_EQ(ended.reason, EndReason::outgrew_estimate);
  EXPECT_THAT(ended.detail, HasSubstr("1.3 GiB of GPU memory, as its program had used before"));
  h.at(h.now + 2'000);
  h.report(1, h.held(1));
  ASSERT_THAT(h.held(1), ElementsAre(key(1, 1, 2), key(1, 2)));
  EXPECT_EQ(h.core->workers().at(0).gpus.at(0).used_bytes, estimate(2 * kGiB) + estimate(kGiB));
  EXPECT_EQ(h.core->workers().at(0).memory_used_bytes, 2 * estimate(kGiB))
      << "its other memory was not outgrown";
}

TEST(Gpus, WhoStatedHowMuchFailsBeyondIt) {
  Harness h;
  h.attach(1, with_gpus(1, {gpu("a", 8 * kGiB)}));
  h.submit(1, on_gpus(2, 1000, kGiB)).IgnoreError();
  EXPECT_EQ(h.actions<SendUpdate>().at(0).leases.at(0).gpu_memory_limit_bytes, kGiB);
  h.end(1, key(1, 0), used(2 * kGiB, 0, EndReason::gpu_memory_limit));
  EXPECT_EQ(h.view(1).counts.failed, 1u);
  h.end(1, key(1, 1), used(2 * kGiB, 0, EndReason::disk_limit));
  EXPECT_EQ(h.view(1).counts.failed, 2u);
}

// ---- what is kept
// --------------------------------------------------------------------------------

TEST(Memory, OfAProgramIsKnownAfterItsJobsAreGoneAndARestart) {
  Harness h;
  const WorkerInfo info = with_gpus(1, {gpu("a", 8 * kGiB)});
  h.attach(1, info);
  h.submit(1, on_gpus(1, 1000)).IgnoreError();
  h.end(1, key(1, 0), used(2 * kGiB, 3 * kGiB));
  ASSERT_TRUE(h.remove(1).ok());
  ASSERT_THAT(h.records<ProgramLearned>(), SizeIs(1));
  EXPECT_EQ(h.records<ProgramLearned>().at(0).gpu_memory_bytes, 2 * kGiB);
  h.restore();
  h.attach(2, info);
  h.submit(2, on_gpus(9, 1000)).IgnoreError();
  EXPECT_EQ(h.leased(2), 3u) << "three fit beside each other: nobody runs alone to be measured";
  EXPECT_EQ(h.core->workers().at(0).memory_used_bytes, 3 * estimate(3 * kGiB));
}

TEST(Memory, OfAProgramOfWhichNothingIsKnownIsNotKept) {
  Harness h;
  h.attach(1, worker_info(1));
  h.submit(1, spec_of(1)).IgnoreError();
  ASSERT_TRUE(h.cancel(1).ok());
  h.report(1, {});
  ASSERT_TRUE(h.remove(1).ok());
  EXPECT_THAT(h.records<ProgramLearned>(), IsEmpty());
}

TEST(Priority, IsAmongOnesOwnJobs) {
  Harness h;
  h.submit(1, spec_of(1)).IgnoreError();
  JobSpec urgent = spec_of(1);
  urgent.priority = 5;
  h.submit(2, urgent).IgnoreError();
  urgent.priority = -5;
  h.submit(3, urgent).IgnoreError();
  h.attach(1, worker_info(1, 1));
  EXPECT_THAT(h.held(1), ElementsAre(key(2, 0)));
  h.end(1, key(2, 0), EndReason::succeeded);
  EXPECT_THAT(h.held(1), ElementsAre(key(1, 0)));
}

// ---- any history --------------------------------------------------------------------------------

class Mixed : public testing::TestWithParam<uint32_t> {
 protected:
  uint64_t any(uint64_t most) { return std::uniform_int_distribution<uint64_t>(0, most)(random_); }
  JobSpec job() {
    JobSpec spec = spec_of(1 + any(8));
    Resources& need = spec.resources;
    need.cpus_milli = 250 * (1 + any(7));
    spec.arguments = {std::to_string(any(3))};
    spec.retries = 2;
    spec.priority = int32_t(any(2));
    if (any(2) == 0) need.memory_bytes = kGiB * (1 + any(3));
    if (any(2) == 0) need.gpus_milli = any(2) == 0 ? 250 * (1 + any(2)) : 1000 * (1 + any(1));
    if (need.gpus_milli > 0 && any(1) == 0) need.gpu_memory_bytes = 512 * kMiB * (1 + any(6));
    need.gpu_exclusive = need.gpus_milli % 1000 == 0 && need.gpus_milli > 0 && any(4) == 0;
    if (any(5) == 0) need.named = {{"licence", 500 * (1 + any(2))}};
    if (any(5) == 0) need.disk_bytes = kGiB * (1 + any(4));
    spec.parallel = any(5) == 0;
    return spec;
  }
  WorkerInfo worker(uint64_t n) {
    WorkerInfo info = worker_info(n, 2 + any(6), (4 + any(12)) * kGiB);
    for (uint64_t g = any(3); g > 0; --g) {
      info.gpus.push_back(
          gpu("w" + std::to_string(n) + "g" + std::to_string(g), (2 + any(6)) * kGiB, any(3) != 0));
    }
    if (any(1) == 0) info.named = {{"licence", 1000 * (1 + any(1))}};
    info.disk_bytes = 8 * kGiB;
    return info;
  }
  AttemptOutcome end() {
    static constexpr EndReason kEnds[] = {EndReason::succeeded,         EndReason::succeeded,
                                          EndReason::succeeded,         EndReason::out_of_memory,
                                          EndReason::gpu_out_of_memory, EndReason::exit_code};
    return used(any(2) * kGiB, any(3) * kGiB, kEnds[any(5)]);
  }
  // Whatever of a gang is held there is prepared.
  static void all_ready(Harness& h, uint64_t session, uint64_t worker) {
    WorkerReported report;
    report.session = session;
    report.last_update = UINT64_MAX;
    report.holding = h.held(worker);
    for (const AttemptKey& each : report.holding) {
      if (h.view(each.job.value).spec->parallel) report.ready.push_back({each, 9000});
    }
    h.step(report);
  }
  std::mt19937 random_{GetParam()};
};

TEST_P(Mixed, NobodyIsGivenMoreThanItHasAndEverythingEnds) {
  Harness h;
  std::map<uint64_t, WorkerInfo> workers;
  uint64_t session = 0;
  std::map<uint64_t, uint64_t> sessions;
  const auto attach = [&](uint64_t n) {
    sessions[n] = ++session;
    h.attach(session, workers.at(n), h.held(n));
  };
  for (uint64_t n = 1; n <= 4; ++n) {
    workers[n] = worker(n);
    attach(n);
  }
  for (int turn = 0; turn < 150; ++turn) {
    if (turn < 100 && any(4) == 0)
      h.submit(1 + uint64_t(turn), job(), any(1) == 0 ? "a" : "b").IgnoreError();
    const uint64_t n = 1 + any(3);
    all_ready(h, sessions.at(n), n);
    const std::vector<AttemptKey> held = h.held(n);
    if (!held.empty()) h.end(sessions.at(n), held[any(held.size() - 1)], end());
    if (any(30) == 0) {
      h.restore();
      for (uint64_t each = 1; each <= 4; ++each) attach(each);
    }
    if (any(15) == 0 && !workers.at(n).gpus.empty()) {
      Gpu& one = workers.at(n).gpus.front();
      one.trouble = one.trouble.empty() && any(1) == 0 ? "hot" : "";
      one.taken_bytes = any(1) * kGiB;
      WorkerReported report;
      report.session = sessions.at(n);
      report.last_update = UINT64_MAX;
      report.holding = h.held(n);
      report.gpus = workers.at(n).gpus;
      h.step(report);
    }
    h.at(h.now + any(3'000));
  }
  // All is well again, and nothing fails: what fits somewhere ends.
  for (uint64_t n = 1; n <= 4; ++n) {
    for (Gpu& one : workers.at(n).gpus) {
      one.trouble.clear();
      one.taken_bytes = 0;
    }
    attach(n);
  }
  for (int turn = 0; turn < 400; ++turn) {
    bool any_held = false;
    for (uint64_t n = 1; n <= 4; ++n) all_ready(h, sessions.at(n), n);
    for (uint64_t n = 1; n <= 4; ++n) {
      for (const AttemptKey& each : h.held(n)) {
        any_held = true;
        h.end(sessions.at(n), each, used(kMiB, kMiB));
      }
      h.report(sessions.at(n), h.held(n));
    }
    if (!any_held) h.at(h.now + 20'000);
  }
  for (uint64_t id = 1; id <= 100; ++id) {
    const JobView view = h.view(id);
    if (view.spec == nullptr || view.counts.waiting == 0) continue;
    const std::string reason = why(h, id);
    EXPECT_TRUE(reason.starts_with("needs")) << id << ": " << reason;
  }
}
INSTANTIATE_TEST_SUITE_P(Seeds, Mixed, testing::Range(1u, 13u));

}  // namespace
}  // namespace pesc::coordinator
