// What must hold between any two steps. For tests and the simulator: it looks at everything.
#include "runtime/coordinator/core/state.h"

namespace pesc::coordinator {
namespace {

std::string of(const Job& job, uint32_t rank, const std::string& what) {
  return to_string(job.id) + "/rank " + std::to_string(rank) + ": " + what;
}

}  // namespace

std::string Core::State::check_invariants() const {
  for (const auto& [id, job] : jobs) {
    if (std::string bad = check_job(job); !bad.empty()) return bad;
  }
  for (const auto& [id, worker] : workers) {
    if (std::string bad = check_worker(worker); !bad.empty()) {
      return "worker " + to_string(id) + ": " + bad;
    }
  }
  return check_queues();
}

std::string Core::State::check_job(const Job& job) const {
  if (std::string bad = job.ranks.check(); !bad.empty()) return to_string(job.id) + ": " + bad;
  uint32_t running = 0, claimed = 0;
  for (uint32_t rank = 0; rank < job.ranks.started(); ++rank) claimed += job.ranks.claimed(rank);
  for (const auto& [rank, active] : job.active) {
    if (!job.ranks.claimed(rank)) return of(job, rank, "is active without being claimed");
    const RankState state = job.ranks.state(rank);
    if ((state == RankState::running) == active.open.empty()) {
      return of(job, rank, "runs without a lease, or has one without running");
    }
    running += state == RankState::running;
    uint32_t last = 0;
    for (const OpenAttempt& open : active.open) {
      if (open.attempt <= last || open.attempt > job.ranks.attempts(rank)) {
        return of(job, rank, "attempt numbers are not ascending, or one was never issued");
      }
      last = open.attempt;
      auto worker = workers.find(open.worker);
      if (worker == workers.end() ||
          worker->second.leases.count({job.id, rank, open.attempt}) == 0) {
        return of(job, rank, "its worker does not have its lease");
      }
      for (const LostAttempt& lost : active.lost) {
        if (lost.attempt == open.attempt) return of(job, rank, "an attempt is open and lost");
      }
    }
    const bool ready = job.ready.count(rank) > 0;
    const bool backs_off = backoffs.count({active.not_before, job.id, rank}) > 0;
    const bool must_wait = state == RankState::waiting && !job.stopped;
    if (int(ready) + int(backs_off) != int(must_wait)) {
      return of(job, rank, "a waiting rank must be in one queue, another in none");
    }
  }
  if (running != job.ranks.counts().running) return to_string(job.id) + ": running ranks differ";
  if (claimed != job.active.size()) return to_string(job.id) + ": claimed ranks differ";
  if (job.finished && !job.ranks.all_final()) return to_string(job.id) + ": finished too early";
  const bool unsettled_job = unsettled.count(job.id) > 0;
  if (!job.finished && job.ranks.all_final() && !unsettled_job) {
    return to_string(job.id) + ": all ranks are final, the job is not finished";
  }
  if (job.stopped && job.ranks.counts().waiting > 0 && !unsettled_job) {
    return to_string(job.id) + ": is stopped, and ranks wait";
  }
  if (job.placeable() != (job.queue != nullptr)) return to_string(job.id) + ": in the wrong queue";
  return "";
}

std::string Core::State::check_worker(const Worker& worker) const {
  uint64_t used = 0, ahead = 0, memory = 0;
  for (const auto& [key, lease] : worker.leases) {
    (lease.ahead != 0 ? ahead : used) += lease.cpus_milli;
    memory += lease.memory_bytes;
    auto job = jobs.find(key.job);
    if (job == jobs.end()) return to_string(key) + " is leased, its job is gone";
    auto rank = job->second.active.find(key.rank);
    bool open = false;
    if (rank != job->second.active.end()) {
      for (const OpenAttempt& o : rank->second.open) {
        open = open || (o.attempt == key.attempt && o.worker == worker.info.id);
      }
    }
    if (!open) return to_string(key) + " is leased, its rank does not know";
    if (lease.ahead != 0 && worker.ahead.count(lease.ahead) == 0)
      return "a lease ahead is unlisted";
  }
  if (used != worker.used_milli || ahead != worker.ahead_milli || memory != worker.memory_used) {
    return "what its leases use does not add up";
  }
  if (!worker.excused) {
    if (used > worker.info.cpus_milli) return "was given more cpus than it has";
    if (worker.spare_milli() < 0) return "was given more ahead than it has cpus";
    if (memory > worker.info.memory_bytes) return "was given more memory than it has";
  }
  if (worker.indexed != worker.takes_leases()) return "indexed wrongly";
  if (worker.indexed &&
      (worker.indexed_free != free_for(worker) || worker.indexed_spare != worker.spare_milli())) {
    return "its free capacity differs from the index's";
  }
  const bool armed = worker.deadline != kNever;
  if (armed != (deadlines.count({worker.deadline, worker.info.id}) > 0)) return "armed wrongly";
  if (!armed && (!worker.leases.empty() || worker.responsive)) return "its leases never expire";
  if (worker.attached) {
    auto session = sessions.find(worker.session);
    if (session == sessions.end() || session->second != worker.info.id) return "session is lost";
  }
  return "";
}

std::string Core::State::check_queues() const {
  size_t queued = 0, listed = 0, indexed = 0;
  for (const auto& [id, job] : jobs) queued += job.queue != nullptr;
  for (const auto& [demand, queue] : queues) {
    if (queue.owners.empty()) return "an empty queue is kept";
    for (const auto& [key, jobs_of_owner] : queue.owners) {
      auto owner = owners.find(key.second);
      if (owner == owners.end() || owner->second.turn != key.first)
        return "an owner's turn differs";
      for (const auto& [order, job] : jobs_of_owner) {
        if (job->queue != &queue || job->owner != key.second) return "a job is queued elsewhere";
        ++listed;
      }
    }
    if (!queue.blocked) continue;
    for (const auto& [id, worker] : workers) {
      if (worker.indexed && has_room(worker, demand)) return "a queue is blocked needlessly";
    }
  }
  if (queued != listed) return "the queues do not hold the jobs that wait";
  for (const auto& [id, worker] : workers) indexed += worker.indexed;
  auto all = rooms.find("");
  if ((all == rooms.end() ? 0 : all->second.by_free.size()) != indexed) return "the index differs";
  return sessions.size() <= workers.size() ? "" : "more sessions than workers";
}

}  // namespace pesc::coordinator
