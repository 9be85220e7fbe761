// Sessions: attach, reconcile, replace, refuse.
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

TEST(Session, ANewerOneReplacesTheOlder) {
  Harness h;
  h.attach(1, worker_info(1, 1));
  h.submit(1, spec_of(1)).IgnoreError();
  h.attach(2, worker_info(1, 1), {key(1, 0)});
  EXPECT_EQ(describe(h.last), "> CloseSession s1\n> AnswerAttach OK\n");
  EXPECT_EQ(h.report(1, {}).status.code(), absl::StatusCode::kFailedPrecondition);
  h.detach(1);
  EXPECT_TRUE(h.core->workers().at(0).attached) << "the older one's end means nothing any more";
  EXPECT_TRUE(h.end(2, key(1, 0), EndReason::succeeded).status.ok());
  EXPECT_EQ(h.view(1).state, JobState::succeeded);
}

TEST(Session, ACopiedStateDirectoryIsToldApart) {
  Harness h;
  h.attach(1, worker_info(1, 1));
  WorkerInfo copy = worker_info(1, 1);
  copy.machine = "machine2/boot1";
  const AnswerAttach answer = h.attach(2, copy);
  EXPECT_EQ(answer.status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(answer.status.message()), HasSubstr("was copied"));
  EXPECT_EQ(h.report(2, {}).status.code(), absl::StatusCode::kFailedPrecondition);
  h.detach(1);
  EXPECT_TRUE(h.attach(3, copy).status.ok());
}

TEST(Session, AMachineThatStartedAgainIsLetInWhenItsOldSessionIsSilent) {
  Harness h;
  h.attach(1, worker_info(1, 1));
  WorkerInfo rebooted = worker_info(1, 1);
  rebooted.machine = "machine1/boot2";
  EXPECT_FALSE(h.attach(2, rebooted).status.ok());
  h.now += 16'000;
  EXPECT_TRUE(h.attach(3, rebooted).status.ok());
}

TEST(Attach, LeasesThatTheWorkerDoesNotHaveAreLostAtOnce) {
  Harness h;
  h.attach(1, worker_info(1, 2));
  h.submit(1, spec_of(2)).IgnoreError();
  h.detach(1);
  h.attach(2, worker_info(1, 2), {key(1, 0)});
  const std::vector<AttemptEnded> ended = h.records<AttemptEnded>();
  ASSERT_THAT(ended, SizeIs(1));
  EXPECT_EQ(ended[0].key, key(1, 1));
  EXPECT_EQ(ended[0].outcome.reason, EndReason::worker_lost);
  EXPECT_FALSE(ended[0].final);
  EXPECT_THAT(h.leased(), ElementsAre(key(1, 1, 2))) << "a first loss needs no back-off";
}

TEST(Attach, WhatIsNotWantedIsStopped) {
  Harness h;
  h.submit(1, spec_of(1)).IgnoreError();
  const AnswerAttach answer =
      h.attach(1, worker_info(1, 1), {key(9, 0), key(1, 0), key(1, 5), key(1, 0, 7)});
  EXPECT_THAT(answer.stop, SizeIs(4));
}

TEST(Heartbeat, LeasesInUpdatesThatWereSeenMustBeHeld) {
  Harness h;
  h.attach(1, worker_info(1, 2));
  h.submit(1, spec_of(1)).IgnoreError();
  const uint64_t first = h.actions<SendUpdate>().at(0).number;
  h.submit(2, spec_of(1)).IgnoreError();
  const uint64_t second = h.actions<SendUpdate>().at(0).number;
  EXPECT_EQ(second, first + 1);
  h.report(1, {}, {}, first - 1);
  EXPECT_THAT(h.last.records, IsEmpty()) << "both are on their way";
  h.report(1, {}, {}, first);
  ASSERT_THAT(h.records<AttemptEnded>(), SizeIs(1));
  EXPECT_EQ(h.records<AttemptEnded>()[0].key, key(1, 0));
}

TEST(Heartbeat, ARevokedAttemptIsStoppedUntilItIsGone) {
  Harness h;
  h.attach(1, worker_info(1, 1));
  h.submit(1, spec_of(1)).IgnoreError();
  h.cancel(1).IgnoreError();
  for (int i = 0; i < 3; ++i) {
    const AnswerReport answer = h.report(1, {key(1, 0)});
    ASSERT_THAT(answer.stop, SizeIs(1));
    EXPECT_EQ(answer.stop[0].reason, EndReason::cancelled);
  }
  h.report(1, {});
  EXPECT_EQ(h.view(1).state, JobState::cancelled);
}

TEST(Heartbeat, ProgressIsShownAndBounded) {
  Harness h;
  h.attach(1, worker_info(1, 1));
  h.submit(1, spec_of(1)).IgnoreError();
  const uint64_t revision = h.view(1).revision;
  h.step(WorkerReported{1,
                        1,
                        {key(1, 0)},
                        9,
                        {},
                        {{key(1, 0), 7.5, "fitting"}, {key(4, 4), 0.5, "no such job"}},
                        {},
                        0});
  ASSERT_THAT(h.core->running(job_id(1)), SizeIs(1));
  EXPECT_EQ(h.core->running(job_id(1))[0].fraction, 1.0);
  EXPECT_EQ(h.core->running(job_id(1))[0].text, "fitting");
  EXPECT_GT(h.view(1).revision, revision);
  EXPECT_THAT(h.actions<JobChanged>(), SizeIs(1));
}

// The disk of the coordinator is full, say: the ranks run, and nothing that they save is kept.
TEST(Heartbeat, TroubleIsSaidUntilItIsOver) {
  Harness h;
  h.attach(1, worker_info(1, 3));
  h.submit(1, spec_of(3)).IgnoreError();
  const std::string full = "checkpoint not saved: no space left on device";
  const auto report = [&](const std::string& trouble) {
    std::vector<AttemptProgress> progress;
    for (const uint32_t rank : {0, 2}) progress.push_back({key(1, rank), -1, "", trouble});
    h.step(WorkerReported{1, 1, h.held(1), 9, {}, progress, {}, 0});
  };
  report(full);
  const std::vector<WhyLine> lines = h.core->why(job_id(1), h.now);
  ASSERT_THAT(lines, SizeIs(1));
  EXPECT_EQ(lines[0].ranks, "0,2");
  EXPECT_EQ(lines[0].count, 2u);
  EXPECT_EQ(lines[0].state, RankState::running);
  EXPECT_EQ(lines[0].reason, full);
  report("");
  EXPECT_THAT(h.core->why(job_id(1), h.now), IsEmpty());
}

TEST(Worker, IsRecordedWhenItIsNew) {
  Harness h;
  h.attach(1, worker_info(1, 1));
  EXPECT_THAT(h.records<WorkerSeen>(), SizeIs(1));
  h.attach(2, worker_info(1, 1));
  EXPECT_THAT(h.records<WorkerSeen>(), IsEmpty());
  WorkerInfo renamed = worker_info(1, 1);
  renamed.name = "other";
  h.attach(3, renamed);
  EXPECT_THAT(h.records<WorkerSeen>(), SizeIs(1));
}

TEST(Worker, MayComeBackSmaller) {
  Harness h;
  h.attach(1, worker_info(1, 4));
  h.submit(1, spec_of(6)).IgnoreError();
  const std::vector<AttemptKey> held = h.held(1);
  h.attach(2, worker_info(1, 1), held);
  EXPECT_THAT(h.held(1), SizeIs(4));
  EXPECT_EQ(h.view(1).counts.running, 4u) << "they run, though it has one cpu now";
  EXPECT_EQ(h.view(1).counts.waiting, 2u);
  h.end(2, held[0], EndReason::succeeded);
  h.end(2, held[1], EndReason::succeeded);
  h.end(2, held[2], EndReason::succeeded);
  EXPECT_THAT(h.held(1), SizeIs(1));
  h.end(2, held[3], EndReason::succeeded);
  EXPECT_THAT(h.leased(), SizeIs(1));
}

// Both attempts of a rank were given up for lost; one came back, and the other brings the result.
TEST(Lost, OneThatSucceedsRevokesOneThatCameBack) {
  Harness h;
  h.attach(1, worker_info(1, 1));
  h.submit(1, spec_of(1)).IgnoreError();
  h.report(1, {key(1, 0)});
  h.detach(1);
  h.at(*h.core->next_deadline());
  h.attach(2, worker_info(2, 1));
  ASSERT_THAT(h.held(2), ElementsAre(key(1, 0, 2)));
  h.report(2, {key(1, 0, 2)});
  h.detach(2);
  h.at(*h.core->next_deadline());
  h.attach(11, worker_info(1, 1), {key(1, 0)});
  ASSERT_THAT(h.held(1), ElementsAre(key(1, 0)));
  h.step(WorkerAttached{11, 12, worker_info(2, 1), {}, h.unix_ms});
  h.end(12, key(1, 0, 2), EndReason::succeeded);
  EXPECT_EQ(describe(h.last),
            "AttemptEnded j1/0#1 revoked\n"
            "AttemptEnded j1/0#2 succeeded final succeeded\n"
            "JobFinished j1 succeeded\n"
            "> AnswerReport OK ack j1/0#2\n"
            "> SendUpdate s11 #1 stop j1/0#1 revoked\n"
            "> JobChanged j1\n");
}

// ---- leases that never arrived ------------------------------------------------------------------

uint32_t lost(const Harness& h) { return h.view(1).tally.ended[size_t(EndReason::worker_lost)]; }

TEST(Undelivered, LeasesAreNoAttempts) {
  Harness h;
  h.attach(1, worker_info(1, 2));
  h.submit(1, spec_of(2)).IgnoreError();
  h.report(1, {{job_id(1), 0, 1}}, {}, 0);
  h.now += 1'000;
  h.detach(1);
  h.now += 1'000;
  h.attach(2, worker_info(1, 2), {{job_id(1), 0, 1}});
  EXPECT_EQ(describe(h.records<AttemptEnded>().at(0)), "AttemptEnded j1/1#1 worker_lost unbegun");
  EXPECT_EQ(lost(h), 0u);
  EXPECT_EQ(h.view(1).tally.redone_ms, 0u);
  h.restore();
  EXPECT_EQ(lost(h), 0u);
  h.attach(3, worker_info(1, 2), {{job_id(1), 1, 2}});
  EXPECT_EQ(lost(h), 0u) << "its keeper has lived on: it never had rank 0, it seems";
  h.attach(4, worker_info(1, 2));
  EXPECT_EQ(lost(h), 1u) << "rank 1 it had; rank 0 was on its way again";
}

TEST(Undelivered, OrNotIsNotKnownOfAWorkerThatCameBackWithNothing) {
  Harness h;
  h.attach(1, worker_info(1, 2));
  h.submit(1, spec_of(2)).IgnoreError();
  h.now += 5'000;
  h.restore();
  h.attach(2, worker_info(1, 2));
  EXPECT_EQ(lost(h), 2u) << "all may have run for hours";
  EXPECT_EQ(h.view(1).tally.redone_ms, 0u);
}

// Its lease was given up as one that never arrived, and it did: what was not counted is not taken
// back.
TEST(Undelivered, OneThatArrivedNeverthelessIsTakenUp) {
  Harness h;
  h.attach(1, worker_info(1, 1));
  h.submit(1, spec_of(1)).IgnoreError();
  h.attach(2, worker_info(1, 1));
  EXPECT_EQ(lost(h), 0u);
  h.attach(3, worker_info(1, 1), {{job_id(1), 0, 1}});
  EXPECT_EQ(lost(h), 0u);
  h.end(3, {job_id(1), 0, 1}, EndReason::succeeded);
  EXPECT_EQ(h.view(1).state, JobState::succeeded);
  EXPECT_EQ(lost(h), 0u);
}

}  // namespace
}  // namespace pesc::coordinator
