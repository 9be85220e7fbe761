// Sessions of workers: what they hold, what they report, when they are given up.
#include <algorithm>
#include <utility>

#include "runtime/coordinator/core/state.h"

namespace pesc::coordinator {
namespace {

void bound_info(WorkerInfo& info) {
  constexpr size_t kMaxName = 256, kMaxWarnings = 20, kMaxGpus = 1024;
  for (std::string* text :
       {&info.name, &info.room, &info.advertise, &info.software, &info.machine}) {
    *text = bounded(std::move(*text), kMaxName);
  }
  if (info.warnings.size() > kMaxWarnings) info.warnings.resize(kMaxWarnings);
  info.busy = bounded(std::move(info.busy), kMaxBusyText);
  for (std::string& warning : info.warnings) warning = bounded(std::move(warning));
  if (info.gpus.size() > kMaxGpus) info.gpus.resize(kMaxGpus);
  for (Gpu& gpu : info.gpus) {
    for (std::string* text : {&gpu.uuid, &gpu.name, &gpu.driver, &gpu.trouble}) {
      *text = bounded(std::move(*text), kMaxName);
    }
  }
}

bool over(const Worker& worker, uint32_t times_ahead) {
  return worker.used_milli > worker.info.cpus_milli || worker.spare_milli(times_ahead) < 0 ||
         is_over(worker.capacity(), worker.use);
}

std::vector<AttemptKey> sorted(std::vector<AttemptKey> keys) {
  std::sort(keys.begin(), keys.end());
  keys.erase(std::unique(keys.begin(), keys.end()), keys.end());
  return keys;
}

}  // namespace

void Core::State::on(const WorkerAttached& event) {
  unix_ms = std::max(unix_ms, event.unix_ms);
  if (absl::Status status = admit(event); !status.ok()) {
    out.actions.push_back(AnswerAttach{event.request, std::move(status), {}, false});
    return;
  }
  Worker& worker = workers[event.info.id];
  if (worker.attached && worker.session != event.session) {
    sessions.erase(worker.session);
    out.actions.push_back(
        CloseSession{worker.session, "the same worker attached again; that connection goes on"});
  }
  unindex(worker);
  const bool named = worker.seen && worker.info.name == bounded(event.info.name, 256) &&
                     worker.info.room == bounded(event.info.room, 256);
  worker.info = event.info;
  bound_info(worker.info);
  worker.measured = {};
  for (auto& [uuid, health] : worker.gpu_health) health.said = false;
  say_gpu_troubles(worker);
  if (!named) emit(WorkerSeen{worker.info.id, worker.info.name, worker.info.room});
  worker.session = event.session;
  worker.updates = 0;
  worker.attached = true;
  sizes_changed();
  worker.leaving = false;
  worker.last_seen = worker.last_end = now;
  sessions[event.session] = worker.info.id;
  recount(worker);
  AnswerAttach answer{event.request, absl::OkStatus(), {}, worker.paused};
  worker.reported.clear();
  const std::vector<AttemptKey> holding = sorted(event.holding);
  reconcile(worker, holding, UINT64_MAX, answer.stop);
  hear_worker(worker, holding, 0, true);
  withdraw_gangs_of(worker);
  worker.excused = over(worker, config.prefetch_most);
  out.actions.push_back(std::move(answer));
  renew(worker);
}

// A worker that restarts leaves a connection behind that takes a while to be noticed, so a newer
// session wins. But two machines with one identity would throw each other out for ever.
absl::Status Core::State::admit(const WorkerAttached& event) {
  auto it = workers.find(event.info.id);
  if (it == workers.end() || !it->second.attached) return absl::OkStatus();
  const Worker& old = it->second;
  const bool silent = now - old.last_seen > TimeMs(3 * config.heartbeat_ms);
  if (old.session == event.session || old.info.machine == event.info.machine || silent) {
    return absl::OkStatus();
  }
  return absl::FailedPreconditionError(
      "worker " + to_string(event.info.id) + " (" + old.info.name +
      ") is attached already, from another machine: the state directory was copied. Delete the "
      "identity in the state directory of this copy, then start the worker again");
}

void Core::State::on(const WorkerDetached& event) {
  auto it = sessions.find(event.session);
  if (it == sessions.end()) return;
  Worker& worker = workers.at(it->second);
  worker.ran_until = now;
  sessions.erase(it);
  worker.attached = worker.responsive = false;
  worker.session = 0;
  unindex(worker);
  if (worker.leases.empty()) arm(worker, kNever);
}

void Core::State::on(const WorkerReported& event) {
  unix_ms = std::max(unix_ms, event.unix_ms);
  AnswerReport answer{event.request, absl::OkStatus(), {}, {}};
  auto it = sessions.find(event.session);
  if (it == sessions.end()) {
    answer.status = absl::FailedPreconditionError(
        "this session was replaced by a newer one, or has never attached: attach again");
    out.actions.push_back(std::move(answer));
    return;
  }
  Worker& worker = workers.at(it->second);
  for (const FinishedAttempt& report : event.finished) {
    answer.status = check_report(worker.info.id, report);
    if (!answer.status.ok()) {
      out.actions.push_back(std::move(answer));
      return;
    }
  }
  worker.last_seen = worker.ran_until = now;
  const auto given_back = [](const FinishedAttempt& report) {
    return report.outcome.reason == EndReason::vacated;
  };
  if (std::any_of(event.finished.begin(), event.finished.end(), given_back)) {
    worker.leaving = true;
    worker.gave_back = now;
  } else if (event.finished.empty() || now - worker.gave_back >= TimeMs(config.heartbeat_ms)) {
    worker.leaving = false;
  }
  hear_busy(worker, event.busy);
  renew(worker);
  for (const FinishedAttempt& report : event.finished) {
    if (bug == PlantedBug::acknowledge_before_record) {
      late.emplace_back(worker.info.id, report);
    } else {
      reporting = report.key;
      finished(worker.info.id, report.key, report.outcome);
      reporting.reset();
    }
    answer.acknowledged.push_back(report.key);
  }
  if (!event.finished.empty()) note_lag(worker);
  if (event.gpus) hear_gpus(worker, *event.gpus);
  worker.measured = event.measured;
  for (const AttemptProgress& progress : event.progress) take_progress(worker, progress);
  worker.reported.insert(answer.acknowledged.begin(), answer.acknowledged.end());
  const std::vector<AttemptKey> holding = sorted(event.holding);
  reconcile(worker, holding, event.last_update, answer.stop);
  hear_worker(worker, holding, event.last_update, false);
  for (const ReadyAttempt& ready : event.ready) take_ready(worker, ready, event.last_update);
  std::erase_if(worker.reported, [&](const AttemptKey& key) {
    return !std::binary_search(holding.begin(), holding.end(), key);
  });
  out.actions.push_back(std::move(answer));
}

// What ran there runs on, though a GPU may be gone, or others may use more of it now.
void Core::State::hear_gpus(Worker& worker, const std::vector<Gpu>& gpus) {
  worker.info.gpus = gpus;
  if (bug == PlantedBug::use_sick_gpu) {
    for (Gpu& gpu : worker.info.gpus) gpu.trouble.clear();
  }
  bound_info(worker.info);
  for (auto& [uuid, health] : worker.gpu_health) health.said = false;
  say_gpu_troubles(worker);
  for (auto& [demand, queue] : queues) queue.impossible = queue.nowhere = false;
  recount_use(worker);
  worker.excused = worker.excused || over(worker, config.prefetch_most);
  sizes_changed();
  unblock(worker);
}

void Core::State::on(const TimerFired& event) { unix_ms = std::max(unix_ms, event.unix_ms); }

// What the worker has against what it should have. Leases of an update that it has not seen yet
// are on their way.
void Core::State::reconcile(Worker& worker, const std::vector<AttemptKey>& holding,
                            uint64_t last_update, std::vector<StopRequest>& stop) {
  for (const AttemptKey& key : holding) {
    if (worker.reported.contains(key)) continue;
    if (std::optional<StopRequest> request = reconcile_held(worker, key)) {
      stop.push_back(*request);
      if (!worker.leases.contains(key)) note_unsized(worker, key);
    }
  }
  std::vector<std::pair<AttemptKey, Lease>> gone;
  bool kept = false;  // something of an earlier life: then its keeper has lived on since
  for (auto& [key, lease] : worker.leases) {
    if (std::binary_search(holding.begin(), holding.end(), key)) {
      lease.told = true;
      kept = kept || lease.restored;
    } else if (lease.update <= last_update && !worker.reported.contains(key)) {
      gone.emplace_back(key, lease);
    }
  }
  for (const auto& [key, lease] : gone) {
    const bool began = lease.told || (lease.restored && !kept);
    lost(key, began ? "its worker does not have it any more" : "its lease never reached its worker",
         began);
  }
  forget_ended(worker, holding, last_update);
}

std::optional<StopRequest> Core::State::reconcile_held(Worker& worker, const AttemptKey& key) {
  const StopRequest revoked{key, EndReason::revoked};
  Job* job = find_job(key.job);
  if (job == nullptr || key.rank >= job->ranks.size()) return revoked;
  if (worker.leases.count(key) > 0) {
    if (job->stopped) return StopRequest{key, stop_reason(*job)};
    if (worker.draining) return StopRequest{key, EndReason::vacated};
    return std::nullopt;
  }
  auto rank = job->active.find(key.rank);
  if (job->stopped || rank == job->active.end()) return revoked;
  for (const LostAttempt& lost : rank->second.lost) {
    if (lost.attempt != key.attempt || lost.worker != worker.info.id) continue;
    emit(
        AttemptLeased{key, worker.info.id, lost.checkpoint, lost.second, lost.base_ms, lost.claim});
    worker.excused = worker.excused || over(worker, config.prefetch_most);
    return std::nullopt;
  }
  return revoked;
}

void Core::State::take_progress(const Worker& worker, const AttemptProgress& progress) {
  Job* job = find_job(progress.key.job);
  if (job == nullptr) return;
  auto rank = job->active.find(progress.key.rank);
  if (rank == job->active.end()) return;
  for (OpenAttempt& open : rank->second.open) {
    if (open.attempt != progress.key.attempt || open.worker != worker.info.id) continue;
    if (progress.fraction >= 0) {
      open.fraction = std::min(progress.fraction, 1.0);
      open.text = bounded(progress.text, 1024);
    }
    open.trouble = bounded(progress.trouble, 1024);
    touch(*job);
  }
}

void Core::State::renew(Worker& worker) {
  arm(worker, now + TimeMs(config.lease_ms));
  worker.responsive = true;
  worker.forgiven = false;
  reindex(worker);
}

void Core::State::arm(Worker& worker, TimeMs deadline) {
  if (worker.deadline == deadline) return;
  if (worker.deadline != kNever) deadlines.erase({worker.deadline, worker.info.id});
  worker.deadline = deadline;
  if (deadline != kNever) deadlines.insert({deadline, worker.info.id});
}

// A worker that is silent for a whole lease gets nothing new until it speaks again, though its
// connection may look alive.
void Core::State::expire_leases() {
  size_t budget = std::max<size_t>(config.max_placements_per_step, 1);
  while (!deadlines.empty() && deadlines.begin()->first <= now && budget > 0) {
    Worker& worker = workers.at(deadlines.begin()->second);
    worker.responsive = false;
    unindex(worker);
    while (!worker.leases.empty() && budget > 0) {
      --budget;
      lost(AttemptKey(worker.leases.begin()->first), "its worker was silent for too long");
    }
    if (worker.leases.empty()) arm(worker, kNever);
    if (budget > 0) --budget;
  }
}

// A deadline that is noticed late says that nobody was here to hear reports: this machine slept, or
// the process was stopped. Then everyone gets a full lease, as after a restart. A coordinator that
// is late all the time (its disk is slow) must still lose the workers that are gone, so what is
// less than a whole lease is forgiven once, until the worker is heard of again.
void Core::State::forgive_absence() {
  if (deadlines.empty()) return;
  const TimeMs late_ms = now - deadlines.begin()->first;
  if (late_ms <= kLateMs) return;
  const bool long_away = late_ms > TimeMs(config.lease_ms);
  if (!long_away && *deadlines.begin() == looked_late) return;  // nobody is left to forgive
  for (auto& [id, worker] : workers) {
    if (worker.deadline == kNever || (worker.forgiven && !long_away)) continue;
    worker.forgiven = true;
    arm(worker, now + TimeMs(config.lease_ms));
  }
  looked_late = *deadlines.begin();
}

}  // namespace pesc::coordinator
