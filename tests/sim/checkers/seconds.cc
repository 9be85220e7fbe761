#include "tests/sim/checkers/seconds.h"

#include <fmt/format.h>

namespace pesc::sim {
namespace {

namespace co = coordinator;

// A connection may be half open for a minute; then a heartbeat, an answer, and the grace.
constexpr TimeMs kStopsWithinMs = 180'000;

}  // namespace

std::string Seconds::check_lease(const Ledger& ledger, const co::AttemptLeased& r) const {
  const LedgerRank* rank = ledger.rank(r.key);
  if (rank == nullptr || rank->attempts.contains(r.key.attempt)) return {};  // it runs already
  const LedgerAttempt* beside = nullptr;
  uint32_t open = 0;
  for (const auto& [number, one] : rank->attempts) {
    if (one.ended) continue;
    beside = &one;
    ++open;
  }
  const std::string name = to_string(r.key);
  if (!r.second) {
    return open == 0 ? "" : fmt::format("second attempts: {} is given beside another", name);
  }
  const JobSpec& spec = *ledger.job(r.key.job)->spec;
  if (spec.parallel) return fmt::format("second attempts: {} is one, of a gang", name);
  if (!spec.second_attempts) return fmt::format("second attempts: {} is not wanted", name);
  if (open != 1) return fmt::format("second attempts: {} is given beside {} others", name, open);
  if (beside->worker != r.worker) return {};
  return fmt::format("second attempts: {} is given to the worker that has the first", name);
}

std::string Seconds::check(const Ledger& ledger, const co::Record& record) {
  if (const auto* r = std::get_if<co::AttemptLeased>(&record)) return check_lease(ledger, *r);
  if (const auto* r = std::get_if<co::AttemptEnded>(&record); r != nullptr && r->final) {
    const bool twice = !decided_.insert({r->key.job, r->key.rank}).second;
    if (twice) return fmt::format("second attempts: {} commits beside another", to_string(r->key));
  }
  return {};
}

std::string Seconds::check_transaction(const Ledger& ledger) {
  std::string wrong;
  for (const auto& [job, number] : decided_) {
    const LedgerRank* rank = ledger.rank({job, number, 0});
    if (rank == nullptr || !rank->final) continue;
    for (const auto& [attempt, one] : rank->attempts) {
      if (one.ended) continue;
      wrong = fmt::format("second attempts: {} has lost, and was not revoked",
                          to_string(AttemptKey{job, number, attempt}));
    }
  }
  decided_.clear();
  return wrong;
}

std::string Seconds::check_running(const Ledger& ledger, const std::vector<AttemptKey>& running,
                                   TimeMs now) {
  std::map<AttemptKey, TimeMs> losers;
  for (const AttemptKey& key : running) {
    const LedgerRank* rank = ledger.rank(key);
    if (rank == nullptr || !rank->final) continue;
    const auto before = losers_.find(key);
    const TimeMs since = losers[key] = before == losers_.end() ? now : before->second;
    if (now - since > kStopsWithinMs) {
      return fmt::format("second attempts: {} runs on, {} ms after its rank had its result",
                         to_string(key), now - since);
    }
  }
  losers_ = std::move(losers);
  return {};
}

}  // namespace pesc::sim
