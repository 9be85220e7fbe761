#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "bench/instructions/work.h"
#include "runtime/coordinator/core/core.h"

namespace pesc::bench {
namespace {

using namespace pesc::coordinator;

constexpr uint32_t kWorkers = 50;
constexpr TimeMs kStepMs = 2;

std::shared_ptr<const JobSpec> make_spec(uint32_t ranks) {
  auto spec = std::make_shared<JobSpec>();
  spec->name = spec->program = "work";
  spec->repetitions = ranks;
  spec->resources.memory_bytes = 64 << 20;
  spec->second_attempts = false;
  return spec;
}

JobSubmitted make_job(uint32_t ranks) {
  JobSubmitted job;
  job.request = 1;
  job.id = JobId{77};
  job.owner = "somebody";
  job.spec = make_spec(ranks);
  job.unix_ms = 1'700'000'000'000;
  return job;
}

AttemptOutcome outcome_of(const AttemptKey& key, TimeMs now) {
  AttemptOutcome outcome;
  outcome.started_unix_ms = 1'700'000'000'000 + now;
  outcome.duration_ms = 5 + key.rank % 7;
  outcome.cpu_ms = 4;
  outcome.max_rss_bytes = 3 << 20;
  outcome.output.size_bytes = 4096;
  outcome.output.digest.bytes[0] = 1;
  outcome.output.digest.bytes[1] = static_cast<uint8_t>(key.rank);
  return outcome;
}

// Workers that report what they were leased at the next turn.
class Lab {
 public:
  explicit Lab(Core& core) : core_(core) {}

  void attach() {
    for (uint32_t i = 1; i <= kWorkers; ++i) {
      WorkerAttached event;
      event.request = 100 + i;
      event.session = i;
      event.info.id = WorkerId{1000 + i};
      event.info.name = "worker-" + std::to_string(i);
      event.info.machine = "machine-" + std::to_string(i);
      event.info.cpus_milli = 4000;
      event.info.memory_bytes = 16ull << 30;
      event.info.disk_bytes = 100ull << 30;
      step(event);
    }
  }

  void step(const Event& event) {
    for (const Step& step = core_.step(event, now_); const Action& action : step.actions) {
      if (const auto* update = std::get_if<SendUpdate>(&action)) {
        Worker& worker = workers_[update->session];
        worker.last_update = update->number;
        for (const LeaseGrant& lease : update->leases) worker.leased.push_back(lease.key);
      }
      ++actions_;
    }
  }

  // One turn of every worker; whether any had something to report.
  bool turn() {
    bool any = false;
    now_ += kStepMs;
    for (uint64_t session = 1; session <= kWorkers; ++session) {
      Worker& worker = workers_[session];
      if (worker.leased.empty()) continue;
      any = true;
      WorkerReported report;
      report.request = 1'000'000 + ++requests_;
      report.session = session;
      report.last_update = worker.last_update;
      report.holding = worker.leased;
      report.unix_ms = 1'700'000'000'000 + now_;
      for (const AttemptKey& key : worker.leased) {
        report.finished.push_back({key, outcome_of(key, now_)});
      }
      worker.leased.clear();
      step(report);
    }
    while (core_.next_deadline() && *core_.next_deadline() <= now_) {
      step(TimerFired{1'700'000'000'000 + now_});
      any = true;
    }
    return any;
  }

  uint64_t actions() const { return actions_; }

 private:
  struct Worker {
    uint64_t last_update = 0;
    std::vector<AttemptKey> leased;
  };
  Core& core_;
  TimeMs now_ = 1000;
  uint64_t actions_ = 0, requests_ = 0;
  std::map<uint64_t, Worker> workers_;
};

}  // namespace

uint64_t coordinator_work(uint32_t ranks) {
  Core core{CoreConfig{}};
  Lab lab(core);
  lab.attach();
  lab.step(make_job(ranks));
  while (lab.turn()) {
  }
  const auto job = core.job(JobId{77});
  if (!job || job->counts.succeeded != ranks) {
    std::fprintf(stderr, "the core has not brought its job to an end\n");
    std::exit(1);
  }
  return lab.actions();
}

uint64_t restore_work(uint32_t ranks) {
  Core core{CoreConfig{}};
  core.apply(WorkerSeen{WorkerId{1001}, "worker-1", ""});
  JobAdded added;
  added.id = JobId{77};
  added.owner = "somebody";
  added.spec = make_spec(ranks + 1);
  core.apply(added);
  for (uint32_t rank = 0; rank < ranks; ++rank) {
    AttemptLeased leased;
    leased.key = {JobId{77}, rank, 1};
    leased.worker = WorkerId{1001};
    core.apply(leased);
    AttemptEnded ended;
    ended.key = leased.key;
    ended.outcome = outcome_of(leased.key, 1);
    ended.final = true;
    ended.state = RankState::succeeded;
    core.apply(ended);
  }
  core.finish_restore(1000);
  return core.job(JobId{77})->counts.succeeded;
}

}  // namespace pesc::bench
