// Fair shares between owners, by the cpus that they have in use.
#include <algorithm>
#include <map>

#include "tests/coordinator_core/harness.h"

namespace pesc::coordinator {
namespace {

using ::testing::SizeIs;

JobSpec wide(uint32_t repetitions, uint32_t cpus_milli) {
  JobSpec spec = spec_of(repetitions);
  spec.resources.cpus_milli = cpus_milli;
  return spec;
}

// A lab in which every rank takes a time of its own, as the seconds pass.
struct Lab {
  Harness h;
  std::map<uint64_t, uint64_t> sessions;        // of workers
  std::map<AttemptKey, TimeMs> due;             // of what runs
  std::map<uint64_t, TimeMs> duration;          // of a job's ranks
  std::map<uint64_t, uint64_t> owner_milli_ms;  // by job: cpu time used

  explicit Lab(CoreConfig config = {}) : h(config) {}
  void worker(uint64_t n, uint32_t cpus) {
    sessions[n] = n;
    h.attach(n, worker_info(n, cpus));
  }
  void pass(TimeMs ms, TimeMs step = 100) {
    for (const TimeMs end = h.now + ms; h.now < end;) {
      h.now += step;
      for (const auto& [n, session] : sessions) {
        for (const AttemptKey& each : running(n)) {
          const uint64_t job = each.job.value;
          const TimeMs takes = duration.at(job) + TimeMs(each.rank % 7) * 10;
          const TimeMs until = due.try_emplace(each, h.now + takes).first->second;
          owner_milli_ms[job] += uint64_t(step) * h.view(job).spec->resources.cpus_milli;
          if (until > h.now) continue;
          h.end(session, each, EndReason::succeeded, uint64_t(takes));
        }
        h.report(session, h.held(n));
      }
    }
  }
  // Not those ahead of their time.
  std::vector<AttemptKey> running(uint64_t n) const {
    std::vector<AttemptKey> keys;
    for (const AttemptKey& each : h.held(n)) {
      for (const RunningRank& rank : h.core->running(each.job)) {
        if (rank.key == each && !rank.ahead) keys.push_back(each);
      }
    }
    return keys;
  }
  double ratio(uint64_t a, uint64_t b) {
    return double(owner_milli_ms[a]) / double(std::max<uint64_t>(owner_milli_ms[b], 1));
  }
};

TEST(Shares, AreCountedInCpusAndNotInRanks) {
  Harness h;
  h.submit(1, wide(100, 4000), "ada").IgnoreError();
  h.submit(2, wide(100, 1000), "bob").IgnoreError();
  for (uint64_t n = 1; n <= 4; ++n) h.attach(n, worker_info(n, 4));
  h.settle();
  EXPECT_EQ(h.leased(1), 2u);
  EXPECT_EQ(h.leased(2), 8u);
}

// One cpu after the other becomes free, and each is taken by the small ranks, unless they wait.
TEST(Shares, WideRanksAreNotStarvedByNarrowOnes) {
  Lab lab;
  lab.duration = {{1, 3'000}, {2, 3'000}};
  lab.h.submit(2, wide(100'000, 1000), "bob").IgnoreError();
  for (uint64_t n = 1; n <= 2; ++n) lab.worker(n, 8);
  lab.pass(10'000);
  lab.h.submit(1, wide(10'000, 4000), "ada").IgnoreError();
  lab.pass(20'000);
  lab.owner_milli_ms.clear();
  lab.pass(120'000);
  EXPECT_NEAR(lab.ratio(1, 2), 1.0, 0.2);
}

TEST(Shares, OfShortRanksThatAreLeasedAheadAreNoLarger) {
  Lab lab;
  lab.duration = {{1, 10'000}, {2, 200}};
  lab.h.submit(2, wide(1'000'000, 1000), "bob").IgnoreError();
  lab.worker(1, 8);
  lab.pass(5'000, 50);
  ASSERT_GT(lab.h.held(1).size(), 8u) << "they are leased ahead";
  lab.h.submit(1, wide(10'000, 1000), "ada").IgnoreError();
  lab.pass(20'000, 50);
  lab.owner_milli_ms.clear();
  lab.pass(60'000, 50);
  EXPECT_NEAR(lab.ratio(1, 2), 1.0, 0.2);
}

TEST(Shares, OfThreeAreAThirdEach) {
  Lab lab;
  lab.duration = {{1, 2'000}, {2, 5'000}, {3, 3'000}};
  lab.h.submit(1, wide(100'000, 500), "ada").IgnoreError();
  lab.h.submit(2, wide(100'000, 2000), "bob").IgnoreError();
  lab.h.submit(3, wide(100'000, 1000), "eve").IgnoreError();
  for (uint64_t n = 1; n <= 3; ++n) lab.worker(n, 6);
  lab.pass(20'000);
  lab.owner_milli_ms.clear();
  lab.pass(120'000);
  EXPECT_NEAR(lab.ratio(1, 3), 1.0, 0.2);
  EXPECT_NEAR(lab.ratio(2, 3), 1.0, 0.2);
}

// Whoever waits alone has everything.
TEST(Shares, LeaveNothingIdle) {
  Harness h;
  h.submit(1, wide(100, 1000), "ada").IgnoreError();
  h.submit(2, wide(1, 1000), "bob").IgnoreError();
  h.attach(1, worker_info(1, 8));
  EXPECT_THAT(h.held(1), SizeIs(8));
  EXPECT_EQ(h.leased(1), 7u);
}

TEST(Shares, WhatNoWorkerIsLargeEnoughForKeepsNothingFree) {
  Harness h;
  h.submit(1, wide(5, 16'000), "ada").IgnoreError();
  h.submit(2, wide(100, 1000), "bob").IgnoreError();
  h.attach(1, worker_info(1, 8));
  for (int i = 0; i < 20; ++i) {
    ASSERT_THAT(h.held(1), SizeIs(8)) << i;
    h.end(1, h.held(1).front(), EndReason::succeeded);
  }
}

TEST(Shares, WhatIsKeptFreeIsGivenBackWhenItsWorkerOrItsJobGoes) {
  Harness h;
  h.submit(2, wide(100, 1000), "bob").IgnoreError();
  h.attach(1, worker_info(1, 4));
  h.submit(1, wide(5, 4000), "ada").IgnoreError();
  h.end(1, h.held(1).front(), EndReason::succeeded);
  EXPECT_THAT(h.held(1), SizeIs(3)) << "one is kept for ada's";
  ASSERT_TRUE(h.cancel(1).ok());
  h.settle();
  EXPECT_THAT(h.held(1), SizeIs(4));
  h.submit(3, wide(5, 4000), "ada").IgnoreError();
  h.end(1, h.held(1).front(), EndReason::succeeded);
  EXPECT_THAT(h.held(1), SizeIs(3));
  h.detach(1);
  h.attach(2, worker_info(2, 2));
  h.settle();
  EXPECT_THAT(h.held(2), SizeIs(2)) << "no worker that is left could run ada's";
}

TEST(Shares, WhatIsKeptFreeIsGivenByWhatIsKnownByThen) {
  Harness h;
  h.submit(2, wide(100, 1000), "bob").IgnoreError();
  h.attach(1, worker_info(1, 4));
  h.submit(1, wide(5, 4000), "ada").IgnoreError();
  AttemptOutcome outcome = outcome_of(EndReason::succeeded);
  outcome.max_rss_bytes = 1ull << 30;  // of ada's program too
  for (const AttemptKey& each : h.held(1)) h.end(1, each, outcome);
  const std::vector<AttemptLeased> leased = h.records<AttemptLeased>();
  ASSERT_THAT(leased, SizeIs(1));
  EXPECT_EQ(leased[0].key.job, job_id(1));
  EXPECT_GT(leased[0].claim.memory_bytes, 1ull << 30);
}

TEST(Shares, CountWhatRunsAfterARestart) {
  Harness h;
  h.submit(2, wide(100, 1000), "bob").IgnoreError();
  const WorkerInfo info = worker_info(1, 8);
  h.attach(1, info);
  ASSERT_THAT(h.held(1), SizeIs(8));
  const std::vector<AttemptKey> running = h.held(1);
  h.restore();
  h.attach(2, info, running);
  h.submit(1, wide(100, 1000), "ada").IgnoreError();
  for (int i = 0; i < 4; ++i) h.end(2, running[i], EndReason::succeeded);
  EXPECT_EQ(h.leased(1), 4u) << "ada has four, bob has four";
  h.end(2, running[4], EndReason::succeeded);
  EXPECT_EQ(h.leased(2), 4u) << "and each gets what he gives back";
}

// Work in each step is bounded by the kinds of ranks and by the workers, not by what waits.
TEST(Shares, AreKeptWithManyOwnersAndJobs) {
  Harness h;
  for (uint64_t job = 1; job <= 60; ++job) {
    h.submit(job, wide(kMaxRepetitions, 1000 * (1 + uint32_t(job % 3))),
             "user" + std::to_string(job % 6))
        .IgnoreError();
  }
  for (uint64_t n = 1; n <= 6; ++n) h.attach(n, worker_info(n, 6));
  h.settle();
  for (int i = 0; i < 300; ++i) {
    const uint64_t n = 1 + uint64_t(i) % 6;
    if (!h.held(n).empty()) h.end(n, h.held(n).front(), EndReason::succeeded);
  }
  std::map<std::string, uint32_t> used;
  for (uint64_t job = 1; job <= 60; ++job) {
    used["user" + std::to_string(job % 6)] += uint32_t(h.leased(job)) * (1 + uint32_t(job % 3));
  }
  for (const auto& [owner, cpus] : used) EXPECT_GE(cpus, 3u) << owner << ", of 36 cpus";
}

}  // namespace
}  // namespace pesc::coordinator
