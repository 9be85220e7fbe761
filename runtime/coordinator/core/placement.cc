// Which rank goes to which worker. One placement costs a few look-ups in ordered sets, however many
// jobs wait; it grows with the number of different demands (room, cpus, memory) only.
#include <algorithm>
#include <utility>

#include "runtime/coordinator/core/state.h"

namespace pesc::coordinator {

void Core::State::place() {
  placement_due = false;
  being_filled = {};
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
    if (reservation.job == nullptr && reserve_for_owed(*queue)) continue;
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
    if (need_version(job) != job.need_version) {  // its program is known better now
      requeue(job);
      continue;
    }
    const Choice choice = choose_rank(job, queue->demand);
    if (choice.worker == nullptr) {
      queue->blocked = true;
      hurry_asides(queue->demand);
      hurry_gpu_asides(queue->demand);
      continue;
    }
    const std::string owner = job.owner;
    Need need = queue->demand.need;
    need.gpu_alone = need.gpu_alone || choice.gpu_alone;
    need.least_gpu_bytes = std::max(need.least_gpu_bytes, choice.least_gpu_bytes);
    lease(job, choice.rank, job.ranks.attempts(choice.rank) + 1, *choice.worker, need);
    serve(owner);
    --budget;
    // Who has found room elsewhere is owed less now, or nothing.
    if (reservation.job != nullptr && !reservation.job->gang && reservation.job->owner == owner) {
      release_reservation();
    }
  }
}

// A rank that has been tried waits for another worker than its last one while something else of the
// job can go there: on a worker that is at fault it would only lose its next try as well.
Core::State::Choice Core::State::choose_rank(Job& job, const Demand& demand) {
  const Choice ready = choose_ready(job, demand);
  const bool elsewhere = ready.worker != nullptr &&
                         job.active.at(ready.rank).last_worker == ready.worker->info.id &&
                         rooms.at(demand.room).by_free.size() > 1;
  if (ready.worker != nullptr && !elsewhere) return ready;
  if (job.ranks.unclaimed() > 0) {
    return {job.ranks.next_unclaimed(), choose_for_new(job, demand)};
  }
  if (job.ranks.fresh() > 0) return {job.ranks.started(), choose_for_new(job, demand)};
  return ready;
}

// A rank of which nothing is known. While there are so many that they fill up all the others as
// well, one worker is filled after the other: it comes to the same, and each is told by one
// message. But who has the job's inputs comes first: other jobs' ranks may fill up the rest.
Worker* Core::State::choose_for_new(const Job& job, const Demand& demand) {
  Worker* last = find_worker(being_filled.worker);
  if (last != nullptr && !goes_on(*last, job, demand)) last = nullptr;
  if (last != nullptr && holds_all(job.inputs, last->info.id)) return last;
  if (Worker* holder = choose_holder(job, demand, WorkerId())) return holder;
  if (last != nullptr) return last;
  Worker* worker = choose_any(demand, WorkerId());
  being_filled = {};
  if (worker == nullptr) return nullptr;
  being_filled.worker = worker->info.id;
  if (const auto& loads = rooms.at(demand.room).by_load; !loads.empty()) {
    being_filled.load = loads.begin()->first;
  }
  return worker;
}

// Ahead of time only up to half of each one's share: by then some have ended theirs sooner.
bool Core::State::goes_on(const Worker& worker, const Job& job, const Demand& demand) const {
  const auto room = rooms.find(demand.room);
  const int64_t cpus = demand.need.cpus_milli;
  if (room == rooms.end() || !worker.indexed || !has_room(worker, demand)) return false;
  const int64_t waiting = int64_t(job.ranks.unclaimed() + job.ranks.fresh()) * cpus;
  const int64_t beyond = waiting - room->second.free_milli;
  if (beyond < 0) return false;
  if (unreserved(worker) >= cpus) return true;
  const int64_t rounds = beyond / std::max<int64_t>(2 * room->second.load_milli, 1);
  const int64_t least = being_filled.load / 1000;
  return worker.ahead_load() < std::min<int64_t>(least + rounds, demand.ahead) * 1000;
}

// Of those that were tried. One that needs its GPUs for itself may have to wait longer than others.
Core::State::Choice Core::State::choose_ready(Job& job, const Demand& demand) {
  constexpr int kLook = 16, kPass = 1'000;
  Choice second_choice;
  int looked = 0, passed = 0;
  const ActiveRank* in_vain = nullptr;  // one that waits for a larger worker
  for (uint32_t rank : job.ready) {
    const ActiveRank& active = job.active.at(rank);
    if (in_vain != nullptr && active.more_memory_than >= in_vain->more_memory_than &&
        active.more_gpu_than >= in_vain->more_gpu_than && ++passed < kPass) {
      continue;
    }
    const bool alone = active.gpu_alone && !demand.need.gpu_alone;
    Worker* worker = nullptr;
    uint64_t least_gpu = 0;
    if (alone || active.more_memory_than > 0 || active.more_gpu_than > 0) {
      Demand own = demand;
      own.need.gpu_alone = own.need.gpu_alone || alone;
      raise_least(job, active, own.need);
      least_gpu = own.need.least_gpu_bytes;
      worker = choose_worker(job, own, active.last_worker);
      const bool larger = active.more_memory_than > 0 || active.more_gpu_than > 0;
      if (worker == nullptr && larger) in_vain = &active;
    } else {
      worker = choose_worker(job, demand, active.last_worker);
      if (worker == nullptr) break;
    }
    const Choice choice{rank, worker, alone, least_gpu};
    if (worker != nullptr && worker->info.id != active.last_worker) return choice;
    if (worker != nullptr && second_choice.worker == nullptr) second_choice = choice;
    if (++looked == kLook) break;
  }
  return second_choice;
}

// The owner that has the fewest cpus; of its jobs the one that was submitted first.
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

Worker* Core::State::choose_worker(const Job& job, const Demand& demand, WorkerId avoid) {
  Worker* holder = choose_holder(job, demand, avoid);
  return holder != nullptr ? holder : choose_any(demand, avoid);
}

Worker* Core::State::choose_any(const Demand& demand, WorkerId avoid) {
  auto room = rooms.find(demand.room);
  if (room == rooms.end()) return nullptr;
  Worker* worker = choose_free(room->second, demand, avoid);
  if (worker != nullptr || demand.ahead == 0) return worker;
  return choose_ahead(room->second, demand, avoid);
}

Worker* Core::State::choose_free(const RoomIndex& room, const Demand& demand, WorkerId avoid) {
  Worker* second_choice = nullptr;
  for (const auto& [negated_free, id] : room.by_free) {
    if (-negated_free < int64_t(demand.need.cpus_milli)) break;
    Worker& worker = workers.at(id);
    // A rank larger than its whole worker would wait there for ever.
    if (demand.need.cpus_milli > worker.info.cpus_milli) continue;
    // Wide ranks that wait there ahead of time leave cpus free that are not to be had.
    if (!worker.has_spare(demand)) continue;
    if (!worker.claim_for(demand.need)) continue;
    if (id != avoid) return &worker;
    second_choice = &worker;
  }
  return second_choice;
}

bool Core::State::has_room(const Worker& worker, const Demand& demand) const {
  if (!demand.room.empty() && demand.room != worker.info.room) return false;
  const int64_t cpus = demand.need.cpus_milli;
  if (cpus > worker.info.cpus_milli) return false;
  if (demand.gang > 0) return true;  // some of it, perhaps all
  return worker.has_spare(demand) && (may_go_ahead(worker, demand) || unreserved(worker) >= cpus) &&
         worker.claim_for(demand.need).has_value();
}

int64_t Core::State::free_for(const Worker& worker) const {
  return worker.free_milli() + (bug == PlantedBug::overcommit_worker ? 1000 : 0);
}

// What anyone but the gang with the reservation may have.
int64_t Core::State::unreserved(const Worker& worker) const {
  return free_for(worker) - int64_t(worker.reserved_milli);
}

std::optional<Claim> Worker::claim_for(const Need& need) const {
  if (!may_be_on(info.id, need)) return std::nullopt;
  const bool scarce = need.gpus > 0 || need.disk_bytes > 0 || !need.named.empty();
  if (scarce && reserved_milli > 0) return std::nullopt;
  return claim(capacity(), use, need, reserved_memory);
}

LeaseGrant& Core::State::lease(Job& job, uint32_t rank, uint32_t attempt, Worker& worker,
                               const Need& need, bool second) {
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
  // A gang's place may be reserved for it: nobody else's reservation, as the caller has seen.
  Claim given = claim(worker.capacity(), worker.use, need, 0).value_or(Claim());
  if (bug == PlantedBug::first_gpu_always && !given.gpus.empty()) {
    given.gpus.front() = worker.info.gpus.front().uuid;
  }
  const uint64_t limit = memory_limit(*job.spec, given, worker.info.memory_bytes);
  const std::vector<std::string> gpus = given.gpus;
  const uint64_t gpu_limit = gpu_memory_limit(given);
  emit(AttemptLeased{key, worker.info.id, from.number, second, base_ms, std::move(given)});
  SendUpdate& update = update_for(worker);
  update.leases.push_back({key, job.spec, from});
  update.leases.back().memory_limit_bytes = limit;
  update.leases.back().gpus = gpus;
  update.leases.back().gpu_memory_limit_bytes = gpu_limit;
  auto lease = worker.leases.find(key);
  if (lease != worker.leases.end()) lease->second.update = update.number;
  return update.leases.back();
}

Need Core::State::need_of(const Job& job) const {
  Need need = coordinator::need_of(*job.spec, job.learned);
  need.not_on.assign(job.build_failed_on.begin(), job.build_failed_on.end());
  // When nothing else of it waits, the queue must wait for what this rank waits for.
  const bool others =
      need.gpus == 0 || job.ready.empty() || job.ranks.unclaimed() > 0 || job.ranks.fresh() > 0;
  if (!others && std::all_of(job.ready.begin(), job.ready.end(),
                             [&](uint32_t rank) { return job.active.at(rank).gpu_alone; })) {
    need.gpu_alone = true;
  }
  const bool all_wait = job.ranks.unclaimed() == 0 && job.ranks.fresh() == 0;
  if (all_wait && job.learned != nullptr && is_starved(*job.learned)) raise_least_of_all(job, need);
  ask_for_least(job, need);
  if (bug == PlantedBug::ignore_named) need.named.clear();
  if (bug == PlantedBug::share_exclusive) need.gpu_alone = false;
  return need;
}

// What is known of a program is kept when its jobs are gone: it comes again.
void Core::State::learn_of(Job& job) {
  if (job.learned != nullptr) return;
  if (learned.size() >= kMaxPrograms) {
    std::erase_if(learned, [](const auto& entry) { return entry.second.jobs == 0; });
  }
  job.learned = &learned[program_key(*job.spec)];
  ++job.learned->jobs;
  if (!restoring) job.inputs = inputs.of(*job.spec);
}

void Core::State::forget_program(Job& job) {
  if (job.learned == nullptr) return;
  --std::exchange(job.learned, nullptr)->jobs;
  inputs.forget(job.inputs);
}

// Of a job that is erased: its attempts would not say it again after a restart.
void Core::State::keep_learned(const Job& job) {
  const Digest key = program_key(*job.spec);
  const auto known = learned.find(key);
  if (known == learned.end()) return;
  const Learned& sizes = known->second;
  if (sizes.memory_bytes == 0 && sizes.gpu_memory_bytes == 0 && !sizes.gpu_known) return;
  emit(ProgramLearned{key, sizes.memory_bytes, sizes.gpu_memory_bytes, sizes.gpu_known});
}

// Puts the job where it belongs after any change of its ranks.
void Core::State::requeue(Job& job) {
  if (restoring) return;
  watch_tail(job);
  if (!job.placeable()) return dequeue(job);
  // What has a GPU is not worth waiting for ahead of time.
  const uint32_t ahead = job.gang || job.spec->resources.gpus_milli != 0 ? 0 : times_ahead(job);
  const bool known = job.need_version == need_version(job) && !is_starved(*job.learned) &&
                     job.spec->resources.gpus_milli == 0;
  if (job.queue != nullptr && job.queue->demand.ahead == ahead && known) return;
  Need need = need_of(job);
  job.need_version = need_version(job);
  if (job.queue != nullptr && job.queue->demand.ahead == ahead && job.queue->demand.need == need) {
    return;
  }
  dequeue(job);
  const Demand demand{job.spec->room, std::move(need), ahead, job.gang ? job.ranks.size() : 0,
                      job.gang && job.spec->same_worker};
  DemandQueue& queue = queues[demand];
  if (queue.owners.empty()) queue.demand = demand;
  Owner& owner = owners[job.owner];
  auto& jobs_of_owner = queue.owners[{owner.used_milli, owner.served, job.owner}];
  if (jobs_of_owner.empty()) owner.queues.push_back(&queue);
  jobs_of_owner.emplace(job.turn(), &job);
  job.queue = &queue;
}

void Core::State::dequeue(Job& job) {
  if (job.queue == nullptr) return;
  if (reservation.job == &job) release_reservation();
  DemandQueue& queue = *std::exchange(job.queue, nullptr);
  Owner& owner = owners[job.owner];
  auto jobs_of_owner = queue.owners.find({owner.used_milli, owner.served, job.owner});
  jobs_of_owner->second.erase(job.turn());
  if (!jobs_of_owner->second.empty()) return;
  queue.owners.erase(jobs_of_owner);
  owner.queues.erase(std::find(owner.queues.begin(), owner.queues.end(), &queue));
  if (queue.owners.empty()) queues.erase(Demand(queue.demand));
}

template <typename F>
void Core::State::for_rooms_of(const Worker& worker, const F& each) {
  each(rooms[""]);
  if (!worker.indexed_room.empty()) each(rooms[worker.indexed_room]);
}

void Core::State::reindex(Worker& worker) {
  if (restoring) return;
  note_sizes(worker);
  if (!worker.takes_leases()) return unindex(worker);
  const int64_t free = unreserved(worker), load = worker.ahead_load();
  const bool back = !worker.indexed;
  const bool moves = !worker.in_load_index && !is_stuck(worker);  // something has ended there
  const bool grew = back || moves || free > worker.indexed_free || load < worker.indexed_load;
  if (back || moves || free != worker.indexed_free || load != worker.indexed_load) {
    leave_index(worker);
    worker.indexed = true;
    worker.indexed_free = free;
    worker.indexed_load = load;
    worker.indexed_room = worker.info.room;
    worker.in_load_index = !is_stuck(worker);
    for_rooms_of(worker, [&](RoomIndex& room) {
      room.by_free.insert({-free, worker.info.id});
      room.free_milli += std::max<int64_t>(free, 0);
      if (!worker.in_load_index) return;
      room.by_load.insert({load, worker.info.id});
      room.load_milli += worker.info.cpus_milli;
    });
  }
  if (back) {
    for (auto& [demand, queue] : queues) queue.impossible = queue.nowhere = false;
  }
  if (grew) unblock(worker);
}

// With one worker fewer a gang may have to be content with others.
void Core::State::unindex(Worker& worker) {
  note_sizes(worker);
  if (!worker.indexed) return;
  leave_index(worker);
  reservation.due = true;
  for (auto& [demand, queue] : queues) {
    if (demand.gang > 0 && !queue.impossible) queue.blocked = false;
  }
}

void Core::State::leave_index(Worker& worker) {
  if (!worker.indexed) return;
  leave_load_index(worker);
  worker.indexed = false;
  for_rooms_of(worker, [&](RoomIndex& room) {
    room.by_free.erase({-worker.indexed_free, worker.info.id});
    room.free_milli -= std::max<int64_t>(worker.indexed_free, 0);
  });
  for (const std::string& name : {std::string(), worker.indexed_room}) {
    if (const auto room = rooms.find(name); room != rooms.end() && room->second.by_free.empty()) {
      rooms.erase(room);
    }
  }
}

void Core::State::leave_load_index(Worker& worker) {
  if (!std::exchange(worker.in_load_index, false)) return;
  for_rooms_of(worker, [&](RoomIndex& room) {
    room.by_load.erase({worker.indexed_load, worker.info.id});
    room.load_milli -= worker.info.cpus_milli;
  });
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
