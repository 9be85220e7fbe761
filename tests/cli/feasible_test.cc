// A job that nobody could ever run is said to be one when it is submitted.
#include "runtime/cli/feasible.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace pesc::cli {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kGiB = 1ull << 30;

WorkerStatus worker(const std::string& name, double cpus, uint64_t memory) {
  WorkerStatus worker;
  worker.name = name;
  worker.cpus = cpus;
  worker.memory_bytes = memory;
  return worker;
}
GpuStatus gpu(uint64_t memory, const std::string& capability) {
  GpuStatus gpu;
  gpu.name = "A4000";
  gpu.memory_bytes = memory;
  gpu.compute_capability = capability;
  return gpu;
}

TEST(NeverFits, SaysTheBestThereIs) {
  const std::vector<WorkerStatus> workers = {worker("small", 2, kGiB),
                                             worker("large", 8, 4 * kGiB)};
  Job job;
  EXPECT_EQ(never_fits(job, workers), std::nullopt);
  job.resources.cpus = 16;
  EXPECT_EQ(never_fits(job, workers),
            "a rank needs 16 cpus; the best of the workers known (large) has 8");
  job.resources.cpus = 4;
  job.resources.memory_bytes = 6 * kGiB;
  EXPECT_THAT(*never_fits(job, workers), HasSubstr("6 GiB of memory; the best of the workers known "
                                                   "(large) has 4 GiB"));
  job.resources.memory_bytes = 0;
  job.resources.named = {{"licence", 1}};
  EXPECT_THAT(*never_fits(job, workers), HasSubstr("1 of licence"));
}

TEST(NeverFits, NobodyKnownMeansNothing) {
  Job job;
  job.resources.cpus = 1000;
  EXPECT_EQ(never_fits(job, {}), std::nullopt);
}

TEST(NeverFits, OnlyTheRoomCounts) {
  std::vector<WorkerStatus> workers = {worker("a", 8, kGiB), worker("b", 1, kGiB)};
  workers[1].room = "lab";
  Job job;
  job.room = "lab";
  job.resources.cpus = 4;
  EXPECT_THAT(*never_fits(job, workers), HasSubstr("(b) has 1"));
  job.room = "attic";
  EXPECT_THAT(*never_fits(job, workers), HasSubstr("room 'attic'"));
}

TEST(NeverFits, Gpus) {
  std::vector<WorkerStatus> workers = {worker("a", 8, kGiB), worker("b", 8, kGiB)};
  Job job;
  job.resources.gpus = 0.5;
  EXPECT_THAT(*never_fits(job, workers), HasSubstr("a rank needs a GPU;"));
  workers[1].gpus = {gpu(4 * kGiB, "8.6"), gpu(16 * kGiB, "7.5")};
  EXPECT_EQ(never_fits(job, workers), std::nullopt);
  job.resources.gpu_memory_bytes = 8 * kGiB;
  job.resources.min_compute_capability = "8.0";
  EXPECT_THAT(
      *never_fits(job, workers),
      HasSubstr("a GPU with 8 GiB and compute capability 8.0; the best of the workers known "
                "(b) has A4000 with 4 GiB and compute capability 8.6, A4000 with 16 GiB"));
  job.resources.min_compute_capability = "7.0";
  EXPECT_EQ(never_fits(job, workers), std::nullopt);
  workers[1].gpus[1].trouble = "hot";
  workers[1].gpus[1].taken_bytes = 16 * kGiB;
  EXPECT_EQ(never_fits(job, workers), std::nullopt) << "it may be free and well again";
}

TEST(NeverFits, TheBestGpuIsTheOneThatNearlyDoes) {
  std::vector<WorkerStatus> workers = {worker("many", 8, kGiB), worker("good", 8, kGiB)};
  workers[0].gpus = {gpu(4 * kGiB, "8.6"), gpu(4 * kGiB, "8.6")};
  workers[1].gpus = {gpu(24 * kGiB, "7.5")};
  Job job;
  job.resources.gpus = 1;
  job.resources.gpu_memory_bytes = 30 * kGiB;
  EXPECT_THAT(*never_fits(job, workers), HasSubstr("(good) has A4000 with 24 GiB"));
  job.resources.gpu_memory_bytes = 0;
  job.resources.min_compute_capability = "9.0";
  EXPECT_THAT(*never_fits(job, workers), HasSubstr("(many) has"));
  job.resources.min_compute_capability = "";
  job.resources.gpus = 3;
  EXPECT_THAT(*never_fits(job, workers), HasSubstr("(many) has"));
}

TEST(NeverFits, AParallelJobNeedsRoomForAllAtOnce) {
  std::vector<WorkerStatus> workers = {worker("a", 2, kGiB), worker("b", 3, 8 * kGiB)};
  Job job;
  job.parallel = true;
  job.repetitions = 5;
  EXPECT_EQ(never_fits(job, workers), std::nullopt);
  job.repetitions = 6;
  EXPECT_EQ(
      never_fits(job, workers),
      "the 6 ranks of a parallel job run at the same time; the workers known have room for 5");
  job.resources.cpus = 0.1;
  job.repetitions = 50;
  EXPECT_EQ(never_fits(job, workers), std::nullopt) << "tenths add up";
  job.resources.memory_bytes = kGiB;
  job.repetitions = 10;
  EXPECT_THAT(*never_fits(job, workers), HasSubstr("room for 9"));
  job.same_worker = true;
  EXPECT_THAT(*never_fits(job, workers), HasSubstr("the best of the workers known has room for 8"));
  job.parallel = job.same_worker = false;
  EXPECT_EQ(never_fits(job, workers), std::nullopt) << "one after the other";
}

TEST(NeverFits, GpusAreSharedUnlessOneWantsThemAlone) {
  std::vector<WorkerStatus> workers = {worker("a", 8, kGiB)};
  workers[0].gpus = {gpu(4 * kGiB, "8.6"), gpu(4 * kGiB, "8.6")};
  Job job;
  job.parallel = true;
  job.repetitions = 8;
  job.resources.gpus = 1;
  EXPECT_EQ(never_fits(job, workers), std::nullopt);
  job.resources.gpu_exclusive = true;
  EXPECT_THAT(*never_fits(job, workers), HasSubstr("room for 2"));
}

TEST(NeverFits, AllOfItMustBeOnOne) {
  const std::vector<WorkerStatus> workers = {worker("a", 16, kGiB), worker("b", 1, 16 * kGiB)};
  Job job;
  job.resources.cpus = 8;
  job.resources.memory_bytes = 8 * kGiB;
  EXPECT_EQ(never_fits(job, workers),
            "a rank needs 8 cpus and 8 GiB of memory; no single one of "
            "the workers known has all of that");
}

}  // namespace
}  // namespace pesc::cli
