#include <gmock/gmock.h>

#include "tests/worker_core/machine.h"

namespace pesc::worker {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(WorkerReports, AHeartbeatSaysAllThatIsHeld) {
  Machine m;
  m(Connected{5000});
  m.run(key_of(0));
  m(Progressed{key_of(0), 0.25, "a"});
  m(Progressed{key_of(0), 0.5, "b"});
  EXPECT_THAT(m.got<SendReport>(), IsEmpty());
  EXPECT_EQ(m.core.next_deadline(), m.now + 5000);
  m.wait(5000);
  ASSERT_EQ(m.got<SendReport>().size(), 1u);
  const SendReport report = m.got<SendReport>()[0];
  EXPECT_THAT(report.holding, ElementsAre(key_of(0)));
  EXPECT_EQ(report.last_update, 1u);
  ASSERT_EQ(report.progress.size(), 1u);
  EXPECT_EQ(report.progress[0].fraction, 0.5);
  EXPECT_EQ(report.progress[0].text, "b");
  m.wait(5000);
  ASSERT_EQ(m.got<SendReport>().size(), 1u);
  EXPECT_THAT(m.got<SendReport>()[0].progress, IsEmpty());  // nothing new
}

TEST(WorkerReports, WhatEndsWhileAFewAreInFlightIsCollected) {
  Machine m({.cpus_milli = 100'000, .max_preparing = 100});
  m(Connected{});
  for (uint32_t rank = 0; rank < 10; ++rank) m.run(key_of(rank));
  for (uint32_t rank = 0; rank < 3; ++rank) {
    m.end(key_of(rank));
    EXPECT_EQ(m.reported().size(), 1u);
  }
  for (uint32_t rank = 3; rank < 10; ++rank) {
    m.end(key_of(rank));
    EXPECT_THAT(m.reported(), IsEmpty());
  }
  m(Acknowledged{{key_of(1)}});
  EXPECT_EQ(m.got<SendReport>().size(), 1u);
  EXPECT_EQ(m.reported().size(), 7u);
}

// Two cpus and so many ranks, of which two run.
void give_short_ranks(Machine& m, uint32_t ranks) {
  m(Connected{});
  std::vector<AttemptKey> keys;
  for (uint32_t rank = 0; rank < ranks; ++rank) keys.push_back(key_of(rank));
  m.lease(keys);
  for (const AttemptKey& key : keys) {
    if (m.state(key) == AttemptState::preparing) m(Prepared{key});
  }
}

// Ends those that run by now, prepares what is asked for, and says how many ends were told.
size_t end_next(Machine& m, uint32_t rank) {
  m(Exited{key_of(rank), outcome_of()});
  size_t told = m.reported().size();
  for (const AttemptKey& key : m.keys<Prepare>()) {
    m(Prepared{key});
    told += m.reported().size();
  }
  m(Packed{key_of(rank), {}, {}});
  return told + m.reported().size();
}

// Ends one after the other until some are told: how many, and which rank was the last.
std::pair<size_t, uint32_t> end_until_told(Machine& m, uint32_t rank) {
  for (; rank < 100; ++rank) {
    if (const size_t told = end_next(m, rank)) return {told, rank};
  }
  return {0, rank};
}

TEST(WorkerReports, EndsOfShortRanksGoTogetherForAWhile) {
  Machine m;
  give_short_ranks(m, 20);
  EXPECT_EQ(end_next(m, 0), 1u);  // nothing was told for long
  EXPECT_EQ(end_next(m, 1), 0u);
  m(Acknowledged{{key_of(0)}});
  EXPECT_THAT(m.reported(), IsEmpty());
  EXPECT_EQ(end_next(m, 2), 0u);
  ASSERT_TRUE(m.core.next_deadline());
  m.wait(*m.core.next_deadline() - m.now);
  EXPECT_EQ(m.reported().size(), 2u);
}

TEST(WorkerReports, EndsOfShortRanksAreToldWhenHalfOfWhatWaitedHasBegun) {
  Machine m;
  give_short_ranks(m, 34);  // 32 wait
  EXPECT_EQ(end_next(m, 0), 1u);
  m(Acknowledged{{key_of(0)}});
  const auto [told, rank] = end_until_told(m, 1);
  EXPECT_EQ(told, 15u);
  EXPECT_EQ(rank, 16u);  // its own end is not packed yet
  // No new leases come: what goes on waiting is told sooner each time.
  std::vector<AttemptKey> keys;
  for (uint32_t i = 1; i < rank; ++i) keys.push_back(key_of(i));
  m(Acknowledged{keys});
  EXPECT_EQ(end_until_told(m, rank + 1).second, rank + 8);
}

TEST(WorkerReports, AReportOfEndsIsAHeartbeat) {
  Machine m({.cpus_milli = 100'000, .max_preparing = 100});
  m(Connected{5000});
  for (uint32_t rank = 0; rank < 3; ++rank) m.run(key_of(rank));
  m(Progressed{key_of(2), 0.25, "a"});
  m.now += 4000;
  m.end(key_of(0));
  ASSERT_EQ(m.got<SendReport>().size(), 1u);
  EXPECT_THAT(m.got<SendReport>()[0].progress, IsEmpty()) << "but once in five seconds";
  m(Acknowledged{{key_of(0)}});
  m.wait(1000);
  ASSERT_EQ(m.got<SendReport>().size(), 1u) << "now";
  EXPECT_EQ(m.got<SendReport>()[0].progress.size(), 1u);
  m.now += 3000;
  m.end(key_of(1));
  m(Acknowledged{{key_of(1)}});
  m.wait(2000);
  EXPECT_THAT(m.got<SendReport>(), IsEmpty()) << "three seconds ago it said all";
  EXPECT_EQ(m.core.next_deadline(), m.now + 3000);
  m.wait(3000);
  EXPECT_EQ(m.got<SendReport>().size(), 1u);
}

TEST(WorkerReports, WhileAnAnswerIsAwaitedThereIsNoHeartbeat) {
  Machine m;
  m(Connected{5000});
  m.run(key_of(0));
  m.end(key_of(0));
  for (int i = 0; i < 2; ++i) {
    m.wait(5000);
    EXPECT_THAT(m.got<SendReport>(), IsEmpty());
  }
  m.now += 1000;
  m(Acknowledged{{key_of(0)}});
  EXPECT_EQ(m.got<SendReport>().size(), 1u) << "five seconds have passed";
  m.run(key_of(1));
  m.end(key_of(1));
  m.wait(5000);
  m.wait(5000);
  EXPECT_THAT(m.got<SendReport>(), IsEmpty());
  m.wait(5000);
  EXPECT_EQ(m.reported().size(), 1u) << "it is taken as lost";
}

TEST(WorkerReports, ARefusedReportIsNoHeartbeat) {
  Machine m;
  m(Connected{5000});
  m.run(key_of(0));
  m.now += 4000;
  m.end(key_of(0));
  ASSERT_EQ(m.reported().size(), 1u);
  m(ReportFailed{{key_of(0)}, "its output is not here"});
  EXPECT_EQ(m.core.next_deadline(), m.now + 1000);
  m.wait(1000);  // due again by now, and with it what had failed
  ASSERT_EQ(m.reported().size(), 1u);
  m(ReportFailed{{key_of(0)}, "its output is not here"});
  ASSERT_EQ(m.got<SendReport>().size(), 1u) << "the lease must be renewed";
  EXPECT_THAT(m.reported(), IsEmpty());
  EXPECT_EQ(m.core.next_deadline(), m.now + 5000);
}

TEST(WorkerReports, AHeartbeatTakesTheEndsAlong) {
  Machine m;
  give_short_ranks(m, 20);
  m.wait(4980);
  EXPECT_EQ(end_next(m, 0), 1u);
  m(Acknowledged{{key_of(0)}});
  EXPECT_EQ(end_next(m, 1), 0u);
  EXPECT_EQ(end_next(m, 2), 0u);
  m(Started{key_of(3), 1});
  m(Progressed{key_of(3), 0.5, "b"});
  m.wait(20);  // less than ends are kept together for
  ASSERT_EQ(m.got<SendReport>().size(), 1u);
  EXPECT_EQ(m.reported().size(), 2u);
  EXPECT_EQ(m.got<SendReport>()[0].progress.size(), 1u);
}

TEST(WorkerReports, ALargeOutputDelaysNoOther) {
  Machine m({.cpus_milli = 100'000, .max_preparing = 100});
  m(Connected{5000});
  for (uint32_t rank = 0; rank < 4; ++rank) m.run(key_of(rank));
  m.end(key_of(0), blob_of(1 << 30));
  EXPECT_EQ(m.reported().size(), 1u);
  m.end(key_of(1), blob_of(1 << 30));
  m.end(key_of(2), blob_of(1 << 30));
  EXPECT_THAT(m.reported(), IsEmpty());  // two uploads at a time
  m.end(key_of(3), blob_of(4096));
  EXPECT_EQ(m.reported().size(), 1u);
  m(Acknowledged{{key_of(3)}});
  for (int i = 0; i < 10; ++i) {
    m.wait(5000);
    EXPECT_THAT(m.reported(), IsEmpty());  // an upload of a minute is not a lost one
    EXPECT_EQ(m.got<SendReport>().size(), 1u);
  }
  m(Acknowledged{{key_of(0)}});
  ASSERT_EQ(m.reported().size(), 1u);
  EXPECT_EQ(m.reported()[0].key, key_of(2));
}

TEST(WorkerReports, EverythingUnacknowledgedIsReportedToTheNextSession) {
  Machine m;
  m(Connected{});
  m.run(key_of(0));
  m.end(key_of(0));
  EXPECT_EQ(m.reported().size(), 1u);
  m(Disconnected{});
  m.run(key_of(1));
  m.end(key_of(1));
  EXPECT_THAT(m.got<SendReport>(), IsEmpty());
  EXPECT_THAT(m.core.holding(), ElementsAre(key_of(0), key_of(1)));
  m(Connected{});
  EXPECT_EQ(m.reported().size(), 2u);
  m(Connected{});  // again, without a word about the end of the last
  EXPECT_EQ(m.reported().size(), 2u);
}

TEST(WorkerReports, UpdatesAreNumberedWithinASession) {
  Machine m;
  m(Connected{5000});
  m(UpdateReceived{7, {}, {}});
  m(Disconnected{});
  m(UpdateReceived{1, {}, {}});  // of the new session: it may overtake the answer to attach
  m(Connected{5000});
  m.wait(5000);
  EXPECT_EQ(m.got<SendReport>().at(0).last_update, 1u);
}

TEST(WorkerReports, AFailedReportIsSentWithTheNextHeartbeat) {
  Machine m;
  m(Connected{5000});
  m.run(key_of(0));
  m.end(key_of(0));
  m(ReportFailed{{key_of(0)}, "disk full"});
  EXPECT_THAT(m.got<SendReport>(), IsEmpty());
  EXPECT_TRUE(m.holds(key_of(0)));
  m.wait(5000);
  EXPECT_EQ(m.reported().size(), 1u);
}

TEST(WorkerReports, AnUnansweredSmallReportIsSentAgain) {
  Machine m;
  m(Connected{1000});
  m.run(key_of(0));
  m.end(key_of(0));
  m.wait(1000);
  m.wait(1000);
  EXPECT_THAT(m.reported(), IsEmpty());
  m.wait(1000);
  EXPECT_EQ(m.reported().size(), 1u);
}

TEST(WorkerReports, WhatTheAnswerLeftOutIsSentAgain) {
  Machine m({.cpus_milli = 2000});
  m(Connected{5000});
  m(Disconnected{});
  m.run(key_of(0));
  m.end(key_of(0));
  m.run(key_of(1));
  m.end(key_of(1));
  m(Connected{5000});
  ASSERT_EQ(m.got<SendReport>().size(), 1u);
  m(Acknowledged{{key_of(0)}});
  EXPECT_THAT(m.reported(), IsEmpty());
  m.wait(5000);
  ASSERT_EQ(m.reported().size(), 1u);
  EXPECT_EQ(m.reported()[0].key, key_of(1));
}

TEST(WorkerReports, WhatRunsIsNeverForgotten) {
  Machine m;
  m(Connected{});
  m.run(key_of(0));
  m(Acknowledged{{key_of(0)}});
  EXPECT_THAT(m.got<Forget>(), IsEmpty());
  EXPECT_EQ(m.state(key_of(0)), AttemptState::running);
}

TEST(WorkerReports, ReportsAreBoundedInSize) {
  Machine m({.cpus_milli = 10'000'000, .max_preparing = 10'000});
  for (uint32_t rank = 0; rank < 2000; ++rank) {
    m.run(key_of(rank));
    m.end(key_of(rank), blob_of(60'000));
  }
  m(Connected{});
  EXPECT_EQ(m.got<SendReport>().size(), 3u);
  for (const SendReport& report : m.got<SendReport>()) {
    EXPECT_LE(report.finished.size() * 60'000, 5u << 20);
    EXPECT_FALSE(report.finished.empty());
  }
}

#ifdef PESC_PLANTED_BUGS
TEST(WorkerReports, PlantedBugsBite) {
  Machine forgetful;
  forgetful.core.plant(PlantedBug::forget_before_acknowledged);
  forgetful(Connected{});
  forgetful.run(key_of(0));
  forgetful.end(key_of(0));
  EXPECT_EQ(forgetful.got<Forget>().size(), 1u);

  Core greedy({.cpus_milli = 1000});
  greedy.plant(PlantedBug::start_beyond_cpus);
  for (uint32_t rank = 0; rank < 2; ++rank) {
    greedy.step(UpdateReceived{0, {{key_of(rank), spec_of()}}, {}}, 0);
    greedy.step(Prepared{key_of(rank)}, 0);
  }
  EXPECT_NE(greedy.check_invariants(), "");
}
#endif

}  // namespace
}  // namespace pesc::worker
