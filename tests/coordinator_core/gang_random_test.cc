// Random histories of gangs among other jobs, on workers that hold and start as a real one does,
// lose messages, go and come back; the coordinator is restored from its rows at every few steps, in
// some histories at every one. Invariants are checked after each step; at the end all must end.
#include <algorithm>
#include <cstdlib>
#include <random>
#include <set>

#include "tests/coordinator_core/harness.h"

namespace pesc::coordinator {
namespace {

struct Held {
  bool hold = false, prepared = false, started = false;
  std::string address;  // as it was told
  uint32_t cpus_milli = 0;
};

// Prepares what it is given at once, takes the cpus of what it holds, first come first served.
struct FakeWorker {
  WorkerInfo info;
  uint64_t session = 0;  // 0: not attached
  uint64_t last_update = 0;
  std::vector<std::pair<AttemptKey, Held>> attempts;  // in the order they came
  std::map<AttemptKey, AttemptOutcome> finished;      // not acknowledged yet

  std::vector<AttemptKey> holding() const {
    std::vector<AttemptKey> keys;
    for (const auto& [key, held] : attempts) keys.push_back(key);
    for (const auto& [key, outcome] : finished) keys.push_back(key);
    return keys;
  }
  void take_cpus() {
    uint64_t used = 0;
    for (const auto& [key, held] : attempts) used += held.prepared ? held.cpus_milli : 0;
    for (auto& [key, held] : attempts) {
      if (held.prepared) continue;
      if (used + held.cpus_milli > info.cpus_milli) return;
      used += held.cpus_milli;
      held.prepared = true;
      held.started = !held.hold;
    }
  }
  std::vector<ReadyAttempt> ready() const {
    std::vector<ReadyAttempt> ready;
    for (const auto& [key, held] : attempts) {
      if (!held.prepared || held.started) continue;
      ready.push_back({key, uint16_t(key.rank == 0 ? 20000 + key.attempt : 0)});
    }
    return ready;
  }
  bool end(const AttemptKey& key, const AttemptOutcome& outcome) {
    const auto it = std::find_if(attempts.begin(), attempts.end(),
                                 [&](const auto& a) { return a.first == key; });
    if (it == attempts.end()) return false;
    attempts.erase(it);
    finished[key] = outcome;
    return true;
  }
};

class History {
 public:
  explicit History(uint64_t seed) : random_(seed), h_(config()) {
    restore_percent_ = seed % 4 == 0 ? 100 : seed % 4 == 1 ? 20 : 2;
    for (uint64_t n = 1; n <= 4; ++n) {
      FakeWorker worker;
      worker.info = worker_info(n, 1 + pick(4), 4ull << 30);
      worker.info.advertise = "10.0.0." + std::to_string(n);
      workers_.push_back(worker);
    }
  }

  void run(int steps) {
    for (int i = 0; i < steps && !testing::Test::HasFailure(); ++i) {
      random_step();
      if (chance(restore_percent_)) restart();
    }
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
  FakeWorker& any() { return workers_[pick(uint32_t(workers_.size()))]; }

  void random_step() {
    h_.unix_ms += 10;
    switch (pick(14)) {
      case 0:
        return submit();
      case 1:
        return user_action();
      case 2:
        return advance();
      case 3:
        return connect(any());
      case 4:
        return chance(30) ? disconnect(any()) : advance();
      case 5:
        if (chance(15)) return wipe(any());
        return chance(15) ? power_cut(any()) : report(any());
      case 6:
      case 7:
      case 8:
      case 9:
        return report(any());
      default:
        return finish_one(any());
    }
  }

  void submit() {
    if (h_.core->jobs().size() > 8) return;
    JobSpec spec = spec_of(1 + pick(5));
    spec.parallel = chance(70);
    spec.same_worker = spec.parallel && chance(20);
    spec.retries = pick(3);
    if (chance(30)) spec.build = "make";
    spec.resources.cpus_milli = 500 * (1 + pick(3));
    spec.resources.memory_bytes = chance(30) ? 1ull << 30 : 0;
    if (last_job_ % 3 == 0) spec.files = {{"data", FileKind::file, {sha256("data"), 1 << 30}}};
    EXPECT_TRUE(h_.submit(++last_job_, spec, chance(50) ? "ada" : "bob").ok());
    after();
  }

  void user_action() {
    if (last_job_ == 0) return;
    const uint64_t id = 1 + pick(uint32_t(last_job_));
    const uint32_t what = pick(10);
    if (what < 2) {
      h_.cancel(id).IgnoreError();
    } else if (what < 6) {
      h_.retry(id).IgnoreError();
    } else {
      h_.remove(id).IgnoreError();
    }
    after();
  }

  void advance() {
    const std::optional<TimeMs> due = h_.core->next_deadline();
    if (due && *due > h_.now && chance(60)) {
      h_.now = *due;
    } else {
      h_.now += pick(2000);
    }
    h_.step(TimerFired{h_.unix_ms});
    after();
  }

  void connect(FakeWorker& worker) {
    if (!healing_ && chance(10)) worker.info.cpus_milli = 1000 * (1 + pick(4));
    worker.session = ++last_session_;
    worker.last_update = 0;
    const AnswerAttach answer = h_.attach(worker.session, worker.info, worker.holding());
    ASSERT_TRUE(answer.status.ok());
    obey(worker, answer.stop);
    after();
  }

  void disconnect(FakeWorker& worker) {
    if (worker.session == 0) return;
    h_.detach(worker.session);
    worker.session = 0;
    after();
  }

  void wipe(FakeWorker& worker) {
    disconnect(worker);
    worker.attempts.clear();
    worker.finished.clear();
  }

  // Its ranks' peers die of it at once; some of that is heard before the worker is missed.
  void power_cut(FakeWorker& worker) {
    for (const auto& [key, held] : worker.attempts) {
      if (!held.started || !h_.core->job(key.job)) continue;
      const std::vector<AttemptKey> open = h_.held(worker.info.id.value);
      if (std::find(open.begin(), open.end(), key) == open.end()) continue;
      if (!h_.core->job(key.job)->spec->parallel) continue;
      cut_.insert({key.job, key.attempt});
      for (FakeWorker& other : workers_) {
        for (const auto& [peer, peer_held] : std::vector(other.attempts)) {
          if (&other == &worker || peer.job != key.job || peer.attempt != key.attempt) continue;
          if (peer_held.started) other.end(peer, outcome_of(EndReason::exit_code, 3000));
        }
      }
    }
    worker.attempts.clear();
    worker.finished.clear();
    if (chance(50)) disconnect(worker);
    for (FakeWorker& other : workers_) {
      if (&other != &worker && chance(70)) report(other);
    }
    disconnect(worker);
    if (chance(50)) connect(worker);
  }

  void restart() {
    std::map<JobId, JobTally> before;
    for (JobId id : h_.core->jobs()) before[id] = h_.core->job(id)->tally;
    h_.core = h_.restored_from_rows();
    for (const auto& [id, tally] : before) {
      EXPECT_EQ(h_.core->job(id)->tally.ended, tally.ended) << to_string(id);
      EXPECT_EQ(h_.core->job(id)->tally.redone_ms, tally.redone_ms) << to_string(id);
    }
    EXPECT_EQ(h_.core->check_invariants(), "");
    for (FakeWorker& worker : workers_) worker.session = 0;
    for (FakeWorker& worker : workers_) {
      if (chance(80)) connect(worker);
    }
  }

  void finish_one(FakeWorker& worker) {
    static constexpr EndReason kReasons[] = {
        EndReason::exit_code, EndReason::signal,     EndReason::inputs_unavailable,
        EndReason::vacated,   EndReason::port_taken, EndReason::cannot_start,
        EndReason::revoked,   EndReason::disk_full,  EndReason::build_failed,
    };
    std::vector<AttemptKey> running;
    for (const auto& [key, held] : worker.attempts) {
      if (held.started) running.push_back(key);
    }
    if (!running.empty()) {
      const EndReason reason =
          chance(85) ? EndReason::succeeded : kReasons[pick(std::size(kReasons))];
      worker.end(running[pick(uint32_t(running.size()))], outcome_of(reason, 3000 + pick(3000)));
    } else if (!worker.attempts.empty() && chance(5)) {  // cannot be prepared, or started
      worker.end(worker.attempts.front().first,
                 outcome_of(kReasons[pick(std::size(kReasons))], 3000));
    }
    if (chance(80)) report(worker);
  }

  void report(FakeWorker& worker) {
    if (worker.session == 0) return;
    worker.take_cpus();
    WorkerReported event{1,  worker.session, worker.holding(), worker.last_update, {},
                         {}, worker.ready(), h_.unix_ms};
    for (const auto& [key, outcome] : worker.finished) event.finished.push_back({key, outcome});
    h_.step(event);
    const AnswerReport answer = h_.actions<AnswerReport>().at(0);
    ASSERT_TRUE(answer.status.ok()) << answer.status;
    if (healing_ || chance(90)) {  // else the answer is lost, and the same is reported again
      for (const AttemptKey& key : answer.acknowledged) worker.finished.erase(key);
      obey(worker, answer.stop);
    }
    after();
  }

  void obey(FakeWorker& worker, const std::vector<StopRequest>& stops) {
    for (const StopRequest& stop : stops) worker.end(stop.key, outcome_of(stop.reason, 3000));
  }

  void deliver(const SendUpdate& update) {
    for (FakeWorker& worker : workers_) {
      if (worker.session != update.session || lost_sessions_.count(worker.session) > 0) continue;
      if (!healing_ && chance(4)) {  // the connection breaks with the update in flight
        lost_sessions_.insert(worker.session);
        continue;
      }
      EXPECT_EQ(update.number, worker.last_update + 1);
      worker.last_update = update.number;
      for (const LeaseGrant& lease : update.leases) {
        Held held;
        held.hold = lease.hold;
        held.cpus_milli = lease.spec->resources.cpus_milli;
        EXPECT_EQ(lease.hold, lease.spec->parallel);
        EXPECT_LT(lease.local_rank, lease.local_world_size);
        worker.attempts.emplace_back(lease.key, held);
      }
      for (const StartOrder& order : update.start) start(worker, order);
      obey(worker, update.stop);
    }
  }

  void start(FakeWorker& worker, const StartOrder& order) {
    const std::string where = order.master_addr + ":" + std::to_string(order.master_port);
    const std::string gang =
        std::to_string(order.key.job.value) + "#" + std::to_string(order.key.attempt);
    EXPECT_EQ(addresses_.emplace(gang, where).first->second, where) << "a gang meets in two places";
    EXPECT_EQ(order.master_port, 20000 + order.key.attempt);
    for (auto& [key, held] : worker.attempts) {
      if (key != order.key) continue;
      EXPECT_TRUE(held.prepared) << "started before it was ready";
      held.started = true;
    }
  }

  void after() {
    const Step step = h_.last;
    check(step);
    for (const Action& action : step.actions) {
      if (const auto* update = std::get_if<SendUpdate>(&action)) deliver(*update);
    }
    for (FakeWorker& worker : workers_) {
      if (lost_sessions_.erase(worker.session) > 0) disconnect(worker);
    }
  }

  // The failure of a gang that lost a machine does not count, but when there are too many of them.
  void check_fault(const Record& record, const Step& step) {
    if (const auto* r = std::get_if<RanksReopened>(&record)) {
      excuses_.erase(r->job);
      stopped_.erase(r->job);
    }
    if (const auto* r = std::get_if<JobStopped>(&record)) stopped_.insert(r->job);
    const auto* r = std::get_if<AttemptEnded>(&record);
    if (r == nullptr || !uses_up_a_retry(r->outcome.reason) || stopped_.contains(r->key.job))
      return;
    const std::pair generation{r->key.job, r->key.attempt};
    if (!r->final && r->state == RankState::running) {
      excuses_[r->key.job].insert(r->key.attempt);
    } else if (cut_.contains(generation)) {
      EXPECT_GE(excuses_[r->key.job].size(), 5u) << to_string(r->key) << " is not to blame\n"
                                                 << describe(step);
    }
  }

  // All ranks of a gang are leased in one step, and all commit in one.
  void check(const Step& step) {
    std::map<JobId, uint32_t> leased, committed;
    for (const Record& record : step.records) {
      check_fault(record, step);
      if (const auto* lease = std::get_if<AttemptLeased>(&record)) ++leased[lease->key.job];
      if (const auto* ended = std::get_if<AttemptEnded>(&record)) {
        if (ended->final && ended->state == RankState::succeeded) ++committed[ended->key.job];
      }
    }
    for (const auto& counts : {leased, committed}) {
      for (const auto& [id, count] : counts) {
        const std::optional<JobView> view = h_.core->job(id);
        if (!view || !view->spec->parallel) continue;
        EXPECT_EQ(count, view->spec->repetitions) << to_string(id) << " in part";
      }
    }
  }

  // Faults stop: within a bound every job is final.
  void heal() {
    healing_ = true;
    for (FakeWorker& worker : workers_) {
      worker.info.cpus_milli = 8000;
      worker.info.memory_bytes = 8ull << 30;
      connect(worker);
    }
    for (int turn = 0; turn < 3000 && !testing::Test::HasFailure(); ++turn) {
      bool done = true;
      for (JobId id : h_.core->jobs()) done = done && h_.core->job(id)->finished_unix_ms > 0;
      if (done) return;
      for (FakeWorker& worker : workers_) {
        if (worker.session == 0) connect(worker);
        const std::vector<std::pair<AttemptKey, Held>> attempts = worker.attempts;
        for (const auto& [key, held] : attempts) {
          if (held.started) worker.end(key, outcome_of(EndReason::succeeded, 3000));
        }
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
  uint32_t restore_percent_ = 0;
  std::vector<FakeWorker> workers_;
  std::set<uint64_t> lost_sessions_;
  std::map<std::string, std::string> addresses_;
  std::set<std::pair<JobId, uint32_t>> cut_;  // generations of which a machine was switched off
  std::map<JobId, std::set<uint32_t>> excuses_;
  std::set<JobId> stopped_;
  uint64_t last_job_ = 0, last_session_ = 0;
  bool healing_ = false;
};

TEST(RandomGangs, KeepTheirPromises) {
  const char* more = std::getenv("PESC_TEST_SEEDS");  // any number by hand
  const uint64_t seeds = more != nullptr ? std::strtoull(more, nullptr, 10) : 40;
  for (uint64_t seed = 1; seed <= seeds; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    History(seed).run(400);
    if (HasFailure()) return;
  }
}

}  // namespace
}  // namespace pesc::coordinator
