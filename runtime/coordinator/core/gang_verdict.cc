// Whose fault it was that a rank of a running gang failed. When a machine is switched off, the
// ranks on the others die at once of a closed connection, and that may be heard before anyone
// notices the machine. So such a failure counts only when all other workers of the generation have
// been heard of since, and none of them has lost its ranks.
#include <algorithm>
#include <utility>

#include "runtime/coordinator/core/state.h"
#include "runtime/coordinator/core/text.h"

namespace pesc::coordinator {
namespace {

constexpr size_t kMaxDetail = 150;  // beside what else is told with it

// A rank that was given a signal, or ran out of something, is rather the cause than one that ended
// by itself: that may have been told by the other's end.
bool says_more(EndReason reason) {
  return uses_up_a_retry(reason) && reason != EndReason::exit_code;
}

// Not the program's, and not what a rank that was told to stop reports either.
bool is_elsewhere(EndReason reason) {
  return !uses_up_a_retry(reason) && reason != EndReason::succeeded &&
         reason != EndReason::revoked && reason != EndReason::cancelled;
}

std::string ranks_text(const std::set<uint32_t>& ranks) {
  RangesText text;
  for (uint32_t rank : ranks) text.add(rank, rank);
  return (ranks.size() == 1 ? "rank " : "ranks ") + text.text();
}

}  // namespace

// The generation is over in any case. Returns false when there is nobody to wait for, or when it
// was a machine's fault so often that it can hardly have been: then the failure counts at once.
bool Core::State::await_verdict(Job& job, const AttemptKey& key, const AttemptOutcome& outcome,
                                const std::string& cause) {
  Gang& gang = *job.gang;
  if (!gang.started || !uses_up_a_retry(outcome.reason)) return false;
  if (gang.excuses >= kMaxFreeTries) return false;
  const WorkerId own = job.active.at(key.rank).open.front().worker;
  Verdict verdict;
  verdict.rank = key.rank;
  verdict.outcome = outcome;
  verdict.at = now + TimeMs(config.lease_ms);
  for (const auto& [rank, active] : job.active) {
    for (const OpenAttempt& open : active.open) {
      if (open.worker != own) verdict.unheard[open.worker].ranks.insert(rank);
    }
  }
  if (verdict.unheard.empty()) return false;
  verdicts.insert({verdict.at, job.id});
  gang.verdict = std::move(verdict);
  emit(AttemptEnded{key, outcome, false, RankState::running});
  revoke_gang(job, cause);
  for (auto& [id, unheard] : gang.verdict->unheard) {
    const Worker& worker = workers.at(id);
    if (!worker.attached) continue;
    unheard.session = worker.session;
    unheard.update = worker.updates;
  }
  return true;
}

// A rank that was revoked with the others has reported how it ended.
void Core::State::hear_end(Job& job, const ActiveRank& rank, const AttemptKey& key,
                           AttemptOutcome outcome) {
  Verdict& verdict = *job.gang->verdict;
  if (key.attempt != job.gang->generation || rank.last_attempt != key.attempt) return;
  if (rank.last_reason != EndReason::revoked) return;  // it is heard again
  if (is_elsewhere(outcome.reason)) {
    verdict.gone = "rank " + std::to_string(key.rank) + " ended on " +
                   workers.at(rank.last_worker).info.name + ": " + short_reason(outcome);
  }
  if (const auto it = verdict.unheard.find(rank.last_worker); it != verdict.unheard.end()) {
    it->second.ranks.erase(key.rank);
    if (it->second.ranks.empty()) verdict.unheard.erase(it);
  }
  if (!says_more(outcome.reason) || says_more(verdict.outcome.reason)) return;
  verdict.rank = key.rank;
  verdict.outcome = outcome;
  // Durable at once, as it is acknowledged.
  emit(AttemptEnded{key, std::move(outcome), false, RankState::running});
}

// What the worker says to have. An answer to a report that was sent before the failure is none: it
// must have seen the order to stop, or have attached since.
void Core::State::hear_worker(Worker& worker, const std::vector<AttemptKey>& holding,
                              uint64_t last_update, bool attached) {
  for (const auto& [at, id] : verdicts) {
    Gang& gang = *jobs.at(id).gang;
    const auto it = gang.verdict->unheard.find(worker.info.id);
    if (it == gang.verdict->unheard.end()) continue;
    const Unheard& unheard = it->second;
    std::set<uint32_t> gone;
    for (uint32_t rank : unheard.ranks) {
      const AttemptKey key{id, rank, gang.generation};
      const bool has = std::binary_search(holding.begin(), holding.end(), key);
      if (!has && !worker.reported.contains(key)) gone.insert(rank);
    }
    if (!gone.empty()) {
      gang.verdict->gone =
          "worker " + worker.info.name + ", which had " + ranks_text(gone) + ", was lost";
    }
    const bool has_seen = unheard.session == worker.session && unheard.update <= last_update;
    if (attached || has_seen) gang.verdict->unheard.erase(it);
  }
}

void Core::State::settle_verdicts() {
  const std::set<std::pair<TimeMs, JobId>> open = verdicts;
  for (const auto& [at, id] : open) {
    Job& job = jobs.at(id);
    const Verdict& verdict = *job.gang->verdict;
    if (!verdict.gone.empty() || at <= now) {
      excuse(job);
    } else if (verdict.unheard.empty()) {
      convict(job);
    }
  }
}

Verdict Core::State::take_verdict(Job& job) {
  Verdict verdict = std::move(*job.gang->verdict);
  verdicts.erase({verdict.at, job.id});
  job.gang->verdict.reset();
  return verdict;
}

// It was the program's: no machine was lost.
void Core::State::convict(Job& job) {
  Verdict verdict = take_verdict(job);
  gang_is_to_blame(job, {job.id, verdict.rank, job.gang->generation}, std::move(verdict.outcome));
}

// It uses up no retry, and the next generation starts as after the loss of a worker.
void Core::State::excuse(Job& job) {
  Verdict verdict = take_verdict(job);
  std::string& gone = verdict.gone;
  if (gone.empty()) {
    const auto& [id, unheard] = *verdict.unheard.begin();
    gone = "worker " + workers.at(id).info.name + ", which had " + ranks_text(unheard.ranks) +
           ", was lost";
  }
  AttemptOutcome& outcome = verdict.outcome;
  outcome.detail = bounded(std::move(outcome.detail), kMaxDetail);
  outcome.detail += (outcome.detail.empty() ? "at the same time " : "; at the same time ") + gone;
  emit(AttemptEnded{
      {job.id, verdict.rank, job.gang->generation}, std::move(outcome), false, RankState::running});
}

std::string Core::State::verdict_why(const Job& job) const {
  const Verdict& verdict = *job.gang->verdict;
  std::string names;
  size_t listed = 0;
  for (const auto& [id, unheard] : verdict.unheard) {
    if (listed++ == 8) {
      names += " and others";
      break;
    }
    names += (names.empty() ? "" : ", ") + workers.at(id).info.name;
  }
  return "rank " + std::to_string(verdict.rank) + " ended: " + short_reason(verdict.outcome) +
         "; all ranks start again, or the job fails, when " + names +
         (verdict.unheard.size() == 1 ? " has" : " have") +
         " been heard of: a lost worker uses up no retry";
}

// ---- durable state ------------------------------------------------------------------------------

// Its end was recorded already; now it is known better whose fault it was.
bool Core::State::ends_again(const Job& job, const ActiveRank& rank, const AttemptKey& key) const {
  return job.gang && job.gang->broken && key.attempt == job.gang->generation && rank.open.empty() &&
         rank.last_attempt == key.attempt && rank.last_reason != EndReason::succeeded;
}

// A failure of the program's own counts once per generation, when it counts. Of an attempt that
// ends again a restore sees the last time only: so it is counted as at that time.
void Core::State::count_fault(Gang& gang, const AttemptEnded& record) {
  if (!uses_up_a_retry(record.outcome.reason) || gang.judged) return;
  if (gang.excused && gang.excuses > 0) --gang.excuses;
  gang.excused = is_excused(record);
  if (gang.excused) {
    ++gang.excuses;
  } else {
    gang.judged = true;
    ++gang.failures;
  }
}

std::string Core::State::check_verdict(const Job& job) const {
  const Gang& gang = *job.gang;
  if (gang.excuses > kMaxFreeTries) return "a gang is excused for ever";
  if (!gang.verdict) return "";
  const Verdict& verdict = *gang.verdict;
  if (!verdicts.contains({verdict.at, job.id})) return "the verdict on a gang is forgotten";
  if (!gang.broken || gang.open > 0 || job.stopped || gang.not_before != kNever) {
    return "a gang goes on, and its verdict is not spoken";
  }
  if (verdict.unheard.empty() || !verdict.gone.empty()) return "a verdict is clear, and not spoken";
  for (const auto& [id, unheard] : verdict.unheard) {
    if (unheard.ranks.empty()) return "a verdict waits for a worker that has told all";
  }
  return "";
}

}  // namespace pesc::coordinator
