#include "tests/sim/checkers/single_result.h"

#include <fmt/format.h>

namespace pesc::sim {
namespace {

namespace co = coordinator;

std::string broken(const AttemptKey& key, std::string_view what) {
  return fmt::format("promise 2: {} {}", to_string(key), what);
}

}  // namespace

std::string SingleResult::check(const Ledger& ledger, const co::Record& record) const {
  if (const auto* r = std::get_if<co::AttemptLeased>(&record)) return check_lease(ledger, *r);
  if (const auto* r = std::get_if<co::AttemptEnded>(&record)) return check_end(ledger, *r);
  if (const auto* r = std::get_if<co::JobFinished>(&record)) return check_finish(ledger, *r);
  if (const auto* r = std::get_if<co::RanksCancelled>(&record)) return check_cancel(ledger, *r);
  if (const auto* r = std::get_if<co::RanksReopened>(&record)) return check_reopen(ledger, *r);
  if (const auto* r = std::get_if<co::JobAdded>(&record)) {
    if (ledger.job(r->id) != nullptr || ledger.erased.contains(r->id)) {
      return fmt::format("promise 2: job {} was added twice", to_string(r->id));
    }
    return {};
  }
  const JobId* of = nullptr;
  if (const auto* r = std::get_if<co::JobStopped>(&record)) of = &r->job;
  if (const auto* r = std::get_if<co::JobErased>(&record)) of = &r->job;
  if (of != nullptr && ledger.job(*of) == nullptr) {
    return fmt::format("promise 2: a record of job {}, which does not exist", to_string(*of));
  }
  return {};
}

std::string SingleResult::check_lease(const Ledger& ledger, const co::AttemptLeased& r) const {
  const LedgerRank* rank = ledger.rank(r.key);
  if (rank == nullptr) return broken(r.key, "was leased, but there is no such rank");
  if (rank->final) return broken(r.key, "was leased, but its rank has its result");
  if (ledger.job(r.key.job)->stopped && r.key.attempt > rank->last_attempt) {
    return broken(r.key, "was leased, but its job was stopped");
  }
  if (r.key.attempt == rank->last_attempt + 1) return {};
  if (r.key.attempt > rank->last_attempt) return broken(r.key, "skips a number");
  // Given up for lost, and found to run on.
  const LedgerAttempt* old = ledger.attempt(r.key);
  if (old == nullptr) return broken(r.key, "was leased under a number that is used up");
  if (!old->ended || old->final || old->outcome.reason != EndReason::worker_lost ||
      old->worker != r.worker) {
    return broken(r.key, "was leased under a number that was given before");
  }
  if (r.key.attempt <= rank->revoked_through) return broken(r.key, "was revoked, then leased");
  return {};
}

std::string SingleResult::check_end(const Ledger& ledger, const co::AttemptEnded& r) const {
  const LedgerRank* rank = ledger.rank(r.key);
  const LedgerAttempt* attempt = ledger.attempt(r.key);
  if (attempt == nullptr) return broken(r.key, "ended, but was never leased");
  // Results of a gang are provisional until all its ranks have one, and why it failed may be known
  // only when its workers have been heard.
  const bool provisional = ledger.job(r.key.job)->spec->parallel &&
                           (attempt->outcome.reason == EndReason::succeeded || !attempt->counts);
  if (attempt->ended && (attempt->final || attempt->outcome.reason != EndReason::worker_lost) &&
      !(provisional && !attempt->final)) {
    return broken(r.key, "ended twice");
  }
  if (!r.final) return {};
  if (rank->final) return broken(r.key, "commits, but its rank has its result already");
  if (r.key.attempt <= rank->revoked_through) return broken(r.key, "commits, but was revoked");
  if (r.state == RankState::succeeded) {
    if (ledger.job(r.key.job)->stopped) {
      return broken(r.key, "commits, but its job was stopped, which revoked it");
    }
    return check_result(r);
  }
  return check_failure(*ledger.job(r.key.job), *rank, r);
}

// The result of a rank must be what the attempt really left.
std::string SingleResult::check_result(const co::AttemptEnded& r) const {
  if (r.outcome.reason != EndReason::succeeded) {
    return broken(r.key, "commits a failure as success");
  }
  auto end = ends_.find(r.key);
  if (end == ends_.end()) return broken(r.key, "commits, but never ran to its end");
  if (end->second.reason != EndReason::succeeded) {
    return broken(r.key,
                  fmt::format("commits success, but ended by {}", to_string(end->second.reason)));
  }
  auto output = outputs_.find(r.key);
  if (output == outputs_.end() || !output->second.contains(r.outcome.output)) {
    return broken(r.key, "commits another output than it left");
  }
  return {};
}

std::string SingleResult::check_failure(const LedgerJob& job, const LedgerRank& rank,
                                        const co::AttemptEnded& r) const {
  if (r.outcome.reason == EndReason::succeeded) return broken(r.key, "succeeded, and is failed");
  // The last of several that refuse the arguments ends its job early.
  if (job.stopped || r.state == RankState::cancelled || r.outcome.refused_arguments) return {};
  // A gang fails as a whole: its tries are the job's.
  uint32_t failures = rank.program_failures;
  if (job.spec->parallel) {
    failures = 0;
    for (const LedgerRank& one : job.ranks) failures += one.program_failures;
  }
  if (uses_up_a_retry(r.outcome.reason) && failures + 1 < job.spec->retries + 1) {
    return broken(r.key, fmt::format("failed for good after {} tries of {}", failures + 1,
                                     job.spec->retries + 1));
  }
  return {};
}

std::string SingleResult::check_cancel(const Ledger& ledger, const co::RanksCancelled& r) const {
  const LedgerJob* job = ledger.job(r.job);
  if (job == nullptr || r.last >= job->ranks.size() || r.first > r.last) {
    return fmt::format("promise 2: ranks {}-{} of job {} do not exist", r.first, r.last,
                       to_string(r.job));
  }
  for (uint32_t i = r.first; i <= r.last; ++i) {
    if (job->ranks[i].final) return broken({r.job, i, 0}, "has its result, and is cancelled");
  }
  return {};
}

std::string SingleResult::check_reopen(const Ledger& ledger, const co::RanksReopened& r) const {
  const LedgerJob* job = ledger.job(r.job);
  if (job == nullptr) return fmt::format("promise 2: job {} does not exist", to_string(r.job));
  std::vector<uint32_t> expected;
  for (uint32_t i = 0; i < job->ranks.size(); ++i) {
    if (job->ranks[i].final && job->ranks[i].state != RankState::succeeded) expected.push_back(i);
  }
  if (expected == r.ranks) return {};
  return fmt::format("promise 2: a retry of job {} reopens {} ranks, {} did not succeed",
                     to_string(r.job), r.ranks.size(), expected.size());
}

std::string SingleResult::check_finish(const Ledger& ledger, const co::JobFinished& r) const {
  const LedgerJob* job = ledger.job(r.job);
  if (job == nullptr) return fmt::format("promise 2: job {} does not exist", to_string(r.job));
  bool all_succeeded = true;
  for (uint32_t i = 0; i < job->ranks.size(); ++i) {
    if (!job->ranks[i].final) {
      return fmt::format("promise 2: job {} is finished, its rank {} is not", to_string(r.job), i);
    }
    all_succeeded &= job->ranks[i].state == RankState::succeeded;
  }
  if (all_succeeded != (r.state == JobState::succeeded)) {
    return fmt::format("promise 2: job {} ends as {}, its ranks say otherwise", to_string(r.job),
                       to_string(r.state));
  }
  return {};
}

std::string SingleResult::started(const AttemptKey& key) {
  if (started_.insert(key).second) return {};
  return broken(key, "is started a second time");
}

}  // namespace pesc::sim
