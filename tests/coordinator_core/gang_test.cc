// Parallel jobs: placed, started, stopped, restarted and committed as a whole. Each interaction as
// the records and actions of its steps.
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

JobSpec gang_of(uint32_t ranks, uint32_t retries = 0) {
  JobSpec spec = spec_of(ranks);
  spec.parallel = true;
  spec.retries = retries;
  return spec;
}

struct Gang : testing::Test {
  Harness h;
  const TimeMs begin = h.now;

  // pc1 with two cpus and pc2 with one, each under its own number as session; a gang of three.
  void two_workers(uint32_t retries = 0) {
    h.attach(1, info(1, 2));
    h.attach(2, info(2, 1));
    h.submit(1, gang_of(3, retries)).IgnoreError();
  }
  static WorkerInfo info(uint64_t n, uint32_t cpus) {
    WorkerInfo info = worker_info(n, cpus);
    info.advertise = "10.0.0." + std::to_string(n);
    return info;
  }
  std::string ready(uint64_t session, const std::vector<ReadyAttempt>& ready,
                    uint64_t last_update = UINT64_MAX) {
    return describe(h.step(
        WorkerReported{12, session, h.held(session), last_update, {}, {}, ready, h.unix_ms}));
  }
  std::string all_ready(uint32_t generation = 1, uint16_t port = 29500) {
    const std::string first = ready(1, {{key(1, 0, generation), port}, {key(1, 1, generation), 0}});
    return first + ready(2, {{key(1, 2, generation), 0}});
  }
  std::string end(uint64_t session, const AttemptKey& key, EndReason reason) {
    h.end(session, key, reason);
    return describe(h.last);
  }
  void stopped(uint64_t session, const std::vector<AttemptKey>& keys) {
    std::vector<FinishedAttempt> finished;
    for (const AttemptKey& k : keys) finished.push_back({k, outcome_of(EndReason::revoked)});
    h.report(session, keys, finished);
  }
  std::string why(uint64_t job = 1) {
    std::string text;
    for (const WhyLine& line : h.core->why(job_id(job), h.now)) {
      text += line.ranks + ": " + line.reason + "\n";
    }
    return text;
  }
};

TEST_F(Gang, IsLeasedWholeAndHeld) {
  h.attach(1, info(1, 2));
  h.submit(1, gang_of(3)).IgnoreError();
  EXPECT_THAT(h.held(1), IsEmpty()) << "all ranks or none";
  EXPECT_EQ(why(), "0-2: needs 3 cpus at the same time; the workers that take work have 2\n");
  h.attach(2, info(2, 1));
  EXPECT_EQ(describe(h.last),
            "WorkerSeen w2\n"
            "AttemptLeased j1/0#1 w1\n"
            "AttemptLeased j1/1#1 w1\n"
            "AttemptLeased j1/2#1 w2\n"
            "> AnswerAttach OK\n"
            "> SendUpdate s1 #1 lease j1/0#1 hold 0/2 lease j1/1#1 hold 1/2\n"
            "> SendUpdate s2 #1 lease j1/2#1 hold 0/1\n"
            "> JobChanged j1\n");
}

TEST_F(Gang, StartsWhenAllAreReady) {
  two_workers();
  EXPECT_EQ(why(), "0-2: waits for ranks 0-2 to be prepared on pc1, pc2\n");
  EXPECT_EQ(h.view(1).counts.waiting, 3u);
  EXPECT_EQ(h.view(1).counts.running, 0u);
  EXPECT_EQ(h.core->rank_state(job_id(1), 0), RankState::waiting);
  EXPECT_EQ(h.core->workers().at(0).leases, 0u);
  EXPECT_EQ(h.core->workers().at(0).cpus_used_milli, 2000u) << "they are kept for it";
  EXPECT_EQ(ready(1, {{key(1, 0), 29500}, {key(1, 1), 0}}),
            "> AnswerReport OK\n"
            "> JobChanged j1\n");
  EXPECT_EQ(why(), "0-2: waits for rank 2 to be prepared on pc2\n");
  EXPECT_EQ(ready(2, {{key(1, 2), 0}}),
            "GangStarted j1 #1 10.0.0.1:29500\n"
            "> AnswerReport OK\n"
            "> SendUpdate s1 #2 start j1/0#1 10.0.0.1:29500 start j1/1#1 10.0.0.1:29500\n"
            "> SendUpdate s2 #2 start j1/2#1 10.0.0.1:29500\n"
            "> JobChanged j1\n");
  EXPECT_EQ(why(), "");
  EXPECT_EQ(h.view(1).tally.gang_starts, 1u);
  EXPECT_EQ(h.view(1).counts.running, 3u);
  EXPECT_EQ(h.core->workers().at(0).leases, 2u);
}

TEST_F(Gang, OfOneWorkerMeetsAtItsLoopback) {
  h.attach(1, info(1, 4));
  h.submit(1, gang_of(2)).IgnoreError();
  ready(1, {{key(1, 0), 29500}, {key(1, 1), 0}});
  EXPECT_THAT(describe(h.last), HasSubstr("GangStarted j1 #1 127.0.0.1:29500\n"));
}

TEST_F(Gang, DoesNotStartWithoutAPort) {
  two_workers();
  ready(1, {{key(1, 0), 0}, {key(1, 1), 0}});
  ready(2, {{key(1, 2), 0}});
  EXPECT_THAT(h.records<GangStarted>(), IsEmpty());
  EXPECT_EQ(why(), "0-2: waits for rank 0 to be prepared on pc1\n");
}

TEST_F(Gang, IsToldAgainToStartOnlyWhenTheOrderWasLost) {
  two_workers();
  all_ready();
  EXPECT_EQ(ready(2, {{key(1, 2), 0}}, 1), "> AnswerReport OK\n") << "the order is under way";
  EXPECT_EQ(ready(2, {{key(1, 2), 0}}, 2),
            "> AnswerReport OK\n> SendUpdate s2 #3 start j1/2#1 10.0.0.1:29500\n");
  h.detach(2);
  h.attach(22, info(2, 1), {key(1, 2)});
  h.step(WorkerReported{12, 22, {key(1, 2)}, 0, {}, {}, {{key(1, 2), 0}}, h.unix_ms});
  EXPECT_EQ(describe(h.last),
            "> AnswerReport OK\n> SendUpdate s22 #1 start j1/2#1 10.0.0.1:29500\n");
}

TEST_F(Gang, CommitsAllRanksTogether) {
  two_workers();
  all_ready();
  EXPECT_EQ(end(1, key(1, 1), EndReason::succeeded),
            "AttemptEnded j1/1#1 succeeded\n"
            "> AnswerReport OK ack j1/1#1\n"
            "> JobChanged j1\n");
  EXPECT_EQ(h.core->rank_state(job_id(1), 1), RankState::waiting);
  EXPECT_EQ(h.view(1).committed, 0u);
  EXPECT_EQ(why(), "1: ended well; final when the other ranks have ended well too\n");
  end(2, key(1, 2), EndReason::succeeded);
  EXPECT_EQ(end(1, key(1, 0), EndReason::succeeded),
            "AttemptEnded j1/0#1 succeeded\n"
            "AttemptEnded j1/0#1 succeeded final succeeded\n"
            "AttemptEnded j1/1#1 succeeded final succeeded\n"
            "AttemptEnded j1/2#1 succeeded final succeeded\n"
            "JobFinished j1 succeeded\n"
            "> AnswerReport OK ack j1/0#1\n"
            "> JobChanged j1\n");
  EXPECT_EQ(h.view(1).tally.ended[size_t(EndReason::succeeded)], 3u) << "each counts once";
  EXPECT_EQ(h.view(1).tally.useful_ms, 15'000u);
  EXPECT_EQ(h.view(1).tally.redone_ms, 0u);
}

TEST_F(Gang, RestartsAsAWholeWhenARankFails) {
  two_workers(1);
  all_ready();
  end(1, key(1, 1), EndReason::succeeded);
  EXPECT_EQ(end(2, key(1, 2), EndReason::exit_code),
            "AttemptEnded j1/2#1 exit_code uncounted\n"
            "AttemptEnded j1/0#1 revoked\n"
            "> AnswerReport OK ack j1/2#1\n"
            "> SendUpdate s1 #3 stop j1/0#1 revoked\n"
            "> JobChanged j1\n");
  end(1, key(1, 0), EndReason::revoked);
  EXPECT_EQ(why(),
            "0-2: all ranks start again in 1s: tried 1 time; last: rank 2: exit_code: it went "
            "wrong\n");
  EXPECT_EQ(describe(h.at(begin + 1000)),
            "AttemptLeased j1/0#2 w1\n"
            "AttemptLeased j1/1#2 w1\n"
            "AttemptLeased j1/2#2 w2\n"
            "> SendUpdate s1 #4 lease j1/0#2 hold 0/2 lease j1/1#2 hold 1/2\n"
            "> SendUpdate s2 #3 lease j1/2#2 hold 0/1\n"
            "> JobChanged j1\n");
  EXPECT_THAT(all_ready(2, 29501), HasSubstr("GangStarted j1 #2 10.0.0.1:29501\n"));
  end(1, key(1, 0, 2), EndReason::succeeded);
  EXPECT_EQ(h.view(1).committed, 0u) << "what an earlier generation brought is forgotten";
  end(1, key(1, 1, 2), EndReason::succeeded);
  end(2, key(1, 2, 2), EndReason::succeeded);
  EXPECT_EQ(h.view(1).state, JobState::succeeded);
  EXPECT_EQ(h.view(1).tally.gang_starts, 2u);
}

TEST_F(Gang, FailsWhenTheRetriesAreUsedUpByAnyRank) {
  two_workers(1);
  all_ready();
  end(1, key(1, 0), EndReason::exit_code);
  end(2, key(1, 2), EndReason::revoked);
  h.at(*h.core->next_deadline());
  all_ready(2);
  end(1, key(1, 1, 2), EndReason::succeeded);
  EXPECT_EQ(end(2, key(1, 2, 2), EndReason::signal),
            "AttemptEnded j1/2#2 signal uncounted\n"
            "AttemptEnded j1/0#2 revoked\n"
            "> AnswerReport OK ack j1/2#2\n"
            "> SendUpdate s1 #6 stop j1/0#2 revoked\n"
            "> JobChanged j1\n");
  EXPECT_EQ(end(1, key(1, 0, 2), EndReason::revoked),
            "AttemptEnded j1/2#2 signal final failed\n"
            "JobStopped j1 by core\n"
            "RanksCancelled j1 0-1\n"
            "JobFinished j1 failed\n"
            "> AnswerReport OK ack j1/0#2\n"
            "> JobChanged j1\n");
  EXPECT_THAT(h.view(1).detail, HasSubstr("rank 2 ended: signal"));
  EXPECT_EQ(h.view(1).counts, (JobCounts{0, 0, 0, 1, 2}));
}

TEST_F(Gang, IsRetriedWholeAndWithAllItsTries) {
  two_workers(1);
  all_ready();
  end(1, key(1, 0), EndReason::exit_code);
  end(2, key(1, 2), EndReason::revoked);
  h.at(*h.core->next_deadline());
  all_ready(2);
  end(1, key(1, 0, 2), EndReason::exit_code);
  end(1, key(1, 1, 2), EndReason::revoked);
  end(2, key(1, 2, 2), EndReason::revoked);
  ASSERT_EQ(h.view(1).state, JobState::failed);
  uint32_t count = 0;
  ASSERT_TRUE(h.retry(1, &count).ok());
  EXPECT_EQ(count, 3u);
  EXPECT_THAT(h.leased(), ElementsAre(key(1, 0, 3), key(1, 1, 3), key(1, 2, 3)));
  all_ready(3);
  end(1, key(1, 0, 3), EndReason::exit_code);
  EXPECT_EQ(h.view(1).state, JobState::running) << "the retry has its own tries";
}

TEST_F(Gang, LosesNoRetryToATakenPort) {
  two_workers();
  for (uint32_t generation = 1; generation <= 11; ++generation) {
    ASSERT_EQ(h.view(1).state, JobState::running);
    if (h.held(1).empty()) {
      h.at(*h.core->next_deadline());
      h.report(1, h.held(1));
      h.report(2, h.held(2));
      if (h.held(1).empty()) h.at(*h.core->next_deadline());
    }
    all_ready(generation, uint16_t(29500 + generation));
    EXPECT_THAT(h.records<GangStarted>(), SizeIs(1));
    end(1, key(1, 0, generation), EndReason::port_taken);
  }
  EXPECT_TRUE(h.actions<SendUpdate>().size() > 0 || h.view(1).state == JobState::failed);
  end(1, key(1, 1, 11), EndReason::revoked);
  end(2, key(1, 2, 11), EndReason::revoked);
  EXPECT_EQ(h.view(1).state, JobState::failed) << "but not for ever";
}

TEST_F(Gang, RestartsForFreeWhenAWorkerIsLost) {
  two_workers();
  all_ready();
  end(1, key(1, 0), EndReason::succeeded);
  h.at(begin + 30'000);
  h.report(1, h.held(1));
  h.at(begin + 60'000);
  EXPECT_EQ(describe(h.last),
            "AttemptEnded j1/2#1 worker_lost\n"
            "AttemptEnded j1/1#1 revoked\n"
            "> SendUpdate s1 #3 stop j1/1#1 revoked\n"
            "> JobChanged j1\n");
  EXPECT_THAT(why(), HasSubstr("needs 3 cpus at the same time; the workers that take work have 2"));
  EXPECT_THAT(h.attach(22, info(2, 1), {key(1, 2)}).stop, SizeIs(1))
      << "a lost rank of a gang is revoked: it cannot come back";
  EXPECT_THAT(h.leased(), ElementsAre(key(1, 0, 2), key(1, 1, 2), key(1, 2, 2)));
  EXPECT_TRUE(
      h.report(22, {key(1, 2), key(1, 2, 2)}, {{key(1, 2), outcome_of(EndReason::succeeded)}})
          .status.ok());
  EXPECT_THAT(h.last.records, IsEmpty());
}

TEST_F(Gang, RestartsForFreeWhenARankIsVacated) {
  two_workers();
  all_ready();
  EXPECT_EQ(end(2, key(1, 2), EndReason::vacated),
            "AttemptEnded j1/2#1 vacated\n"
            "AttemptEnded j1/0#1 revoked\n"
            "AttemptEnded j1/1#1 revoked\n"
            "> AnswerReport OK ack j1/2#1\n"
            "> SendUpdate s1 #3 stop j1/0#1 revoked stop j1/1#1 revoked\n"
            "> JobChanged j1\n");
  h.attach(3, info(3, 1));
  EXPECT_THAT(h.leased(), SizeIs(3));
}

TEST_F(Gang, RanksOfOneLostWorkerBreakItOnce) {
  h.attach(1, info(1, 4));
  h.submit(1, gang_of(3)).IgnoreError();
  ready(1, {{key(1, 0), 29500}, {key(1, 1), 0}, {key(1, 2), 0}});
  h.report(1, {});
  EXPECT_EQ(describe(h.last),
            "AttemptEnded j1/0#1 worker_lost\n"
            "AttemptEnded j1/1#1 revoked\n"
            "AttemptEnded j1/2#1 revoked\n"
            "AttemptLeased j1/0#2 w1\n"
            "AttemptLeased j1/1#2 w1\n"
            "AttemptLeased j1/2#2 w1\n"
            "> AnswerReport OK\n"
            "> SendUpdate s1 #3 lease j1/0#2 hold 0/3 lease j1/1#2 hold 1/3 lease j1/2#2 hold 2/3 "
            "stop j1/1#1 revoked stop j1/2#1 revoked\n"
            "> JobChanged j1\n");
}

TEST_F(Gang, BeginsAgainFromEachRanksCheckpoint) {
  two_workers(1);
  all_ready();
  const auto save = [&](uint64_t session, const AttemptKey& key, const std::string& content) {
    const BlobRef manifest{sha256(content), content.size()};
    h.step(CheckpointOffered{13, session, key, manifest, std::make_shared<std::vector<BlobRef>>(),
                             2000, h.unix_ms});
    return h.actions<AnswerCheckpoint>().at(0).number;
  };
  EXPECT_EQ(save(1, key(1, 0), "a"), 1u);
  EXPECT_EQ(save(1, key(1, 0), "b"), 2u);
  end(2, key(1, 2), EndReason::exit_code);
  EXPECT_EQ(save(1, key(1, 1), "c"), 1u) << "what was revoked saves what it has before it goes";
  stopped(1, {key(1, 0), key(1, 1)});
  h.at(begin + 1000);
  EXPECT_THAT(describe(h.last), HasSubstr("lease j1/0#2 from c2 hold 0/2 lease j1/1#2 from c1 hold "
                                          "1/2\n"));
}

// What a rank saves before it is stopped with the one that died is as bad as what that one died of.
TEST_F(Gang, OfProgramsThatSaveWhatTheyCannotReadHasAnEnd) {
  two_workers(1);
  uint32_t generation = 1;
  for (; h.view(1).state != JobState::failed && generation < 100; ++generation) {
    for (int i = 0; i < 100 && h.held(1).empty(); ++i) {
      h.now += 1'000;
      for (uint64_t n : {1, 2}) h.report(n, h.held(n));
    }
    all_ready(generation, uint16_t(29500 + generation));
    const uint32_t dies = generation % 3;
    for (uint32_t rank = 0; rank < 3; ++rank) {
      const std::string content = std::to_string(generation) + "/" + std::to_string(rank);
      if (rank == dies && generation > 3) continue;
      h.step(CheckpointOffered{13,
                               rank < 2 ? 1u : 2u,
                               key(1, rank, generation),
                               {sha256(content), 1},
                               std::make_shared<std::vector<BlobRef>>(),
                               100,
                               h.unix_ms});
    }
    h.end(dies < 2 ? 1 : 2, key(1, dies, generation),
          generation > 3 ? EndReason::exit_code : EndReason::vacated, 50);
    for (uint32_t rank = 0; rank < 3; ++rank) {
      if (rank != dies) stopped(rank < 2 ? 1 : 2, {key(1, rank, generation)});
    }
  }
  EXPECT_EQ(h.view(1).state, JobState::failed);
  EXPECT_EQ(h.view(1).tally.ended[size_t(EndReason::bad_checkpoint)], 10u);
  EXPECT_LT(generation, 20u);
}

TEST_F(Gang, LosesNothingWhileItIsHeld) {
  two_workers();
  h.now += 40'000;
  h.report(1, h.held(1));
  end(2, key(1, 2), EndReason::vacated);
  EXPECT_EQ(h.view(1).tally.redone_ms, 0u);
  h.attach(3, info(3, 1));
  ready(1, {{key(1, 0, 2), 29500}, {key(1, 1, 2), 0}});
  ready(3, {{key(1, 2, 2), 0}});
  ASSERT_THAT(h.records<GangStarted>(), SizeIs(1));
  h.now += 5'000;
  end(1, key(1, 0, 2), EndReason::succeeded);
  end(3, key(1, 2, 2), EndReason::vacated);
  EXPECT_EQ(h.view(1).tally.redone_ms, 3 * 5'000u) << "the one that had succeeded was in vain too";
}

TEST_F(Gang, LeavesAWorkerThatIsDrained) {
  two_workers();
  all_ready();
  h.step(WorkerDrained{1, "pc2", true});
  EXPECT_THAT(h.stops(2), SizeIs(1));
  end(2, key(1, 2), EndReason::vacated);
  EXPECT_EQ(h.held(1).size(), 0u);
  EXPECT_THAT(why(), HasSubstr("needs 3 cpus at the same time; the workers that take work have 2"));
  h.attach(3, info(3, 1));
  EXPECT_THAT(h.held(3), ElementsAre(key(1, 2, 2)));
}

TEST_F(Gang, IsCancelledWhole) {
  two_workers();
  all_ready();
  end(1, key(1, 0), EndReason::succeeded);
  h.cancel(1).IgnoreError();
  EXPECT_EQ(describe(h.last),
            "JobStopped j1 by user\n"
            "RanksCancelled j1 0-0\n"
            "> Answer OK\n"
            "> SendUpdate s1 #3 stop j1/1#1 cancelled\n"
            "> SendUpdate s2 #3 stop j1/2#1 cancelled\n"
            "> JobChanged j1\n");
  end(1, key(1, 1), EndReason::succeeded);
  end(2, key(1, 2), EndReason::cancelled);
  EXPECT_EQ(h.view(1).state, JobState::cancelled);
  EXPECT_EQ(h.view(1).counts.cancelled, 3u) << "no part of a gang is a result";
}

TEST_F(Gang, ThatWaitsOrIsHeldIsCancelledToo) {
  h.submit(1, gang_of(2)).IgnoreError();
  h.cancel(1).IgnoreError();
  EXPECT_EQ(h.view(1).state, JobState::cancelled);
  h.attach(1, info(1, 2));
  h.submit(2, gang_of(2)).IgnoreError();
  h.cancel(2).IgnoreError();
  EXPECT_THAT(h.stops(1), SizeIs(2));
  ready(1, {{key(2, 0), 29500}, {key(2, 1), 0}});
  EXPECT_THAT(h.records<GangStarted>(), IsEmpty());
  end(1, key(2, 0), EndReason::cancelled);
  end(1, key(2, 1), EndReason::cancelled);
  EXPECT_EQ(h.view(2).state, JobState::cancelled);
  h.submit(3, gang_of(2, 5)).IgnoreError();
  end(1, key(3, 1), EndReason::exit_code);
  h.cancel(3).IgnoreError();
  EXPECT_EQ(h.view(3).state, JobState::cancelled) << "in its back-off";
}

TEST_F(Gang, StopsAtTheJobsTimeLimit) {
  h.attach(1, info(1, 2));
  JobSpec spec = gang_of(2);
  spec.job_time_limit_ms = 30'000;
  h.submit(1, spec).IgnoreError();
  ready(1, {{key(1, 0), 29500}, {key(1, 1), 0}});
  end(1, key(1, 0), EndReason::succeeded);
  h.unix_ms += 30'000;
  h.at(begin + 30'000, TimerFired{h.unix_ms});
  EXPECT_THAT(h.stops(1), SizeIs(1));
  end(1, key(1, 1), EndReason::time_limit);
  EXPECT_EQ(h.view(1).state, JobState::failed);
  EXPECT_EQ(h.view(1).counts, (JobCounts{0, 0, 0, 1, 1}));
}

TEST_F(Gang, OfProgramsThatRefuseArgumentsStopsAtTheFirst) {
  two_workers(3);
  all_ready();
  AttemptOutcome outcome = outcome_of(EndReason::exit_code);
  outcome.refused_arguments = true;
  h.end(1, key(1, 0), outcome);
  EXPECT_THAT(h.view(1).detail, HasSubstr("--inject env"));
}

TEST_F(Gang, StartsAgainWhenItsWorkerComesBackSmaller) {
  two_workers();
  h.attach(11, info(1, 1), {key(1, 0), key(1, 1)});
  EXPECT_EQ(h.view(1).counts.waiting, 3u) << "held ranks would wait for each other for ever";
  h.attach(3, info(3, 1));
  EXPECT_EQ(h.leased().size(), 3u);
}

TEST_F(Gang, AnswersMistakesOfAPeerWithoutBreaking) {
  two_workers();
  ready(2, {{key(1, 0), 29500}, {key(1, 2, 7), 0}, {key(9, 0), 1}, {key(1, 99), 1}});
  EXPECT_EQ(why(), "0-2: waits for ranks 0-2 to be prepared on pc1, pc2\n");
  end(2, key(1, 2), EndReason::succeeded);
  EXPECT_THAT(describe(h.last), HasSubstr("AttemptEnded j1/2#1 revoked\n"))
      << "nothing of a gang can succeed before it was started";
  EXPECT_EQ(h.view(1).counts.succeeded, 0u);
}

// ---- restarts of the coordinator ----------------------------------------------------------------

TEST_F(Gang, ThatIsHeldIsReadyAgainAfterARestart) {
  two_workers();
  ready(1, {{key(1, 0), 29500}, {key(1, 1), 0}});
  h.restore();
  EXPECT_THAT(h.attach(11, info(1, 2), {key(1, 0), key(1, 1)}).stop, IsEmpty());
  EXPECT_THAT(h.attach(12, info(2, 1), {key(1, 2)}).stop, IsEmpty());
  h.step(WorkerReported{1, 12, {key(1, 2)}, 0, {}, {}, {{key(1, 2), 0}}, 0});
  EXPECT_THAT(h.last.records, IsEmpty());
  h.step(WorkerReported{
      1, 11, {key(1, 0), key(1, 1)}, 0, {}, {}, {{key(1, 0), 29501}, {key(1, 1), 0}}, 0});
  EXPECT_THAT(describe(h.last), HasSubstr("GangStarted j1 #1 10.0.0.1:29501\n"));
}

TEST_F(Gang, ThatWasStartedIsToldTheSameAfterARestart) {
  two_workers();
  all_ready();
  end(1, key(1, 1), EndReason::succeeded);
  h.restore();
  h.attach(11, info(1, 2), {key(1, 0)});
  h.attach(12, info(2, 1), {key(1, 2)});
  EXPECT_THAT(h.held(1), ElementsAre(key(1, 0)));
  h.step(WorkerReported{1, 12, {key(1, 2)}, 0, {}, {}, {{key(1, 2), 0}}, 0});
  EXPECT_EQ(describe(h.last),
            "> AnswerReport OK\n> SendUpdate s12 #1 start j1/2#1 10.0.0.1:29500\n");
  EXPECT_EQ(why(), "1: ended well; final when the other ranks have ended well too\n");
  h.end(11, key(1, 0), EndReason::succeeded);
  h.end(12, key(1, 2), EndReason::succeeded);
  EXPECT_EQ(h.view(1).state, JobState::succeeded);
  EXPECT_THAT(h.records<AttemptEnded>(), SizeIs(4));
}

TEST_F(Gang, InItsBackoffRemembersItsFailures) {
  two_workers(1);
  all_ready();
  end(2, key(1, 2), EndReason::exit_code);
  stopped(1, {key(1, 0), key(1, 1)});
  h.restore();
  h.attach(11, info(1, 2));
  h.attach(12, info(2, 1));
  EXPECT_THAT(h.held(1), IsEmpty());
  h.at(*h.core->next_deadline());
  EXPECT_THAT(h.held(1), SizeIs(2));
  h.end(11, key(1, 0, 2), EndReason::exit_code);
  EXPECT_EQ(h.records<JobStopped>().size(), 1u);
}

// Records cut anywhere, also within a step: whatever is left must be whole again, or end.
TEST_F(Gang, WhoseHistoryIsCutAnywhereBecomesWhole) {
  two_workers(1);
  all_ready();
  end(1, key(1, 1), EndReason::succeeded);
  end(2, key(1, 2), EndReason::exit_code);
  end(1, key(1, 0), EndReason::signal);
  h.at(*h.core->next_deadline());
  all_ready(2);
  end(1, key(1, 0, 2), EndReason::succeeded);
  end(1, key(1, 1, 2), EndReason::succeeded);
  end(2, key(1, 2, 2), EndReason::succeeded);
  const std::vector<Record> log = h.log;
  for (size_t cut = 3; cut <= log.size(); ++cut) {
    SCOPED_TRACE("after record " + std::to_string(cut));
    Harness again;
    for (size_t i = 0; i < cut; ++i) again.core->apply(log[i]);
    again.core->finish_restore(again.now);
    again.attach(1, info(1, 2), again.held(1));
    again.attach(2, info(2, 1), again.held(2));
    for (int turn = 0; turn < 200 && !again.view(1).finished_unix_ms; ++turn) {
      for (uint64_t session : {1, 2}) {
        std::vector<ReadyAttempt> ready;
        std::vector<FinishedAttempt> ended;
        const std::vector<AttemptKey> held = again.held(session);
        for (const AttemptKey& k : held) {
          ready.push_back({k, 29500});
          if (turn % 5 == 4) ended.push_back({k, outcome_of(EndReason::succeeded)});
        }
        again.step(WorkerReported{1, session, held, UINT64_MAX, ended, {}, ready, 7});
      }
      const auto due = again.core->next_deadline();
      again.at(due ? std::max(again.now, std::min(*due, again.now + 1000)) : again.now,
               TimerFired{9});
    }
    EXPECT_GT(again.view(1).finished_unix_ms, 0);
    EXPECT_EQ(again.view(1).committed, 3u);
  }
}

}  // namespace
}  // namespace pesc::coordinator
