#include "tests/sim/checkers/limits.h"

#include <fmt/format.h>

namespace pesc::sim {
namespace {

namespace co = coordinator;

std::string wrong_room(const WorkerPlan& worker, const AttemptKey& key, const JobSpec& spec) {
  if (spec.room.empty() || spec.room == worker.room) return {};
  return fmt::format("promise 6: {} wants room \"{}\", {} is in room \"{}\"", to_string(key),
                     spec.room, worker.name, worker.room);
}

}  // namespace

Limits::Limits(const Scenario& scenario) {
  for (const WorkerPlan& worker : scenario.workers) workers_[worker.id] = worker;
  for (const JobPlan& job : scenario.jobs) {
    // What began from a checkpoint may be short too.
    if (job.unit_ms > 0 ||
        job.shortest_ms < static_cast<TimeMs>(scenario.coordinator.prefetch_below_ms)) {
      times_ = 1 + scenario.coordinator.prefetch_most;
    }
  }
}

void Limits::close(const AttemptKey& key) {
  auto it = open_.find(key);
  if (it == open_.end()) return;
  given_milli_[it->second.first] -= it->second.second;
  open_.erase(it);
}

void Limits::forget(JobId job) {
  for (auto it = open_.begin(); it != open_.end();) {
    if (it->first.job == job) given_milli_[it->second.first] -= it->second.second;
    it = it->first.job == job ? open_.erase(it) : std::next(it);
  }
}

void Limits::close_rank(const Ledger& ledger, JobId job, uint32_t rank) {
  const LedgerRank* found = ledger.rank({job, rank, 0});
  if (found == nullptr) return;
  for (const auto& [number, attempt] : found->attempts) close({job, rank, number});
}

std::string Limits::check(const Ledger& ledger, const co::Record& record) {
  if (const auto* r = std::get_if<co::AttemptEnded>(&record)) {
    close(r->key);
    if (r->final) close_rank(ledger, r->key.job, r->key.rank);
  } else if (const auto* r = std::get_if<co::RanksCancelled>(&record)) {
    for (uint32_t i = r->first; i <= r->last; ++i) close_rank(ledger, r->job, i);
  } else if (const auto* r = std::get_if<co::AttemptLeased>(&record)) {
    const WorkerPlan& worker = workers_.at(r->worker);
    const JobSpec& spec = *ledger.job(r->key.job)->spec;
    // A newer attempt of the rank takes the place of an older one that was lost.
    if (r->key.attempt == ledger.rank(r->key)->last_attempt && !r->second) {
      close_rank(ledger, r->key.job, r->key.rank);
    }
    open_[r->key] = {r->worker, spec.resources.cpus_milli};
    uint32_t& given = given_milli_[r->worker];
    given += spec.resources.cpus_milli;
    // A worker that comes back with what was given up for lost may have too much for a while; it is
    // given nothing new then.
    if (!leased_.insert(r->key).second) return {};
    if (given > times_ * worker.cpus_milli) {
      return fmt::format("promise 6: {} is given {} cpus (thousandths), it has {}", worker.name,
                         given, worker.cpus_milli);
    }
    return wrong_room(worker, r->key, spec);
  }
  return {};
}

std::string Limits::starts(const WorkerPlan& worker, const AttemptKey& key, const JobSpec& spec,
                           uint32_t used_milli) const {
  if (used_milli + spec.resources.cpus_milli > worker.cpus_milli) {
    return fmt::format("promise 6: {} starts {} with {} cpus (thousandths) in use of {}",
                       worker.name, to_string(key), used_milli, worker.cpus_milli);
  }
  return wrong_room(worker, key, spec);
}

}  // namespace pesc::sim
