#include "tests/sim/checkers/shares.h"

#include <fmt/format.h>

#include <algorithm>

namespace pesc::sim {
namespace {

namespace co = coordinator;

bool asks_for_cpus_alone(const JobPlan& job) {
  const Resources& asked = job.spec->resources;
  return !job.spec->parallel && asked.memory_bytes == 0 && asked.disk_bytes == 0 &&
         asked.gpus_milli == 0 && asked.named.empty() && job.peak_memory == 0;
}

}  // namespace

Shares::Shares(const Scenario& scenario) : quiet_(scenario.shares_only) {
  for (const WorkerPlan& worker : scenario.workers) {
    narrowest_worker_ =
        narrowest_worker_ == 0 ? worker.cpus_milli : std::min(narrowest_worker_, worker.cpus_milli);
  }
  for (const JobPlan& job : scenario.jobs) {
    jobs_[job.id] = {&job, 0, asks_for_cpus_alone(job)};
    const uint32_t cpus = job.spec->resources.cpus_milli;
    if (widest_ != 0 && widest_ != cpus) quiet_ = false;  // what one frees may not do for the other
    widest_ = std::max(widest_, cpus);
    // As in Limits.
    if (job.unit_ms > 0 ||
        job.shortest_ms < static_cast<TimeMs>(scenario.coordinator.prefetch_below_ms)) {
      exact_ = false;
    }
  }
}

void Shares::close(const AttemptKey& key) {
  const auto it = open_.find(key);
  if (it == open_.end()) return;
  used_[it->second.first] -= it->second.second;
  open_.erase(it);
  before_.erase(key);
}

void Shares::close_rank(const Ledger& ledger, JobId job, uint32_t rank) {
  const LedgerRank* found = ledger.rank({job, rank, 0});
  if (found == nullptr) return;
  for (const auto& [number, attempt] : found->attempts) close({job, rank, number});
}

void Shares::forget(JobId job) {
  const std::map<AttemptKey, std::pair<std::string, uint32_t>> open = open_;
  for (const auto& [key, of] : open) {
    if (key.job == job) close(key);
  }
  if (const auto it = jobs_.find(job); it != jobs_.end()) it->second.fresh = 0;
}

std::string Shares::check(const Ledger& ledger, const co::Record& record) {
  if (const auto* r = std::get_if<co::JobAdded>(&record)) {
    jobs_.at(r->id).fresh = r->spec->repetitions;
  } else if (const auto* r = std::get_if<co::AttemptEnded>(&record)) {
    close(r->key);
    if (r->final) close_rank(ledger, r->key.job, r->key.rank);
  } else if (const auto* r = std::get_if<co::RanksCancelled>(&record)) {
    for (uint32_t i = r->first; i <= r->last; ++i) close_rank(ledger, r->job, i);
    jobs_.at(r->job).fresh = 0;
  } else if (const auto* r = std::get_if<co::JobErased>(&record)) {
    jobs_.at(r->job).fresh = 0;
  } else if (const auto* r = std::get_if<co::AttemptLeased>(&record)) {
    std::string wrong = check_lease(ledger, *r);
    const LedgerRank& rank = *ledger.rank(r->key);
    Waiting& job = jobs_.at(r->key.job);
    if (rank.attempts.empty() && job.fresh > 0) --job.fresh;
    // One that was lost and is taken up again runs beside what was begun in its place.
    if (!r->second && ledger.attempt(r->key) == nullptr) {
      close_rank(ledger, r->key.job, r->key.rank);
    }
    close(r->key);
    const uint32_t cpus = ledger.job(r->key.job)->spec->resources.cpus_milli;
    open_[r->key] = {job.plan->owner, cpus};
    used_[job.plan->owner] += cpus;
    return wrong;
  }
  return {};
}

std::string Shares::check_lease(const Ledger& ledger, const co::AttemptLeased& r) const {
  const Waiting& given = jobs_.at(r.key.job);
  // Second attempts take what nobody else wants; what was lost and runs on has not waited; and a
  // gang is given all or nothing, when there is room for all.
  if (!exact_ || r.second || given.plan->spec->parallel || ledger.attempt(r.key) != nullptr) {
    return {};
  }
  const auto used = [&](const std::string& owner) {
    const auto it = used_.find(owner);
    return it == used_.end() ? 0 : it->second;
  };
  for (const auto& [id, other] : jobs_) {
    if (other.fresh == 0 || !other.simple || other.plan->owner == given.plan->owner) continue;
    const LedgerJob* job = ledger.job(id);
    if (job == nullptr || job->stopped || job->finished) continue;
    const JobSpec& wants = *other.plan->spec;
    const JobSpec& has = *given.plan->spec;
    if (wants.resources.cpus_milli > has.resources.cpus_milli) continue;
    if (!wants.room.empty() && wants.room != has.room) continue;
    if (used(given.plan->owner) <= used(other.plan->owner)) continue;
    return fmt::format(
        "shares: {} of {}, who has {} cpus (thousandths) in use, comes before job {} of {}, who "
        "has {}",
        to_string(r.key), given.plan->owner, used(given.plan->owner), to_string(id),
        other.plan->owner, used(other.plan->owner));
  }
  return {};
}

std::set<std::string> Shares::ready(const Ledger& ledger) const {
  std::set<std::string> owners;
  for (const auto& [id, waiting] : jobs_) {
    if (waiting.fresh == 0 || !waiting.simple || !waiting.plan->spec->room.empty()) continue;
    if (waiting.plan->spec->resources.cpus_milli > narrowest_worker_) continue;
    const LedgerJob* job = ledger.job(id);
    if (job != nullptr && !job->stopped && !job->finished) owners.insert(waiting.plan->owner);
  }
  return owners;
}

void Shares::add_up(TimeMs now) {
  const auto elapsed = static_cast<int64_t>(now - last_);
  last_ = now;
  for (const std::string& owner : same_) sums_[owner].used += elapsed * int64_t(used_[owner]);
  for (const AttemptKey& key : before_) {
    const auto& [owner, cpus] = open_.at(key);
    sums_[owner].before += elapsed * int64_t(cpus);
  }
}

std::string Shares::judge() const {
  for (const std::string& a : same_) {
    for (const std::string& b : same_) {
      if (!sums_.contains(a) || !sums_.contains(b)) continue;
      const Sum& more = sums_.at(a);
      const int64_t bound = int64_t(widest_) * (last_ - began_) + more.before;
      if (more.used - sums_.at(b).used <= bound) continue;
      return fmt::format(
          "shares: in {} ms in which both had ranks waiting, {} has used {} cpus (thousandths) x "
          "ms and {} {}: more than {} apart",
          last_ - began_, a, more.used, b, sums_.at(b).used, bound);
    }
  }
  return {};
}

std::string Shares::check_transaction(const Ledger& ledger, TimeMs now) {
  if (!quiet_ || !exact_) return {};
  add_up(now);
  std::set<std::string> owners = ready(ledger);
  if (owners == same_) return {};
  std::string wrong = judge();
  same_ = std::move(owners);
  sums_.clear();
  before_.clear();
  for (const auto& [key, of] : open_) before_.insert(key);
  began_ = last_ = now;
  return wrong;
}

}  // namespace pesc::sim
