// Leases beyond the free cpus.
#include "tests/coordinator_core/harness.h"

namespace pesc::coordinator {
namespace {

using testing::IsEmpty;
using testing::SizeIs;

AttemptKey key(uint64_t job, uint32_t rank, uint32_t attempt = 1) {
  return {job_id(job), rank, attempt};
}

TEST(Ahead, TheShorterTheRanksTheMore) {
  for (const auto& [duration_ms, times] :
       {std::pair{600u, 0u}, {499u, 1u}, {51u, 1u}, {50u, 2u}, {10u, 8u}, {1u, 32u}, {0u, 32u}}) {
    Harness h;
    h.attach(1, worker_info(1, 2));
    h.submit(1, spec_of(1000)).IgnoreError();
    h.end(1, key(1, 0), EndReason::succeeded, duration_ms);
    EXPECT_THAT(h.held(1), SizeIs(2 + 2 * times)) << duration_ms << " ms";
  }
}

TEST(Ahead, AsMuchForEachWorkerAsItsSize) {
  Harness h;
  h.attach(1, worker_info(1, 1));
  h.attach(2, worker_info(2, 3));
  h.submit(1, spec_of(4 + 8)).IgnoreError();
  h.end(1, h.held(1).at(0), EndReason::succeeded, 10);
  EXPECT_THAT(h.held(1), SizeIs(1 + 2));
  EXPECT_THAT(h.held(2), SizeIs(3 + 5)) << "of the eight that were left one runs";
}

// A rank that is not known to be short waits for a free cpu, and there would never be one.
TEST(Ahead, NothingWhereSomebodyWaitsWhoHasLess) {
  Harness h;
  h.attach(1, worker_info(1, 2));
  h.submit(1, spec_of(1000), "ada").IgnoreError();
  h.end(1, key(1, 0), EndReason::succeeded, 10);
  ASSERT_THAT(h.held(1), SizeIs(18));
  h.submit(2, spec_of(3), "grace").IgnoreError();
  for (uint32_t rank = 0; rank < 3; ++rank) {
    for (int ends = 0; h.leased(2) == 0; ++ends) {
      ASSERT_LT(ends, 20) << "it is starved";
      h.end(1, h.held(1).at(0), EndReason::succeeded, 10);
    }
    h.end(1, key(2, rank), EndReason::succeeded, 60'000);
  }
}

// The mean says little of a job whose ranks are all short but a few.
TEST(Ahead, WhatWaitsBehindLongRanksGoesToWhoHasRoom) {
  Harness h;
  h.attach(1, worker_info(1, 1));
  h.submit(1, spec_of(6)).IgnoreError();
  h.end(1, key(1, 0), EndReason::succeeded, 10);
  ASSERT_THAT(h.held(1), SizeIs(5)) << "one runs, four wait";
  h.at(h.now + 999);
  EXPECT_THAT(h.stops(1), IsEmpty());
  h.attach(2, worker_info(2, 3));
  h.at(h.now + 1);
  EXPECT_THAT(h.stops(1), SizeIs(3));
  EXPECT_THAT(h.held(2), SizeIs(3));
  ASSERT_THAT(h.held(1), SizeIs(2));
  EXPECT_EQ(h.held(1).at(0), key(1, 1)) << "what runs goes on";
  EXPECT_EQ(h.held(1).at(1), key(1, 2)) << "those first that would come last";
  for (int i = 0; i < 10; ++i) {
    h.at(h.now + 1000);
    EXPECT_THAT(h.leased(), IsEmpty()) << "nobody else has room";
  }
  // What was taken back, and had begun: it has ended, and changes nothing.
  h.report(1, h.held(1), {{key(1, 5), outcome_of(EndReason::succeeded)}});
  EXPECT_EQ(h.view(1).counts.succeeded, 1u);
  for (const AttemptKey& held : h.held(2)) h.end(2, held, EndReason::succeeded, 10);
  for (const AttemptKey& held : h.held(1)) h.end(1, held, EndReason::succeeded, 10);
  EXPECT_EQ(h.view(1).counts.succeeded, 6u);
}

TEST(Ahead, NothingMoreWhereNothingEnds) {
  Harness h;
  h.attach(1, worker_info(1, 1));
  h.submit(1, spec_of(100)).IgnoreError();
  h.end(1, key(1, 0), EndReason::succeeded, 50);
  ASSERT_THAT(h.held(1), SizeIs(3));
  h.cancel(2).IgnoreError();
  h.at(h.now + 5000);
  h.submit(2, spec_of(1)).IgnoreError();
  EXPECT_THAT(h.held(1), SizeIs(3));
}

}  // namespace
}  // namespace pesc::coordinator
