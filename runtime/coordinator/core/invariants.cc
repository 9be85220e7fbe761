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
  if (std::string bad = check_times(); !bad.empty()) return bad;
  if (std::string bad = check_shares(); !bad.empty()) return bad;
  if (std::string bad = check_inputs(); !bad.empty()) return bad;
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
    if (std::string bad = check_checkpoints(job, rank, active); !bad.empty()) {
      return of(job, rank, bad);
    }
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
    const bool must_wait = state == RankState::waiting && !job.stopped && !job.gang;
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
  if (job.gang && !unsettled_job) {
    if (std::string bad = check_gang(job); !bad.empty()) return to_string(job.id) + ": " + bad;
  }
  if (job.placeable() != (job.queue != nullptr)) return to_string(job.id) + ": in the wrong queue";
  return "";
}

std::string Core::State::check_checkpoints(const Job& job, uint32_t number,
                                           const ActiveRank& rank) const {
  uint32_t last = 0;
  for (const KeptCheckpoint& c : rank.checkpoints) {
    if (c.ref.number <= last) return "its checkpoints are not in order";
    if (c.attempt == 0 || c.attempt > job.ranks.attempts(number)) {
      return "a checkpoint of it was saved by no attempt";
    }
    last = c.ref.number;
  }
  const auto highest = job.checkpoint_numbers.find(number);
  if (last > (highest == job.checkpoint_numbers.end() ? 0 : highest->second)) {
    return "a number of its checkpoints may be used again";
  }
  if (rank.checkpoints.size() > 4 * size_t(config.keep_checkpoints) + 1) {
    return "too many of its checkpoints are kept";
  }
  return "";
}

// What has a time at which something is done is in the set of such times, and nothing else is.
std::string Core::State::check_times() const {
  size_t limited = 0, watched = 0, aside = 0, awaited = 0, gpus_aside = 0, looked_at = 0;
  std::map<JobId, uint32_t> ahead;
  for (const auto& [id, worker] : workers) {
    aside += worker.set_aside();
    if (worker.set_aside() && asides.count({worker.aside_until, id}) == 0) {
      return "worker " + to_string(id) + " is set aside for ever";
    }
    for (const auto& [uuid, health] : worker.gpu_health) {
      gpus_aside += health.aside_until != kNever;
      if (health.aside_until != kNever && gpu_asides.count({health.aside_until, id, uuid}) == 0) {
        return "GPU " + uuid + " is set aside for ever";
      }
    }
    for (const auto& [place, key] : worker.ahead) ++ahead[key.job];
    looked_at += worker.ahead_at != kNever;
    if (worker.ahead_at == kNever ? !worker.ahead.empty()
                                  : aheads.count({worker.ahead_at, id}) == 0) {
      return "what worker " + to_string(id) + " has ahead is never looked at";
    }
  }
  for (const auto& [id, job] : jobs) {
    const auto leased = ahead.find(id);
    if (job.ahead_leases != (leased == ahead.end() ? 0 : leased->second)) {
      return to_string(id) + ": leases ahead differ";
    }
    limited += job.limit_at != kNever;
    if (job.limit_at != kNever && limits.count({job.limit_at, id}) == 0) {
      return to_string(id) + ": its time limit is forgotten";
    }
    watched += job.tail_at != kNever;
    awaited += job.gang && job.gang->verdict;
    if (near_its_end(job) != (job.tail_at != kNever)) {
      return to_string(id) + ": is near its end, or not";
    }
    if (job.tally.second_won > job.tally.second_attempts) return to_string(id) + ": tally";
  }
  if (limited != limits.size() || watched != tails.size() || aside != asides.size() ||
      awaited != verdicts.size() || gpus_aside != gpu_asides.size() || looked_at != aheads.size()) {
    return "a time is kept of what is gone";
  }
  return "";
}

std::string Core::State::check_worker(const Worker& worker) const {
  uint64_t used = 0, ahead = 0;
  Use use;
  use.gpus.resize(worker.info.gpus.size());
  for (const auto& [key, lease] : worker.leases) {
    (lease.ahead != 0 ? ahead : used) += lease.cpus_milli;
    auto job = jobs.find(key.job);
    if (job == jobs.end()) return to_string(key) + " is leased, its job is gone";
    add_use(worker.capacity(), use, lease.claim, job->second.spec->resources);
    auto rank = job->second.active.find(key.rank);
    bool open = false;
    if (rank != job->second.active.end()) {
      for (const OpenAttempt& o : rank->second.open) {
        open = open || (o.attempt == key.attempt && o.worker == worker.info.id);
      }
    }
    if (!open) return to_string(key) + " is leased, its rank does not know";
    for (const OpenAttempt& o : rank->second.open) {
      if (o.attempt == key.attempt && lease.ahead == 0 && o.started == kNever) {
        return to_string(key) + " runs since never";
      }
    }
    if (lease.ahead != 0 && worker.ahead.count(lease.ahead) == 0)
      return "a lease ahead is unlisted";
  }
  uint32_t unsized = 0;
  for (const auto& [key, ending] : worker.ending) {
    if (worker.leases.contains(key)) return to_string(key) + " is leased, and is ending";
    unsized += !ending.sized;
    if (ending.sized) add_use(worker.capacity(), use, ending.claim, ending.asked);
  }
  if (unsized != worker.unsized) return "what is ending there does not add up";
  if (used != worker.used_milli || ahead != worker.ahead_milli || use != worker.use) {
    return "what its leases use does not add up";
  }
  if (!worker.excused) {
    if (used > worker.info.cpus_milli) return "was given more cpus than it has";
    if (worker.spare_milli(config.prefetch_most) < 0) return "was given too much ahead";
    if (std::string wrong = check_use(worker.capacity(), use); !wrong.empty()) return wrong;
  }
  if (worker.indexed != worker.takes_leases()) return "indexed wrongly";
  if (worker.indexed &&
      (worker.indexed_free != unreserved(worker) || worker.indexed_load != worker.ahead_load())) {
    return "its free capacity differs from the index's";
  }
  const auto all = rooms.find("");
  if (worker.in_load_index !=
      (all != rooms.end() && all->second.by_load.contains({worker.indexed_load, worker.info.id}))) {
    return "is in the index of loads, or not";
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

// What each owner's leases use adds up.
std::string Core::State::check_shares() const {
  std::map<std::string, uint64_t> used;
  for (const auto& [id, worker] : workers) {
    for (const auto& [key, lease] : worker.leases) {
      if (lease.ahead == 0) used[jobs.at(key.job).owner] += lease.cpus_milli;
    }
  }
  for (const auto& [name, owner] : owners) {
    const auto found = used.find(name);
    if (owner.used_milli != (found == used.end() ? 0 : found->second)) {
      return "what " + name + " has does not add up";
    }
  }
  return "";
}

std::string Core::State::check_queues() const {
  size_t queued = 0, listed = 0, indexed = 0, ahead = 0;
  for (const auto& [id, job] : jobs) {
    queued += job.queue != nullptr;
    ahead += job.ahead_leases;
  }
  if (ahead != ahead_total) return "what is leased ahead does not add up";
  for (const auto& [demand, queue] : queues) {
    if (queue.owners.empty()) return "an empty queue is kept";
    for (const auto& [key, jobs_of_owner] : queue.owners) {
      const auto owner = owners.find(key.name);
      if (owner == owners.end() || owner->second.served != key.served ||
          owner->second.used_milli != key.used_milli) {
        return "an owner's turn differs";
      }
      for (const auto& [order, job] : jobs_of_owner) {
        if (job->queue != &queue || job->owner != key.name) return "a job is queued elsewhere";
        ++listed;
      }
    }
    if (queue.blocked && demand.gang > 0) {
      for (const auto& [key, jobs_of_owner] : queue.owners) {
        for (const auto& [order, job] : jobs_of_owner) {
          if (!plan_gang(*job, {}).empty()) return "a gang would fit, and waits";
        }
      }
    }
    if (!queue.blocked || demand.gang > 0) continue;
    // Some of its ranks may wait for more memory, and others for a larger GPU.
    const Learned& known = *queue.owners.begin()->second.begin()->second->learned;
    if (known.memory_starved && known.gpu_starved) continue;
    for (const auto& [id, worker] : workers) {
      if (worker.indexed && has_room(worker, demand)) return "a queue is blocked needlessly";
    }
  }
  if (std::string bad = check_reservation(); !bad.empty()) return bad;
  if (queued != listed) return "the queues do not hold the jobs that wait";
  for (const auto& [id, worker] : workers) indexed += worker.indexed;
  auto all = rooms.find("");
  if ((all == rooms.end() ? 0 : all->second.by_free.size()) != indexed) return "the index differs";
  for (const auto& [name, room] : rooms) {
    int64_t free = 0, cpus = 0;
    for (const auto& [negated_free, id] : room.by_free) free += std::max<int64_t>(-negated_free, 0);
    for (const auto& [load, id] : room.by_load) cpus += workers.at(id).info.cpus_milli;
    if (free != room.free_milli || cpus != room.load_milli) return "a room's sums differ";
  }
  return sessions.size() <= workers.size() ? "" : "more sessions than workers";
}

}  // namespace pesc::coordinator
