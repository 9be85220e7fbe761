// Durable state. Everything here follows from the records alone; live steps and recovery share it.
#include <algorithm>
#include <utility>

#include "runtime/coordinator/core/state.h"

namespace pesc::coordinator {

void Core::State::apply(const Record& record) {
  std::visit([this](const auto& r) { apply_record(r); }, record);
}

void Core::State::apply_record(const JobAdded& record) {
  auto [it, added] = jobs.try_emplace(record.id);
  if (!added) return;
  Job& job = it->second;
  job.id = record.id;
  job.owner = record.owner;
  job.spec = record.spec;
  job.submitted_unix_ms = job.limit_from_unix_ms = record.submitted_unix_ms;
  job.ranks.reset(record.spec->repetitions);
  if (record.spec->parallel) job.gang.emplace();
  by_submission.emplace(job.order(), &job);
  if (!restoring && job.spec->job_time_limit_ms > 0) {
    arm_limit(job, now + TimeMs(job.spec->job_time_limit_ms));
  }
  learn_of(job);
  touch(job);
  requeue(job);
}

// A rank is placed, or an attempt that was given up for lost is back.
void Core::State::apply_record(const AttemptLeased& record) {
  const AttemptKey& key = record.key;
  Job* job = find_job(key.job);
  if (job == nullptr || key.rank >= job->ranks.size() || job->ranks.is_final(key.rank)) return;
  if (key.attempt > job->ranks.attempts(key.rank)) job->ranks.set_attempts(key.rank, key.attempt);
  ActiveRank& rank = activate(*job, key.rank);
  leave_queues(*job, key.rank, rank);
  close_attempt(rank, key);
  const auto lost = std::find_if(rank.lost.begin(), rank.lost.end(),
                                 [&](const LostAttempt& l) { return l.attempt == key.attempt; });
  if (lost != rank.lost.end()) {
    uncount_lost(job->tally, *lost);
    rank.lost.erase(lost);
    --rank.tries;
  } else if (record.second) {
    ++job->tally.second_attempts;
    ++rank.seconds;
  }
  const auto place = std::find_if(rank.open.begin(), rank.open.end(),
                                  [&](const OpenAttempt& o) { return o.attempt > key.attempt; });
  OpenAttempt open;
  open.attempt = key.attempt;
  open.worker = record.worker;
  open.checkpoint = record.checkpoint;
  open.base_ms = record.base_ms;
  open.second = record.second;
  open.claim = record.claim;
  // What was stated counts, whatever the row says: those of journals before version 3 say nothing.
  open.claim.memory_bytes = std::max(open.claim.memory_bytes, job->spec->resources.memory_bytes);
  const Claim given = open.claim;
  rank.open.insert(place, std::move(open));
  if (job->gang) apply_gang_leased(*job, key);
  job->ranks.set_running(key.rank, true);
  job->started = true;
  Worker& worker = workers[record.worker];
  worker.info.id = record.worker;
  add_lease(worker, key, *job->spec, given);
  note_holder(job->inputs, worker);
  touch(*job);
  requeue(*job);
}

void Core::State::apply_record(const AttemptEnded& record) {
  const AttemptKey& key = record.key;
  Job* job = find_job(key.job);
  if (job == nullptr || key.rank >= job->ranks.size()) return;
  auto it = job->active.find(key.rank);
  if (it == job->active.end()) return;
  ActiveRank& rank = it->second;
  const auto same = [&](const auto& a) { return a.attempt == key.attempt; };
  const auto open = std::find_if(rank.open.begin(), rank.open.end(), same);
  const auto lost = std::find_if(rank.lost.begin(), rank.lost.end(), same);
  const bool was_open = open != rank.open.end();
  const bool was_lost = lost != rank.lost.end();
  const bool provisional =
      job->gang && job->gang->succeeded.contains(key.rank) && job->gang->generation == key.attempt;
  if (!was_open && !was_lost && !provisional && !ends_again(*job, rank, key)) return;
  const WorkerId id = was_open ? open->worker : was_lost ? lost->worker : rank.last_worker;
  const std::vector<std::string> gpus = was_open ? open->claim.gpus : std::vector<std::string>();
  if (was_open && job->learned != nullptr) learn_end(*job->learned, record.outcome, open->claim);
  if (was_open) note_too_small(*job, rank, record, open->claim, workers[id]);
  count_attempt(*job, rank, record, id);
  const EndReason reason = record.outcome.reason;
  if (reason == EndReason::inputs_unavailable || reason == EndReason::disk_full) {
    drop_holder(job->inputs, id);
  }
  touch(*job);
  if (record.final) {
    if (record.state != RankState::cancelled) ++workers[id].finished;
    if (record.state == RankState::succeeded) {
      count_success(*job, id, record.outcome, gpus);
      job->checkpoint_numbers.erase(key.rank);
    }
    if (job->gang) apply_gang_ended(*job, record, id);
    finalise(*job, key.rank, record.state);
    return requeue(*job);
  }
  rank.last_worker = id;
  rank.last_attempt = key.attempt;
  const OpenAttempt ended = was_open ? *open : OpenAttempt();
  if (was_open) close_attempt(rank, key);
  if (record.outcome.reason == EndReason::worker_lost && !job->stopped && was_open && !job->gang) {
    rank.lost.push_back({key.attempt, id, ended.checkpoint, ended.base_ms, ended.second,
                         !never_began(record), redone_ms(record.outcome), ended.claim});
    std::sort(rank.lost.begin(), rank.lost.end(),
              [](const LostAttempt& a, const LostAttempt& b) { return a.attempt < b.attempt; });
    if (rank.lost.size() > kMaxLost) rank.lost.erase(rank.lost.begin());
  }
  if (rank.open.empty()) wait_again(*job, key.rank, rank);
  if (job->gang) apply_gang_ended(*job, record, id);
  requeue(*job);
}

void Core::State::learn_end(Learned& known, const AttemptOutcome& outcome, const Claim& claim) {
  if (bug == PlantedBug::forget_peaks) known.memory_bytes = known.gpu_memory_bytes = 0;
  const uint64_t version = known.version;
  learn(known, outcome, claim);
  if (known.version != version && !restoring) {  // what had no room may have some now
    for (auto& [demand, queue] : queues) queue.impossible = queue.nowhere = false;
    look_again();
  }
  if (bug == PlantedBug::estimates_grow) {
    known.memory_bytes += known.memory_bytes / 4;
    known.gpu_memory_bytes += known.gpu_memory_bytes / 4;
    ++known.version;
  }
}

// Of one that was given up for lost and succeeded after all, what was counted then is taken back.
// So is, of one that ends again, what was counted the first time.
void Core::State::count_attempt(Job& job, ActiveRank& rank, const AttemptEnded& record,
                                WorkerId worker) {
  const auto same = [&](const auto& a) { return a.attempt == record.key.attempt; };
  const auto open = std::find_if(rank.open.begin(), rank.open.end(), same);
  const auto lost = std::find_if(rank.lost.begin(), rank.lost.end(), same);
  if (open == rank.open.end() && lost != rank.lost.end()) uncount_lost(job.tally, *lost);
  note_build(job, record.outcome, worker);
  const bool again = ends_again(job, rank, record.key);
  if (again) uncount_end(job.tally, rank.last_reason, rank.last_redone_ms);
  count_end(job.tally, record);
  const bool second = open != rank.open.end()   ? open->second
                      : lost != rank.lost.end() ? lost->second
                                                : false;
  if (second && record.final && record.state == RankState::succeeded) ++job.tally.second_won;
  if (open == rank.open.end() && !again) return;
  if (open != rank.open.end()) {
    rank.last_base_ms = open->base_ms;
    rank.last_checkpoint = open->checkpoint;
    if (record.outcome.reason == EndReason::bad_checkpoint) {
      count_death(rank, open->checkpoint, open->worker);
    }
  }
  judge_checkpoint(job, rank, record.outcome);
  if (uses_up_a_retry(record.outcome.reason) && !(job.gang && is_excused(record))) {
    const bool early = record.outcome.duration_ms <= kEarlyMs;
    ++(early ? job.early_failures : job.late_failures);
    if (early) job.failed_early_on.insert(worker);
  }
  count_try(job, rank, record, again);
}

void Core::State::count_try(Job& job, ActiveRank& rank, const AttemptEnded& record, bool again) {
  const AttemptOutcome& outcome = record.outcome;
  const bool counted = uses_up_a_retry(outcome.reason);
  if (outcome.refused_arguments && rank.tries == 0) ++job.refused;
  if (!again) ++rank.tries;
  rank.last_reason = outcome.reason;
  rank.last_redone_ms = redone_ms(outcome);
  rank.last_detail = outcome.detail;
  if (record.state == RankState::running) return;  // another attempt goes on
  if (counted) ++rank.failures;
  if (outcome.reason == EndReason::worker_faulty) ++rank.faulty_tries;
  if (outcome.reason == EndReason::inputs_unavailable || outcome.reason == EndReason::disk_full ||
      outcome.reason == EndReason::gpu_fault) {
    ++rank.free_tries;
  }
  rank.gpu_alone = outcome.reason == EndReason::gpu_out_of_memory;
  if (rank.gpu_alone || outcome.reason == EndReason::outgrew_estimate) ++rank.outgrown;
}

void Core::State::count_success(Job& job, WorkerId worker, const AttemptOutcome& outcome,
                                const std::vector<std::string>& gpus) {
  ++job.measured;
  job.measured_ms += outcome.duration_ms;
  job.durations.add(outcome.duration_ms);
  Pace& pace = job.paces[worker];
  ++pace.count;
  pace.total_ms += outcome.duration_ms;
  for (const std::string& uuid : gpus) {
    for (std::string& known : job.succeeded_on_gpus) {
      if (known == uuid) break;
      if (!known.empty()) continue;
      known = uuid;
      break;
    }
  }
  for (WorkerId& known : job.succeeded_on) {
    if (known == worker) return;
    if (known == WorkerId()) {
      known = worker;
      return;
    }
  }
}

void Core::State::apply_record(const RanksCancelled& record) {
  Job* job = find_job(record.job);
  if (job == nullptr || record.first >= job->ranks.size() || record.last < record.first) return;
  for (auto it = job->active.lower_bound(record.first);
       it != job->active.end() && it->first <= record.last;) {
    const auto next = std::next(it);
    if (it->second.open.empty()) deactivate(*job, it->first);
    it = next;
  }
  job->ranks.cancel_waiting(record.first, record.last);
  touch(*job);
  requeue(*job);
}

void Core::State::apply_record(const JobStopped& record) {
  Job* job = find_job(record.job);
  if (job == nullptr) return;
  job->stopped = true;
  job->stopped_by_user = record.by_user;
  job->detail = record.detail;
  for (auto& [rank, active] : job->active) {
    active.lost.clear();
    leave_queues(*job, rank, active);
  }
  if (job->gang) gang_leaves(*job);
  touch(*job);
  requeue(*job);
}

void Core::State::apply_record(const JobFinished& record) {
  Job* job = find_job(record.job);
  if (job == nullptr) return;
  job->finished = true;
  job->finished_unix_ms = record.unix_ms;
  job->durations = {};
  job->paces.clear();
  forget_program(*job);
  arm_limit(*job, kNever);
  touch(*job);
}

void Core::State::apply_record(const RanksReopened& record) {
  Job* job = find_job(record.job);
  if (job == nullptr) return;
  job->ranks.reopen(record.ranks);
  job->finished = job->stopped = job->stopped_by_user = false;
  job->finished_unix_ms = 0;
  job->detail.clear();
  learn_of(*job);
  job->refused = job->early_failures = job->late_failures = 0;
  job->failed_early_on.clear();
  job->build_failed_on.clear();
  job->limit_from_unix_ms = record.unix_ms;
  if (!restoring && job->spec->job_time_limit_ms > 0) {
    arm_limit(*job, now + TimeMs(job->spec->job_time_limit_ms));
  }
  job->started = job->ranks.counts().succeeded > 0;
  if (job->gang) gang_reopened(*job);
  touch(*job);
  requeue(*job);
}

void Core::State::apply_record(const JobErased& record) {
  Job* job = find_job(record.job);
  if (job == nullptr) return;
  while (!job->active.empty()) deactivate(*job, job->active.begin()->first);
  dequeue(*job);
  forget_program(*job);
  arm_limit(*job, kNever);
  unlimited.erase(job->id);
  if (job->tail_at != kNever) tails.erase({job->tail_at, job->id});
  by_submission.erase(job->order());
  jobs.erase(record.job);
}

void Core::State::apply_record(const WorkerSeen& record) {
  Worker& worker = workers[record.worker];
  worker.info.id = record.worker;
  worker.info.name = record.name;
  worker.info.room = record.room;
  worker.seen = true;
}

void Core::State::apply_record(const ProgramLearned& record) {
  if (learned.size() >= kMaxPrograms && !learned.contains(record.program)) return;
  Learned& known = learned[record.program];
  known.memory_bytes = std::max(known.memory_bytes, record.memory_bytes);
  known.gpu_memory_bytes = std::max(known.gpu_memory_bytes, record.gpu_memory_bytes);
  known.gpu_known = known.gpu_known || record.gpu_known;
}

ActiveRank& Core::State::activate(Job& job, uint32_t rank) {
  job.ranks.claim(rank);
  return job.active[rank];
}

void Core::State::deactivate(Job& job, uint32_t rank) {
  ActiveRank& active = job.active.at(rank);
  leave_queues(job, rank, active);
  while (!active.open.empty()) close_attempt(active, {job.id, rank, active.open.back().attempt});
  if (job.ranks.state(rank) == RankState::running) job.ranks.set_running(rank, false);
  job.active.erase(rank);
  job.ranks.unclaim(rank);
}

void Core::State::finalise(Job& job, uint32_t rank, RankState state) {
  deactivate(job, rank);
  job.ranks.finalise(rank, state);
}

void Core::State::leave_queues(Job& job, uint32_t rank, ActiveRank& active) {
  job.ready.erase(rank);
  if (active.not_before == kNever) return;
  backoffs.erase({active.not_before, job.id, rank});
  active.not_before = kNever;
}

void Core::State::close_attempt(ActiveRank& rank, const AttemptKey& key) {
  const auto it = std::find_if(rank.open.begin(), rank.open.end(),
                               [&](const OpenAttempt& o) { return o.attempt == key.attempt; });
  if (it == rank.open.end()) return;
  Job* job = find_job(key.job);
  if (job != nullptr && job->gang) --job->gang->open;
  if (Worker* worker = find_worker(it->worker)) drop_lease(*worker, key);
  rank.open.erase(it);
}

// Time is not durable: after a restore the back-off begins anew.
void Core::State::wait_again(Job& job, uint32_t rank, ActiveRank& active) {
  job.ranks.set_running(rank, false);
  if (restoring || job.stopped || job.gang) return;
  if (bug == PlantedBug::lose_requeue && active.last_reason == EndReason::worker_lost) return;
  const TimeMs wait = backoff_ms(active);
  if (wait == 0) {
    job.ready.insert(rank);
    return;
  }
  active.not_before = now + wait;
  backoffs.insert({active.not_before, job.id, rank});
}

// The first loss of a worker says nothing about the rank; when it happens again, it may.
TimeMs Core::State::backoff_ms(const ActiveRank& rank) const {
  return backoff_ms(rank.tries, rank.last_reason);
}

TimeMs Core::State::backoff_ms(uint32_t tries, EndReason last) const {
  uint32_t doublings = tries > 0 ? tries - 1 : 0;
  if (last == EndReason::worker_lost || last == EndReason::vacated) {
    if (doublings == 0) return 0;
    --doublings;
  }
  uint64_t wait = config.backoff_base_ms;
  for (; doublings > 0 && wait < config.backoff_max_ms; --doublings) wait *= 2;
  return TimeMs(std::min(wait, config.backoff_max_ms));
}

// `runs`: it does already, whether there is room for it or not.
void Core::State::add_lease(Worker& worker, const AttemptKey& key, const JobSpec& spec, Claim claim,
                            bool runs) {
  forget_ending(worker, key);
  Lease lease;
  lease.cpus_milli = cpus_of(spec);
  lease.claim = std::move(claim);
  lease.restored = restoring;
  add_use(worker.capacity(), worker.use, lease.claim, spec.resources);
  // After a restore its size is not known yet; nor is what it runs, and so all count as running.
  if (runs || worker.info.cpus_milli == 0 || free_for(worker) >= int64_t(lease.cpus_milli)) {
    if (worker.used_milli == 0) worker.last_end = now;
    worker.used_milli += lease.cpus_milli;
    use_cpus(key, lease.cpus_milli);
    not_ahead(key);
  } else {
    count_ahead(jobs.at(key.job), true);
    lease.ahead = worker.next_ahead++;
    worker.ahead.emplace(lease.ahead, key);
    worker.ahead_milli += lease.cpus_milli;
    if (worker.ahead_at == kNever) {
      worker.last_end = now;
      watch_ahead(worker, now + patience_ms(worker));
    }
  }
  worker.leases.insert_or_assign(key, lease);
  reindex(worker);
}

void Core::State::drop_lease(Worker& worker, const AttemptKey& key) {
  auto it = worker.leases.find(key);
  if (it == worker.leases.end()) return;
  const Lease lease = it->second;
  worker.leases.erase(it);
  if (lease.ahead == 0) worker.last_end = now;
  const Resources& asked = jobs.at(key.job).spec->resources;
  drop_use(worker.capacity(), worker.use, lease.claim, asked);
  note_ending(worker, key, lease, asked);
  if (lease.ahead != 0) {
    worker.ahead.erase(lease.ahead);
    worker.ahead_milli -= lease.cpus_milli;
    count_ahead(jobs.at(key.job), false);
  } else {
    worker.used_milli -= lease.cpus_milli;
    use_cpus(key, -int64_t(lease.cpus_milli));
    promote(worker);
  }
  if (worker.excused && worker.used_milli <= worker.info.cpus_milli &&
      worker.spare_milli(config.prefetch_most) >= 0 && !is_over(worker.capacity(), worker.use)) {
    worker.excused = false;
  }
  reindex(worker);
}

void Core::State::promote(Worker& worker) {
  while (!worker.ahead.empty()) {
    Lease& lease = worker.leases.at(worker.ahead.begin()->second);
    if (worker.free_milli() < int64_t(lease.cpus_milli)) return;
    const AttemptKey key = worker.ahead.begin()->second;
    worker.ahead.erase(worker.ahead.begin());
    worker.ahead_milli -= lease.cpus_milli;
    worker.used_milli += lease.cpus_milli;
    use_cpus(key, lease.cpus_milli);
    lease.ahead = 0;
    count_ahead(jobs.at(key.job), false);
    not_ahead(key);
  }
}

// It may have begun: from now on its time counts.
void Core::State::not_ahead(const AttemptKey& key) {
  Job& job = jobs.at(key.job);
  for (OpenAttempt& open : job.active.at(key.rank).open) {
    if (open.attempt != key.attempt || open.started != kNever || restoring) continue;
    open.started = now;
    touch(job);
  }
}

// The worker's size may be another than before: what it has is counted anew. What ran there runs
// on, though there may be no room for it now.
void Core::State::recount(Worker& worker) {
  const std::map<AttemptKey, Lease> leases = std::exchange(worker.leases, {});
  for (const auto& [number, key] : worker.ahead) count_ahead(jobs.at(key.job), false);
  for (const auto& [key, lease] : leases) {
    if (lease.ahead == 0) use_cpus(key, -int64_t(lease.cpus_milli));
  }
  worker.ahead.clear();
  worker.used_milli = worker.ahead_milli = 0;
  worker.use = {};
  worker.use.gpus.resize(worker.info.gpus.size());
  count_endings(worker);
  for (const bool runs : {true, false}) {
    for (const auto& [key, lease] : leases) {
      if (runs != (lease.ahead == 0 && !lease.restored)) continue;
      add_lease(worker, key, *jobs.at(key.job).spec, lease.claim, runs);
      worker.leases.at(key).restored = lease.restored;
      worker.leases.at(key).told = lease.told;
    }
  }
}

// Its GPUs are others than before, or others use them: what its attempts have of them.
void Core::State::recount_use(Worker& worker) {
  worker.use = {};
  worker.use.gpus.resize(worker.info.gpus.size());
  for (const auto& [key, lease] : worker.leases) {
    add_use(worker.capacity(), worker.use, lease.claim, jobs.at(key.job).spec->resources);
  }
  count_endings(worker);
}

void Core::State::count_endings(Worker& worker) {
  for (const auto& [key, ending] : worker.ending) {
    if (ending.sized) add_use(worker.capacity(), worker.use, ending.claim, ending.asked);
  }
}

// What time and sessions add to the durable state: full leases, back-offs, queues.
void Core::State::finish_restore(TimeMs at) {
  restoring = false;
  now = restored_at = at;
  for (auto& [id, worker] : workers) {
    worker.excused = !worker.leases.empty();
    if (!worker.leases.empty()) arm(worker, now + TimeMs(config.lease_ms));
  }
  for (auto& [id, job] : jobs) {
    for (auto& [rank, active] : job.active) {
      if (active.open.empty()) wait_again(job, rank, active);
      for (OpenAttempt& open : active.open) {
        open.started = now - TimeMs(saved_ms(active, open.attempt));
      }
    }
    if (job.spec->job_time_limit_ms > 0 && !job.ranks.all_final()) unlimited.insert(id);
    if (job.gang) job.gang->broken_at = now;
    if (job.gang && job.gang->open == 0 && job.gang->broken) gang_waits(job);
    if (job.finished && !job.ranks.all_final()) {
      job.finished = false;
      learn_of(job);
    }
    if (job.learned != nullptr) know_holders(job);
    const bool waits_stopped = job.stopped && job.ranks.counts().waiting > 0;
    if (waits_stopped || gang_is_torn(job) || (job.ranks.all_final() && !job.finished))
      unsettled.insert(id);
    requeue(job);
  }
}

}  // namespace pesc::coordinator
