#include "tests/sim/checkers/gangs.h"

#include <fmt/format.h>

namespace pesc::sim {
namespace {

namespace co = coordinator;

const LedgerJob* gang_of(const Ledger& ledger, JobId id) {
  const LedgerJob* job = ledger.job(id);
  return job != nullptr && job->spec->parallel ? job : nullptr;
}

std::string broken(JobId job, uint32_t generation, std::string_view what) {
  return fmt::format("gang: job {}, generation {}: {}", to_string(job), generation, what);
}

}  // namespace

std::string Gangs::check(const Ledger& ledger, const co::Record& record) {
  if (const auto* r = std::get_if<co::AttemptLeased>(&record)) {
    if (gang_of(ledger, r->key.job) != nullptr) leased_.insert({r->key.job, r->key.attempt});
    if (r->second && gang_of(ledger, r->key.job) != nullptr) {
      return broken(r->key.job, r->key.attempt, "has a second attempt of a rank");
    }
  } else if (const auto* r = std::get_if<co::GangStarted>(&record)) {
    return check_start(ledger, *r);
  } else if (const auto* r = std::get_if<co::AttemptEnded>(&record)) {
    return check_end(ledger, *r);
  }
  return {};
}

// The address and the port are those of one generation alone.
std::string Gangs::check_start(const Ledger& ledger, const co::GangStarted& r) const {
  const LedgerJob* job = gang_of(ledger, r.job);
  if (job == nullptr) return broken(r.job, r.generation, "started, but is no gang");
  for (uint32_t i = 0; i < job->ranks.size(); ++i) {
    const LedgerAttempt* attempt = ledger.attempt({r.job, i, r.generation});
    if (attempt == nullptr) {
      return broken(r.job, r.generation, fmt::format("started, but rank {} has no lease", i));
    }
    if (attempt->ended) {
      return broken(r.job, r.generation, fmt::format("started, but rank {} has ended", i));
    }
  }
  if (r.master_port == 0 || r.master_addr.empty()) {
    return broken(r.job, r.generation, "started without an address or a port");
  }
  // Of the same host, that is: all others have the same ports.
  auto before = job->gang_starts.find(r.generation - 1);
  if (before != job->gang_starts.end() && before->second.master_port == r.master_port &&
      ledger.attempt({r.job, 0, r.generation - 1})->worker ==
          ledger.attempt({r.job, 0, r.generation})->worker) {
    return broken(r.job, r.generation, fmt::format("has port {} of the one before", r.master_port));
  }
  return {};
}

std::string Gangs::check_end(const Ledger& ledger, const co::AttemptEnded& r) {
  const LedgerJob* job = gang_of(ledger, r.key.job);
  if (job == nullptr || !r.final || r.state != RankState::succeeded) return {};
  committed_.insert({r.key.job, r.key.attempt});
  if (job->gang_starts.contains(r.key.attempt)) return {};
  return broken(r.key.job, r.key.attempt, "has results, but was never started");
}

std::string Gangs::check_transaction(const Ledger& ledger) {
  std::string wrong;
  for (const auto& [id, generation] : leased_) {
    const LedgerJob* job = gang_of(ledger, id);
    if (job == nullptr || !wrong.empty()) continue;
    size_t leased = 0;
    for (const LedgerRank& rank : job->ranks) leased += rank.attempts.contains(generation);
    if (leased != job->ranks.size()) {
      wrong = broken(id, generation,
                     fmt::format("{} of {} ranks are placed", leased, job->ranks.size()));
    }
  }
  for (const auto& [id, generation] : committed_) {
    const LedgerJob* job = gang_of(ledger, id);
    if (job == nullptr || !wrong.empty()) continue;
    for (uint32_t i = 0; i < job->ranks.size(); ++i) {
      const LedgerAttempt* attempt = ledger.attempt({id, i, generation});
      if (attempt != nullptr && attempt->final && job->ranks[i].state == RankState::succeeded) {
        continue;
      }
      wrong = broken(id, generation,
                     fmt::format("is committed, but not rank {} of that generation", i));
    }
  }
  forget_transaction();
  return wrong;
}

std::string Gangs::starts(const Ledger& ledger, const worker::Start& action) const {
  if (!action.spec->parallel) return {};
  const LedgerJob* job = gang_of(ledger, action.key.job);
  if (job == nullptr) return {};  // removed, or damaged, meanwhile
  auto start = job->gang_starts.find(action.key.attempt);
  if (start == job->gang_starts.end()) {
    return broken(action.key.job, action.key.attempt,
                  fmt::format("rank {} starts before the others are ready", action.key.rank));
  }
  if (start->second.master_addr != action.master_addr ||
      start->second.master_port != action.master_port) {
    return broken(
        action.key.job, action.key.attempt,
        fmt::format("rank {} is told {}:{}, the others {}:{}", action.key.rank, action.master_addr,
                    action.master_port, start->second.master_addr, start->second.master_port));
  }
  return {};
}

std::string Gangs::check_orders(const Ledger& ledger, const co::SendUpdate& update) const {
  for (const co::StartOrder& order : update.start) {
    const LedgerJob* job = gang_of(ledger, order.key.job);
    if (job == nullptr || job->gang_starts.contains(order.key.attempt)) continue;
    return broken(order.key.job, order.key.attempt, "is told to start, which is not durable");
  }
  return {};
}

}  // namespace pesc::sim
