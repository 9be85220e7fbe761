// Random histories: workers that come, go, lose messages and report twice; users that submit,
// cancel, retry and remove; restarts of the coordinator. After every step the invariants are
// checked, and what was promised; at the end everyone is healthy and every job must end.
#include <cstdlib>
#include <random>
#include <set>

#include "tests/coordinator_core/harness.h"

namespace pesc::coordinator {
namespace {

struct FakeWorker {
  bool paused = false;
  WorkerInfo info;
  uint64_t session = 0;  // 0: not attached
  uint64_t last_update = 0;
  std::set<AttemptKey> running;
  std::map<AttemptKey, AttemptOutcome> finished;  // not acknowledged yet

  std::vector<AttemptKey> holding() const {
    std::vector<AttemptKey> keys(running.begin(), running.end());
    for (const auto& [key, outcome] : finished) keys.push_back(key);
    return keys;
  }
};

std::string rank_name(const AttemptKey& key) {
  return std::to_string(key.job.value) + "/" + std::to_string(key.rank);
}

std::string views(const Core& core) {
  std::string text;
  for (JobId id : core.jobs()) {
    const JobView v = *core.job(id);
    text += to_string(id) + " " + v.owner + " " + std::string(to_string(v.state)) + " " + v.detail +
            " " + std::to_string(v.finished_unix_ms) + " committed " + std::to_string(v.committed);
    const JobTally& t = v.tally;
    for (uint32_t ended : t.ended) text += " " + std::to_string(ended);
    text += "; " + std::to_string(t.useful_ms) + " " + std::to_string(t.redone_ms) + " " +
            std::to_string(t.checkpoints) + " " + std::to_string(t.second_attempts) + " " +
            std::to_string(t.second_won) + ";";
    for (uint32_t rank : core.committed_ranks(id, 0, UINT32_MAX))
      text += " " + std::to_string(rank);
    std::set<uint32_t> leased_ranks;
    for (const RunningRank& running : core.running(id)) leased_ranks.insert(running.key.rank);
    for (uint32_t rank = 0; rank < v.spec->repetitions; ++rank) {
      // What was leased ahead runs after a restore, as far as is known.
      const bool leased = leased_ranks.contains(rank);
      text += "\n  " + std::string(leased ? "leased" : to_string(core.rank_state(id, rank))) + " " +
              std::to_string(core.attempts(id, rank));
    }
    for (const RunningRank& running : core.running(id)) {
      text += "\n  " + to_string(running.key) + " on " + to_string(running.worker) +
              (running.second ? " second" : "");
    }
    text += "\n";
  }
  return text;
}

class History {
 public:
  explicit History(uint64_t seed) : random_(seed), h_(config()) {
    for (uint64_t n = 1; n <= 4; ++n) {
      FakeWorker worker;
      worker.info = worker_info(n, 1 + pick(4), 4ull << 30, n == 4 ? "gpu" : "");
      workers_.push_back(worker);
    }
  }

  void run(int steps) {
    for (int i = 0; i < steps && !testing::Test::HasFailure(); ++i) random_step();
    heal();
  }

 private:
  static CoreConfig config() {
    CoreConfig config;
    config.max_placements_per_step = 3;
    config.lease_ms = 20'000;
    return config;
  }
  uint32_t pick(uint32_t n) { return std::uniform_int_distribution<uint32_t>(0, n - 1)(random_); }
  bool chance(uint32_t percent) { return pick(100) < percent; }

  void random_step() {
    h_.unix_ms += 10;
    switch (pick(17)) {
      case 0:
        return submit();
      case 1:
        return user_action();
      case 2:
        return advance();
      case 3:
        return connect(workers_[pick(4)]);
      case 4:
        return disconnect(workers_[pick(4)]);
      case 5:
        return chance(20) ? restart() : advance();
      case 6:
        return chance(30) ? wipe(workers_[pick(4)]) : report(workers_[pick(4)]);
      case 7:
      case 8:
        return report(workers_[pick(4)]);
      case 9:
        return mischief();
      case 10:
        return save(workers_[pick(4)]);
      case 11:
        return save(workers_[pick(4)]);
      case 12:
        if (chance(20)) return drain(pick(4), chance(40));
        return chance(20) ? pause(pick(4), chance(40)) : save(workers_[pick(4)]);
      default:
        return finish_one(workers_[pick(4)]);
    }
  }

  void submit() {
    if (h_.core->jobs().size() > 12) return;
    JobSpec spec = spec_of(1 + pick(12));
    spec.retries = pick(3);
    spec.resources.cpus_milli = 500 * (1 + pick(3));
    spec.resources.memory_bytes = chance(30) ? 1ull << 30 : 0;
    if (chance(15)) spec.room = "gpu";
    if (chance(30)) spec.build = "make";
    if (chance(20)) spec.max_failures = 1 + pick(4);
    if (chance(20)) spec.job_time_limit_ms = 1000 * (1 + pick(200));
    const uint64_t id = ++last_job_;
    if (id % 3 == 0) {
      spec.files = {{"data", FileKind::file, {sha256("data " + std::to_string(id % 2)), 1 << 30}}};
    }
    EXPECT_TRUE(h_.submit(id, spec, chance(50) ? "ada" : "bob").ok());
    after();
  }

  void user_action() {
    if (last_job_ == 0) return;
    const uint64_t id = 1 + pick(uint32_t(last_job_));
    const uint32_t what = pick(10);
    if (what < 3) {
      if (h_.cancel(id).ok() && !h_.core->job(job_id(id))->finished_unix_ms) cancelled_.insert(id);
    } else if (what < 8) {
      uint32_t count = 0;
      if (h_.retry(id, &count).ok() && count > 0) cancelled_.erase(id);
      for (const RanksReopened& reopened : h_.records<RanksReopened>()) {
        for (uint32_t rank : reopened.ranks) {
          final_.erase(std::to_string(id) + "/" + std::to_string(rank));
        }
      }
    } else {
      h_.remove(id).IgnoreError();
    }
    after();
  }

  void advance() {
    const std::optional<TimeMs> due = h_.core->next_deadline();
    if (due && *due > h_.now && chance(60))
      h_.now = *due;
    else
      h_.now += pick(3000);
    h_.step(TimerFired{h_.unix_ms});
    after();
  }

  void connect(FakeWorker& worker) {
    if (!healing_ && chance(10)) worker.info.cpus_milli = 1000 * (1 + pick(4));
    worker.session = ++last_session_;
    worker.last_update = 0;
    const AnswerAttach answer = h_.attach(worker.session, worker.info, worker.holding());
    ASSERT_TRUE(answer.status.ok());
    worker.paused = answer.paused;
    obey(worker, answer.stop);
    after();
    for (const FakeWorker& one : workers_) {
      if (one.session == 0) continue;
      EXPECT_EQ(one.paused, paused_.contains(one.info.id)) << "every worker knows its orders";
    }
  }

  void disconnect(FakeWorker& worker) {
    if (worker.session == 0) return;
    h_.detach(worker.session);
    worker.session = 0;
    after();
  }

  // It loses all it had: its disk, its keeper.
  void wipe(FakeWorker& worker) {
    disconnect(worker);
    worker.running.clear();
    worker.finished.clear();
  }

  void restart() {
    const std::string before = views(*h_.core);
    h_.core = h_.restored_from_rows();
    h_.twin = h_.restored_from_log();
    EXPECT_EQ(h_.core->check_invariants(), "");
    EXPECT_EQ(views(*h_.core), before) << "the rows do not bring the state back";
    EXPECT_EQ(views(*h_.twin), before) << "the log does not bring the state back";
    for (FakeWorker& worker : workers_) worker.session = 0;
  }

  AttemptOutcome random_outcome() {
    static constexpr EndReason kReasons[] = {
        EndReason::exit_code,    EndReason::signal,      EndReason::inputs_unavailable,
        EndReason::vacated,      EndReason::disk_full,   EndReason::cannot_start,
        EndReason::revoked,      EndReason::worker_lost, EndReason::bad_checkpoint,
        EndReason::build_failed,
    };
    AttemptOutcome outcome = outcome_of(
        chance(70) ? EndReason::succeeded : kReasons[pick(std::size(kReasons))], pick(1500));
    outcome.refused_arguments = outcome.reason == EndReason::exit_code && chance(20);
    return outcome;
  }

  void save(FakeWorker& worker) {
    if (worker.session == 0 || worker.running.empty()) return;
    auto it = std::next(worker.running.begin(), pick(uint32_t(worker.running.size())));
    const std::string content = "content " + std::to_string(pick(50));
    h_.step(CheckpointOffered{1,
                              worker.session,
                              *it,
                              {sha256(content), content.size()},
                              nullptr,
                              pick(1500),
                              h_.unix_ms});
    ASSERT_TRUE(h_.actions<AnswerCheckpoint>().at(0).status.ok());
    after();
  }

  void drain(uint64_t worker, bool wanted) {
    h_.step(WorkerDrained{1, to_string(workers_[worker].info.id), wanted});
    after();
  }

  void pause(uint64_t worker, bool wanted) {
    h_.step(WorkerPaused{1, to_string(workers_[worker].info.id), wanted});
    after();
  }

  void finish_one(FakeWorker& worker) {
    if (worker.running.empty()) return;
    auto it = std::next(worker.running.begin(), pick(uint32_t(worker.running.size())));
    worker.finished[*it] = random_outcome();
    worker.running.erase(it);
    if (chance(80)) report(worker);
  }

  void report(FakeWorker& worker) {
    if (worker.session == 0) return;
    WorkerReported event{1,  worker.session, worker.holding(), worker.last_update, {}, {},
                         {}, h_.unix_ms};
    if (!healing_ && chance(5)) worker.info.busy = worker.info.busy.empty() ? "its owner" : "";
    event.busy = worker.info.busy;
    for (const auto& [key, outcome] : worker.finished) event.finished.push_back({key, outcome});
    h_.step(event);
    const AnswerReport answer = h_.actions<AnswerReport>().at(0);
    ASSERT_TRUE(answer.status.ok()) << answer.status;
    if (chance(90)) {  // else the answer is lost, and the same is reported again
      for (const AttemptKey& key : answer.acknowledged) worker.finished.erase(key);
      obey(worker, answer.stop);
    }
    after();
  }

  // What no honest worker sends. It must change nothing and break nothing.
  void mischief() {
    FakeWorker& worker = workers_[pick(4)];
    const AttemptKey key{job_id(1 + pick(uint32_t(last_job_ + 2))), pick(20), pick(6)};
    if (worker.session == 0 || worker.running.count(key) > 0) return;
    if (worker.finished.count(key) > 0) return;
    for (FakeWorker& other : workers_) {
      if (other.running.count(key) > 0 || other.finished.count(key) > 0) return;
    }
    std::vector<AttemptKey> holding = worker.holding();
    holding.push_back(key);
    h_.step(WorkerReported{1,
                           worker.session,
                           holding,
                           worker.last_update,
                           {},
                           {{key, 0.5, "x"}},
                           {},
                           h_.unix_ms,
                           worker.info.busy});
    after();
  }

  void obey(FakeWorker& worker, const std::vector<StopRequest>& stops) {
    for (const StopRequest& stop : stops) {
      // An honest worker may have finished before the stop came.
      if (worker.running.erase(stop.key) > 0) {
        worker.finished[stop.key] =
            outcome_of(chance(20) ? EndReason::succeeded : stop.reason, 100);
      }
    }
  }

  void deliver(const SendUpdate& update) {
    for (FakeWorker& worker : workers_) {
      if (worker.session != update.session) continue;
      if (chance(5)) {  // the connection breaks with the update in flight
        lost_sessions_.insert(worker.session);
        continue;
      }
      if (lost_sessions_.count(worker.session) > 0) continue;
      EXPECT_EQ(update.number, worker.last_update + 1);
      worker.last_update = update.number;
      if (!update.leases.empty()) {
        EXPECT_EQ(worker.info.busy, "") << "it has said that it takes none";
        EXPECT_FALSE(ordered_.contains(worker.info.id)) << "it is paused, or drains";
      }
      if (update.paused) worker.paused = *update.paused;
      for (const LeaseGrant& lease : update.leases) worker.running.insert(lease.key);
      obey(worker, update.stop);
    }
  }

  // Looks at the records of the latest step and delivers its actions.
  void after() {
    for (const Record& record : h_.last.records) check(record);
    const Step step = h_.last;
    for (const Action& action : step.actions) {
      if (const auto* update = std::get_if<SendUpdate>(&action)) deliver(*update);
    }
    for (FakeWorker& worker : workers_) {
      if (lost_sessions_.erase(worker.session) > 0) disconnect(worker);
    }
  }

  void check(const Record& record) {
    if (const auto* leased = std::get_if<AttemptLeased>(&record)) {
      const uint32_t number = leased->key.attempt;
      uint32_t& highest = highest_[rank_name(leased->key)];
      const bool back = owner_of_.count(leased->key) > 0;
      if (back) {
        EXPECT_EQ(owner_of_[leased->key], leased->worker) << "taken back from another worker";
      } else {
        EXPECT_EQ(number, highest + 1) << "attempt numbers go up by one";
        EXPECT_EQ(cancelled_.count(leased->key.job.value), 0u) << "leased after a cancel";
      }
      highest = std::max(highest, number);
      owner_of_[leased->key] = leased->worker;
      if (leased->checkpoint > 0) {
        EXPECT_EQ(kept_[rank_name(leased->key)].count(leased->checkpoint) > 0 || back, true)
            << "begins from what is not kept";
      }
      EXPECT_EQ(final_.count(rank_name(leased->key)), 0u) << "leased after its end";
    } else if (const auto* order = std::get_if<WorkerDraining>(&record)) {
      ordered_.erase(order->worker);
      paused_.erase(order->worker);
      if (order->draining || order->paused) ordered_.insert(order->worker);
      if (order->paused) paused_.insert(order->worker);
    } else if (const auto* saved = std::get_if<CheckpointKept>(&record)) {
      EXPECT_EQ(final_.count(rank_name(saved->key)), 0u) << "kept after its end";
      uint32_t& highest = checkpoints_[rank_name(saved->key)];
      EXPECT_EQ(saved->checkpoint.number, ++highest) << "numbers have no gaps";
      kept_[rank_name(saved->key)].insert(highest);
    } else if (const auto* dropped = std::get_if<CheckpointsDropped>(&record)) {
      auto& kept = kept_[rank_name({dropped->job, dropped->rank, 0})];
      EXPECT_EQ(kept.count(dropped->through), 1u) << "dropped before";
      kept.erase(kept.lower_bound(dropped->first), kept.upper_bound(dropped->through));
    } else if (const auto* cancelled = std::get_if<RanksCancelled>(&record)) {
      for (uint32_t rank = cancelled->first; rank <= cancelled->last; ++rank) {
        if (h_.core->rank_state(cancelled->job, rank) == RankState::running) continue;
        EXPECT_TRUE((kept_[rank_name({cancelled->job, rank, 0})].empty()));
      }
    } else if (const auto* ended = std::get_if<AttemptEnded>(&record)) {
      if (!ended->final) return;
      EXPECT_TRUE(kept_[rank_name(ended->key)].empty()) << "a final rank keeps checkpoints";
      EXPECT_TRUE(final_.insert(rank_name(ended->key)).second) << "decided twice";
      if (ended->state == RankState::succeeded) {
        EXPECT_EQ(cancelled_.count(ended->key.job.value), 0u) << "committed after a cancel";
      }
    }
  }

  // Faults stop: within a bound every job is final.
  void heal() {
    healing_ = true;
    for (uint64_t n = 0; n < workers_.size(); ++n) pause(n, false);
    for (FakeWorker& worker : workers_) {
      worker.info.cpus_milli = 4000;
      worker.info.busy.clear();
      connect(worker);
    }
    for (int turn = 0; turn < 5000 && !testing::Test::HasFailure(); ++turn) {
      bool done = true;
      for (JobId id : h_.core->jobs()) done = done && h_.core->job(id)->finished_unix_ms > 0;
      if (done) return;
      for (FakeWorker& worker : workers_) {
        if (worker.session == 0) connect(worker);
        for (const AttemptKey& key : worker.running) {
          worker.finished[key] = outcome_of(EndReason::succeeded, 100);
        }
        worker.running.clear();
        report(worker);
      }
      const std::optional<TimeMs> due = h_.core->next_deadline();
      if (due) h_.now = std::max(h_.now, std::min(*due, h_.now + 1000));
      h_.step(TimerFired{h_.unix_ms});
      after();
    }
    std::string left;
    for (JobId id : h_.core->jobs()) {
      for (const WhyLine& line : h_.core->why(id, h_.now)) {
        left += to_string(id) + " " + line.ranks + ": " + line.reason + "\n";
      }
    }
    if (!testing::Test::HasFailure()) ADD_FAILURE() << "some jobs never end:\n" << left;
  }

  std::mt19937_64 random_;
  Harness h_;
  std::vector<FakeWorker> workers_;
  std::set<uint64_t> lost_sessions_, cancelled_;
  std::set<WorkerId> ordered_, paused_;
  std::set<std::string> final_;
  std::map<std::string, uint32_t> highest_, checkpoints_;
  std::map<std::string, std::set<uint32_t>> kept_;
  std::map<AttemptKey, WorkerId> owner_of_;
  uint64_t last_job_ = 0, last_session_ = 0;
  bool healing_ = false;
};

TEST(RandomHistory, KeepsItsPromises) {
  const char* more = std::getenv("PESC_TEST_SEEDS");  // any number by hand
  const uint64_t seeds = more != nullptr ? std::strtoull(more, nullptr, 10) : 80;
  for (uint64_t seed = 1; seed <= seeds; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    History(seed).run(400);
    if (HasFailure()) return;
  }
}

}  // namespace
}  // namespace pesc::coordinator
