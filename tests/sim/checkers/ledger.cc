#include "tests/sim/checkers/ledger.h"

#include <fmt/format.h>

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
  if (job(key.job)->spec->parallel) return true;  // what a gang has lost cannot come back
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
    rank.attempts[r->key.attempt] = {.worker = r->worker,
                                     .checkpoint = r->checkpoint,
                                     .base_ms = r->base_ms,
                                     .second = r->second,
                                     .claim = r->claim};
  } else if (const auto* r = std::get_if<co::AttemptEnded>(&record)) {
    LedgerJob& job = jobs.at(r->key.job);
    LedgerRank& rank = job.ranks.at(r->key.rank);
    LedgerAttempt& attempt = rank.attempts[r->key.attempt];
    attempt.ended = true;
    attempt.final = r->final;
    attempt.outcome = r->outcome;
    // Ended again: what it was first taken for does not count any more.
    if (attempt.counts && rank.program_failures > 0) --rank.program_failures;
    const bool excused = !r->final && r->state == RankState::running;
    attempt.counts = uses_up_a_retry(r->outcome.reason) && !excused;
    if (attempt.counts) ++rank.program_failures;
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
  } else {
    apply_kept(record);
  }
}

// What belongs to checkpoints, gangs and drains.
void Ledger::apply_kept(const co::Record& record) {
  if (const auto* r = std::get_if<co::CheckpointKept>(&record)) {
    jobs.at(r->key.job).ranks.at(r->key.rank).checkpoints[r->checkpoint.number] = {
        r->key, r->checkpoint.manifest, r->saved_ms, r->total_ms};
  } else if (const auto* r = std::get_if<co::CheckpointsDropped>(&record)) {
    auto& kept = jobs.at(r->job).ranks.at(r->rank).checkpoints;
    kept.erase(kept.lower_bound(r->first), kept.upper_bound(r->through));
  } else if (const auto* r = std::get_if<co::GangStarted>(&record)) {
    jobs.at(r->job).gang_starts[r->generation] = {r->master_addr, r->master_port};
  } else if (const auto* r = std::get_if<co::WorkerDraining>(&record)) {
    if (r->draining) {
      draining.insert(r->worker);
    } else {
      draining.erase(r->worker);
    }
  }
}

namespace {

std::string attempts_differ(const LedgerRank& a, const LedgerRank& b) {
  if (a.attempts.size() != b.attempts.size()) {
    return fmt::format("{} and {} attempts", a.attempts.size(), b.attempts.size());
  }
  for (const auto& [number, one] : a.attempts) {
    auto other = b.attempts.find(number);
    if (other == b.attempts.end()) return fmt::format("attempt {} is missing", number);
    if (one == other->second) continue;
    return fmt::format("attempt {}: {} and {}, checkpoints {} and {}{}", number,
                       one.ended ? to_string(one.outcome.reason) : "open",
                       other->second.ended ? to_string(other->second.outcome.reason) : "open",
                       one.checkpoint, other->second.checkpoint,
                       one.outcome == other->second.outcome ? "" : ", outcomes differ");
  }
  return {};
}

std::string ranks_differ(const LedgerRank& a, const LedgerRank& b) {
  if (a == b) return {};
  const std::string attempts = attempts_differ(a, b);
  if (!attempts.empty()) return attempts;
  if (a.checkpoints != b.checkpoints) {
    return fmt::format("{} and {} checkpoints are kept, the newest {} and {}", a.checkpoints.size(),
                       b.checkpoints.size(),
                       a.checkpoints.empty() ? 0 : a.checkpoints.rbegin()->first,
                       b.checkpoints.empty() ? 0 : b.checkpoints.rbegin()->first);
  }
  return fmt::format("final {} and {}, {} and {}, {} and {} failures, revoked through {} and {}",
                     a.final, b.final, to_string(a.state), to_string(b.state), a.program_failures,
                     b.program_failures, a.revoked_through, b.revoked_through);
}

std::string jobs_differ(const LedgerJob& a, const LedgerJob& b) {
  if (!(*a.spec == *b.spec)) return "the descriptions differ";
  if (a.stopped != b.stopped || a.stopped_by_user != b.stopped_by_user) {
    return fmt::format("stopped {} and {}", a.stopped, b.stopped);
  }
  if (a.finished != b.finished || a.state != b.state) return "finished differently";
  if (a.gang_starts != b.gang_starts) return "the starts of its gang differ";
  for (size_t i = 0; i < a.ranks.size(); ++i) {
    const std::string wrong = ranks_differ(a.ranks[i], b.ranks[i]);
    if (!wrong.empty()) return fmt::format("rank {}: {}", i, wrong);
  }
  return {};
}

}  // namespace

std::string difference(const Ledger& a, const Ledger& b) {
  for (const auto& [id, job] : a.jobs) {
    auto other = b.jobs.find(id);
    if (other == b.jobs.end()) return fmt::format("job {} is missing", to_string(id));
    const std::string wrong = jobs_differ(job, other->second);
    if (!wrong.empty()) return fmt::format("job {}: {}", to_string(id), wrong);
  }
  if (a.jobs.size() != b.jobs.size()) return "there are jobs that should not be there";
  if (a.draining != b.draining) return "other workers are draining";
  return {};
}

}  // namespace pesc::sim
