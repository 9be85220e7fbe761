// Ranks that share large inputs go where these are, as long as nobody waits for it.
#include "runtime/coordinator/core/inputs.h"

#include "tests/coordinator_core/harness.h"

namespace pesc::coordinator {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr uint64_t kMiB = 1ull << 20;

AttemptKey key(uint64_t job, uint32_t rank, uint32_t attempt = 1) {
  return {job_id(job), rank, attempt};
}

FileRef file_of(const std::string& content, uint64_t size_bytes) {
  return {content, FileKind::shared_file, {sha256(content), size_bytes}, 0644};
}

JobSpec with_data(uint32_t ranks, uint64_t size_bytes, const std::string& data = "data",
                  const std::string& program = "./program") {
  JobSpec spec = spec_of(ranks);
  spec.program = program;
  spec.files = {file_of(data, size_bytes), file_of(program.substr(2), 20'000)};
  return spec;
}

void attach_four(Harness& h) {
  for (uint64_t n = 1; n <= 4; ++n) h.attach(n, worker_info(n, 8));
}

std::vector<size_t> spread(const Harness& h) {
  std::vector<size_t> held;
  for (uint64_t n = 1; n <= 4; ++n) held.push_back(h.held(n).size());
  return held;
}

void end_all(Harness& h, uint64_t worker) {
  for (const AttemptKey& each : h.held(worker)) h.end(worker, each, EndReason::succeeded);
}

TEST(LargeInputs, AreTheFewLargestAndTheRestTogether) {
  JobSpec spec = spec_of(1);
  EXPECT_THAT(large_inputs(spec), IsEmpty());
  spec.files = {file_of("a", 15 * kMiB), {"d", FileKind::directory, {}, 0755}};
  EXPECT_THAT(large_inputs(spec), IsEmpty());
  for (const char* name : {"b", "c"}) spec.files.push_back(file_of(name, 500 * kMiB));
  spec.files.push_back(spec.files.back());
  EXPECT_THAT(large_inputs(spec), SizeIs(2)) << "the 15 MiB beside them are not worth a thought";
  spec.files.push_back(file_of("small", kMiB));
  ASSERT_THAT(large_inputs(spec), SizeIs(3)) << "together they are";
  EXPECT_EQ(large_inputs(spec).back().size_bytes, 16 * kMiB);
  for (int i = 0; i < 1000; ++i) spec.files.push_back(file_of(std::to_string(i), UINT64_MAX));
  EXPECT_THAT(large_inputs(spec), SizeIs(4));
}

TEST(Inputs, ThoseOfNoJobAreForgottenInTime) {
  Inputs inputs;
  for (int i = 0; i < 3000; ++i) {
    JobInputs of_job = inputs.of(with_data(1, 100 * kMiB, "data " + std::to_string(i)));
    inputs.forget(of_job);
    EXPECT_THAT(of_job, IsEmpty());
  }
  EXPECT_EQ(inputs.check({}), "");
}

TEST(LargeInputs, TravelOnceToRanksThatFitOnOneWorker) {
  Harness h;
  attach_four(h);
  h.submit(1, with_data(8, 100 * kMiB)).IgnoreError();
  EXPECT_THAT(spread(h), ElementsAre(8, 0, 0, 0));
}

TEST(LargeInputs, SmallOnesGoWhereMostIsFree) {
  Harness h;
  attach_four(h);
  h.submit(1, with_data(8, 15 * kMiB)).IgnoreError();
  EXPECT_THAT(spread(h), ElementsAre(2, 2, 2, 2));
  h.submit(2, with_data(4, 15 * kMiB)).IgnoreError();
  EXPECT_THAT(spread(h), ElementsAre(3, 3, 3, 3));
}

TEST(LargeInputs, AnotherJobGoesWhereTheyAre) {
  Harness h;
  attach_four(h);
  h.submit(1, with_data(6, 100 * kMiB)).IgnoreError();
  h.submit(2, with_data(1, 100 * kMiB)).IgnoreError();
  EXPECT_THAT(spread(h), ElementsAre(7, 0, 0, 0));
  h.submit(3, with_data(1, 100 * kMiB, "data", "./another")).IgnoreError();
  EXPECT_THAT(spread(h), ElementsAre(8, 0, 0, 0)) << "another program on the same data";
  h.submit(4, with_data(1, 100 * kMiB, "other data")).IgnoreError();
  EXPECT_THAT(spread(h), ElementsAre(8, 1, 0, 0));
  end_all(h, 1);
  h.submit(5, with_data(2, 100 * kMiB)).IgnoreError();
  EXPECT_THAT(spread(h), ElementsAre(2, 1, 0, 0)) << "its jobs are over, the data is still there";
}

TEST(LargeInputs, WhoLacksLeastComesFirst) {
  Harness h;
  attach_four(h);
  h.submit(1, with_data(1, 100 * kMiB, "data")).IgnoreError();
  h.submit(2, with_data(1, 2000 * kMiB, "more data")).IgnoreError();
  ASSERT_THAT(spread(h), ElementsAre(1, 1, 0, 0));
  JobSpec both = with_data(3, 100 * kMiB, "data");
  both.files.push_back(file_of("more data", 2000 * kMiB));
  h.submit(3, both).IgnoreError();
  EXPECT_THAT(spread(h), ElementsAre(1, 4, 0, 0));
}

TEST(LargeInputs, NobodyWaitsForWhoHasThem) {
  Harness h;
  attach_four(h);
  h.submit(1, with_data(12, 100 * kMiB)).IgnoreError();
  EXPECT_THAT(spread(h), ElementsAre(8, 4, 0, 0));
  h.submit(2, with_data(3, 100 * kMiB)).IgnoreError();
  EXPECT_THAT(spread(h), ElementsAre(8, 7, 0, 0));
  h.submit(3, with_data(40, 100 * kMiB)).IgnoreError();
  EXPECT_THAT(spread(h), ElementsAre(8, 8, 8, 8));
}

TEST(LargeInputs, WhatElseARankNeedsCounts) {
  Harness h;
  attach_four(h);
  JobSpec spec = with_data(4, 100 * kMiB);
  spec.resources.memory_bytes = 3ull << 30;  // two on a worker of 8 GiB
  h.submit(1, spec).IgnoreError();
  EXPECT_THAT(spread(h), ElementsAre(2, 2, 0, 0));
  spec.resources.memory_bytes = 0;
  spec.room = "gpu";
  h.attach(5, worker_info(5, 1, 8ull << 30, "gpu"));
  h.submit(2, spec).IgnoreError();
  EXPECT_THAT(h.held(5), SizeIs(1));
  EXPECT_THAT(spread(h), ElementsAre(2, 2, 0, 0));
}

// With enough ranks for all one is filled after the other; ada's rest is not where bob's data is.
TEST(LargeInputs, AreNotFetchedByTheWorkerThatIsBeingFilled) {
  Harness h;
  h.attach(2, worker_info(2, 8));
  h.submit(1, with_data(1, 100 * kMiB), "bob").IgnoreError();
  h.attach(1, worker_info(1, 8));
  const auto ranks = std::make_shared<JobSpec>(spec_of(100));
  h.core->step(JobSubmitted{7, job_id(2), "ada", ranks, h.unix_ms}, h.now, true);
  h.submit(3, with_data(100, 100 * kMiB), "bob").IgnoreError();
  EXPECT_THAT(spread(h), ElementsAre(8, 8, 0, 0));
  for (const AttemptKey& each : h.held(1)) EXPECT_EQ(each.job, job_id(2));
}

TEST(LargeInputs, ARankThatFailedGoesElsewhereAllTheSame) {
  Harness h;
  attach_four(h);
  JobSpec spec = with_data(2, 100 * kMiB);
  spec.retries = 3;
  h.submit(1, spec).IgnoreError();
  ASSERT_THAT(spread(h), ElementsAre(2, 0, 0, 0));
  h.end(1, key(1, 0), EndReason::exit_code, 60'000);
  h.at(*h.core->next_deadline());
  h.settle();
  EXPECT_THAT(h.held(2), ElementsAre(key(1, 0, 2)));
}

TEST(LargeInputs, NobodyIsDrawnToWhereRanksFailAtOnce) {
  Harness h;
  attach_four(h);
  h.submit(1, with_data(2, 100 * kMiB)).IgnoreError();
  h.end(1, key(1, 0), EndReason::exit_code, 100);
  h.submit(2, with_data(3, 100 * kMiB)).IgnoreError();
  EXPECT_THAT(spread(h), ElementsAre(1, 3, 0, 0));
  h.end(1, key(1, 1), EndReason::succeeded);
  h.end(2, key(2, 0), EndReason::succeeded);
  h.submit(3, with_data(2, 100 * kMiB)).IgnoreError();
  EXPECT_THAT(spread(h), ElementsAre(2, 2, 0, 0)) << "it does well now";
}

TEST(LargeInputs, WhoCouldNotHaveThemDoesNot) {
  Harness h;
  attach_four(h);
  h.submit(1, with_data(1, 100 * kMiB)).IgnoreError();
  h.end(1, key(1, 0), EndReason::inputs_unavailable, 60'000);
  h.at(*h.core->next_deadline());
  h.settle();
  ASSERT_THAT(spread(h), ElementsAre(0, 1, 0, 0));
  h.submit(2, with_data(2, 100 * kMiB)).IgnoreError();
  EXPECT_THAT(spread(h), ElementsAre(0, 3, 0, 0));
}

TEST(LargeInputs, AfterARestartWhoHasLeasesOfThemHasThem) {
  Harness h;
  attach_four(h);
  h.submit(1, with_data(1, 100 * kMiB)).IgnoreError();
  h.submit(2, with_data(1, 100 * kMiB, "other data")).IgnoreError();
  ASSERT_THAT(spread(h), ElementsAre(1, 1, 0, 0));
  h.end(1, key(1, 0), EndReason::succeeded);
  h.restore();
  for (uint64_t n : {4, 3, 2, 1}) {
    h.attach(10 + n, worker_info(n, 8),
             n == 2 ? std::vector<AttemptKey>{key(2, 0)} : std::vector<AttemptKey>{});
  }
  h.submit(3, with_data(4, 100 * kMiB, "other data")).IgnoreError();
  EXPECT_THAT(spread(h), ElementsAre(0, 5, 0, 0));
  h.submit(4, with_data(3, 100 * kMiB)).IgnoreError();
  EXPECT_THAT(spread(h), ElementsAre(3, 5, 0, 0)) << "nobody knows: where most is free";
}

TEST(LargeInputs, AWorkerThatIsGoneIsNotWaitedFor) {
  Harness h;
  attach_four(h);
  h.submit(1, with_data(1, 100 * kMiB)).IgnoreError();
  ASSERT_THAT(spread(h), ElementsAre(1, 0, 0, 0));
  h.detach(1);
  h.submit(2, with_data(2, 100 * kMiB)).IgnoreError();
  EXPECT_THAT(spread(h), ElementsAre(1, 2, 0, 0));
  h.now += 30'000;
  for (uint64_t n = 2; n <= 4; ++n) h.report(n, h.held(n));
  h.at(*h.core->next_deadline());  // its lease is over
  EXPECT_THAT(spread(h), ElementsAre(0, 3, 0, 0));
  // It is back, and so is its cache.
  h.attach(5, worker_info(1, 8));
  h.submit(3, with_data(1, 100 * kMiB)).IgnoreError();
  EXPECT_THAT(spread(h), ElementsAre(1, 3, 0, 0));
}

// Only so many are remembered; one that is away makes room for another.
TEST(LargeInputs, WorkersThatHaveThemAreBounded) {
  Harness h;
  for (uint64_t n = 1; n <= 40; ++n) h.attach(n, worker_info(n, 1));
  h.submit(1, with_data(40, 100 * kMiB)).IgnoreError();
  for (uint64_t n = 1; n <= 40; ++n) {
    ASSERT_THAT(h.held(n), SizeIs(1));
    end_all(h, n);
  }
  h.submit(2, with_data(1, 100 * kMiB)).IgnoreError();
  ASSERT_THAT(h.held(1), SizeIs(1));
  for (uint64_t n = 1; n <= 32; ++n) h.detach(n);
  h.submit(3, with_data(1, 100 * kMiB)).IgnoreError();
  ASSERT_THAT(h.held(33), SizeIs(1));
  h.attach(50, worker_info(50, 2));
  h.end(33, key(3, 0), EndReason::succeeded);
  h.submit(4, with_data(1, 100 * kMiB)).IgnoreError();
  EXPECT_THAT(h.held(33), SizeIs(1)) << "it has more free, the other has the data";
}

JobSpec gang_with_data(uint32_t ranks) {
  JobSpec spec = with_data(ranks, 100 * kMiB);
  spec.parallel = true;
  return spec;
}

TEST(LargeInputs, AGangGoesWhereTheyAreIfThatTakesNoMoreWorkers) {
  Harness h;
  attach_four(h);
  h.submit(1, with_data(1, 100 * kMiB)).IgnoreError();
  h.submit(2, gang_with_data(7)).IgnoreError();
  EXPECT_THAT(spread(h), ElementsAre(8, 0, 0, 0));
}

TEST(LargeInputs, AGangStaysOnFewWorkers) {
  Harness h;
  attach_four(h);
  h.submit(1, with_data(1, 100 * kMiB)).IgnoreError();
  h.submit(2, gang_with_data(8)).IgnoreError();
  EXPECT_THAT(spread(h), ElementsAre(1, 8, 0, 0));
}

}  // namespace
}  // namespace pesc::coordinator
