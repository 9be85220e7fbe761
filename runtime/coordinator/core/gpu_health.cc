// GPUs that fail ranks which succeed on others: each is set aside for a while, as a worker is on
// which everything fails (worker_health.cc), and its worker's other ranks go on.
#include <algorithm>
#include <utility>

#include "runtime/coordinator/core/state.h"

namespace pesc::coordinator {
namespace {

constexpr size_t kMaxLook = 1000;  // active ranks
// As in worker_health.cc.
constexpr uint32_t kOwnFaults = 2;
constexpr TimeMs kNeededAsideMs = 30'000;

bool shares_one(const std::vector<std::string>& a, const std::vector<std::string>& b) {
  return std::any_of(a.begin(), a.end(), [&](const std::string& uuid) {
    return std::find(b.begin(), b.end(), uuid) != b.end();
  });
}

// Of this job an attempt runs on other GPUs, since `since`.
bool runs_on_others(const Job& job, const std::vector<std::string>& gpus, TimeMs since) {
  size_t looked = 0;
  for (const auto& [rank, active] : job.active) {
    if (++looked > kMaxLook) return false;
    for (const OpenAttempt& open : active.open) {
      if (open.started <= since && !open.claim.gpus.empty() && !shares_one(open.claim.gpus, gpus)) {
        return true;
      }
    }
  }
  return false;
}

}  // namespace

// It has succeeded on another GPU, or has outlived there by far those that fail at once.
bool Core::State::does_well_on_others(const Job& job, const std::vector<std::string>& gpus) const {
  return std::any_of(job.succeeded_on_gpus.begin(), job.succeeded_on_gpus.end(),
                     [&](const std::string& uuid) {
                       return !uuid.empty() &&
                              std::find(gpus.begin(), gpus.end(), uuid) == gpus.end();
                     }) ||
         runs_on_others(job, gpus, now - 2 * TimeMs(config.at_once_ms));
}

// Another one that the job's ranks could have has no such failures: without one nobody would be
// left to run the job, or to show whose fault it is.
bool Core::State::another_gpu_is_well(const Job& job, const std::string& uuid) const {
  const Need need = need_of(job);
  const uint64_t memory = need.gpu_memory_learned ? 0 : need.gpu_memory_bytes;
  return std::any_of(workers.begin(), workers.end(), [&](const auto& entry) {
    const Worker& worker = entry.second;
    if (!worker.takes_leases()) return false;
    if (!job.spec->room.empty() && job.spec->room != worker.info.room) return false;
    return std::any_of(worker.info.gpus.begin(), worker.info.gpus.end(), [&](const Gpu& gpu) {
      const auto health = worker.gpu_health.find(gpu.uuid);
      return gpu.uuid != uuid && gpu.trouble.empty() && gpu.memory_bytes >= memory &&
             gpu.compute_capability >= need.min_compute_capability &&
             (health == worker.gpu_health.end() || health->second.streak == 0);
    });
  });
}

// An attempt that had GPUs has failed, at once or by what it says of its GPU. Returns whether that
// was the GPU's fault, as it seems, and not its own: then the outcome says so. A rank that has
// failed at once on two of them is to blame itself, unless it says otherwise.
bool Core::State::blame_gpus(Job& job, ActiveRank& rank, Worker& worker, const OpenAttempt& open,
                             AttemptOutcome& outcome) {
  const std::vector<std::string> gpus = open.claim.gpus;
  if (outcome.reason != EndReason::gpu_fault) {
    if (rank.own_fault || job.own_faults >= kOwnFaults) return false;
    const bool elsewhere = !rank.failed_on_gpu.empty() &&
                           std::find(gpus.begin(), gpus.end(), rank.failed_on_gpu) == gpus.end();
    if (elsewhere) {
      rank.own_fault = true;
      ++job.own_faults;
      exonerate_gpu(rank.failed_on_gpu);
      return false;
    }
    rank.failed_on_gpu = gpus.front();
  }
  const bool proven = does_well_on_others(job, gpus);
  const auto failed_before = [&](const std::string& uuid) {
    const auto health = worker.gpu_health.find(uuid);
    return health != worker.gpu_health.end() &&
           (health->second.streak > 0 || health->second.aside_ms > 0);
  };
  const bool again = std::any_of(gpus.begin(), gpus.end(), failed_before);
  for (const std::string& uuid : gpus) blame_gpu(job, worker, uuid, outcome);
  if (outcome.reason == EndReason::gpu_fault) return true;
  if (!again || !proven || rank.free_tries + 1 >= kMaxFreeTries) return false;
  outcome.detail =
      bounded("failed at once on " + gpus.front() + " of " + worker.info.name +
              ", where others do too that succeed elsewhere: " + short_reason(outcome));
  outcome.reason = EndReason::gpu_fault;
  return true;
}

void Core::State::blame_gpu(Job& job, Worker& worker, const std::string& uuid,
                            const AttemptOutcome& outcome) {
  GpuHealth& health = worker.gpu_health[uuid];
  // What a job that fails everywhere did there says nothing about the GPU.
  const Job* before = find_job(health.streak_job);
  if (health.streak_job != job.id && (before == nullptr || !does_well_on_others(*before, {uuid}))) {
    health.streak = 0;
  }
  health.streak_job = job.id;
  health.streak_detail = bounded(short_reason(outcome), kMaxBusyText);
  ++health.streak;
  const bool enough = health.streak >= config.set_aside_after || health.aside_ms > 0;
  if (!enough || health.aside_until != kNever || !another_gpu_is_well(job, uuid)) return;
  if (outcome.reason == EndReason::gpu_fault || does_well_on_others(job, {uuid})) {
    health.aside_ms = health.aside_ms == 0 ? config.set_aside_ms
                                           : std::min(2 * health.aside_ms, config.set_aside_max_ms);
    put_gpu_aside(worker, uuid, health, health.aside_ms);
  } else if (runs_on_others(job, {uuid}, now)) {
    // Nobody knows yet: it waits for the others before it has spoilt rank after rank.
    put_gpu_aside(worker, uuid, health, 3 * config.at_once_ms);
  }
}

void Core::State::gpus_proved_well(Worker& worker, const std::vector<std::string>& gpus) {
  for (const std::string& uuid : gpus) {
    const auto health = worker.gpu_health.find(uuid);
    if (health == worker.gpu_health.end()) continue;
    end_gpu_aside(worker, uuid, health->second);
    worker.gpu_health.erase(health);
  }
}

// A rank that failed at once there has done so elsewhere too.
void Core::State::exonerate_gpu(const std::string& uuid) {
  for (auto& [id, worker] : workers) {
    const auto health = worker.gpu_health.find(uuid);
    if (health == worker.gpu_health.end() || health->second.streak == 0) continue;
    if (--health->second.streak >= config.set_aside_after) continue;
    if (health->second.aside_until == kNever) continue;
    health->second.aside_ms = 0;
    end_gpu_aside(worker, uuid, health->second);
  }
}

void Core::State::put_gpu_aside(Worker& worker, const std::string& uuid, GpuHealth& health,
                                uint64_t ms) {
  health.aside_until = now + TimeMs(ms);
  gpu_asides.insert({health.aside_until, worker.info.id, uuid});
  say_gpu_troubles(worker);
  look_again();
}

void Core::State::end_gpu_aside(Worker& worker, const std::string& uuid, GpuHealth& health) {
  if (health.aside_until == kNever) return;
  gpu_asides.erase({health.aside_until, worker.info.id, uuid});
  health.aside_until = kNever;
  for (Gpu& gpu : worker.info.gpus) {
    if (gpu.uuid == uuid && std::exchange(health.said, false)) gpu.trouble.clear();
  }
  for (auto& [demand, queue] : queues) queue.impossible = queue.nowhere = false;
  if (worker.indexed) unblock(worker);
}

void Core::State::release_gpu_asides() {
  while (!gpu_asides.empty() && std::get<TimeMs>(*gpu_asides.begin()) <= now) {
    const auto [until, id, uuid] = *gpu_asides.begin();
    Worker& worker = workers.at(id);
    end_gpu_aside(worker, uuid, worker.gpu_health.at(uuid));
  }
}

// Nobody has room for this now. When nobody else could ever have, those GPUs are needed soon.
void Core::State::hurry_gpu_asides(const Demand& demand) {
  if (gpu_asides.empty() || demand.need.gpus == 0) return;
  for (const auto& [id, worker] : workers) {
    const bool there = worker.takes_leases() &&
                       (demand.room.empty() || demand.room == worker.info.room) &&
                       worker.info.cpus_milli >= demand.need.cpus_milli;
    if (there && could_hold(worker, demand.need)) return;
  }
  const TimeMs soon = now + kNeededAsideMs;
  const std::set<std::tuple<TimeMs, WorkerId, std::string>> aside = gpu_asides;
  for (const auto& [until, id, uuid] : aside) {
    if (until <= soon) continue;
    gpu_asides.erase({until, id, uuid});
    workers.at(id).gpu_health.at(uuid).aside_until = soon;
    gpu_asides.insert({soon, id, uuid});
  }
}

// What is wrong with a GPU by its worker's own word comes first. The caller has just been told it,
// or sets one aside.
void Core::State::say_gpu_troubles(Worker& worker) {
  for (Gpu& gpu : worker.info.gpus) {
    const auto at = worker.gpu_health.find(gpu.uuid);
    if (at == worker.gpu_health.end()) continue;
    GpuHealth& health = at->second;
    if (health.said) continue;
    if (health.aside_until == kNever || !gpu.trouble.empty()) continue;
    health.said = true;
    gpu.trouble = "set aside for a while: " + std::to_string(health.streak) +
                  (health.streak == 1 ? " attempt" : " attempts in a row") +
                  " failed on it, last: " + health.streak_detail;
  }
}

}  // namespace pesc::coordinator
