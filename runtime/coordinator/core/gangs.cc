// Parallel jobs: all ranks are leased in one step and held, started together when every one of them
// is prepared, stopped together when one of them fails, and committed together when all succeeded.
#include <utility>

#include "runtime/coordinator/core/state.h"

namespace pesc::coordinator {
namespace {

constexpr uint32_t kMaxPortTries = 10;  // per job: times that a port was taken

std::string cause_of(uint32_t rank, const AttemptOutcome& outcome) {
  std::string text =
      "rank " + std::to_string(rank) + " ended: " + std::string(to_string(outcome.reason));
  if (outcome.reason == EndReason::exit_code) text += " " + std::to_string(outcome.exit_code);
  if (outcome.reason == EndReason::signal) text += " " + std::to_string(outcome.signal);
  if (!outcome.detail.empty()) text += ": " + bounded(outcome.detail, 200);
  return text;
}

}  // namespace

// An end without success is everybody's. A success is provisional until all ranks have one of the
// same generation: what a rank computed with peers that failed is not the job's result.
void Core::State::gang_ended(Job& job, const AttemptKey& key, AttemptOutcome outcome) {
  if (outcome.reason == EndReason::succeeded && !job.gang->started) {
    outcome.reason = EndReason::revoked;
    outcome.detail = "it ran before its gang was started";
  }
  if (outcome.reason != EndReason::succeeded) return gang_failed(job, key, std::move(outcome));
  emit(AttemptEnded{key, std::move(outcome), false, RankState::succeeded});
  if (job.gang->open == 0) commit_gang(job);
}

void Core::State::commit_gang(Job& job) {
  const uint32_t generation = job.gang->generation;
  const std::map<uint32_t, AttemptOutcome> succeeded = job.gang->succeeded;
  for (const auto& [rank, outcome] : succeeded) {
    emit(AttemptEnded{{job.id, rank, generation}, outcome, true, RankState::succeeded});
  }
  finish_if_done(job);
}

// Of a gang that is not stopped: it starts again as a whole, or the job fails.
void Core::State::gang_failed(Job& job, const AttemptKey& key, AttemptOutcome outcome) {
  if (!job.gang->started)
    outcome.duration_ms = outcome.saved_ms = 0;  // it was held: nothing is lost
  const std::string cause = cause_of(key.rank, outcome);
  if (const auto refused = refusal(job, job.active.at(key.rank), outcome)) {
    emit(AttemptEnded{key, std::move(outcome), true, RankState::failed});
    return stop_job(job, false, *refused);
  }
  if (await_verdict(job, key, outcome, cause)) return;
  gang_is_to_blame(job, key, std::move(outcome));
  if (!job.stopped) revoke_gang(job, cause);
}

// The failure counts.
void Core::State::gang_is_to_blame(Job& job, const AttemptKey& key, AttemptOutcome outcome) {
  const std::optional<std::string> unbuilt = cannot_be_built(job, key, outcome);
  const bool final = unbuilt || gang_gives_up(job, outcome);
  emit(AttemptEnded{key, outcome, final, RankState::failed});
  if (unbuilt) return stop_job(job, false, *unbuilt);
  if (final) {
    return stop_job(job, false,
                    cause_of(key.rank, outcome) + "; a parallel job ends with any of its ranks");
  }
  if (const auto too_many = breaker(job, outcome)) stop_job(job, false, *too_many);
}

bool Core::State::gang_gives_up(const Job& job, const AttemptOutcome& outcome) const {
  const Gang& gang = *job.gang;
  const EndReason reason = outcome.reason;
  if (uses_up_a_retry(reason)) return gang.failures >= job.spec->retries;
  if (reason == EndReason::inputs_unavailable || reason == EndReason::disk_full ||
      reason == EndReason::gpu_fault) {
    return gang.free_tries + 1 >= kMaxFreeTries;
  }
  return reason == EndReason::port_taken && gang.port_tries >= kMaxPortTries;
}

void Core::State::revoke_gang(Job& job, const std::string& why) {
  std::vector<std::pair<AttemptEnded, WorkerId>> ends;
  for (const auto& [rank, active] : job.active) {
    for (const OpenAttempt& open : active.open) {
      AttemptOutcome outcome =
          ended_here(active, open, EndReason::revoked, "the gang starts again: " + why);
      if (!job.gang->started) outcome.duration_ms = outcome.saved_ms = 0;
      ends.push_back({{{job.id, rank, open.attempt}, std::move(outcome)}, open.worker});
    }
  }
  for (auto& [ended, worker] : ends) {
    const AttemptKey key = ended.key;
    emit(std::move(ended));
    send_stop(worker, key, EndReason::revoked);
  }
}

// ---- the barrier --------------------------------------------------------------------------------

// What is ready stays ready, and is said in every report until the order to start has arrived:
// nothing of it has to be durable but that the gang was started, and with which address.
void Core::State::take_ready(Worker& worker, const ReadyAttempt& ready, uint64_t last_update) {
  Job* job = find_job(ready.key.job);
  const auto lease = worker.leases.find(ready.key);
  if (job == nullptr || !job->gang || job->stopped || lease == worker.leases.end()) return;
  Gang& gang = *job->gang;
  if (gang.started) {
    if (lease->second.start <= last_update) send_start(worker, *job, ready.key.rank);
    return;
  }
  if (ready.key.rank == 0) {
    if (ready.master_port == 0) return;
    gang.offered_port = ready.master_port;
  }
  if (!gang.ready.insert(ready.key.rank).second) return;
  touch(*job);
  start_gang_if_ready(*job);
}

void Core::State::start_gang_if_ready(Job& job) {
  Gang& gang = *job.gang;
  if (gang.ready.size() < gang.open) return;
  const WorkerId first = job.active.at(0).open.front().worker;
  bool one_worker = true;
  for (const auto& [rank, active] : job.active) {
    one_worker = one_worker && active.open.front().worker == first;
  }
  // Two workers on one machine may be in different networks: only one worker has one loopback.
  const std::string& advertised = workers.at(first).info.advertise;
  const bool loopback = one_worker || advertised.empty();
  emit(
      GangStarted{job.id, gang.generation, loopback ? "127.0.0.1" : advertised, gang.offered_port});
  for (const auto& [rank, active] : job.active) {
    send_start(workers.at(active.open.front().worker), job, rank);
  }
}

// To a worker that is away it is sent when it is back, and still says `ready`.
void Core::State::send_start(Worker& worker, const Job& job, uint32_t rank) {
  if (!worker.attached) return;
  const AttemptKey key{job.id, rank, job.gang->generation};
  SendUpdate& update = update_for(worker);
  update.start.push_back({key, job.gang->master_addr, job.gang->master_port});
  worker.leases.at(key).start = update.number;
}

// A worker that has come back with fewer cpus cannot hold all that it was to hold: the ranks of its
// gangs would wait there for each other for ever.
void Core::State::withdraw_gangs_of(Worker& worker) {
  std::vector<AttemptKey> held;
  uint64_t cpus = 0;
  for (const auto& [key, lease] : worker.leases) {
    const Job* job = find_job(key.job);
    if (!job->gang || job->gang->started || job->stopped) continue;
    held.push_back(key);
    cpus += lease.cpus_milli;
  }
  if (cpus <= worker.info.cpus_milli) return;
  for (const AttemptKey& key : held) lost(key, "its worker has fewer cpus than before");
}

// ---- durable state ------------------------------------------------------------------------------

void Core::State::apply_gang_leased(Job& job, const AttemptKey& key) {
  Gang& gang = *job.gang;
  if (key.attempt > gang.generation) {
    gang_leaves(job);
    gang.generation = key.attempt;
    gang.broken = gang.started = gang.judged = gang.excused = false;
    gang.master_addr.clear();
    gang.master_port = gang.offered_port = 0;
  }
  ++gang.open;
}

void Core::State::apply_record(const GangStarted& record) {
  Job* job = find_job(record.job);
  if (job == nullptr || !job->gang || record.generation != job->gang->generation) return;
  ++job->tally.gang_starts;
  job->gang->started = true;
  job->gang->master_addr = record.master_addr;
  job->gang->master_port = record.master_port;
  for (auto& [rank, active] : job->active) {
    for (OpenAttempt& open : active.open) {
      if (!restoring && open.started != kNever) open.started = now;
    }
  }
  touch(*job);
}

// The first end without success breaks the generation; what else is known of its cause later counts
// too. (A restore may see the ends of those that were revoked first.)
void Core::State::apply_gang_ended(Job& job, const AttemptEnded& record, WorkerId worker) {
  Gang& gang = *job.gang;
  const AttemptOutcome& outcome = record.outcome;
  const uint32_t rank = record.key.rank;
  gang.ready.erase(rank);
  if (outcome.reason == EndReason::succeeded && !gang.broken) {
    if (record.final) {
      gang.succeeded.erase(rank);
    } else {
      gang.succeeded.insert_or_assign(rank, outcome);
    }
    return;
  }
  forget_successes(job);
  const bool first = !gang.broken;
  if (first) {
    gang.broken = true;
    gang.broken_at = now;
    ++gang.tries;
    if (outcome.reason == EndReason::port_taken) ++gang.port_tries;
    if (outcome.reason == EndReason::inputs_unavailable || outcome.reason == EndReason::disk_full ||
        outcome.reason == EndReason::gpu_fault) {
      ++gang.free_tries;
    }
  }
  count_fault(gang, record);
  if (first || uses_up_a_retry(outcome.reason)) {
    const bool blameless = outcome.reason == EndReason::port_taken || is_excused(record);
    gang.avoid = blameless ? WorkerId() : worker;
    gang.last_rank = rank;
    gang.last_reason = outcome.reason;
    gang.last_detail = outcome.detail;
  }
  if (gang.open == 0 && !record.final && !gang.verdict) gang_waits(job);
}

// They were done in vain.
void Core::State::forget_successes(Job& job) {
  for (const auto& [rank, outcome] : job.gang->succeeded) {
    job.tally.redone_ms += redone_ms(outcome);
  }
  job.gang->succeeded.clear();
}

// Time is not durable: after a restore the back-off begins anew.
void Core::State::gang_waits(Job& job) {
  if (restoring || job.stopped || job.ranks.all_final()) return;
  gang_leaves(job);
  Gang& gang = *job.gang;
  const TimeMs wait =
      backoff_ms(gang.tries, gang.excused ? EndReason::worker_lost : gang.last_reason);
  if (gang.broken_at + wait <= now) return;
  gang.not_before = gang.broken_at + wait;
  backoffs.insert({gang.not_before, job.id, 0});
}

void Core::State::gang_leaves(Job& job) {
  Gang& gang = *job.gang;
  forget_successes(job);
  gang.ready.clear();
  if (gang.verdict) take_verdict(job);
  if (gang.not_before == kNever) return;
  backoffs.erase({gang.not_before, job.id, 0});
  gang.not_before = kNever;
}

void Core::State::gang_reopened(Job& job) {
  const uint32_t generation = job.gang->generation;
  job.gang.emplace();
  job.gang->generation = generation;
}

// ---- after a restore ----------------------------------------------------------------------------

// A crash may have cut the records of one step: some ranks leased, revoked or committed, and not
// all.
bool Core::State::gang_is_torn(const Job& job) const {
  if (!job.gang || job.stopped || job.ranks.all_final()) return false;
  const Gang& gang = *job.gang;
  const size_t members = gang.open + gang.succeeded.size();
  return job.ranks.committed() > 0 || (gang.broken && gang.open > 0) ||
         (members > 0 && members != job.ranks.size()) || (members > 0 && gang.open == 0);
}

void Core::State::settle_gang(Job& job) {
  Gang& gang = *job.gang;
  const JobCounts& counts = job.ranks.counts();
  if (counts.failed > 0) {
    stop_job(job, false, "a rank failed; a parallel job ends with any of its ranks");
  } else if (gang.open == 0 && counts.succeeded + gang.succeeded.size() == job.ranks.size()) {
    commit_gang(job);
  } else if (gang.open > 0) {
    revoke_gang(job, "it was not whole when the coordinator started");
  } else {
    gang.broken = true;
    gang_leaves(job);
    gang_waits(job);
    requeue(job);
  }
}

// ---- invariants ---------------------------------------------------------------------------------

std::string Core::State::check_gang(const Job& job) const {
  const Gang& gang = *job.gang;
  uint32_t open = 0;
  for (const auto& [rank, active] : job.active) {
    if (active.open.size() > 1) return "a rank of a gang runs twice";
    if (!active.lost.empty()) return "a lost rank of a gang could come back";
    for (const OpenAttempt& o : active.open) {
      ++open;
      if (o.attempt != gang.generation) return "the ranks of a gang are of several generations";
      if (gang.succeeded.contains(rank)) return "a rank of a gang runs, and has succeeded";
    }
  }
  if (open != gang.open) return "the open attempts of a gang are miscounted";
  if (backoffs.contains({gang.not_before, job.id, 0}) != (gang.not_before != kNever)) {
    return "the back-off of a gang is lost";
  }
  if (std::string bad = check_verdict(job); !bad.empty()) return bad;
  if (job.stopped) return gang.succeeded.empty() ? "" : "a stopped gang has provisional results";
  if (job.ranks.committed() > 0 && !job.ranks.all_final()) {
    return "some ranks of a gang are final, and not all";
  }
  if (job.ranks.all_final()) return "";
  const size_t members = open + gang.succeeded.size();
  if (members > 0 && members != job.ranks.size()) return "a gang is not whole";
  if (members > 0 && open == 0) return "all ranks of a gang have succeeded, and none is committed";
  if (open > 0 && gang.broken) return "a gang is broken, and runs on";
  for (uint32_t rank : gang.ready) {
    const auto active = job.active.find(rank);
    if (active == job.active.end() || active->second.open.empty()) return "a closed rank is ready";
  }
  if (open > 0 && !gang.started && gang.ready.size() == open) return "a gang is ready, and waits";
  return "";
}

}  // namespace pesc::coordinator
