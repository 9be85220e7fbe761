// Where the ranks of a gang go, all at once, and how room is kept for the one that has waited
// longest.
#include <algorithm>
#include <tuple>
#include <utility>

#include "runtime/coordinator/core/state.h"

namespace pesc::coordinator {
namespace {

// One after the other, as they will be leased.
uint32_t ranks_in(uint64_t cpus_milli, const Worker& worker, Use use, uint64_t reserved_memory,
                  const JobSpec& spec, const Need& need, uint32_t most) {
  if (!may_be_on(worker.info.id, need)) return 0;
  const uint32_t ranks =
      static_cast<uint32_t>(std::min<uint64_t>(cpus_milli / need.cpus_milli, most));
  for (uint32_t rank = 0; rank < ranks; ++rank) {
    const std::optional<Claim> given = claim(worker.capacity(), use, need, reserved_memory);
    if (!given) return rank;
    add_use(worker.capacity(), use, *given, spec.resources);
  }
  return ranks;
}

uint32_t trusted(const Worker& worker, uint32_t ranks, bool doubtful) {
  return worker.probation && !doubtful ? std::min(ranks, 1u) : ranks;
}

bool may_have(const Worker& worker, const JobSpec& spec) {
  return worker.takes_leases() && (spec.room.empty() || spec.room == worker.info.room);
}

// Adds ranks until all have a place.
struct Filling {
  uint32_t all = 0, left = 0;
  bool same_worker = false;
  std::vector<std::pair<WorkerId, uint32_t>> plan;

  void take(WorkerId id, uint32_t fit) {
    if (left == 0 || fit == 0 || (same_worker && fit < all)) return;
    plan.emplace_back(id, std::min(fit, left));
    left -= plan.back().second;
  }
  std::vector<std::pair<WorkerId, uint32_t>> result() {
    return left == 0 ? std::move(plan) : std::vector<std::pair<WorkerId, uint32_t>>();
  }
};

}  // namespace

uint32_t gang_ranks_on_empty(const Worker& worker, const JobSpec& spec, const Need& need,
                             uint32_t most, bool doubtful) {
  if (!may_have(worker, spec)) return 0;
  Use nothing;
  nothing.gpus.resize(worker.info.gpus.size());
  return trusted(worker,
                 ranks_in(worker.info.cpus_milli, worker, std::move(nothing), 0, spec, need, most),
                 doubtful);
}

// On probation a worker gets one attempt at a time, of a gang too; unless the gang could not run at
// all then: nothing might ever show that the worker is well.
bool Core::State::takes_doubtful(const Job& job) const {
  const auto doubtful = [](const auto& entry) { return entry.second.probation; };
  return std::any_of(workers.begin(), workers.end(), doubtful) &&
         plan_on_empty_workers(job, false).empty();
}

// Not where ranks wait ahead of time: such a rank, first in its worker's line and too wide for the
// cpus that are left, would hold up a gang's rank behind it while that gang's other ranks hold the
// cpus it waits for.
uint32_t Core::State::gang_ranks_on(const Worker& worker, const Job& job, bool doubtful) const {
  if (!may_have(worker, *job.spec) || !worker.ahead.empty()) return 0;
  const bool own = reservation.job == &job;
  const int64_t free = own ? free_for(worker) : unreserved(worker);
  const Need need = need_of(job);
  if (free <= 0 || (!own && !worker.claim_for(need))) return 0;
  return trusted(worker,
                 ranks_in(uint64_t(free), worker, worker.use, own ? 0 : worker.reserved_memory,
                          *job.spec, need, job.ranks.counts().waiting),
                 doubtful);
}

// On few workers rather than many: those with the most room first; those that have its inputs,
// where that takes no more of them. Empty: it does not fit now.
Core::State::GangPlan Core::State::plan_gang(const Job& job, WorkerId avoid) const {
  GangPlan plan = plan_gang(job, avoid, {});
  if (plan.empty() || job.inputs.empty() || reservation.job == &job) return plan;
  GangPlan there = plan_gang(job, avoid, holders_of(job));
  return there.empty() || there.size() > plan.size() ? plan : there;
}

Core::State::GangPlan Core::State::plan_gang(const Job& job, WorkerId avoid,
                                             const std::vector<WorkerId>& first) const {
  const uint32_t ranks = job.ranks.counts().waiting;
  Filling filling{ranks, ranks, job.spec->same_worker, {}};
  const bool own = reservation.job == &job;
  const bool doubtful = takes_doubtful(job);
  if (own) {
    for (WorkerId id : reservation.workers) {
      if (id != avoid) filling.take(id, gang_ranks_on(workers.at(id), job, doubtful));
    }
  }
  for (WorkerId id : first) {
    if (id != avoid) filling.take(id, gang_ranks_on(workers.at(id), job, doubtful));
  }
  const auto room = rooms.find(job.spec->room);
  if (room == rooms.end()) return {};
  for (const auto& [negated_free, id] : room->second.by_free) {
    if (filling.left == 0 || -negated_free < int64_t(cpus_of(*job.spec))) break;
    if (id == avoid || (own && reservation.workers.contains(id))) continue;
    if (std::find(first.begin(), first.end(), id) != first.end()) continue;
    filling.take(id, gang_ranks_on(workers.at(id), job, doubtful));
  }
  return filling.result();
}

bool Core::State::place_gang(Job& job) {
  GangPlan plan = plan_gang(job, job.gang->avoid);
  if (plan.empty() && job.gang->avoid != WorkerId()) plan = plan_gang(job, {});
  if (plan.empty()) {
    if (reservation.job == nullptr) reserve(job);
    return false;
  }
  const std::string owner = job.owner;
  const Need need = need_of(job);
  const uint32_t generation = job.gang->generation + 1;
  uint32_t rank = 0;
  for (const auto& [id, count] : plan) {
    for (uint32_t local = 0; local < count; ++local, ++rank) {
      while (job.ranks.is_final(rank)) ++rank;
      LeaseGrant& grant = lease(job, rank, generation, workers.at(id), need);
      grant.hold = true;
      grant.local_rank = local;
      grant.local_world_size = count;
    }
  }
  serve(owner);
  return true;
}

// ---- the reservation ----------------------------------------------------------------------------

// The gang that has it comes before all others, whenever something has become free.
bool Core::State::place_reserved(uint32_t& budget) {
  if (reservation.job == nullptr || !reservation.due) return false;
  reservation.due = false;
  if (!reservation.job->gang) return place_owed(budget);
  const uint32_t ranks = reservation.job->ranks.size();
  if (!place_gang(*reservation.job)) return false;
  budget -= std::min(budget, ranks);
  return true;
}

// Where it would be if nothing else were there: on workers that are free already, if possible.
Core::State::GangPlan Core::State::plan_on_empty_workers(const Job& job, bool doubtful,
                                                         WorkerId except) const {
  std::vector<std::tuple<int64_t, int64_t, WorkerId>> candidates;
  const uint32_t ranks = job.gang->open > 0 ? job.ranks.size() : job.ranks.counts().waiting;
  const Need need = need_of(job);
  for (const auto& [id, worker] : workers) {
    if (id == except || gang_ranks_on_empty(worker, *job.spec, need, 1, doubtful) == 0) continue;
    candidates.emplace_back(-free_for(worker), -int64_t(worker.info.cpus_milli), id);
  }
  std::sort(candidates.begin(), candidates.end());
  Filling filling{ranks, ranks, job.spec->same_worker, {}};
  for (const auto& [free, cpus, id] : candidates) {
    filling.take(id, gang_ranks_on_empty(workers.at(id), *job.spec, need, ranks, doubtful));
  }
  return filling.result();
}

// A gang that all workers together have no room for reserves nothing: it would block the others,
// and never run.
bool Core::State::reserve(Job& job) {
  const GangPlan plan = plan_on_empty_workers(job, takes_doubtful(job));
  if (plan.empty()) {
    job.queue->impossible = true;
    return false;
  }
  gang_had_it = true;
  reservation.job = &job;
  reservation.due = true;
  reservation.need_version = need_version(job);
  const uint64_t memory = need_of(job).memory_bytes;
  for (const auto& [id, count] : plan) {
    Worker& worker = workers.at(id);
    worker.reserved_milli = uint64_t(count) * cpus_of(*job.spec);
    worker.reserved_memory = std::min(count * memory, worker.info.memory_bytes);
    reservation.workers.insert(id);
    reindex(worker);
  }
  return true;
}

void Core::State::release_reservation() {
  const std::set<WorkerId> released = std::exchange(reservation, {}).workers;
  for (WorkerId id : released) {
    Worker& worker = workers.at(id);
    worker.reserved_milli = worker.reserved_memory = 0;
    reindex(worker);
    // What nobody may have where anything is reserved: leases ahead of time, and what is scarce.
    if (worker.indexed) unblock(worker);
  }
  // One of them is the next to have it.
  for (auto& [demand, queue] : queues) {
    if (demand.gang > 0 && !queue.impossible) queue.blocked = false;
  }
}

// When one of its workers is gone, it moves, and its gang keeps its turn. Who is owed ranks is
// found anew.
void Core::State::renew_reservation() {
  const bool gang = reservation.job->gang.has_value();
  const auto holds = [&](WorkerId id) {
    const Worker& worker = workers.at(id);
    return (gang || could_hold(worker, reservation.job->queue->demand.need)) &&
           may_have(worker, *reservation.job->spec) &&
           worker.reserved_milli <= worker.info.cpus_milli &&
           worker.reserved_memory <= worker.info.memory_bytes;
  };
  const bool same = reservation.need_version == need_version(*reservation.job);
  if (same && std::all_of(reservation.workers.begin(), reservation.workers.end(), holds)) return;
  Job& job = *reservation.job;
  release_reservation();
  if (gang) {
    reserve(job);
  } else {
    requeue(job);
  }
}

std::string Core::State::check_reservation() const {
  for (const auto& [id, worker] : workers) {
    const bool reserved = worker.reserved_milli > 0;
    if (reserved != reservation.workers.contains(id)) return "a reservation is lost";
    if (worker.reserved_milli > worker.info.cpus_milli ||
        worker.reserved_memory > worker.info.memory_bytes) {
      return "more is reserved on worker " + to_string(id) + " than it has";
    }
  }
  if (reservation.job == nullptr) return reservation.workers.empty() ? "" : "nobody's reservation";
  if (reservation.job->queue == nullptr) {
    return "a reservation is held for a job that does not wait";
  }
  if (!reservation.job->gang) {
    const Worker& worker = workers.at(*reservation.workers.begin());
    const Need& need = reservation.job->queue->demand.need;
    const bool fits = worker.takes_leases() && free_for(worker) >= int64_t(need.cpus_milli) &&
                      worker.has_spare(reservation.job->queue->demand) && need.gpus == 0 &&
                      claim(worker.capacity(), worker.use, need, 0);
    return fits && !reservation.due && !placement_due ? "who has a reservation would fit, and waits"
                                                      : "";
  }
  if (!reservation.due && !plan_gang(*reservation.job, {}).empty()) {
    return "the gang with the reservation would fit, and waits";
  }
  return "";
}

}  // namespace pesc::coordinator
