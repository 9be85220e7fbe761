#include "tests/sim/checkers/redone.h"

#include <fmt/format.h>

#include <algorithm>

#include "tests/sim/checkers/checkpoints.h"

namespace pesc::sim {
namespace {

namespace co = coordinator;

// Of the rank: what is behind another one of it saves nothing.
bool is_ahead(const Ledger& ledger, const co::CheckpointKept& r) {
  const LedgerRank* rank = ledger.rank(r.key);
  return rank != nullptr &&
         std::none_of(rank->checkpoints.begin(), rank->checkpoints.end(), [&](const auto& one) {
           return !is_passed_over(*rank, one.first) && one.second.total_ms > r.total_ms;
         });
}

}  // namespace

// An attempt that was leased ahead counts from when the coordinator hears that its cpu is free. It
// may have begun long before.
Redone::Redone(const Scenario& scenario) {
  for (const JobPlan& job : scenario.jobs) {
    const auto short_ms = static_cast<TimeMs>(scenario.coordinator.prefetch_below_ms);
    if (job.unit_ms == 0 && job.shortest_ms >= short_ms) never_ahead_.insert(job.id);
  }
}

void Redone::acknowledged(const AttemptKey& key, uint32_t number, const BlobRef& manifest) {
  if (number > 0) acknowledged_[{key.job, key.rank}][number] = manifest;
}

void Redone::leased(const Ledger& ledger, const co::AttemptLeased& r) {
  const LedgerRank* rank = ledger.rank(r.key);
  if (rank == nullptr) return;
  if (rank->attempts.contains(r.key.attempt)) {
    came_back_.insert(r.key);
    return;
  }
  leased_.insert(r.key);
  TimeMs expected = 0;
  uint64_t total_ms = 0;
  for (const auto& [number, manifest] : acknowledged_[{r.key.job, r.key.rank}]) {
    // A lesser one may have been dropped before the greater one was known to be bad.
    const auto kept = rank->checkpoints.find(number);
    if (kept == rank->checkpoints.end() || is_passed_over(*rank, number)) continue;
    if (kept->second.total_ms < total_ms) continue;
    total_ms = kept->second.total_ms;
    expected = work_[manifest];
  }
  expected_[r.key] = expected;
}

std::string Redone::begins(const AttemptKey& key, TimeMs work_ms) const {
  const auto expected = expected_.find(key);
  if (expected == expected_.end() || work_ms >= expected->second) return {};
  return fmt::format("redone: {} begins with {} ms of its work done, {} ms were acknowledged",
                     to_string(key), work_ms, expected->second);
}

std::string Redone::check_end(const Ledger& ledger, const co::AttemptEnded& r) const {
  const AttemptOutcome& outcome = r.outcome;
  const auto most = saved_.find(r.key);
  if (outcome.saved_ms > (most == saved_.end() ? 0 : most->second)) {
    return fmt::format("redone: of {} {} ms are counted as saved, no checkpoint has them",
                       to_string(r.key), outcome.saved_ms);
  }
  if (outcome.reason == EndReason::succeeded || ledger.job(r.key.job)->stopped) return {};
  uint64_t kept = 0;
  for (const auto& [number, one] : ledger.rank(r.key)->checkpoints) {
    if (one.by == r.key && ahead_.contains({r.key, number})) kept = std::max(kept, one.saved_ms);
  }
  if (outcome.saved_ms < std::min(kept, outcome.duration_ms)) {
    return fmt::format("redone: of {} {} ms are counted as saved, a checkpoint has {}",
                       to_string(r.key), outcome.saved_ms, kept);
  }
  const auto ran = ran_.find(r.key);
  if (outcome.reason != EndReason::worker_lost || ran == ran_.end()) return {};
  // When a coordinator does not know how long it ran, nothing can be counted.
  if (!told_.contains(r.key) || !leased_.contains(r.key) || came_back_.contains(r.key)) return {};
  if (!never_ahead_.contains(r.key.job)) return {};
  if (static_cast<TimeMs>(outcome.duration_ms) >= ran->second) return {};
  return fmt::format("redone: {} was lost after {} ms, {} ms of them are counted", to_string(r.key),
                     ran->second, outcome.duration_ms);
}

std::string Redone::check(const Ledger& ledger, const co::Record& record) {
  if (const auto* r = std::get_if<co::AttemptLeased>(&record)) {
    leased(ledger, *r);
  } else if (const auto* r = std::get_if<co::CheckpointKept>(&record)) {
    uint64_t& saved = saved_[r->key];
    saved = std::max(saved, r->saved_ms);
    if (is_ahead(ledger, *r)) ahead_.insert({r->key, r->checkpoint.number});
  } else if (const auto* r = std::get_if<co::AttemptEnded>(&record)) {
    if (r->final) acknowledged_.erase({r->key.job, r->key.rank});
    return check_end(ledger, *r);
  } else if (const auto* r = std::get_if<co::RanksCancelled>(&record)) {
    for (uint32_t i = r->first; i <= r->last; ++i) acknowledged_.erase({r->job, i});
  }
  return {};
}

}  // namespace pesc::sim
