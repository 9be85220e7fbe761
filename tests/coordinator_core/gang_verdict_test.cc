// A rank of a gang failed by itself: was it the program, or a machine that went at the same time?
#include "tests/coordinator_core/harness.h"

namespace pesc::coordinator {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

AttemptKey key(uint32_t rank, uint32_t attempt = 1) { return {job_id(1), rank, attempt}; }

constexpr char kLost[] = "it went wrong; at the same time worker pc2, which had rank 1, was lost";

// Three ranks of one cpu on three workers of one, each under its own number as session.
struct GangVerdict : testing::Test {
  Harness h;
  const TimeMs begin = h.now;

  static WorkerInfo info(uint64_t n) {
    WorkerInfo info = worker_info(n, 1);
    info.advertise = "10.0.0." + std::to_string(n);
    return info;
  }
  void running(uint32_t retries, uint32_t generation = 1) {
    if (generation == 1) {
      for (uint64_t n : {1, 2, 3}) h.attach(n, info(n));
      JobSpec spec = spec_of(3);
      spec.parallel = true;
      spec.retries = retries;
      h.submit(1, spec).IgnoreError();
    }
    for (uint64_t n : {1, 2, 3}) ready(n, uint32_t(n - 1), generation);
    ASSERT_THAT(h.records<GangStarted>(), SizeIs(1));
  }
  void ready(uint64_t n, uint32_t rank, uint32_t generation) {
    uint64_t session = 0;
    for (const WorkerView& worker : h.core->workers()) {
      if (worker.info.id == worker_id(n)) session = worker.session;
    }
    const uint16_t port = rank == 0 ? 29500 : 0;
    h.step(WorkerReported{
        12, session, h.held(n), UINT64_MAX, {}, {}, {{key(rank, generation), port}}, h.unix_ms});
  }
  // Nobody is silent meanwhile.
  void after_backoff() {
    for (int turn = 0; turn < 100 && h.held(1).empty(); ++turn) {
      h.now += 1000;
      for (const WorkerView& worker : h.core->workers()) {
        h.report(worker.session, h.held(worker.info.id.value));
      }
    }
  }
  std::string end(uint64_t session, const AttemptKey& key, EndReason reason) {
    h.end(session, key, reason);
    return describe(h.last);
  }
  std::string why() {
    std::string text;
    for (const WhyLine& line : h.core->why(job_id(1), h.now)) {
      text += line.ranks + ": " + line.reason + "\n";
    }
    return text;
  }
  uint32_t ended(EndReason reason) { return h.view(1).tally.ended[size_t(reason)]; }
};

TEST_F(GangVerdict, WaitsUntilAllAreHeardOf) {
  running(1);
  EXPECT_EQ(end(1, key(0), EndReason::exit_code),
            "AttemptEnded j1/0#1 exit_code uncounted\n"
            "AttemptEnded j1/1#1 revoked\n"
            "AttemptEnded j1/2#1 revoked\n"
            "> AnswerReport OK ack j1/0#1\n"
            "> SendUpdate s2 #3 stop j1/1#1 revoked\n"
            "> SendUpdate s3 #3 stop j1/2#1 revoked\n"
            "> JobChanged j1\n");
  EXPECT_EQ(why(),
            "0-2: rank 0 ended: exit code 1: it went wrong; all ranks start again, or the job "
            "fails, when pc2, pc3 have been heard of: a lost worker uses up no retry\n");
  h.at(begin + 500);
  h.report(2, {key(1)}, {}, 2);
  EXPECT_THAT(why(), HasSubstr("pc2, pc3 have")) << "it was sent before the stop was seen";
  h.report(2, {key(1)}, {}, 3);
  EXPECT_THAT(why(), HasSubstr("when pc3 has been heard of"));
  EXPECT_EQ(end(3, key(2), EndReason::revoked),
            "AttemptEnded j1/0#1 exit_code\n"
            "> AnswerReport OK ack j1/2#1\n"
            "> JobChanged j1\n");
  EXPECT_EQ(why(),
            "0-2: all ranks start again in 1s: tried 1 time; last: rank 0: exit_code: it went "
            "wrong\n")
      << "since the failure";
  h.at(begin + 1000);
  EXPECT_THAT(h.leased(), SizeIs(3));
  EXPECT_EQ(ended(EndReason::exit_code), 1u);
  EXPECT_EQ(h.view(1).tally.redone_ms, 5000u);
}

TEST_F(GangVerdict, FailsTheJobWhenNobodyWasLost) {
  running(0);
  end(2, key(1), EndReason::exit_code);
  EXPECT_EQ(h.view(1).state, JobState::running);
  end(1, key(0), EndReason::revoked);
  EXPECT_EQ(end(3, key(2), EndReason::exit_code),
            "AttemptEnded j1/1#1 exit_code final failed\n"
            "JobStopped j1 by core\n"
            "RanksCancelled j1 0-0\n"
            "RanksCancelled j1 2-2\n"
            "JobFinished j1 failed\n"
            "> AnswerReport OK ack j1/2#1\n"
            "> JobChanged j1\n");
  EXPECT_EQ(h.view(1).detail,
            "rank 1 ended: exit_code 1: it went wrong; a parallel job ends with any of its ranks");
}

TEST_F(GangVerdict, IsFreeWhenAWorkerHadGoneBefore) {
  running(0);
  h.detach(2);
  end(1, key(0), EndReason::exit_code);
  end(3, key(2), EndReason::exit_code);
  EXPECT_THAT(why(), HasSubstr("when pc2 has been heard of"));
  h.at(begin + 4000);
  h.attach(22, info(2));
  EXPECT_EQ(describe(h.last),
            "AttemptEnded j1/0#1 exit_code uncounted\n"
            "AttemptLeased j1/0#2 w1\n"
            "AttemptLeased j1/1#2 w2\n"
            "AttemptLeased j1/2#2 w3\n"
            "> AnswerAttach OK\n"
            "> SendUpdate s1 #3 lease j1/0#2 hold 0/1\n"
            "> SendUpdate s3 #4 lease j1/2#2 hold 0/1\n"
            "> SendUpdate s22 #1 lease j1/1#2 hold 0/1\n"
            "> JobChanged j1\n");
  EXPECT_EQ(why(),
            "0-2: waits for ranks 0-2 to be prepared on pc1, pc2, pc3 (tried 1 time; last: "
            "rank 0: exit_code: " +
                std::string(kLost) + ")\n");
  EXPECT_EQ(ended(EndReason::exit_code), 1u);
  running(0, 2);
  end(1, key(0, 2), EndReason::exit_code);
  end(22, key(1, 2), EndReason::revoked);
  end(3, key(2, 2), EndReason::revoked);
  EXPECT_EQ(h.view(1).state, JobState::failed) << "that one was the program's own";
}

TEST_F(GangVerdict, IsFreeWhenAWorkerGoesAfter) {
  running(0);
  end(3, key(2), EndReason::exit_code);
  end(1, key(0), EndReason::revoked);
  h.detach(2);
  h.at(begin + 59'999);
  EXPECT_THAT(h.last.records, IsEmpty());
  ASSERT_EQ(h.core->next_deadline(), begin + 60'000);
  h.report(1, {});
  h.report(3, {});
  h.at(begin + 60'000);
  EXPECT_EQ(describe(h.last), "AttemptEnded j1/2#1 exit_code uncounted\n> JobChanged j1\n");
  EXPECT_THAT(why(), HasSubstr(kLost));
  EXPECT_EQ(h.view(1).state, JobState::running);
}

TEST_F(GangVerdict, IsTheProgramsWhenAllCameBackWithTheirRanks) {
  running(0);
  h.detach(2);
  end(1, key(0), EndReason::exit_code);
  end(3, key(2), EndReason::revoked);
  EXPECT_THAT(h.attach(22, info(2), {key(1)}).stop, SizeIs(1));
  EXPECT_EQ(h.view(1).state, JobState::failed);
}

TEST_F(GangVerdict, IsFreeWhenARankWasVacatedOrLostByItsKeeper) {
  for (EndReason reason : {EndReason::vacated, EndReason::worker_lost}) {
    h = Harness();
    running(0);
    end(1, key(0), EndReason::exit_code);
    end(2, key(1), reason);
    EXPECT_EQ(h.view(1).state, JobState::running);
    EXPECT_THAT(why(), HasSubstr("it went wrong; at the same time rank 1 ended on pc2: " +
                                 std::string(to_string(reason)) + ": it went wrong"));
  }
}

TEST_F(GangVerdict, NamesTheRankThatWasKilled) {
  running(1);
  end(1, key(0), EndReason::exit_code);
  EXPECT_EQ(end(3, key(2), EndReason::out_of_memory),
            "AttemptEnded j1/2#1 out_of_memory uncounted\n"
            "> AnswerReport OK ack j1/2#1\n"
            "> JobChanged j1\n");
  EXPECT_THAT(end(3, key(2), EndReason::out_of_memory), Not(HasSubstr("AttemptEnded")))
      << "heard again";
  EXPECT_EQ(end(2, key(1), EndReason::exit_code),
            "AttemptEnded j1/2#1 out_of_memory\n"
            "> AnswerReport OK ack j1/1#1\n"
            "> JobChanged j1\n");
  EXPECT_THAT(why(), HasSubstr("tried 1 time; last: rank 2: out_of_memory: it went wrong"));
  EXPECT_EQ(ended(EndReason::exit_code), 1u);
  EXPECT_EQ(ended(EndReason::out_of_memory), 1u);
  EXPECT_EQ(ended(EndReason::revoked), 1u);
  h.at(begin + 1000);
  running(1, 2);
  end(1, key(0, 2), EndReason::exit_code);
  end(2, key(1, 2), EndReason::revoked);
  end(3, key(2, 2), EndReason::signal);
  EXPECT_EQ(h.view(1).state, JobState::failed);
  EXPECT_THAT(h.view(1).detail, HasSubstr("rank 2 ended: signal"));
  EXPECT_EQ(h.core->rank_state(job_id(1), 2), RankState::failed);
  EXPECT_EQ(h.view(1).counts.cancelled, 2u);
}

TEST_F(GangVerdict, HasNobodyToWaitForOnOneWorker) {
  h.attach(1, worker_info(1, 3));
  JobSpec spec = spec_of(3);
  spec.parallel = true;
  h.submit(1, spec).IgnoreError();
  h.step(WorkerReported{12,
                        1,
                        h.held(1),
                        UINT64_MAX,
                        {},
                        {},
                        {{key(0), 29500}, {key(1), 0}, {key(2), 0}},
                        h.unix_ms});
  EXPECT_THAT(end(1, key(1), EndReason::exit_code),
              HasSubstr("AttemptEnded j1/1#1 exit_code final failed\n"));
}

TEST_F(GangVerdict, IsFreeAfterARestartInBetween) {
  running(0);
  end(1, key(0), EndReason::exit_code);
  h.restore();
  EXPECT_EQ(h.view(1).state, JobState::running);
  EXPECT_EQ(ended(EndReason::exit_code), 1u);
  for (uint64_t n : {1, 2, 3}) h.attach(10 + n, info(n));
  EXPECT_THAT(h.leased(), SizeIs(3));
  running(0, 2);
  h.end(11, key(0, 2), EndReason::exit_code);
  h.end(12, key(1, 2), EndReason::revoked);
  h.end(13, key(2, 2), EndReason::revoked);
  EXPECT_EQ(h.view(1).state, JobState::failed);
}

// Whatever was known when the coordinator died, a restored one counts the same.
TEST_F(GangVerdict, SpokenIsKeptByARestart) {
  running(2);
  end(1, key(0), EndReason::exit_code);
  end(3, key(2), EndReason::out_of_memory);
  end(2, key(1), EndReason::revoked);
  for (auto restored : {h.restored_from_rows().release(), h.restored_from_log().release()}) {
    const std::unique_ptr<Core> core(restored);
    EXPECT_EQ(core->check_invariants(), "");
    EXPECT_EQ(core->job(job_id(1))->tally.ended, h.view(1).tally.ended);
    EXPECT_EQ(core->job(job_id(1))->tally.redone_ms, h.view(1).tally.redone_ms);
    EXPECT_EQ(core->next_deadline(), begin + 1000);
  }
  h.restore();
  for (uint64_t n : {1, 2, 3}) h.attach(10 + n, info(n));
  EXPECT_THAT(why(), HasSubstr("tried 1 time; last: rank 2: out_of_memory: it went wrong"));
}

TEST_F(GangVerdict, IsNotFreeForEver) {
  running(0);
  for (uint32_t generation = 1; generation <= 5; ++generation) {
    if (generation == 3) {
      h.restore();
      for (uint64_t n : {1, 3}) h.attach(n, info(n), {key(uint32_t(n - 1), generation)});
    }
    h.end(1, key(0, generation), EndReason::exit_code);
    h.attach(100 + generation, info(2));
    ASSERT_EQ(h.view(1).state, JobState::running);
    after_backoff();
    running(0, generation + 1);
  }
  EXPECT_THAT(end(1, key(0, 6), EndReason::exit_code),
              HasSubstr("AttemptEnded j1/0#6 exit_code final failed\n"));
}

TEST_F(GangVerdict, ProgressMakesItFreeAgain) {
  running(0);
  for (uint32_t generation = 1; generation <= 8; ++generation) {
    const std::string content = std::to_string(generation);
    h.step(CheckpointOffered{13,
                             1,
                             key(0, generation),
                             {sha256(content), 1},
                             std::make_shared<std::vector<BlobRef>>(),
                             2000,
                             h.unix_ms});
    h.end(1, key(0, generation), EndReason::exit_code);
    h.attach(100 + generation, info(2));
    ASSERT_EQ(h.view(1).state, JobState::running);
    after_backoff();
    running(0, generation + 1);
  }
}

TEST_F(GangVerdict, IsMootWhenTheJobIsCancelled) {
  running(0);
  end(1, key(0), EndReason::exit_code);
  h.cancel(1).IgnoreError();
  EXPECT_EQ(h.view(1).state, JobState::cancelled);
  end(2, key(1), EndReason::revoked);
  EXPECT_THAT(h.last.records, IsEmpty());
  uint32_t count = 0;
  EXPECT_TRUE(h.retry(1, &count).ok());
  EXPECT_EQ(count, 3u);
  EXPECT_EQ(h.leased().size() + h.held(1).size(), 4u);
}

}  // namespace
}  // namespace pesc::coordinator
