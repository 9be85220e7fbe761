#include "tests/sim/checkers/ledger.h"

#include <algorithm>

namespace pesc::sim {
namespace {

namespace co = coordinator;

void make_final(LedgerJob& job, LedgerRank& rank, RankState state) {
  if (!rank.final) ++job.finals;
  rank.final = true;
  rank.state = state;
  rank.revoked_through = rank.last_attempt;
}

void reopen(LedgerJob& job, const std::vector<uint32_t>& ranks) {
  for (uint32_t i : ranks) {
    LedgerRank& rank = job.ranks.at(i);
    rank.final = false;
    rank.state = RankState::waiting;
    rank.program_failures = 0;
    --job.finals;
  }
  job.stopped = job.stopped_by_user = job.finished = false;
}

}  // namespace

const LedgerJob* Ledger::job(JobId id) const {
  auto it = jobs.find(id);
  return it == jobs.end() ? nullptr : &it->second;
}

const LedgerRank* Ledger::rank(const AttemptKey& key) const {
  const LedgerJob* found = job(key.job);
  return found == nullptr || key.rank >= found->ranks.size() ? nullptr : &found->ranks[key.rank];
}

const LedgerAttempt* Ledger::attempt(const AttemptKey& key) const {
  const LedgerRank* found = rank(key);
  if (found == nullptr) return nullptr;
  auto it = found->attempts.find(key.attempt);
  return it == found->attempts.end() ? nullptr : &it->second;
}

bool Ledger::settled(const AttemptKey& key, bool succeeded) const {
  const LedgerRank* found = rank(key);
  if (found == nullptr) return true;  // of a job that was removed
  if (found->final || key.attempt <= found->revoked_through) return true;
  const LedgerAttempt* one = attempt(key);
  if (one == nullptr || !one->ended) return false;
  return !succeeded || one->outcome.reason != EndReason::worker_lost;
}

void Ledger::apply(const co::Record& record) {
  if (const auto* r = std::get_if<co::JobAdded>(&record)) {
    LedgerJob job{.spec = r->spec};
    job.ranks.resize(r->spec->repetitions);
    jobs.emplace(r->id, std::move(job));
  } else if (const auto* r = std::get_if<co::AttemptLeased>(&record)) {
    LedgerRank& rank = jobs.at(r->key.job).ranks.at(r->key.rank);
    rank.last_attempt = std::max(rank.last_attempt, r->key.attempt);
    rank.attempts[r->key.attempt] = {.worker = r->worker};
  } else if (const auto* r = std::get_if<co::AttemptEnded>(&record)) {
    LedgerJob& job = jobs.at(r->key.job);
    LedgerRank& rank = job.ranks.at(r->key.rank);
    LedgerAttempt& attempt = rank.attempts[r->key.attempt];
    attempt.ended = true;
    attempt.final = r->final;
    attempt.outcome = r->outcome;
    if (uses_up_a_retry(r->outcome.reason)) ++rank.program_failures;
    if (r->final) make_final(job, rank, r->state);
  } else if (const auto* r = std::get_if<co::RanksCancelled>(&record)) {
    LedgerJob& job = jobs.at(r->job);
    for (uint32_t i = r->first; i <= r->last; ++i) {
      make_final(job, job.ranks.at(i), RankState::cancelled);
    }
  } else if (const auto* r = std::get_if<co::JobStopped>(&record)) {
    jobs.at(r->job).stopped = true;
    jobs.at(r->job).stopped_by_user |= r->by_user;
  } else if (const auto* r = std::get_if<co::JobFinished>(&record)) {
    jobs.at(r->job).finished = true;
    jobs.at(r->job).state = r->state;
  } else if (const auto* r = std::get_if<co::RanksReopened>(&record)) {
    reopen(jobs.at(r->job), r->ranks);
  } else if (const auto* r = std::get_if<co::JobErased>(&record)) {
    jobs.erase(r->job);
    erased.insert(r->job);
  }
}

}  // namespace pesc::sim
