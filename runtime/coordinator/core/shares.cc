// What each owner has, whose turn it is, and how room is kept for one who has far less than another
// and finds none: a rank that needs four cpus never finds them free together where another's short
// ranks take each one that is.
#include <algorithm>
#include <utility>

#include "runtime/coordinator/core/state.h"

namespace pesc::coordinator {

void Core::State::serve(const std::string& name) {
  const auto it = owners.find(name);
  if (it != owners.end()) change_turn(name, it->second.used_milli, ++turns);
}

// Of an attempt that takes cpus from now on, or gives them back.
void Core::State::use_cpus(const AttemptKey& key, int64_t milli) {
  const std::string& name = jobs.at(key.job).owner;
  const Owner& owner = owners[name];
  change_turn(name, static_cast<uint64_t>(int64_t(owner.used_milli) + milli), owner.served);
}

void Core::State::change_turn(const std::string& name, uint64_t used_milli, uint64_t served) {
  if (bug == PlantedBug::one_user_first) return;
  Owner& owner = owners.at(name);
  const OwnerTurn before{owner.used_milli, owner.served, name};
  owner.used_milli = used_milli;
  owner.served = served;
  for (DemandQueue* queue : owner.queues) {
    auto node = queue->owners.extract(before);
    if (node.empty()) continue;
    node.key().used_milli = used_milli;
    node.key().served = served;
    queue->owners.insert(std::move(node));
  }
}

// `next` would be given something now. Is there anyone who has less, would have no more than that
// one even with one rank more, and finds no room?
bool Core::State::reserve_for_owed(const DemandQueue& next) {
  // By turns with gangs that wait for a reservation, of which none may starve.
  const auto gang_waits = [](const auto& entry) {
    return entry.first.gang > 0 && !entry.second.impossible;
  };
  if (!gang_had_it && std::any_of(queues.begin(), queues.end(), gang_waits)) return false;
  const OwnerTurn& rich = next.owners.begin()->first;
  DemandQueue* owed = nullptr;
  for (auto& [demand, queue] : queues) {
    if (!queue.blocked || queue.nowhere || demand.gang > 0) continue;
    const OwnerTurn& turn = queue.owners.begin()->first;
    if (turn.used_milli >= rich.used_milli ||
        turn.used_milli + demand.need.cpus_milli > rich.used_milli + next.demand.need.cpus_milli) {
      continue;
    }
    if (owed == nullptr || turn < owed->owners.begin()->first) owed = &queue;
  }
  if (owed == nullptr) return false;
  Job& job = *owed->owners.begin()->second.begin()->second;
  return reserve_ranks(job, (rich.used_milli - owed->owners.begin()->first.used_milli) / 2);
}

// On the worker that has most of it free already. As much as would make the two equal, but no more
// than that one worker has, and for one rank at least.
bool Core::State::reserve_ranks(Job& job, uint64_t cpus_milli) {
  if (need_version(job) != job.need_version) requeue(job);  // its program is known better now
  const Demand& demand = job.queue->demand;
  Worker* chosen = nullptr;
  for (auto& [id, worker] : workers) {
    if (!worker.indexed || worker.info.cpus_milli < demand.need.cpus_milli) continue;
    if (!demand.room.empty() && demand.room != worker.info.room) continue;
    if (!could_hold(worker, demand.need)) continue;
    if (chosen == nullptr || free_for(worker) > free_for(*chosen)) chosen = &worker;
  }
  if (chosen == nullptr) {
    job.queue->nowhere = true;
    return false;
  }
  const uint64_t cpus = demand.need.cpus_milli;
  const uint64_t ranks =
      std::min({std::max<uint64_t>(cpus_milli / cpus, 1), chosen->info.cpus_milli / cpus,
                uint64_t{job.ranks.counts().waiting}});
  chosen->reserved_milli = ranks * cpus;
  chosen->reserved_memory = std::min(ranks * demand.need.memory_bytes, chosen->info.memory_bytes);
  gang_had_it = false;
  reservation.job = &job;
  reservation.due = true;
  reservation.need_version = need_version(job);
  reservation.workers = {chosen->info.id};
  reindex(*chosen);
  return true;
}

// Somebody who has even less waits for what would fit there, since the reservation was made.
bool Core::State::another_comes_first(const Job& job, const Worker& worker) const {
  const Need& need = job.queue->demand.need;
  const uint64_t used = owners.at(job.owner).used_milli;
  return std::any_of(queues.begin(), queues.end(), [&](const auto& entry) {
    const auto& [demand, queue] = entry;
    return demand.gang == 0 && queue.owners.begin()->first.used_milli < used && !queue.nowhere &&
           demand.need.cpus_milli <= need.cpus_milli &&
           (demand.room.empty() || demand.room == worker.info.room) &&
           could_hold(worker, demand.need);
  });
}

bool Core::State::place_owed(uint32_t& budget) {
  Job& job = *reservation.job;
  Worker& worker = workers.at(*reservation.workers.begin());
  const Need need = job.queue->demand.need;
  const std::string owner = job.owner;
  const int64_t cpus = need.cpus_milli;
  bool placed = false;
  while (budget > 0 && free_for(worker) >= cpus && worker.has_spare(job.queue->demand) &&
         worker.takes_leases() && claim(worker.capacity(), worker.use, need, 0)) {
    if (another_comes_first(job, worker)) {
      release_reservation();
      return true;
    }
    const std::optional<uint32_t> rank = rank_for(job, worker.info.id);
    if (!rank) break;
    worker.reserved_milli -= need.cpus_milli;
    worker.reserved_memory -= std::min(worker.reserved_memory, need.memory_bytes);
    --budget;
    placed = true;
    lease(job, *rank, job.ranks.attempts(*rank) + 1, worker, need);
    serve(owner);
    if (reservation.job != &job) return true;  // that was the last one that waited
    if (worker.reserved_milli < need.cpus_milli) {
      release_reservation();
      return true;
    }
  }
  if (budget == 0) reservation.due = true;  // the rest comes with the next step
  return placed;
}

// One that has not failed there, if there is any.
std::optional<uint32_t> Core::State::rank_for(Job& job, WorkerId worker) {
  constexpr int kLook = 16;
  std::optional<uint32_t> second_choice;
  int looked = 0;
  for (uint32_t rank : job.ready) {
    const ActiveRank& active = job.active.at(rank);
    if (active.gpu_alone && !job.queue->demand.need.gpu_alone) continue;
    if (active.more_memory_than > 0 || active.more_gpu_than > 0) {
      Need own = job.queue->demand.need;
      raise_least(job, active, own);
      if (!could_hold(workers.at(worker), own)) continue;
    }
    if (active.last_worker != worker) return rank;
    if (!second_choice) second_choice = rank;
    if (++looked == kLook) break;
  }
  if (job.ranks.unclaimed() > 0) return job.ranks.next_unclaimed();
  if (job.ranks.fresh() > 0) return job.ranks.started();
  return second_choice;
}

}  // namespace pesc::coordinator
