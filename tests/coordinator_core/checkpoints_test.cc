// Checkpoints: what is kept, what the next attempt begins from, what is passed over.
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

BlobRef blob(const std::string& text) { return {sha256(text), text.size()}; }

JobSpec retried(uint32_t repetitions, uint32_t retries = 9) {
  JobSpec spec = spec_of(repetitions);
  spec.retries = retries;
  return spec;
}

struct Checkpoints : testing::Test {
  Harness h;

  AnswerCheckpoint save(uint64_t session, const AttemptKey& key, const std::string& content,
                        uint64_t saved_ms = 1000) {
    auto chunks = std::make_shared<std::vector<BlobRef>>(1, blob("chunk of " + content));
    h.step(CheckpointOffered{13, session, key, blob(content), chunks, saved_ms, h.unix_ms});
    return h.actions<AnswerCheckpoint>().at(0);
  }
  // Lets the back-off end. Workers report, so that none is given up meanwhile.
  void wait() {
    h.now += 60'000 - 1;
    for (const WorkerView& worker : h.core->workers()) {
      if (worker.attached) h.report(worker.session, h.held(worker.info.id.value));
    }
    h.at(h.now + 1);
  }
  uint64_t worker_of(const AttemptKey& key) {
    for (const RunningRank& running : h.core->running(key.job)) {
      if (running.key == key) return running.worker.value;
    }
    return 0;
  }
  std::vector<std::pair<uint32_t, uint32_t>> dropped() {
    std::vector<std::pair<uint32_t, uint32_t>> ranges;
    for (const CheckpointsDropped& one : h.records<CheckpointsDropped>()) {
      ranges.emplace_back(one.first, one.through);
    }
    return ranges;
  }
  AttemptLeased lease_of(const AttemptKey& key) {
    for (auto it = h.log.rbegin(); it != h.log.rend(); ++it) {
      const auto* leased = std::get_if<AttemptLeased>(&*it);
      if (leased != nullptr && leased->key == key) return *leased;
    }
    ADD_FAILURE() << to_string(key) << " was never leased";
    return {};
  }
  uint32_t begins_from(const AttemptKey& key) { return lease_of(key).checkpoint; }
};

TEST_F(Checkpoints, AreRecordedBeforeTheyAreAnswered) {
  h.attach(1, worker_info(1, 1));
  ASSERT_TRUE(h.submit(1, retried(1)).ok());
  save(1, key(1, 0), "a");
  EXPECT_EQ(describe(h.last),
            "CheckpointKept j1/0#1 c1\n"
            "> AnswerCheckpoint OK c1\n"
            "> JobChanged j1\n");
  EXPECT_THAT(*h.records<CheckpointKept>().at(0).chunks, SizeIs(1));
  // The answer was lost, and it is offered again.
  EXPECT_EQ(save(1, key(1, 0), "a").number, 1u);
  EXPECT_THAT(h.last.records, IsEmpty());
  EXPECT_EQ(save(1, key(1, 0), "b").number, 2u);
  EXPECT_EQ(h.view(1).tally.checkpoints, 2u);
}

TEST_F(Checkpoints, TheNewestIsWhereTheNextAttemptBegins) {
  h.attach(1, worker_info(1, 1));
  h.submit(1, retried(1)).IgnoreError();
  save(1, key(1, 0), "a");
  save(1, key(1, 0), "b");
  h.end(1, key(1, 0), EndReason::exit_code);
  h.at(*h.core->next_deadline());
  const std::vector<SendUpdate> updates = h.actions<SendUpdate>();
  ASSERT_THAT(updates, SizeIs(1));
  ASSERT_THAT(updates[0].leases, SizeIs(1));
  EXPECT_EQ(updates[0].leases[0].checkpoint.number, 2u);
  EXPECT_EQ(updates[0].leases[0].checkpoint.manifest, blob("b"));
  EXPECT_EQ(h.records<AttemptLeased>().at(0).checkpoint, 2u);
}

TEST_F(Checkpoints, TheLastFewAreKept) {
  h.attach(1, worker_info(1, 1));
  h.submit(1, retried(1)).IgnoreError();
  for (const char* content : {"a", "b", "c"}) save(1, key(1, 0), content);
  EXPECT_THAT(h.records<CheckpointsDropped>(), IsEmpty());
  save(1, key(1, 0), "d");
  EXPECT_EQ(describe(h.last),
            "CheckpointKept j1/0#1 c4\n"
            "CheckpointsDropped j1/0 through c1\n"
            "> AnswerCheckpoint OK c4\n"
            "> JobChanged j1\n");
}

TEST_F(Checkpoints, AllGoWhenTheRankIsFinal) {
  h.attach(1, worker_info(1, 1));
  h.submit(1, retried(1)).IgnoreError();
  save(1, key(1, 0), "a");
  h.end(1, key(1, 0), EndReason::succeeded);
  EXPECT_EQ(describe(h.last),
            "CheckpointsDropped j1/0 through c1\n"
            "AttemptEnded j1/0#1 succeeded final succeeded\n"
            "JobFinished j1 succeeded\n"
            "> AnswerReport OK ack j1/0#1\n"
            "> JobChanged j1\n");
  EXPECT_EQ(save(1, key(1, 0), "b").number, 0u) << "not wanted any more";
  EXPECT_EQ(h.view(1).tally.checkpoints, 1u);
}

TEST_F(Checkpoints, AllOfAWaitingRankGoWhenItIsCancelled) {
  h.attach(1, worker_info(1, 1));
  h.submit(1, retried(1)).IgnoreError();
  save(1, key(1, 0), "a");
  h.end(1, key(1, 0), EndReason::exit_code);
  h.cancel(1).IgnoreError();
  EXPECT_THAT(h.records<CheckpointsDropped>(), SizeIs(1));
  EXPECT_EQ(h.view(1).state, JobState::cancelled);
}

TEST_F(Checkpoints, NumbersGoOnAfterARetry) {
  h.attach(1, worker_info(1, 1));
  h.submit(1, retried(1, 0)).IgnoreError();
  save(1, key(1, 0), "a");
  save(1, key(1, 0), "b");
  h.end(1, key(1, 0), EndReason::exit_code);
  ASSERT_EQ(h.view(1).state, JobState::failed);
  h.retry(1).IgnoreError();
  EXPECT_EQ(begins_from(key(1, 0, 2)), 0u) << "dropped with the failure";
  EXPECT_EQ(save(1, key(1, 0, 2), "a").number, 3u);
  h.restore();
  EXPECT_EQ(h.view(1).tally.checkpoints, 3u);
}

TEST_F(Checkpoints, OfStrangersAndOfRevokedAttemptsAreNotWanted) {
  h.attach(1, worker_info(1, 1));
  h.attach(2, worker_info(2, 1));
  h.submit(1, retried(1)).IgnoreError();
  const uint64_t holder = worker_of(key(1, 0)), other = 3 - holder;
  EXPECT_EQ(save(other, key(1, 0), "a").number, 0u);
  EXPECT_EQ(save(holder, key(1, 0, 2), "a").number, 0u);
  EXPECT_EQ(save(holder, key(1, 7), "a").number, 0u);
  EXPECT_EQ(save(holder, key(9, 0), "a").number, 0u);
  EXPECT_THAT(h.last.records, IsEmpty());
  EXPECT_EQ(save(77, key(1, 0), "a").status.code(), absl::StatusCode::kFailedPrecondition);
  h.step(CheckpointOffered{1, holder, key(1, 0), {}, nullptr, 0, 0});
  EXPECT_EQ(h.actions<AnswerCheckpoint>().at(0).status.code(), absl::StatusCode::kInvalidArgument);
  h.cancel(1).IgnoreError();
  EXPECT_EQ(save(holder, key(1, 0), "a").number, 0u) << "the job is stopped";
}

// Nobody saw the attempt end. It ran at least until its worker's connection broke, not only until
// the worker's last report; and not while the worker was away.
TEST_F(Checkpoints, WhatALostWorkerDidSinceItsLastOneIsDoneAgain) {
  h.attach(1, worker_info(1, 1));
  h.submit(1, retried(1)).IgnoreError();
  h.now += 2'000;
  save(1, key(1, 0), "a", 2'000);
  h.now += 1'500;
  h.detach(1);
  h.now += 3'000;
  h.attach(2, worker_info(1, 1));  // it does not have it any more
  EXPECT_EQ(h.view(1).tally.redone_ms, 1'500u);
}

// Its keeper died with it: the worker cannot say how long it ran.
TEST_F(Checkpoints, WhatALostKeepersRankDidSinceItsLastOneIsDoneAgain) {
  h.attach(1, worker_info(1, 1));
  h.submit(1, retried(1)).IgnoreError();
  h.now += 2'000;
  save(1, key(1, 0), "a", 2'000);
  h.now += 1'500;
  h.end(1, key(1, 0), EndReason::worker_lost, 0);
  EXPECT_EQ(h.records<AttemptEnded>().at(0).outcome.duration_ms, 3'500u);
  EXPECT_EQ(h.view(1).tally.redone_ms, 1'500u);
  h.restore();
  EXPECT_EQ(h.view(1).tally.redone_ms, 1'500u);
}

TEST_F(Checkpoints, OneThatWaitedForACpuThereHadDoneNothing) {
  h.attach(1, worker_info(1, 1));
  h.submit(1, retried(9)).IgnoreError();
  h.end(1, key(1, 0), EndReason::succeeded, 200);
  ASSERT_THAT(h.held(1), ElementsAre(key(1, 1), key(1, 2)));
  h.now += 4'000;
  h.end(1, key(1, 2), EndReason::worker_lost, 0);
  EXPECT_EQ(h.view(1).tally.redone_ms, 0u);
}

TEST_F(Checkpoints, AreRestored) {
  h.attach(1, worker_info(1, 1));
  h.submit(1, retried(1)).IgnoreError();
  for (const char* content : {"a", "b", "c", "d", "e"}) save(1, key(1, 0), content, 3000);
  h.restore();
  h.attach(2, worker_info(1, 1), {key(1, 0)});
  EXPECT_EQ(save(2, key(1, 0), "e").number, 5u);
  EXPECT_THAT(h.last.records, IsEmpty());
  EXPECT_EQ(h.view(1).tally.checkpoints, 5u);
  h.end(2, key(1, 0), EndReason::exit_code, 10'000);
  EXPECT_EQ(h.records<AttemptEnded>().at(0).outcome.saved_ms, 3000u);
  EXPECT_EQ(h.view(1).tally.redone_ms, 7000u);
  wait();
  EXPECT_EQ(begins_from(key(1, 0, 2)), 5u);
}

// It saved, was given up for lost, came back and was leased anew: its lease's row lies behind those
// of its checkpoints.
TEST_F(Checkpoints, AreRestoredBeforeTheLeaseThatWasRenewed) {
  h.attach(1, worker_info(1, 1));
  h.submit(1, retried(1)).IgnoreError();
  save(1, key(1, 0), "a");
  h.detach(1);
  h.at(*h.core->next_deadline());
  h.attach(2, worker_info(1, 1), {key(1, 0)});
  h.restore();
  h.attach(3, worker_info(1, 1), {key(1, 0)});
  EXPECT_THAT(h.held(1), ElementsAre(key(1, 0)));
  h.end(3, key(1, 0), EndReason::exit_code);
  wait();
  EXPECT_EQ(begins_from(key(1, 0, 2)), 1u);
}

TEST_F(Checkpoints, OneIsPassedOverWhenTwoWorkersDiedOfIt) {
  h.attach(1, worker_info(1, 1));
  h.attach(2, worker_info(2, 1));
  h.submit(1, retried(1, 1)).IgnoreError();
  const uint64_t first = worker_of(key(1, 0));
  save(first, key(1, 0), "good");
  save(first, key(1, 0), "bad");
  h.end(first, key(1, 0), EndReason::exit_code, 60'000);  // this one uses up the retry
  for (uint32_t attempt = 2; attempt <= 3; ++attempt) {
    wait();
    ASSERT_EQ(begins_from(key(1, 0, attempt)), 2u);
    h.end(worker_of(key(1, 0, attempt)), key(1, 0, attempt), EndReason::signal, 100);
    EXPECT_EQ(h.records<AttemptEnded>().at(0).outcome.reason, EndReason::bad_checkpoint);
    EXPECT_THAT(h.records<AttemptEnded>().at(0).outcome.detail,
                HasSubstr("died at once from checkpoint 2: signal"));
  }
  EXPECT_THAT(h.records<AttemptEnded>().at(0).outcome.detail, HasSubstr("is passed over"));
  h.restore();
  h.attach(11, worker_info(1, 1));
  h.attach(12, worker_info(2, 1));
  wait();
  EXPECT_EQ(begins_from(key(1, 0, 4)), 1u);
  // What it saves is newer than what was passed over, and good.
  EXPECT_EQ(save(10 + worker_of(key(1, 0, 4)), key(1, 0, 4), "better").number, 3u);
  h.end(10 + worker_of(key(1, 0, 4)), key(1, 0, 4), EndReason::vacated);
  wait();
  EXPECT_EQ(begins_from(key(1, 0, 5)), 3u);
}

TEST_F(Checkpoints, OneWorkerDiesThreeTimesOfEachThenOfNone) {
  h.attach(1, worker_info(1, 1));
  h.submit(1, retried(1, 1)).IgnoreError();
  save(1, key(1, 0), "a");
  save(1, key(1, 0), "b");
  h.end(1, key(1, 0), EndReason::exit_code, 60'000);
  std::vector<uint32_t> began;
  for (uint32_t attempt = 2; h.view(1).state == JobState::running; ++attempt) {
    wait();
    ASSERT_THAT(h.held(1), ElementsAre(key(1, 0, attempt)));
    began.push_back(begins_from(key(1, 0, attempt)));
    h.end(1, key(1, 0, attempt), EndReason::exit_code, 5);
    ASSERT_LT(attempt, 50u) << "a bad checkpoint loops";
  }
  EXPECT_THAT(began, ElementsAre(2, 2, 2, 1, 1, 1, 0));
  EXPECT_EQ(h.view(1).state, JobState::failed) << "without one, it is the program's failure";
  EXPECT_EQ(h.view(1).tally.ended[size_t(EndReason::bad_checkpoint)], 6u);
}

// It saves what it cannot read, again and again, and is vacated before it fails by itself.
TEST_F(Checkpoints, BadOnesHaveAnEnd) {
  h.attach(1, worker_info(1, 1));
  h.submit(1, retried(1, 1)).IgnoreError();
  uint32_t ends = 0, attempt = 1;
  for (; h.view(1).state != JobState::failed && attempt < 100; ++attempt) {
    if (attempt == 20) {
      h.restore();
      h.attach(1, worker_info(1, 1), {key(1, 0, attempt - 1)});
    }
    if (h.held(1).empty()) wait();
    ASSERT_THAT(h.held(1), ElementsAre(key(1, 0, attempt)));
    if (begins_from(key(1, 0, attempt)) > 0) {
      h.end(1, key(1, 0, attempt), EndReason::exit_code, 5);
      ends += h.records<AttemptEnded>().at(0).outcome.reason == EndReason::bad_checkpoint;
    } else {
      save(1, key(1, 0, attempt), "bad " + std::to_string(attempt));
      h.end(1, key(1, 0, attempt), EndReason::vacated, 60'000);
    }
  }
  EXPECT_EQ(h.view(1).state, JobState::failed);
  EXPECT_EQ(ends, 10u);
  EXPECT_LT(attempt, 20u);
}

TEST_F(Checkpoints, AGoodOneIsTheEndOfThat) {
  h.attach(1, worker_info(1, 1));
  h.submit(1, retried(1, 0)).IgnoreError();
  for (uint32_t attempt = 1; attempt < 60; ++attempt) {
    if (h.held(1).empty()) wait();
    ASSERT_THAT(h.held(1), ElementsAre(key(1, 0, attempt)));
    const uint32_t from = begins_from(key(1, 0, attempt));
    if (from % 2 == 0 && from > 0) {
      h.end(1, key(1, 0, attempt), EndReason::exit_code, 5);
      ASSERT_EQ(h.view(1).state, JobState::running);
      continue;
    }
    save(1, key(1, 0, attempt), "odd ones are good " + std::to_string(attempt));
    h.end(1, key(1, 0, attempt), EndReason::vacated, 60'000);
  }
}

TEST_F(Checkpoints, OneThatCannotBeRestoredIsPassedOverToo) {
  h.attach(1, worker_info(1, 1));
  h.submit(1, retried(1, 0)).IgnoreError();
  save(1, key(1, 0), "a");
  h.end(1, key(1, 0), EndReason::vacated);
  for (uint32_t attempt = 2; attempt <= 4; ++attempt) {
    wait();
    ASSERT_EQ(begins_from(key(1, 0, attempt)), 1u);
    h.end(1, key(1, 0, attempt), EndReason::bad_checkpoint, 0);
    EXPECT_THAT(h.records<AttemptEnded>().at(0).outcome.detail,
                HasSubstr("checkpoint 1 could not be restored: it went wrong"));
  }
  wait();
  EXPECT_EQ(begins_from(key(1, 0, 5)), 0u);
  // A worker that blames a checkpoint it was not given gets no tries for nothing.
  h.end(1, key(1, 0, 5), EndReason::bad_checkpoint, 0);
  EXPECT_EQ(h.records<AttemptEnded>().at(0).outcome.reason, EndReason::inputs_unavailable);
}

TEST_F(Checkpoints, AFailureAfterASaveOrLateIsTheProgramsOwn) {
  h.attach(1, worker_info(1, 1));
  h.submit(1, retried(1, 9)).IgnoreError();
  save(1, key(1, 0), "a");
  h.end(1, key(1, 0), EndReason::exit_code);
  wait();
  save(1, key(1, 0, 2), "b");
  h.end(1, key(1, 0, 2), EndReason::exit_code, 5);
  EXPECT_EQ(h.records<AttemptEnded>().at(0).outcome.reason, EndReason::exit_code);
  wait();
  h.end(1, key(1, 0, 3), EndReason::exit_code, 2001);
  EXPECT_EQ(h.records<AttemptEnded>().at(0).outcome.reason, EndReason::exit_code);
}

TEST_F(Checkpoints, OneThatAnAttemptIsJustBeginningFromStays) {
  h.attach(1, worker_info(1, 1));
  h.submit(1, retried(1)).IgnoreError();
  save(1, key(1, 0), "a");
  h.detach(1);
  h.at(*h.core->next_deadline());
  h.attach(2, worker_info(2, 1));
  ASSERT_EQ(begins_from(key(1, 0, 2)), 1u);
  h.attach(3, worker_info(1, 1), {key(1, 0)});  // the first runs on
  for (const char* content : {"b", "c", "d"}) {
    save(3, key(1, 0), content);
    EXPECT_THAT(h.records<CheckpointsDropped>(), IsEmpty());
  }
  save(3, key(1, 0), "e");
  EXPECT_THAT(dropped(), ElementsAre(std::pair(2u, 2u)));
  save(2, key(1, 0, 2), "f");
  EXPECT_THAT(dropped(), ElementsAre(std::pair(0u, 3u)));
}

// An attempt is frozen with its worker, given up for lost, and wakes up when its rank is far ahead:
// what it saves then is older than what there is, and never takes its place.
TEST_F(Checkpoints, ThoseOfOneThatWakesUpDoNotRollItsRankBack) {
  h.attach(1, worker_info(1, 1));
  h.submit(1, retried(1)).IgnoreError();
  save(1, key(1, 0), "step 7", 7'000);
  h.detach(1);
  h.at(*h.core->next_deadline());
  h.attach(2, worker_info(2, 1));
  ASSERT_EQ(begins_from(key(1, 0, 2)), 1u);
  save(2, key(1, 0, 2), "step 20", 13'000);
  h.attach(3, worker_info(1, 1), {key(1, 0)});
  EXPECT_EQ(save(3, key(1, 0), "step 8", 8'000).number, 3u) << "there are not three better ones";
  EXPECT_EQ(save(2, key(1, 0, 2), "step 30", 23'000).number, 4u);
  EXPECT_THAT(dropped(), ElementsAre(std::pair(0u, 1u)));
  EXPECT_EQ(save(2, key(1, 0, 2), "step 38", 31'000).number, 5u);
  EXPECT_THAT(dropped(), ElementsAre(std::pair(3u, 3u)));
  EXPECT_EQ(save(3, key(1, 0), "step 18", 18'000).number, 0u) << "three better ones are kept";
  EXPECT_THAT(h.last.records, IsEmpty());
  EXPECT_EQ(save(3, key(1, 0), "step 21", 21'000).number, 6u);
  EXPECT_THAT(dropped(), ElementsAre(std::pair(0u, 2u)));
  EXPECT_EQ(save(3, key(1, 0), "step 21", 21'500).number, 6u) << "nothing has changed since";
  h.restore();
  h.attach(12, worker_info(2, 1), {key(1, 0, 2)});
  h.attach(13, worker_info(1, 1), {key(1, 0)});
  EXPECT_EQ(save(12, key(1, 0, 2), "step 38", 31'500).number, 5u);
  EXPECT_EQ(save(13, key(1, 0), "step 20", 20'000).number, 0u);
  h.end(12, key(1, 0, 2), EndReason::exit_code, 33'000);
  EXPECT_EQ(h.view(1).tally.redone_ms, 2'000u);
  h.end(13, key(1, 0), EndReason::exit_code, 25'000);
  wait();
  EXPECT_EQ(begins_from(key(1, 0, 3)), 5u);
  EXPECT_EQ(lease_of(key(1, 0, 3)).base_ms, 38'000u);
  // What it saves goes on from there.
  const uint64_t session = worker_of(key(1, 0, 3)) == 1 ? 13 : 12;
  save(session, key(1, 0, 3), "step 39", 1'000);
  EXPECT_EQ(h.records<CheckpointKept>().at(0).total_ms, 39'000u);
}

// The attempt that is ahead has begun from it.
TEST_F(Checkpoints, WhatOneHadLedWithIsSavedThoughItIsDropped) {
  h.attach(1, worker_info(1, 1));
  h.submit(1, retried(1)).IgnoreError();
  save(1, key(1, 0), "step 7", 7'000);
  h.detach(1);
  h.at(*h.core->next_deadline());
  h.attach(2, worker_info(2, 1));
  for (const uint64_t step : {20, 30, 38}) {
    save(2, key(1, 0, 2), "step " + std::to_string(step), (step - 7) * 1'000);
  }
  h.attach(3, worker_info(1, 1), {key(1, 0)});
  EXPECT_EQ(save(3, key(1, 0), "step 18", 18'000).number, 0u);
  const uint64_t before = h.view(1).tally.redone_ms;
  h.end(3, key(1, 0), EndReason::exit_code, 20'000);
  EXPECT_EQ(h.view(1).tally.redone_ms - before, 13'000u);
}

TEST_F(Checkpoints, OnesThatArePassedOverMakeRoomForWorseOnes) {
  h.attach(1, worker_info(1, 1));
  h.submit(1, retried(1, 1)).IgnoreError();
  save(1, key(1, 0), "a", 1'000);
  for (const char* content : {"bad b", "bad c"}) save(1, key(1, 0), content, 50'000);
  h.end(1, key(1, 0), EndReason::vacated, 60'000);
  for (uint32_t attempt = 2; attempt <= 7; ++attempt) {
    wait();
    ASSERT_EQ(begins_from(key(1, 0, attempt)), attempt <= 4 ? 3u : 2u);
    h.end(1, key(1, 0, attempt), EndReason::exit_code, 5);
  }
  wait();
  ASSERT_EQ(begins_from(key(1, 0, 8)), 1u);
  EXPECT_EQ(save(1, key(1, 0, 8), "d", 1'000).number, 4u);
  EXPECT_THAT(h.records<CheckpointsDropped>(), SizeIs(1)) << "one that was passed over goes first";
  h.end(1, key(1, 0, 8), EndReason::vacated, 60'000);
  wait();
  EXPECT_EQ(begins_from(key(1, 0, 9)), 4u);
}

TEST_F(Checkpoints, WhatWasSavedIsNotRedone) {
  h.attach(1, worker_info(1, 1));
  h.submit(1, retried(1)).IgnoreError();
  h.now += 20'000;
  save(1, key(1, 0), "a", 18'000);
  h.report(1, {key(1, 0)});
  h.detach(1);
  h.at(*h.core->next_deadline());
  const AttemptOutcome lost = h.records<AttemptEnded>().at(0).outcome;
  EXPECT_EQ(lost.reason, EndReason::worker_lost);
  EXPECT_EQ(lost.duration_ms, 20'000u) << "until it was heard of last";
  EXPECT_EQ(lost.saved_ms, 18'000u);
  EXPECT_EQ(h.view(1).tally.redone_ms, 2'000u);
  // It comes back, and nothing has to be done again.
  h.attach(2, worker_info(1, 1), {key(1, 0)});
  EXPECT_EQ(h.view(1).tally.redone_ms, 0u);
  h.end(2, key(1, 0), EndReason::succeeded, 90'000);
  const JobTally tally = h.view(1).tally;
  EXPECT_EQ(tally.useful_ms, 90'000u);
  EXPECT_EQ(tally.ended[size_t(EndReason::worker_lost)], 0u);
  h.restore();
  EXPECT_EQ(h.view(1).tally.useful_ms, 90'000u);
  EXPECT_EQ(h.view(1).tally.ended, tally.ended);
}

}  // namespace
}  // namespace pesc::coordinator
