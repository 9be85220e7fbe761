#include "tests/sim/checkers/checkpoints.h"

#include <fmt/format.h>

#include <algorithm>

namespace pesc::sim {
namespace {

namespace co = coordinator;

// In a row, before they count as the program's.
constexpr uint32_t kMostBadEnds = 10;

// Of the rank, or of all ranks of its gang.
uint32_t bad_ends(const LedgerJob& job, uint32_t number) {
  uint32_t ends = 0;
  for (size_t i = 0; i < job.ranks.size(); ++i) {
    if (i != number && !job.spec->parallel) continue;
    for (const auto& [attempt, one] : job.ranks[i].attempts) {
      ends += one.ended && one.outcome.reason == EndReason::bad_checkpoint;
    }
  }
  return ends;
}

std::string check_lease(const Ledger& ledger, const co::AttemptLeased& r) {
  const LedgerRank* rank = ledger.rank(r.key);
  if (rank == nullptr) return {};
  if (auto it = rank->attempts.find(r.key.attempt);
      it != rank->attempts.end()) {  // it runs already
    if (it->second.base_ms == r.base_ms) return {};
    return fmt::format("checkpoints: {} is leased again as one that began from another",
                       to_string(r.key));
  }
  uint32_t best = 0;
  uint64_t total_ms = 0;
  for (const auto& [number, checkpoint] : rank->checkpoints) {
    if (is_passed_over(*rank, number) || checkpoint.total_ms < total_ms) continue;
    best = number;
    total_ms = checkpoint.total_ms;
  }
  if (r.checkpoint == best && r.base_ms == total_ms) return {};
  if (r.checkpoint != 0 &&
      (!rank->checkpoints.contains(r.checkpoint) || is_passed_over(*rank, r.checkpoint))) {
    return fmt::format(
        "checkpoints: {} begins from number {}, which is not kept or known to be bad",
        to_string(r.key), r.checkpoint);
  }
  return fmt::format("checkpoints: {} begins from number {}, but number {} stands for most, {} ms",
                     to_string(r.key), r.checkpoint, best, total_ms);
}

}  // namespace

bool is_passed_over(const LedgerRank& rank, uint32_t number) {
  std::set<WorkerId> workers;
  uint32_t ends = 0;
  for (const auto& [attempt, one] : rank.attempts) {
    if (one.checkpoint != number || !one.ended) continue;
    if (one.outcome.reason != EndReason::bad_checkpoint) continue;
    workers.insert(one.worker);
    ++ends;
  }
  return workers.size() >= 2 || ends >= 3;
}

std::string check_checkpoint_answered(const Ledger& ledger, const AttemptKey& key, uint32_t number,
                                      const BlobRef& manifest) {
  const LedgerRank* rank = ledger.rank(key);
  if (rank == nullptr || rank->final || number == 0) return {};
  auto it = rank->checkpoints.find(number);
  if (it == rank->checkpoints.end()) {
    // Already the worst of more than are kept? The newest never is.
    if (!rank->checkpoints.empty() && number < rank->checkpoints.rbegin()->first) return {};
    return fmt::format("checkpoints: number {} of {} was acknowledged, but it is not durable",
                       number, to_string(key));
  }
  if (it->second.manifest == manifest) return {};
  return fmt::format("checkpoints: number {} of {} is another one", number, to_string(key));
}

std::string Checkpoints::check(const Ledger& ledger, const co::Record& record) {
  if (const auto* r = std::get_if<co::AttemptLeased>(&record)) return check_lease(ledger, *r);
  if (const auto* r = std::get_if<co::CheckpointsDropped>(&record)) {
    const LedgerRank* rank = ledger.rank({r->job, r->rank, 0});
    if (rank == nullptr) return {};
    had_.insert({{r->job, r->rank}, rank->checkpoints.size()});
    uint64_t& best_ms = dropped_ms_[{r->job, r->rank}];
    for (const auto& [number, one] : rank->checkpoints) {
      const bool goes =
          number >= r->first && number <= r->through && !is_passed_over(*rank, number);
      if (goes) best_ms = std::max(best_ms, one.total_ms);
    }
  }
  if (const auto* r = std::get_if<co::AttemptEnded>(&record)) {
    if (!died_.contains(r->key) || !uses_up_a_retry(r->outcome.reason)) return {};
    const LedgerJob* job = ledger.job(r->key.job);
    if (job == nullptr || job->stopped) return {};  // it is not tried again anyway
    // What saves and then dies is the program's; and so is what never ends.
    if (saved_.contains(r->key) || bad_ends(*job, r->key.rank) >= kMostBadEnds) return {};
    return fmt::format("checkpoints: {} died at once of its checkpoint, and uses up a retry by {}",
                       to_string(r->key), to_string(r->outcome.reason));
  }
  if (const auto* r = std::get_if<co::CheckpointKept>(&record)) {
    saved_.insert(r->key);
    const LedgerRank* rank = ledger.rank(r->key);
    if (rank == nullptr) {
      return fmt::format("checkpoints: {} saves, but there is no such rank", to_string(r->key));
    }
    if (!rank->checkpoints.empty() && r->checkpoint.number <= rank->checkpoints.rbegin()->first) {
      return fmt::format("checkpoints: {} saves number {} a second time", to_string(r->key),
                         r->checkpoint.number);
    }
    auto by = rank->attempts.find(r->key.attempt);
    if (by == rank->attempts.end() || r->total_ms != by->second.base_ms + r->saved_ms) {
      return fmt::format("checkpoints: number {} of {} stands for {} ms, which is wrong",
                         r->checkpoint.number, to_string(r->key), r->total_ms);
    }
  }
  return {};
}

// Each of those that are kept may be tried three times. What comes after is the program's, and uses
// up its retries; unless a good one was between, which takes longer than dying of a bad one.
std::string Checkpoints::died_of_checkpoint(const Ledger& ledger, const AttemptKey& key) {
  const LedgerRank* rank = ledger.rank(key);
  if (rank == nullptr) return {};
  died_.insert(key);
  const uint32_t deaths = ++deaths_[{key.job, key.rank}];
  const auto attempts = static_cast<uint32_t>(rank->attempts.size());
  const LedgerJob& job = *ledger.job(key.job);
  if (deaths < std::max(10u, 3 * keep_ + 1) + 2 * (job.spec->retries + 1) + 12 ||
      10 * deaths < 9 * attempts) {
    return {};
  }
  return fmt::format("checkpoints: of {} attempts of job {} rank {}, {} died of a bad checkpoint",
                     attempts, to_string(key.job), key.rank, deaths);
}

std::string Checkpoints::check_transaction(const Ledger& ledger) {
  std::string wrong;
  for (const auto& [of, had] : had_) {
    const LedgerRank* rank = ledger.rank({of.first, of.second, 0});
    if (rank == nullptr || rank->final) continue;
    uint32_t better = 0;
    for (const auto& [number, one] : rank->checkpoints) {
      better += !is_passed_over(*rank, number) && one.total_ms >= dropped_ms_[of];
    }
    if (dropped_ms_[of] > 0 && better < keep_) {
      wrong = fmt::format(
          "checkpoints: of job {} rank {} one that stands for {} ms is dropped, {} "
          "better ones are kept",
          to_string(of.first), of.second, dropped_ms_[of], better);
    }
    if (rank->checkpoints.size() >= keep_ || rank->checkpoints.size() >= had) continue;
    wrong =
        fmt::format("checkpoints: of job {} rank {}, which is not final, only {} of {} are kept",
                    to_string(of.first), of.second, rank->checkpoints.size(), had);
  }
  had_.clear();
  dropped_ms_.clear();
  return wrong;
}

std::string check_checkpoint_sent(const Ledger& ledger, const co::LeaseGrant& lease) {
  const LedgerAttempt* attempt = ledger.attempt(lease.key);
  if (attempt == nullptr || attempt->checkpoint == lease.checkpoint.number) {
    if (attempt == nullptr || lease.checkpoint.number == 0) return {};
    const LedgerRank* rank = ledger.rank(lease.key);
    auto it = rank->checkpoints.find(lease.checkpoint.number);
    // Meanwhile another attempt may have saved so many that it was dropped.
    if (it == rank->checkpoints.end() || it->second.manifest == lease.checkpoint.manifest) {
      return {};
    }
  }
  return fmt::format("checkpoints: {} is sent number {}, journalled is number {}",
                     to_string(lease.key), lease.checkpoint.number, attempt->checkpoint);
}

}  // namespace pesc::sim
