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
  for (const auto& [duration_ms, times] : {std::pair{600u, 0u},
                                           {499u, 1u},
                                           {101u, 1u},
                                           {100u, 2u},
                                           {10u, 16u},
                                           {1u, 64u},
                                           {0u, 64u}}) {
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
  h.end(1, key(1, 0), EndReason::succeeded, 20);
  ASSERT_THAT(h.held(1), SizeIs(18));
  h.submit(2, spec_of(3), "grace").IgnoreError();
  for (uint32_t rank = 0; rank < 3; ++rank) {
    for (int ends = 0; h.leased(2) == 0; ++ends) {
      ASSERT_LT(ends, 20) << "it is starved";
      h.end(1, h.held(1).at(0), EndReason::succeeded, 20);
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
  h.end(1, key(1, 0), EndReason::succeeded, 150);
  ASSERT_THAT(h.held(1), SizeIs(2));
  h.cancel(2).IgnoreError();
  h.at(h.now + 5000);
  h.submit(2, spec_of(1)).IgnoreError();
  EXPECT_THAT(h.held(1), SizeIs(2));
}

// What has nothing is not stuck: nothing could have ended there.
TEST(Ahead, AWorkerThatWasIdleIsGivenSomeAhead) {
  Harness h;
  h.attach(1, worker_info(1, 1));
  h.submit(1, spec_of(1)).IgnoreError();
  h.end(1, key(1, 0), EndReason::succeeded, 10);
  h.at(h.now + 10'000);
  h.submit(2, spec_of(10)).IgnoreError();
  h.report(1, h.held(1), {{key(2, 0), outcome_of(EndReason::succeeded, 100)}});
  EXPECT_THAT(h.held(1), SizeIs(1 + 2));
}

TEST(Ahead, ByAllWorkersTogetherOnlySoMany) {
  CoreConfig config;
  config.prefetch_total = 5;
  Harness h(config);
  for (uint64_t worker : {1, 2}) h.attach(worker, worker_info(worker, 2));
  h.submit(1, spec_of(100)).IgnoreError();
  h.end(1, h.held(1).at(0), EndReason::succeeded, 10);
  EXPECT_EQ(h.leased(1), 4u + 5u);
  for (int ends = 0; ends < 20; ++ends) {
    const uint64_t worker = h.held(1).empty() ? 2 : 1;
    h.end(worker, h.held(worker).at(0), EndReason::succeeded, 10);
    EXPECT_EQ(h.leased(1), 4u + 5u) << ends;
  }
}

// With thousands of workers a message costs more than a rank. In the end all of them have the same.
TEST(Ahead, OneWorkerIsFilledAfterTheOtherWhileThereIsEnoughForAll) {
  Harness h;
  for (uint64_t worker = 1; worker <= 20; ++worker) h.attach(worker, worker_info(worker, 4));
  h.submit(1, spec_of(80 + 1 + 20 * 40)).IgnoreError();
  const std::vector<AttemptKey> held = h.held(1);
  EXPECT_EQ(held.back().rank, held.front().rank + 3) << "its cpus one after the other";
  h.report(1, {held.begin() + 1, held.end()}, {{held[0], outcome_of(EndReason::succeeded, 10)}});
  size_t messages = h.actions<SendUpdate>().size();
  EXPECT_LT(messages, 40u) << "of 512 leases";
  h.settle();
  messages += h.actions<SendUpdate>().size();
  EXPECT_LT(messages, 60u) << "of 800 leases";
  for (uint64_t worker = 1; worker <= 20; ++worker) {
    EXPECT_THAT(h.held(worker), SizeIs(testing::AllOf(testing::Ge(43u), testing::Le(45u))));
  }
}

TEST(Ahead, TheLastOnesGoWhereTheLeastIs) {
  Harness h;
  for (uint64_t worker = 1; worker <= 20; ++worker) h.attach(worker, worker_info(worker, 4));
  h.submit(1, spec_of(80 + 1 + 60)).IgnoreError();
  h.end(1, h.held(1).at(0), EndReason::succeeded, 10);
  for (uint64_t worker = 1; worker <= 20; ++worker) {
    EXPECT_THAT(h.held(worker), SizeIs(4 + 3)) << worker;
  }
}

// A report that waited here for its turn says nothing about what runs now: what it tells of had
// ended long before it was heard of.
TEST(Ahead, WhatIsHeardOfLateIsNotTakenBackInVain) {
  Harness h;
  h.attach(1, worker_info(1, 1));
  h.submit(1, spec_of(10)).IgnoreError();
  h.at(h.now + 4'000, WorkerReported{});
  h.end(1, key(1, 0), EndReason::succeeded, 10);
  ASSERT_THAT(h.held(1), SizeIs(9)) << "four seconds late";
  h.attach(2, worker_info(2, 3));
  h.report(2, h.held(2));
  h.at(h.now + 4'900);
  EXPECT_THAT(h.stops(1), IsEmpty());
  h.at(h.now + 100);
  EXPECT_THAT(h.stops(1), SizeIs(3));
}

// Several events that came together are followed by one round of placement and one message for each
// worker, and nothing is taken back before the last of them.
TEST(Ahead, PlacesAfterTheLastOfTheEventsThatWait) {
  Harness h;
  h.attach(1, worker_info(1, 4));
  h.submit(1, spec_of(100)).IgnoreError();
  const std::vector<AttemptKey> held = h.held(1);
  const auto report = [&](size_t i, bool more) {
    WorkerReported event;
    event.session = 1;
    event.holding = {held.begin() + ptrdiff_t(i), held.end()};
    event.finished = {{held[i], outcome_of(EndReason::succeeded, 60'000)}};
    event.last_update = UINT64_MAX;
    return h.core->step(event, h.now, more);
  };
  for (size_t i = 0; i < 3; ++i) {
    const Step step = report(i, true);
    EXPECT_THAT(step.records, SizeIs(1)) << "its end";
    EXPECT_EQ(h.core->next_deadline(), h.now);
    EXPECT_EQ(h.core->check_invariants(), "");
  }
  const Step step = report(3, false);
  size_t updates = 0, leases = 0;
  for (const Action& action : step.actions) {
    const auto* update = std::get_if<SendUpdate>(&action);
    if (update == nullptr) continue;
    ++updates;
    leases += update->leases.size();
  }
  EXPECT_EQ(updates, 1u);
  EXPECT_EQ(leases, 4u);
}

}  // namespace
}  // namespace pesc::coordinator
