// Workers that get no work although they are there: being drained or paused by a person, busy with
// their owner's work, or set aside because ranks keep failing at once there that succeed elsewhere.
#include <algorithm>
#include <utility>

#include "model/text.h"
#include "runtime/coordinator/core/state.h"

namespace pesc::coordinator {
namespace {

constexpr size_t kMaxLook = 1000;  // active ranks
// The longest that a worker is set aside which something waits for that no other could take.
constexpr TimeMs kNeededAsideMs = 30'000;
// So many ranks of a job have failed at once on two workers each: its failures say nothing about
// workers any more.
constexpr uint32_t kOwnFaults = 2;

std::string seconds_text(TimeMs ms) {
  return std::to_string(std::max<TimeMs>(ms + 999, 0) / 1000) + " s";
}

}  // namespace

// ---- drain, pause -------------------------------------------------------------------------------

void Core::State::on(const WorkerDrained& event) {
  AnswerDrain answer{event.request, absl::OkStatus(), {}, "", 0};
  answer.status = drain(event, answer);
  out.actions.push_back(std::move(answer));
}

// Sent again it changes nothing. Taking a drain back ends a setting aside as well: the person who
// asks for it knows that the worker is well.
absl::Status Core::State::drain(const WorkerDrained& event, AnswerDrain& answer) {
  Worker* worker = nullptr;
  if (absl::Status status = named_worker(event.worker, worker); !status.ok()) return status;
  answer.worker = worker->info.id;
  answer.name = worker->info.name;
  order(*worker, event.drain, worker->paused);
  if (!event.drain) {
    trust_again(*worker);
    return absl::OkStatus();
  }
  answer.attempts = static_cast<uint32_t>(worker->leases.size());
  for (const auto& [key, lease] : worker->leases)
    send_stop(worker->info.id, key, EndReason::vacated);
  return absl::OkStatus();
}

void Core::State::on(const WorkerPaused& event) {
  AnswerDrain answer{event.request, absl::OkStatus(), {}, "", 0};
  answer.status = pause(event, answer);
  out.actions.push_back(std::move(answer));
}

// What runs there stays there, frozen: the worker does that, and gives back what it has not
// started.
absl::Status Core::State::pause(const WorkerPaused& event, AnswerDrain& answer) {
  Worker* worker = nullptr;
  if (absl::Status status = named_worker(event.worker, worker); !status.ok()) return status;
  answer.worker = worker->info.id;
  answer.name = worker->info.name;
  answer.attempts = static_cast<uint32_t>(worker->leases.size());
  order(*worker, event.pause && worker->draining, event.pause);
  if (!event.pause) trust_again(*worker);
  return absl::OkStatus();
}

void Core::State::order(Worker& worker, bool draining, bool paused) {
  const bool told = worker.paused == paused;
  if (worker.draining == draining && told) return;
  emit(WorkerDraining{worker.info.id, draining, paused});
  if (!told && worker.attached) update_for(worker).paused = paused;
}

void Core::State::trust_again(Worker& worker) {
  end_aside(worker);
  worker.probation = false;
  worker.streak = 0;
  for (auto& [uuid, health] : worker.gpu_health) end_gpu_aside(worker, uuid, health);
  worker.gpu_health.clear();
  unindex(worker);  // it may take more than before, with the same cpus
  reindex(worker);
}

absl::Status Core::State::named_worker(const std::string& name, Worker*& found) {
  std::vector<Worker*> named;
  for (auto& [id, worker] : workers) {
    if (to_string(id) == name) {
      found = &worker;
      return absl::OkStatus();
    }
    if (worker.info.name == name) named.push_back(&worker);
  }
  if (named.empty()) {
    return absl::NotFoundError("there is no worker " + in_quotes(bounded(name, 256)) +
                               " here; `pesc workers` lists those there are");
  }
  // One that has been replaced by another of the same name is not meant.
  const auto there = [](const Worker* worker) { return worker->attached; };
  if (named.size() > 1 && std::count_if(named.begin(), named.end(), there) == 1) {
    named = {*std::find_if(named.begin(), named.end(), there)};
  }
  if (named.size() == 1) {
    found = named.front();
    return absl::OkStatus();
  }
  std::string ids;
  for (const Worker* worker : named) {
    if (ids.size() > kMaxTextBytes) break;
    ids += (ids.empty() ? "" : ", ") + to_string(worker->info.id);
  }
  return absl::InvalidArgumentError(std::to_string(named.size()) + " workers are named " +
                                    in_quotes(bounded(name, 256)) +
                                    "; name the one you mean by its id: " + ids);
}

void Core::State::apply_record(const WorkerDraining& record) {
  Worker& worker = workers[record.worker];
  worker.info.id = record.worker;
  worker.draining = record.draining;
  worker.paused = record.paused;
  reindex(worker);
}

// What a worker says of itself, in each report. The caller reindexes it.
void Core::State::hear_busy(Worker& worker, const std::string& busy) {
  const bool was_busy = !worker.info.busy.empty();
  worker.info.busy = bounded(busy, kMaxBusyText);
  if (!was_busy && !busy.empty()) look_again();
}

// ---- setting aside ------------------------------------------------------------------------------

bool Core::State::failed_at_once(const AttemptOutcome& outcome) const {
  return outcome.duration_ms <= config.at_once_ms &&
         (uses_up_a_retry(outcome.reason) || outcome.reason == EndReason::inputs_unavailable ||
          outcome.reason == EndReason::disk_full || outcome.reason == EndReason::gpu_fault);
}

// It has succeeded there, or has outlived by far those that fail.
bool Core::State::does_well_elsewhere(const Job& job, WorkerId worker) const {
  return std::any_of(job.succeeded_on.begin(), job.succeeded_on.end(),
                     [&](WorkerId id) { return id != WorkerId() && id != worker; }) ||
         runs_elsewhere(job, worker, now - 2 * TimeMs(config.at_once_ms));
}

// Since `since`, on another worker, where none of the job has failed early.
bool Core::State::runs_elsewhere(const Job& job, WorkerId worker, TimeMs since) const {
  size_t looked = 0;
  for (const auto& [rank, active] : job.active) {
    if (++looked > kMaxLook) return false;
    for (const OpenAttempt& open : active.open) {
      if (open.worker == worker || open.started > since) continue;
      if (!job.failed_early_on.contains(open.worker)) return true;
    }
  }
  return false;
}

// Another one takes work of that kind and has no such failures: without one the fault is rather the
// job's, and nobody would be left to show whose it is, or to run the job.
bool Core::State::another_is_well(WorkerId id, const Job& job) const {
  const Need need = need_of(job);
  return std::any_of(workers.begin(), workers.end(), [&](const auto& entry) {
    const Worker& other = entry.second;
    return entry.first != id && other.takes_leases() && other.streak == 0 &&
           (job.spec->room.empty() || job.spec->room == other.info.room) &&
           other.info.cpus_milli >= need.cpus_milli && could_hold(other, need);
  });
}

// An attempt has failed at once there. Returns whether that was the worker's fault, as it seems:
// then the outcome says so. A rank that has failed at once on another worker too is to blame
// itself.
bool Core::State::blame_worker(Job& job, ActiveRank& rank, Worker& worker,
                               AttemptOutcome& outcome) {
  const WorkerId id = worker.info.id;
  if (rank.own_fault || job.own_faults >= kOwnFaults) return false;
  if (rank.failed_at_once_on != WorkerId() && rank.failed_at_once_on != id) {
    rank.own_fault = true;
    ++job.own_faults;
    exonerate(rank.failed_at_once_on);
    return false;
  }
  rank.failed_at_once_on = id;
  // What a job that fails everywhere did there says nothing about the worker.
  const Job* before = find_job(worker.streak_job);
  if (worker.streak_job != job.id && (before == nullptr || !does_well_elsewhere(*before, id))) {
    worker.streak = 0;
  }
  worker.streak_job = job.id;
  worker.streak_detail = short_reason(outcome);
  const bool again = ++worker.streak > 1 || worker.probation;
  if (!does_well_elsewhere(job, id)) {
    // Nobody knows yet: it waits for the others before it has spoilt rank after rank.
    if (worker.streak >= config.set_aside_after && runs_elsewhere(job, id, now) &&
        another_is_well(id, job)) {
      put_aside_for(worker, 3 * config.at_once_ms);
    }
    return false;
  }
  if ((worker.streak >= config.set_aside_after || worker.probation) && another_is_well(id, job)) {
    put_aside(worker);
  }
  if (!again || !uses_up_a_retry(outcome.reason) || rank.faulty_tries >= kMaxFreeTries) {
    return false;
  }
  outcome.detail =
      bounded("failed at once on " + worker.info.name +
              ", where others do too that succeed elsewhere: " + short_reason(outcome));
  outcome.reason = EndReason::worker_faulty;
  return true;
}

// What cannot start may be missing on that worker only: another one is tried first, for free.
bool Core::State::excuse_start(const Job& job, const ActiveRank& rank, const Worker& worker,
                               AttemptOutcome& outcome) const {
  if (outcome.reason != EndReason::cannot_start || rank.own_fault) return false;
  if (job.own_faults >= kOwnFaults || rank.faulty_tries >= kMaxFreeTries) return false;
  if (!another_could_take(job, worker.info.id)) return false;
  outcome.detail = bounded("cannot start on " + worker.info.name +
                           ", another worker is tried: " + short_reason(outcome));
  outcome.reason = EndReason::worker_faulty;
  return true;
}

bool Core::State::another_could_take(const Job& job, WorkerId except) const {
  const Need need = need_of(job);
  return std::any_of(workers.begin(), workers.end(), [&](const auto& entry) {
    const Worker& other = entry.second;
    return entry.first != except && other.takes_leases() &&
           (job.spec->room.empty() || job.spec->room == other.info.room) &&
           need.cpus_milli <= other.info.cpus_milli && could_hold(other, need);
  });
}

// A rank that failed at once there has done so elsewhere too.
void Core::State::exonerate(WorkerId id) {
  Worker* worker = find_worker(id);
  if (worker == nullptr || worker->streak == 0) return;
  if (--worker->streak >= config.set_aside_after || !worker->set_aside()) return;
  worker->aside_ms = 0;
  end_aside(*worker);
}

void Core::State::proved_well(Worker& worker) {
  worker.streak = 0;
  worker.aside_ms = 0;
  worker.probation = false;
  end_aside(worker);
  reindex(worker);
}

void Core::State::put_aside(Worker& worker) {
  if (worker.set_aside()) return;
  worker.aside_ms = worker.aside_ms == 0 ? config.set_aside_ms
                                         : std::min(2 * worker.aside_ms, config.set_aside_max_ms);
  put_aside_for(worker, worker.aside_ms);
}

// What waits there ahead of time is taken back; what runs may yet do well.
void Core::State::put_aside_for(Worker& worker, uint64_t ms) {
  if (worker.set_aside()) return;
  worker.aside_until = now + TimeMs(ms);
  worker.probation = false;
  asides.insert({worker.aside_until, worker.info.id});
  for (const auto& [number, key] : worker.ahead) {
    send_stop(worker.info.id, key, EndReason::vacated);
  }
  reindex(worker);
  look_again();
}

// One worker fewer takes work: those that waited for it may have nobody else now: hurry_asides().
void Core::State::look_again() {
  for (auto& [demand, queue] : queues) {
    if (!queue.impossible) queue.blocked = false;
  }
}

// Nobody has room for this now. When nobody else could ever have, those that are set aside are
// needed soon.
void Core::State::hurry_asides(const Demand& demand) {
  if (asides.empty()) return;
  uint64_t ranks = 0, most = 0;
  const auto could_take = [&](const Worker& worker) -> uint64_t {
    if (!worker.attached || !worker.responsive || worker.draining || worker.paused) return 0;
    if (!worker.info.busy.empty()) return 0;
    if (!demand.room.empty() && demand.room != worker.info.room) return 0;
    if (!could_hold(worker, demand.need)) return 0;
    const uint64_t bytes = demand.need.memory_learned ? 0 : demand.need.memory_bytes;
    const uint64_t memory = bytes == 0 ? UINT64_MAX : worker.info.memory_bytes / bytes;
    return std::min<uint64_t>(worker.info.cpus_milli / demand.need.cpus_milli, memory);
  };
  for (const auto& [id, worker] : workers) {
    if (worker.set_aside()) continue;
    ranks += could_take(worker);
    most = std::max(most, could_take(worker));
  }
  if ((demand.same_worker ? most : ranks) >= std::max(demand.gang, 1u)) return;
  const std::set<std::pair<TimeMs, WorkerId>> aside = asides;
  for (const auto& [until, id] : aside) {
    Worker& worker = workers.at(id);
    if (until <= now + kNeededAsideMs || could_take(worker) == 0) continue;
    asides.erase({until, id});
    worker.aside_until = now + kNeededAsideMs;
    asides.insert({worker.aside_until, id});
  }
}

void Core::State::end_aside(Worker& worker) {
  if (!worker.set_aside()) return;
  asides.erase({worker.aside_until, worker.info.id});
  worker.aside_until = kNever;
  reindex(worker);
}

void Core::State::release_asides() {
  while (!asides.empty() && asides.begin()->first <= now) {
    Worker& worker = workers.at(asides.begin()->second);
    worker.probation = true;
    end_aside(worker);
  }
}

std::string Core::State::trouble(const Worker& worker, TimeMs at) const {
  if (worker.draining) {
    const size_t left = worker.leases.size();
    return "draining: it gets no work until `pesc drain " + worker.info.name + " --undo`" +
           (left == 0 ? "" : "; " + std::to_string(left) + " of its attempts have not ended yet");
  }
  if (worker.paused) {
    return "paused: its ranks are frozen, and it gets no work until `pesc resume " +
           worker.info.name + "`";
  }
  if (worker.attached && !worker.info.busy.empty()) return "busy: " + worker.info.busy;
  const std::string failures = std::to_string(worker.streak) +
                               (worker.streak == 1 ? " attempt" : " attempts in a row") +
                               " failed at once there, last: " + worker.streak_detail;
  if (worker.set_aside()) {
    return "set aside for another " + seconds_text(worker.aside_until - at) + ": " + failures;
  }
  if (worker.attached && worker.unsized > 0) {
    return "waits for " + std::to_string(worker.unsized) +
           " of its attempts to end that are not wanted any more";
  }
  if (worker.probation) return "on probation, one attempt at a time: " + failures;
  if (worker.attached && !worker.responsive) {
    return "has not been heard of for " + seconds_text(at - worker.last_seen);
  }
  return "";
}

}  // namespace pesc::coordinator
