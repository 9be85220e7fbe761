// How attempts end, and what that means for their rank.
#include <algorithm>
#include <utility>

#include "runtime/coordinator/core/state.h"

namespace pesc::coordinator {
namespace {

template <typename Attempts>
auto find_attempt(Attempts& attempts, uint32_t number) {
  return std::find_if(attempts.begin(), attempts.end(),
                      [number](const auto& a) { return a.attempt == number; });
}

bool free_but_counted(EndReason reason) {
  return reason == EndReason::inputs_unavailable || reason == EndReason::disk_full ||
         reason == EndReason::gpu_fault;
}

std::string last_line(const std::string& text) {
  const size_t end = text.find_last_not_of("\r\n");
  if (end == std::string::npos) return "";
  const size_t begin = text.find_last_of('\n', end);
  return text.substr(begin == std::string::npos ? 0 : begin + 1,
                     begin == std::string::npos ? end + 1 : end - begin);
}

}  // namespace

// A peer's mistake is answered, never asserted. An attempt that was stopped because nobody here
// knows it (a journal that went back in time) may be reported as such, or its worker could never
// get rid of it.
absl::Status Core::State::check_report(WorkerId worker, const FinishedAttempt& report) const {
  const AttemptKey& key = report.key;
  if (report.outcome.reason > kLastEndReason) {
    return absl::InvalidArgumentError(to_string(key) + " ended for an unknown reason");
  }
  auto it = jobs.find(key.job);
  if (it == jobs.end()) return absl::OkStatus();
  const Job& job = it->second;
  const bool stopped =
      report.outcome.reason == EndReason::revoked || report.outcome.reason == EndReason::cancelled;
  if (key.rank >= job.ranks.size() || key.attempt == 0 ||
      key.attempt > job.ranks.attempts(key.rank)) {
    if (stopped) return absl::OkStatus();
    return absl::InvalidArgumentError(to_string(key) + " was never leased to anyone");
  }
  auto rank = job.active.find(key.rank);
  if (rank == job.active.end()) return absl::OkStatus();
  WorkerId holder = worker;
  auto open = find_attempt(rank->second.open, key.attempt);
  auto lost = find_attempt(rank->second.lost, key.attempt);
  if (open != rank->second.open.end()) holder = open->worker;
  if (lost != rank->second.lost.end()) holder = lost->worker;
  if (holder == worker || stopped) return absl::OkStatus();
  return absl::InvalidArgumentError(to_string(key) + " is leased to worker " + to_string(holder) +
                                    ", not to " + to_string(worker));
}

// A report that changes nothing (sent again, of a rank that is final, of a removed job) is
// acknowledged like any other: its worker may forget it.
void Core::State::finished(WorkerId worker, const AttemptKey& key, AttemptOutcome outcome) {
  if (Worker* at = find_worker(worker)) forget_ending(*at, key);
  Job* job = find_job(key.job);
  if (job == nullptr || key.rank >= job->ranks.size()) return;
  const bool succeeded = outcome.reason == EndReason::succeeded;
  bound_outcome(outcome);
  auto it = job->active.find(key.rank);
  if (it == job->active.end()) {
    if (bug == PlantedBug::commit_twice && succeeded) commit(*job, key, std::move(outcome));
    return;
  }
  ActiveRank& rank = it->second;
  auto open = find_attempt(rank.open, key.attempt);
  auto lost = find_attempt(rank.lost, key.attempt);
  const bool is_open = open != rank.open.end() && open->worker == worker;
  const bool is_lost = lost != rank.lost.end() && lost->worker == worker;
  if (!is_open && !is_lost && !(job->gang && job->gang->verdict)) return;
  if (is_open) fill_duration(*open, outcome);
  if (is_open) hear_lag(*open, outcome);
  outcome.saved_ms = std::min(outcome.duration_ms, saved_ms(rank, key.attempt));
  if (!is_open && !is_lost) {
    if (rank.last_worker == worker) hear_end(*job, rank, key, std::move(outcome));
    return;
  }
  if (is_open) classify(*job, rank, *open, outcome);
  if (job->stopped && !(bug == PlantedBug::accept_revoked && succeeded)) {
    if (is_open) ended_of_stopped(*job, key, std::move(outcome));
  } else if (job->gang) {
    gang_ended(*job, key, std::move(outcome));
  } else if (succeeded) {
    commit(*job, key, std::move(outcome));
  } else if (is_open) {  // the failure of a lost one is moot: its rank is being tried again
    failed(*job, rank, key, std::move(outcome));
  }
}

void Core::State::commit(Job& job, const AttemptKey& key, AttemptOutcome outcome) {
  revoke_others(job, key);
  emit(AttemptEnded{key, std::move(outcome), true, RankState::succeeded});
  finish_if_done(job);
}

void Core::State::failed(Job& job, ActiveRank& rank, const AttemptKey& key,
                         AttemptOutcome outcome) {
  const std::optional<std::string> refused = refusal(job, rank, outcome);
  const bool beside = rank.open.size() > 1;  // another attempt of the rank may still succeed
  const std::optional<std::string> unbuilt = cannot_be_built(job, key, outcome);
  bool final = refused.has_value() || unbuilt.has_value();
  if (!beside) {
    if (uses_up_a_retry(outcome.reason) && rank.failures >= job.spec->retries) final = true;
    if (free_but_counted(outcome.reason) && rank.free_tries + 1 >= kMaxFreeTries) final = true;
  }
  if (final) revoke_others(job, key);
  const RankState state = beside && !final ? RankState::running : RankState::failed;
  emit(AttemptEnded{key, outcome, final, state});
  if (refused || unbuilt) {
    stop_job(job, false, refused ? *refused : *unbuilt);
  } else if (const std::optional<std::string> too_many = breaker(job, outcome)) {
    stop_job(job, false, *too_many);
  }
  finish_if_done(job);
}

// Its keeper died with it, and nobody saw when: it ran until this was told, as far as is known
// here. A gang's rank that was held did not: gang_failed().
void Core::State::fill_duration(const OpenAttempt& open, AttemptOutcome& outcome) const {
  if (outcome.reason != EndReason::worker_lost || outcome.duration_ms > 0) return;
  if (bug == PlantedBug::lost_without_time) return;
  if (open.started != kNever && now > open.started) outcome.duration_ms = now - open.started;
}

// Whose fault it was: what died at once may have died of its worker, or of its checkpoint.
void Core::State::classify(Job& job, ActiveRank& rank, const OpenAttempt& open,
                           AttemptOutcome& outcome) {
  if (job.stopped) return;
  if (outcome.reason == EndReason::build_failed && job.spec->build.empty()) {
    outcome.reason = EndReason::inputs_unavailable;  // nothing is built: it says what cannot be
  }
  if (outcome.reason == EndReason::bad_checkpoint) {
    if (open.checkpoint != 0 && excuses_checkpoints(job, rank)) {
      return blame_checkpoint(rank, open, outcome);
    }
    // What it names is not what it was given; or that has gone on for too long.
    outcome.reason = EndReason::inputs_unavailable;
    return;
  }
  judge_size(job, rank, open, outcome);
  Worker& worker = workers.at(open.worker);
  if (outcome.reason == EndReason::succeeded) gpus_proved_well(worker, open.claim.gpus);
  const bool by_gpu = !open.claim.gpus.empty() &&
                      (outcome.reason == EndReason::gpu_fault ||
                       (failed_at_once(outcome) && (outcome.reason == EndReason::exit_code ||
                                                    outcome.reason == EndReason::signal)));
  if (by_gpu && blame_gpus(job, rank, worker, open, outcome)) return;
  if (!failed_at_once(outcome)) {
    if (outcome.reason == EndReason::succeeded || uses_up_a_retry(outcome.reason)) {
      proved_well(worker);
    }
    return;
  }
  if (!by_gpu && blame_worker(job, rank, worker, outcome)) return;
  if (excuse_start(job, rank, worker, outcome)) return;
  if (died_of_checkpoint(rank, open, outcome) && excuses_checkpoints(job, rank)) {
    blame_checkpoint(rank, open, outcome);
  }
}

// Who was given too little because PESC did not know better tries again with more, for free: also
// where it had all that the worker has, or a GPU for itself, while there is a larger one. Who had
// what it asked for needs more than there is.
void Core::State::judge_size(const Job& job, const ActiveRank& rank, const OpenAttempt& open,
                             AttemptOutcome& outcome) const {
  const bool tried = rank.outgrown >= kMaxFreeTries;
  const Worker& worker = workers.at(open.worker);
  const uint64_t all = worker.info.memory_bytes;
  const bool unstated = job.spec->resources.memory_bytes == 0 && !job.spec->parallel;
  const bool had_all = had_all_memory(open.claim, all);
  if (outcome.reason == EndReason::out_of_memory && unstated && had_all && !tried &&
      has_larger(job, all, 0)) {
    outcome.reason = EndReason::outgrew_estimate;
    outcome.detail = bounded("had all " + format_bytes(all) +
                             " of its worker, and goes on where there is more: " + outcome.detail);
  } else if (outcome.reason == EndReason::out_of_memory && job.spec->resources.memory_bytes == 0 &&
             open.claim.memory_bytes > 0 && !tried) {
    outcome.reason = EndReason::outgrew_estimate;
    outcome.detail = bounded("was placed with " + format_bytes(open.claim.memory_bytes) +
                             ", as its program had used before: " + outcome.detail);
  }
  if (outcome.reason == EndReason::gpu_memory_limit && job.spec->resources.gpu_memory_bytes == 0 &&
      !tried) {
    outcome.reason = EndReason::outgrew_estimate;
    outcome.detail = bounded("was placed with " + format_bytes(open.claim.gpu_memory_bytes) +
                             " of GPU memory, as its program had used before: " + outcome.detail);
  }
  if (outcome.reason != EndReason::gpu_out_of_memory) return;
  const uint64_t gpu = smallest_gpu(worker, open.claim);
  if (open.claim.gpu_alone && gpu > 0 && job.spec->resources.gpu_memory_bytes == 0 &&
      !job.spec->parallel && !tried && has_larger(job, 0, gpu)) {
    outcome.detail = bounded("had a GPU with " + format_bytes(gpu) +
                             " for itself, and goes on with a larger one: " + outcome.detail);
    return;
  }
  if (open.claim.gpus.empty() || open.claim.gpu_alone || tried) {
    outcome.reason = EndReason::out_of_memory;
    outcome.detail =
        bounded((open.claim.gpu_alone ? "the GPU, which it had for itself, has no memory left: "
                                      : "the GPU has no memory left: ") +
                outcome.detail);
  }
}

// Why a job is not worth going on with, after the failure of one of its attempts.
std::optional<std::string> Core::State::breaker(const Job& job, const AttemptOutcome& last) const {
  const uint32_t limit = job.spec->max_failures;
  if (limit == kNoMaxFailures || job.stopped || job.ranks.all_final()) return std::nullopt;
  const uint32_t failed = job.ranks.counts().failed;
  if (limit > 0) {
    if (failed < limit) return std::nullopt;
    return std::to_string(failed) + (failed == 1 ? " rank has" : " ranks have") +
           " failed for good, and --max-failures is " + std::to_string(limit);
  }
  if (!uses_up_a_retry(last.reason) || last.duration_ms > kEarlyMs) return std::nullopt;
  if (job.early_failures < kAllFailEarly || job.late_failures > 0) return std::nullopt;
  if (job.ranks.counts().succeeded > 0 || runs_elsewhere(job, WorkerId(), now)) return std::nullopt;
  return std::to_string(job.early_failures) +
         " attempts have failed within a second of their start and none has succeeded; the last: " +
         short_reason(last) + " (--max-failures N allows more)";
}

// The job is stopped: no attempt of it is wanted, whatever it brings.
void Core::State::ended_of_stopped(Job& job, const AttemptKey& key, AttemptOutcome outcome) {
  const ActiveRank& rank = job.active.at(key.rank);
  const bool last = rank.open.size() == 1;
  RankState state = RankState::cancelled;
  const bool failed = uses_up_a_retry(outcome.reason) || outcome.reason == EndReason::build_failed;
  if (!job.stopped_by_user && failed) {
    state = RankState::failed;
  } else {
    outcome.reason = job.stopped_by_user ? EndReason::cancelled : EndReason::revoked;
  }
  emit(AttemptEnded{key, std::move(outcome), last, state});
  finish_if_done(job);
}

void Core::State::lost(const AttemptKey& key, const char* why, bool began) {
  Job* job = find_job(key.job);
  if (job == nullptr || job->active.count(key.rank) == 0) return;
  // Another loss may have ended it a moment ago, with its whole gang.
  const std::vector<OpenAttempt>& open = job->active.at(key.rank).open;
  if (find_attempt(open, key.attempt) == open.end()) return;
  const ActiveRank& rank = job->active.at(key.rank);
  AttemptOutcome outcome =
      ended_here(rank, *find_attempt(open, key.attempt), EndReason::worker_lost, why);
  if (!began) outcome.duration_ms = outcome.saved_ms = 0;
  if (job->stopped) {
    ended_of_stopped(*job, key, std::move(outcome));
  } else if (job->gang) {
    gang_failed(*job, key, std::move(outcome));
  } else {
    const RankState state = began ? RankState::failed : RankState::waiting;
    emit(AttemptEnded{key, std::move(outcome), false, state});
  }
}

// The outcome of an attempt whose worker has not told it. Of a lost one nobody knows whether it ran
// after the last that was heard of it.
AttemptOutcome Core::State::ended_here(const ActiveRank& rank, const OpenAttempt& open,
                                       EndReason reason, std::string detail) const {
  AttemptOutcome outcome;
  outcome.reason = reason;
  outcome.exit_code = -1;
  outcome.detail = std::move(detail);
  const auto worker = workers.find(open.worker);
  TimeMs until = now;
  if (worker != workers.end() && reason == EndReason::worker_lost) {
    until = worker->second.ran_until;
  }
  if (open.started != kNever && until > open.started) outcome.duration_ms = until - open.started;
  outcome.saved_ms = saved_ms(rank, open.attempt);
  outcome.duration_ms = std::max(outcome.duration_ms, outcome.saved_ms);
  return outcome;
}

// The one that decided may have been given up for lost: then all that are open are others.
void Core::State::revoke_others(Job& job, const AttemptKey& decided) {
  auto it = job.active.find(decided.rank);
  if (it == job.active.end()) return;
  if (bug == PlantedBug::forget_loser) return;
  const std::vector<OpenAttempt> others = it->second.open;
  for (const OpenAttempt& other : others) {
    if (other.attempt == decided.attempt) continue;
    AttemptOutcome outcome =
        ended_here(it->second, other, EndReason::revoked,
                   "attempt " + std::to_string(decided.attempt) + " of the rank came first");
    const AttemptKey key{job.id, decided.rank, other.attempt};
    emit(AttemptEnded{key, std::move(outcome), false, RankState::failed});
    send_stop(other.worker, key, EndReason::revoked);
  }
}

std::optional<std::string> Core::State::refusal(const Job& job, const ActiveRank& rank,
                                                const AttemptOutcome& outcome) const {
  if (!outcome.refused_arguments || rank.tries > 0) return std::nullopt;
  const uint32_t enough = job.gang ? 1 : std::min(config.refused_arguments_limit, job.ranks.size());
  if (job.ranks.counts().succeeded > 0 || job.refused + 1 < enough) return std::nullopt;
  const std::string line = last_line(outcome.detail);
  return "the program refuses the arguments that PESC adds: submit it with --inject env (or none)" +
         (line.empty() ? "" : "; it said: " + line);
}

}  // namespace pesc::coordinator
