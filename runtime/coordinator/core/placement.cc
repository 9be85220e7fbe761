// Which rank goes to which worker. One placement costs a few look-ups in ordered sets, however many
// jobs wait; it grows with the number of different demands (room, cpus, memory) only.
#include <algorithm>
#include <utility>

#include "runtime/coordinator/core/state.h"

namespace pesc::coordinator {

void Core::State::place() {
  placement_due = false;
  uint32_t budget = std::max<uint32_t>(config.max_placements_per_step, 1);
  if (reservation.job != nullptr) renew_reservation();
  for (;;) {
    if (budget > 0 && place_reserved(budget)) continue;
    DemandQueue* queue = next_queue();
    if (queue == nullptr && !(reservation.job != nullptr && reservation.due)) return;
    if (budget == 0) {
      placement_due = true;
      return;
    }
    Job& job = *queue->owners.begin()->second.begin()->second;
    if (job.gang) {
      const uint32_t ranks = queue->demand.gang;
      if (place_gang(job)) {
        budget -= std::min(budget, ranks);
      } else {
        queue->blocked = true;
        hurry_asides(queue->demand);
      }
      continue;
    }
    const auto [rank, worker] = choose_rank(job, queue->demand);
    if (worker == nullptr) {
      queue->blocked = true;
      hurry_asides(queue->demand);
      continue;
    }
    const std::string owner = job.owner;
    lease(job, rank, job.ranks.attempts(rank) + 1, *worker);
    serve(owner);
    --budget;
  }
}

// A rank that has been tried waits for another worker than its last one while something else of the
// job can go there: on a worker that is at fault it would only lose its next try as well.
std::pair<uint32_t, Worker*> Core::State::choose_rank(Job& job, const Demand& demand) {
  constexpr int kLook = 16;
  const auto room = rooms.find(demand.room);
  const bool others = room != rooms.end() && room->second.by_free.size() > 1;
  std::pair<uint32_t, Worker*> second_choice{0, nullptr};
  int looked = 0;
  for (uint32_t rank : job.ready) {
    const WorkerId avoid = job.active.at(rank).last_worker;
    Worker* worker = choose_worker(demand, avoid);
    if (worker == nullptr || worker->info.id != avoid || !others) return {rank, worker};
    if (second_choice.second == nullptr) second_choice = {rank, worker};
    if (++looked == kLook) break;
  }
  if (job.ranks.unclaimed() > 0) {
    return {job.ranks.next_unclaimed(), choose_worker(demand, WorkerId())};
  }
  if (job.ranks.fresh() > 0) return {job.ranks.started(), choose_worker(demand, WorkerId())};
  return second_choice;
}

// The owner that was served least recently; of its jobs the one that was submitted first.
DemandQueue* Core::State::next_queue() {
  DemandQueue* best = nullptr;
  for (auto& [demand, queue] : queues) {
    if (queue.blocked) continue;
    if (best != nullptr) {
      const auto& [owner, jobs_of_owner] = *queue.owners.begin();
      const auto& [best_owner, jobs_of_best] = *best->owners.begin();
      if (owner > best_owner) continue;
      if (owner == best_owner && jobs_of_owner.begin()->first > jobs_of_best.begin()->first) {
        continue;
      }
    }
    best = &queue;
  }
  return best;
}

Worker* Core::State::choose_worker(const Demand& demand, WorkerId avoid) {
  auto room = rooms.find(demand.room);
  if (room == rooms.end()) return nullptr;
  Worker* worker = choose_from(room->second.by_free, demand, avoid, false);
  if (worker != nullptr || !demand.ahead) return worker;
  return choose_from(room->second.by_spare, demand, avoid, true);
}

Worker* Core::State::choose_from(const std::set<std::pair<int64_t, WorkerId>>& index,
                                 const Demand& demand, WorkerId avoid, bool ahead) {
  Worker* second_choice = nullptr;
  for (const auto& [negated_room, id] : index) {
    if (-negated_room < int64_t(demand.cpus_milli)) break;
    Worker& worker = workers.at(id);
    // A rank larger than its whole worker would wait there for ever.
    if (demand.cpus_milli > worker.info.cpus_milli) continue;
    if (!worker.fits_memory(demand.memory_bytes)) continue;
    if (ahead && worker.reserved_milli > 0) continue;
    // Wide ranks that wait there ahead of time leave cpus free that are not to be had.
    if (worker.spare_milli() < int64_t(demand.cpus_milli)) continue;
    if (id != avoid) return &worker;
    second_choice = &worker;
  }
  return second_choice;
}

bool Core::State::has_room(const Worker& worker, const Demand& demand) const {
  if (!demand.room.empty() && demand.room != worker.info.room) return false;
  if (demand.cpus_milli > worker.info.cpus_milli) return false;
  if (demand.gang > 0) return true;  // some of it, perhaps all
  if (!worker.fits_memory(demand.memory_bytes)) return false;
  return worker.spare_milli() >= int64_t(demand.cpus_milli) &&
         ((demand.ahead && worker.reserved_milli == 0) ||
          unreserved(worker) >= int64_t(demand.cpus_milli));
}

int64_t Core::State::free_for(const Worker& worker) const {
  return worker.free_milli() + (bug == PlantedBug::overcommit_worker ? 1000 : 0);
}

// What anyone but the gang with the reservation may have.
int64_t Core::State::unreserved(const Worker& worker) const {
  return free_for(worker) - int64_t(worker.reserved_milli);
}

LeaseGrant& Core::State::lease(Job& job, uint32_t rank, uint32_t attempt, Worker& worker,
                               bool second) {
  AttemptKey key{job.id, rank, attempt};
  if (bug == PlantedBug::reuse_attempt_number && key.attempt > 1) --key.attempt;
  CheckpointRef from;
  uint64_t base_ms = 0;
  if (const auto active = job.active.find(rank); active != job.active.end()) {
    if (const KeptCheckpoint* best = best_checkpoint(active->second)) {
      from = best->ref;
      base_ms = best->total_ms;
    }
  }
  emit(AttemptLeased{key, worker.info.id, from.number, second, base_ms});
  SendUpdate& update = update_for(worker);
  update.leases.push_back({key, job.spec, from});
  auto lease = worker.leases.find(key);
  if (lease != worker.leases.end()) lease->second.update = update.number;
  return update.leases.back();
}

void Core::State::serve(const std::string& name) {
  auto it = owners.find(name);
  if (it == owners.end()) return;
  const uint64_t before = std::exchange(it->second.turn, ++turns);
  for (DemandQueue* queue : it->second.queues) {
    auto node = queue->owners.extract({before, name});
    if (node.empty()) continue;
    node.key().first = it->second.turn;
    queue->owners.insert(std::move(node));
  }
}

bool Core::State::is_short(const Job& job) const {
  return job.measured > 0 && job.measured_ms < config.prefetch_below_ms * job.measured;
}

// Puts the job where it belongs after any change of its ranks.
void Core::State::requeue(Job& job) {
  if (restoring) return;
  watch_tail(job);
  if (!job.placeable()) return dequeue(job);
  const bool ahead = !job.gang && is_short(job);
  if (job.queue != nullptr && job.queue->demand.ahead == ahead) return;
  dequeue(job);
  const Demand demand{job.spec->room,
                      cpus_of(*job.spec),
                      job.spec->resources.memory_bytes,
                      ahead,
                      job.gang ? job.ranks.size() : 0,
                      job.gang && job.spec->same_worker};
  DemandQueue& queue = queues[demand];
  if (queue.owners.empty()) queue.demand = demand;
  Owner& owner = owners[job.owner];
  auto& jobs_of_owner = queue.owners[{owner.turn, job.owner}];
  if (jobs_of_owner.empty()) owner.queues.push_back(&queue);
  jobs_of_owner.emplace(job.order(), &job);
  job.queue = &queue;
}

void Core::State::dequeue(Job& job) {
  if (job.queue == nullptr) return;
  if (reservation.job == &job) release_reservation();
  DemandQueue& queue = *std::exchange(job.queue, nullptr);
  Owner& owner = owners[job.owner];
  auto jobs_of_owner = queue.owners.find({owner.turn, job.owner});
  jobs_of_owner->second.erase(job.order());
  if (!jobs_of_owner->second.empty()) return;
  queue.owners.erase(jobs_of_owner);
  owner.queues.erase(std::find(owner.queues.begin(), owner.queues.end(), &queue));
  if (queue.owners.empty()) queues.erase(Demand(queue.demand));
}

void Core::State::reindex(Worker& worker) {
  if (restoring) return;
  if (!worker.takes_leases()) return unindex(worker);
  const int64_t free = unreserved(worker), spare = worker.spare_milli();
  const bool back = !worker.indexed;
  const bool grew = back || free > worker.indexed_free || spare > worker.indexed_spare;
  if (!worker.indexed || free != worker.indexed_free || spare != worker.indexed_spare) {
    leave_index(worker);
    worker.indexed = true;
    worker.indexed_free = free;
    worker.indexed_spare = spare;
    worker.indexed_room = worker.info.room;
    rooms[""].by_free.insert({-free, worker.info.id});
    rooms[""].by_spare.insert({-spare, worker.info.id});
    if (!worker.indexed_room.empty()) {
      rooms[worker.indexed_room].by_free.insert({-free, worker.info.id});
      rooms[worker.indexed_room].by_spare.insert({-spare, worker.info.id});
    }
  }
  if (back) {
    for (auto& [demand, queue] : queues) queue.impossible = false;
  }
  if (grew) unblock(worker);
}

// With one worker fewer a gang may have to be content with others.
void Core::State::unindex(Worker& worker) {
  if (!worker.indexed) return;
  leave_index(worker);
  reservation.due = true;
  for (auto& [demand, queue] : queues) {
    if (demand.gang > 0 && !queue.impossible) queue.blocked = false;
  }
}

void Core::State::leave_index(Worker& worker) {
  if (!worker.indexed) return;
  worker.indexed = false;
  const auto remove = [&](const std::string& name) {
    auto room = rooms.find(name);
    room->second.by_free.erase({-worker.indexed_free, worker.info.id});
    room->second.by_spare.erase({-worker.indexed_spare, worker.info.id});
    if (room->second.by_free.empty()) rooms.erase(room);
  };
  remove("");
  if (!worker.indexed_room.empty()) remove(worker.indexed_room);
}

void Core::State::unblock(const Worker& worker) {
  reservation.due = true;
  for (auto& [demand, queue] : queues) {
    if (queue.blocked && !queue.impossible && has_room(worker, demand)) queue.blocked = false;
  }
}

void Core::State::release_backoffs() {
  size_t budget = 4 * std::max<size_t>(config.max_placements_per_step, 1);
  while (!backoffs.empty() && backoffs.begin()->not_before <= now && budget-- > 0) {
    const Backoff due = *backoffs.begin();
    backoffs.erase(backoffs.begin());
    Job& job = jobs.at(due.job);
    if (job.gang) {
      job.gang->not_before = kNever;
    } else {
      job.active.at(due.rank).not_before = kNever;
      job.ready.insert(due.rank);
    }
    requeue(job);
  }
}

}  // namespace pesc::coordinator
