// Where gangs go, and that neither they nor the others starve.
#include "tests/coordinator_core/harness.h"

namespace pesc::coordinator {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr uint64_t kGiB = 1ull << 30;

AttemptKey key(uint64_t job, uint32_t rank, uint32_t attempt = 1) {
  return {job_id(job), rank, attempt};
}

JobSpec gang_of(uint32_t ranks, uint32_t cpus = 1, uint64_t memory = 0) {
  JobSpec spec = spec_of(ranks);
  spec.parallel = true;
  spec.resources.cpus_milli = cpus * 1000;
  spec.resources.memory_bytes = memory;
  return spec;
}

std::string why(const Harness& h, uint64_t job) {
  std::string text;
  for (const WhyLine& line : h.core->why(job_id(job), h.now)) text += line.reason + "\n";
  return text;
}

// All that the worker has ends well; gangs are started first.
void finish_all(Harness& h, uint64_t worker) {
  std::vector<ReadyAttempt> ready;
  std::vector<FinishedAttempt> ended;
  const std::vector<AttemptKey> held = h.held(worker);
  for (const AttemptKey& k : held) {
    if (!h.view(k.job.value).spec->parallel || h.view(k.job.value).tally.gang_starts > 0) {
      ended.push_back({k, outcome_of(EndReason::succeeded)});
    } else {
      ready.push_back({k, 29500});
    }
  }
  h.step(WorkerReported{1, worker, held, UINT64_MAX, ended, {}, ready, h.unix_ms});
}

TEST(GangPlacement, TwoThatFitAloneAndNotTogetherBothFinish) {
  Harness h;
  h.attach(1, worker_info(1, 2));
  h.attach(2, worker_info(2, 2));
  h.submit(1, gang_of(3)).IgnoreError();
  h.submit(2, gang_of(3)).IgnoreError();
  EXPECT_EQ(h.leased(1), 3u);
  EXPECT_EQ(h.leased(2), 0u);
  EXPECT_EQ(why(h, 2), "waits for 2 more cpus; pc1, pc2 are reserved for it\n");
  for (int turn = 0; turn < 10; ++turn) {
    finish_all(h, 1);
    finish_all(h, 2);
  }
  EXPECT_EQ(h.view(1).state, JobState::succeeded);
  EXPECT_EQ(h.view(2).state, JobState::succeeded);
}

TEST(GangPlacement, OnFewWorkersWithNeighbouringRanks) {
  Harness h;
  h.attach(1, worker_info(1, 2));
  h.attach(2, worker_info(2, 4));
  h.attach(3, worker_info(3, 3));
  h.submit(1, gang_of(6)).IgnoreError();
  EXPECT_THAT(h.held(2), ElementsAre(key(1, 0), key(1, 1), key(1, 2), key(1, 3)));
  EXPECT_THAT(h.held(3), ElementsAre(key(1, 4), key(1, 5)));
  EXPECT_THAT(h.held(1), IsEmpty());
}

TEST(GangPlacement, OnOneWorkerWhenAsked) {
  Harness h;
  JobSpec spec = gang_of(3);
  spec.same_worker = true;
  h.attach(1, worker_info(1, 2));
  h.attach(2, worker_info(2, 2));
  h.submit(1, spec).IgnoreError();
  EXPECT_EQ(why(h, 1), "needs 3 cpus on one worker; the largest (pc1) has 2\n");
  h.attach(3, worker_info(3, 4));
  EXPECT_THAT(h.held(3), SizeIs(3));
  h.submit(2, spec).IgnoreError();
  EXPECT_EQ(why(h, 2), "waits for 2 more cpus on one worker; pc3 is reserved for it\n");
  h.submit(3, spec_of(9)).IgnoreError();
  EXPECT_THAT(h.held(3), SizeIs(3)) << "what is free there is the gang's";
  EXPECT_THAT(h.held(1), SizeIs(2));
}

TEST(GangPlacement, LooksAtMemoryAndRoom) {
  Harness h;
  h.attach(1, worker_info(1, 8, 8 * kGiB));
  h.attach(2, worker_info(2, 8, 3 * kGiB));
  JobSpec spec = gang_of(3, 1, 3 * kGiB);
  h.submit(1, spec).IgnoreError();
  EXPECT_THAT(h.held(1), SizeIs(2));
  EXPECT_THAT(h.held(2), SizeIs(1));
  h.submit(2, gang_of(4, 1, 3 * kGiB)).IgnoreError();
  EXPECT_EQ(why(h, 2),
            "needs room for 4 ranks at the same time; the workers that take work have it for 3\n");
  JobSpec gpu = gang_of(2);
  gpu.room = "gpu";
  h.submit(3, gpu).IgnoreError();
  EXPECT_EQ(why(h, 3), "room 'gpu' has no worker\n");
  h.attach(3, worker_info(3, 1, kGiB, "gpu"));
  EXPECT_EQ(why(h, 3),
            "needs 2 cpus at the same time; the workers that take work in room 'gpu' have 1\n");
  h.attach(4, worker_info(4, 1, kGiB, "gpu"));
  EXPECT_EQ(h.leased(3), 2u);
}

TEST(GangPlacement, ThatCanNeverFitReservesNothing) {
  Harness h;
  h.attach(1, worker_info(1, 4));
  h.attach(2, worker_info(2, 4));
  h.submit(1, gang_of(12)).IgnoreError();
  h.submit(2, gang_of(2, 5)).IgnoreError();
  EXPECT_EQ(why(h, 1), "needs 12 cpus at the same time; the workers that take work have 8\n");
  EXPECT_EQ(why(h, 2), "needs 5 cpus; the largest worker attached (pc1) has 4\n");
  h.submit(3, spec_of(8)).IgnoreError();
  EXPECT_EQ(h.leased(3), 8u);
  h.submit(4, gang_of(3)).IgnoreError();
  EXPECT_EQ(why(h, 4), "waits for 3 more cpus; pc1 is reserved for it\n") << "the next one has it";
  h.attach(3, worker_info(3, 15));
  EXPECT_EQ(h.leased(1), 12u) << "until a worker comes";
}

TEST(GangPlacement, ReservesForOneAtATimeTheOldest) {
  Harness h;
  h.attach(1, worker_info(1, 4));
  h.submit(1, spec_of(3)).IgnoreError();
  h.submit(2, gang_of(4)).IgnoreError();
  h.submit(3, gang_of(3)).IgnoreError();
  h.submit(4, spec_of(9)).IgnoreError();
  EXPECT_EQ(why(h, 2), "waits for 3 more cpus; pc1 is reserved for it\n");
  EXPECT_EQ(why(h, 3), "waits for 3 more cpus; parallel job " + to_string(job_id(2)) +
                           " has its turn before it\n");
  EXPECT_EQ(h.leased(4), 0u);
  h.cancel(2).IgnoreError();
  EXPECT_EQ(why(h, 3), "waits for 2 more cpus; pc1 is reserved for it\n");
  h.end(1, key(1, 0), EndReason::succeeded);
  EXPECT_EQ(h.leased(4), 0u) << "what becomes free is the gang's";
  h.end(1, key(1, 1), EndReason::succeeded);
  EXPECT_EQ(h.leased(3), 3u);
  h.end(1, key(1, 2), EndReason::succeeded);
  EXPECT_EQ(h.leased(4), 1u);
}

TEST(GangPlacement, TheReservationMovesWithItsWorkers) {
  Harness h;
  h.attach(1, worker_info(1, 2));
  h.attach(2, worker_info(2, 2));
  h.submit(1, spec_of(4)).IgnoreError();
  h.submit(2, gang_of(2)).IgnoreError();
  EXPECT_EQ(why(h, 2), "waits for 2 more cpus; pc1 is reserved for it\n");
  h.submit(3, spec_of(99)).IgnoreError();
  h.detach(1);
  EXPECT_EQ(why(h, 2), "waits for 2 more cpus; pc2 is reserved for it\n");
  h.end(2, h.held(2).at(0), EndReason::succeeded);
  h.end(2, h.held(2).at(0), EndReason::succeeded);
  EXPECT_EQ(h.leased(2), 2u);
  EXPECT_EQ(h.leased(3), 0u);
}

TEST(GangPlacement, NothingIsLeasedAheadOnReservedWorkers) {
  Harness h;
  h.attach(1, worker_info(1, 2));
  h.submit(1, spec_of(1000)).IgnoreError();
  h.end(1, h.held(1).at(0), EndReason::succeeded, 200);
  ASSERT_THAT(h.held(1), SizeIs(4)) << "short ranks are leased ahead";
  h.submit(2, gang_of(2), "bob").IgnoreError();
  for (int i = 0; i < 3; ++i) h.end(1, h.held(1).at(0), EndReason::succeeded, 200);
  EXPECT_EQ(h.leased(2), 0u);
  h.end(1, h.held(1).at(0), EndReason::succeeded, 200);
  EXPECT_EQ(h.leased(2), 2u);
}

TEST(GangPlacement, AvoidsTheWorkerWhereItBrokeIfItCan) {
  Harness h;
  JobSpec spec = gang_of(2);
  spec.retries = 2;
  h.attach(1, worker_info(1, 4));
  h.attach(2, worker_info(2, 2));
  h.submit(1, spec).IgnoreError();
  ASSERT_THAT(h.held(1), SizeIs(2));
  h.end(1, key(1, 1), EndReason::exit_code);
  h.at(*h.core->next_deadline());
  EXPECT_THAT(h.held(2), SizeIs(2));
  h.detach(1);
  h.end(2, key(1, 1, 2), EndReason::exit_code);
  h.at(*h.core->next_deadline());
  EXPECT_THAT(h.held(2), SizeIs(2)) << "there is no other";
}

// Whatever the small ranks are like and however they arrive, a gang as large as the lab is placed
// before more of them have been started than were running when it came, were leased ahead, or fit
// beside it.
TEST(GangPlacement, AStreamOfSmallRanksStarvesNoGang) {
  for (uint32_t seed = 0; seed < 60; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    uint32_t state = seed * 2654435761u + 1;
    const auto pick = [&state](uint32_t n) {
      return (state = state * 1664525 + 1013904223) / 7 % n;
    };
    Harness h;
    uint32_t cpus = 0;
    for (uint64_t n = 1; n <= 3; ++n) {
      const uint32_t of_worker = 1 + pick(4);
      cpus += of_worker;
      h.attach(n, worker_info(n, of_worker));
    }
    h.submit(1, spec_of(100'000), "stream").IgnoreError();
    const uint64_t short_ms = pick(2) == 0 ? 10 : 5000;
    for (int i = 0; i < 20; ++i) {
      const uint64_t n = 1 + pick(3);
      if (!h.held(n).empty()) h.end(n, h.held(n).at(0), EndReason::succeeded, short_ms);
    }
    const uint32_t gang = 1 + pick(cpus);
    h.submit(2, gang_of(gang), pick(2) == 0 ? "stream" : "bob").IgnoreError();
    uint64_t id = 2;
    uint32_t ends = 0, cuts = 0;
    while (h.leased(2) == 0 && ends < 80 + 32 * cpus) {
      if (pick(3) == 0) {
        ++id;
        h.submit(id, spec_of(1 + pick(5)), "new" + std::to_string(id)).IgnoreError();
      }
      const uint64_t n = 1 + pick(3);
      const std::vector<AttemptKey> held = h.held(n);
      if (held.empty()) continue;
      if (pick(10) == 0 && ++cuts < 3) {
        h.detach(n);
        h.attach(n, h.core->workers().at(n - 1).info, held);
      }
      h.end(n, held.at(pick(uint32_t(held.size()))), EndReason::succeeded, short_ms);
      ++ends;
    }
    EXPECT_EQ(h.leased(2), gang) << "still waits: " << why(h, 2);
    if (HasFailure()) return;
  }
}

}  // namespace
}  // namespace pesc::coordinator
