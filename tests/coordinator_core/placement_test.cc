// Which rank goes where: limits, fairness, order, bounds; and what `why` says when none does.
#include <deque>

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
JobSpec sized(uint32_t repetitions, uint32_t cpus_milli, uint64_t memory = 0,
              const std::string& room = "") {
  JobSpec spec = spec_of(repetitions);
  spec.resources.cpus_milli = cpus_milli;
  spec.resources.memory_bytes = memory;
  spec.room = room;
  return spec;
}
constexpr uint64_t kGiB = 1ull << 30;

TEST(Placement, MostFreeFirstThenById) {
  Harness h;
  h.attach(1, worker_info(1, 2));
  h.attach(2, worker_info(2, 3));
  h.attach(3, worker_info(3, 3));
  h.submit(1, spec_of(3)).IgnoreError();
  EXPECT_THAT(h.held(2), ElementsAre(key(1, 0)));
  EXPECT_THAT(h.held(3), ElementsAre(key(1, 1)));
  EXPECT_THAT(h.held(1), ElementsAre(key(1, 2)));
}

TEST(Placement, NeverBeyondCpusOrMemory) {
  Harness h;
  h.attach(1, worker_info(1, 8, 8 * kGiB));
  h.submit(1, sized(10, 1000, 3 * kGiB)).IgnoreError();
  EXPECT_THAT(h.held(1), SizeIs(2));
  h.submit(2, sized(100, 1500)).IgnoreError();
  EXPECT_THAT(h.held(1), SizeIs(2 + 4));
  EXPECT_EQ(h.core->workers().at(0).cpus_used_milli, 8000u);
  h.submit(3, sized(1, 3000)).IgnoreError();
  h.end(1, key(2, 0), EndReason::succeeded);
  EXPECT_THAT(h.held(1), SizeIs(6));
}

TEST(Placement, AJobInARoomStaysThere) {
  Harness h;
  h.attach(1, worker_info(1, 8));
  h.submit(1, sized(3, 1000, 0, "gpu")).IgnoreError();
  EXPECT_THAT(h.held(1), IsEmpty());
  h.attach(2, worker_info(2, 2, 8 * kGiB, "gpu"));
  EXPECT_THAT(h.held(2), SizeIs(2));
  h.submit(2, spec_of(100)).IgnoreError();
  EXPECT_THAT(h.held(1), SizeIs(8)) << "what is not in the room does not wait for it";
}

TEST(Placement, AJobThatFitsNowhereHoldsNobodyUp) {
  Harness h;
  h.attach(1, worker_info(1, 2));
  h.submit(1, sized(5, 64'000)).IgnoreError();
  h.submit(2, spec_of(1)).IgnoreError();
  EXPECT_THAT(h.held(1), ElementsAre(key(2, 0)));
}

TEST(Placement, JobsOfOneOwnerInTheOrderOfSubmission) {
  Harness h;
  h.submit(2, spec_of(2)).IgnoreError();
  h.submit(3, spec_of(2)).IgnoreError();
  h.submit(1, spec_of(2)).IgnoreError();  // the harness submits it at an earlier wall time
  h.attach(1, worker_info(1, 5));
  EXPECT_THAT(h.held(1), ElementsAre(key(1, 0), key(1, 1), key(2, 0), key(2, 1), key(3, 0)));
}

// The rank that began first ends first.
TEST(Placement, OwnersTakeTurns) {
  Harness h;
  h.submit(1, spec_of(1'000'000), "ada").IgnoreError();
  h.attach(1, worker_info(1, 4));
  ASSERT_THAT(h.held(1), SizeIs(4));
  h.submit(2, spec_of(10), "bob").IgnoreError();
  std::deque<AttemptKey> running;
  for (const AttemptKey& each : h.held(1)) running.push_back(each);
  for (int ended = 0; ended < 20; ++ended) {
    h.end(1, running.front(), EndReason::succeeded);
    running.pop_front();
    for (const AttemptKey& each : h.leased()) running.push_back(each);
  }
  const JobView bob = h.view(2);
  EXPECT_EQ(bob.counts.waiting, 0u) << "twenty places, every second one was his";
}

TEST(Placement, WorkIsBoundedPerStepAndGoesOnAtOnce) {
  CoreConfig config;
  config.max_placements_per_step = 10;
  Harness h(config);
  h.submit(1, spec_of(1000)).IgnoreError();
  h.attach(1, worker_info(1, 35));
  EXPECT_THAT(h.leased(), SizeIs(10));
  EXPECT_EQ(h.core->next_deadline(), h.now);
  h.step(TimerFired{});
  EXPECT_THAT(h.leased(), SizeIs(10));
  h.settle();
  EXPECT_THAT(h.held(1), SizeIs(35));
  EXPECT_GT(h.core->next_deadline(), h.now);
}

TEST(Placement, QueuedRanksCostNoTimePerStep) {
  Harness h;
  for (uint64_t job = 1; job <= 200; ++job) {
    h.submit(job, spec_of(kMaxRepetitions), "user" + std::to_string(job % 7)).IgnoreError();
  }
  h.attach(1, worker_info(1, 4));
  for (int i = 0; i < 200; ++i) h.end(1, h.held(1).at(0), EndReason::succeeded);
  EXPECT_THAT(h.held(1), SizeIs(4));
}

// pc1 is busy. On pc2, where it has failed, there is work for others.
TEST(Placement, ARankThatFailedLetsOthersGoFirstWhereItDid) {
  Harness h;
  h.attach(1, worker_info(1, 1));
  h.attach(2, worker_info(2, 1));
  JobSpec spec = spec_of(5);
  spec.retries = 3;
  h.submit(1, spec).IgnoreError();
  const AttemptKey failed = h.held(2).at(0);
  h.end(2, failed, EndReason::exit_code);
  h.now += 1000;
  h.end(2, h.held(2).at(0), EndReason::succeeded);
  EXPECT_NE(h.held(2).at(0).rank, failed.rank);
  h.end(1, h.held(1).at(0), EndReason::succeeded);
  EXPECT_EQ(h.held(1).at(0).rank, failed.rank);
}

TEST(Prefetch, OnlyWhenRanksAreKnownToBeShort) {
  Harness h;
  h.attach(1, worker_info(1, 2, kGiB));
  h.submit(1, sized(100, 1000, kGiB / 3)).IgnoreError();
  EXPECT_THAT(h.held(1), SizeIs(2));
  h.end(1, key(1, 0), EndReason::succeeded, 200);
  EXPECT_THAT(h.held(1), SizeIs(3)) << "one ahead, then the memory is used up";
  h.submit(2, spec_of(100)).IgnoreError();
  EXPECT_THAT(h.held(1), SizeIs(3)) << "nothing is known of this one";
  h.submit(3, spec_of(100)).IgnoreError();
}

TEST(Prefetch, AtMostAsManyMoreAsThereAreSlots) {
  Harness h;
  h.attach(1, worker_info(1, 4));
  h.submit(1, spec_of(100)).IgnoreError();
  h.end(1, key(1, 0), EndReason::succeeded, 200);
  EXPECT_THAT(h.held(1), SizeIs(8));
  EXPECT_EQ(h.core->workers().at(0).cpus_used_milli, 4000u);
  // A long rank raises the mean: the slots are kept filled, no more.
  h.end(1, key(1, 1), EndReason::succeeded, 100'000);
  EXPECT_THAT(h.held(1), SizeIs(7));
}

TEST(Prefetch, PrefersWhatIsReallyFree) {
  Harness h;
  h.attach(1, worker_info(1, 16));
  h.submit(1, spec_of(100)).IgnoreError();
  h.end(1, key(1, 0), EndReason::succeeded, 200);
  ASSERT_THAT(h.held(1), SizeIs(32));
  h.attach(2, worker_info(2, 2));
  EXPECT_THAT(h.held(2), SizeIs(4));
}

std::string reason(const Harness& h, uint64_t job) {
  const std::vector<WhyLine> lines = h.core->why(job_id(job), h.now);
  return lines.empty() ? "" : lines[0].reason;
}

TEST(Why, SaysExactlyWhatIsMissing) {
  Harness h;
  h.submit(1, sized(7, 8000)).IgnoreError();
  EXPECT_EQ(reason(h, 1), "no worker is attached");
  h.attach(1, worker_info(3, 4));
  EXPECT_EQ(reason(h, 1), "needs 8 cpus; the largest worker attached (pc3) has 4");
  h.submit(2, sized(1, 1000, 0, "gpu")).IgnoreError();
  EXPECT_EQ(reason(h, 2), "room 'gpu' has no worker");
  h.submit(3, sized(1, 1500, 9 * kGiB)).IgnoreError();
  EXPECT_THAT(reason(h, 3), HasSubstr("of memory; the largest worker attached (pc3) has"));
  h.submit(4, spec_of(12)).IgnoreError();
  EXPECT_EQ(reason(h, 4), "waits for a free slot: 4 of 4 cpus in use");
  const std::vector<WhyLine> lines = h.core->why(job_id(4), h.now);
  ASSERT_THAT(lines, SizeIs(1));
  EXPECT_EQ(lines[0].ranks, "4-11");
  EXPECT_EQ(lines[0].count, 8u);
}

TEST(Why, TellsOfTries) {
  Harness h;
  h.attach(1, worker_info(1, 3));
  JobSpec spec = spec_of(3);
  spec.retries = 5;
  h.submit(1, spec).IgnoreError();
  h.end(1, key(1, 0), EndReason::exit_code);
  h.end(1, key(1, 2), EndReason::exit_code);
  const std::vector<WhyLine> lines = h.core->why(job_id(1), h.now);
  ASSERT_THAT(lines, SizeIs(1));
  EXPECT_EQ(lines[0].ranks, "0,2");
  EXPECT_EQ(lines[0].reason, "tried 1 time, next try in 1s; last: exit_code: it went wrong");
}

}  // namespace
}  // namespace pesc::coordinator
