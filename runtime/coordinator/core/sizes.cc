// Programs that were too large for where they were. Machines differ: what states no memory and had
// all that a worker has, or a GPU for itself, goes on where there is more. A rank asks for more
// than that; others of its program for at least the smallest peak of those that succeeded: not for
// the largest, since one rank that leaks would make all others wait for the largest machine.
//
// Both only as long as a worker that is there has so much (also while its owner has it): a rank
// tries what there is rather than to wait for ever. Finding that out looks at each worker, and is
// done only for programs that were too large for one.
#include <algorithm>

#include "runtime/coordinator/core/state.h"

namespace pesc::coordinator {

void Core::State::note_sizes(Worker& worker) {
  const bool there = worker.attached && !worker.draining && !worker.paused;
  if (worker.counts_in_sizes == there) return;
  worker.counts_in_sizes = there;
  sizes_changed();
}

// What was asked for may be there now, or not any more.
void Core::State::sizes_changed() {
  ++sizes_epoch;
  for (auto& [demand, queue] : queues) {
    if (demand.need.least_memory_bytes == 0 && demand.need.least_gpu_bytes == 0) continue;
    queue.blocked = queue.nowhere = queue.impossible = false;
  }
}

// Of what the job's ranks are placed by: grows when that may have changed.
uint64_t Core::State::need_version(const Job& job) const {
  return job.learned->version + (is_starved(*job.learned) ? sizes_epoch : 0);
}

bool Core::State::anybody_holds(const Job& job, const Need& need) const {
  return std::any_of(workers.begin(), workers.end(), [&](const auto& entry) {
    const Worker& worker = entry.second;
    return worker.counts_in_sizes && need.cpus_milli <= worker.info.cpus_milli &&
           (job.spec->room.empty() || job.spec->room == worker.info.room) &&
           could_hold(worker, need);
  });
}

bool Core::State::has_larger(const Job& job, uint64_t memory_bytes, uint64_t gpu_bytes) const {
  Need need = coordinator::need_of(*job.spec, job.learned);
  need.not_on.assign(job.build_failed_on.begin(), job.build_failed_on.end());
  if (memory_bytes > 0) need.least_memory_bytes = memory_bytes + 1;
  if (gpu_bytes > 0) need.least_gpu_bytes = gpu_bytes + 1;
  return anybody_holds(job, need);
}

void Core::State::ask_for_least(const Job& job, Need& need) const {
  if (need.least_memory_bytes == 0 && need.least_gpu_bytes == 0) return;
  if (!anybody_holds(job, need)) need.least_memory_bytes = need.least_gpu_bytes = 0;
}

void Core::State::raise_least(const Job& job, const ActiveRank& rank, Need& need) const {
  Need more = need;
  if (rank.more_memory_than > 0) {
    more.least_memory_bytes = std::max(need.least_memory_bytes, rank.more_memory_than + 1);
  }
  if (rank.more_gpu_than > 0) {
    more.least_gpu_bytes = std::max(need.least_gpu_bytes, rank.more_gpu_than + 1);
  }
  if (more != need && anybody_holds(job, more)) need = std::move(more);
}

// Nothing else of the job waits: its queue waits for what the least of them waits for.
void Core::State::raise_least_of_all(const Job& job, Need& need) const {
  ActiveRank least;
  bool first = true;
  for (uint32_t rank : job.ready) {
    const ActiveRank& active = job.active.at(rank);
    if (active.more_memory_than == 0 && active.more_gpu_than == 0) return;
    least.more_memory_than =
        first ? active.more_memory_than : std::min(least.more_memory_than, active.more_memory_than);
    least.more_gpu_than =
        first ? active.more_gpu_than : std::min(least.more_gpu_than, active.more_gpu_than);
    first = false;
  }
  raise_least(job, least, need);
}

void Core::State::note_too_small(Job& job, ActiveRank& rank, const AttemptEnded& record,
                                 const Claim& claim, const Worker& worker) {
  const AttemptOutcome& outcome = record.outcome;
  const uint64_t gpu_limit = gpu_memory_limit(claim);
  const bool of_gpu = gpu_limit > 0 && outcome.peak_gpu_bytes > gpu_limit;
  bool* starved = nullptr;
  if (outcome.reason == EndReason::outgrew_estimate && !of_gpu &&
      had_all_memory(claim, worker.info.memory_bytes)) {
    rank.more_memory_than = std::max(rank.more_memory_than, worker.info.memory_bytes);
    if (job.learned != nullptr) starved = &job.learned->memory_starved;
  } else if (outcome.reason == EndReason::gpu_out_of_memory && claim.gpu_alone) {
    rank.more_gpu_than = std::max(rank.more_gpu_than, smallest_gpu(worker, claim));
    if (job.learned != nullptr) starved = &job.learned->gpu_starved;
  }
  if (starved == nullptr || *starved) return;
  *starved = true;
  ++job.learned->version;
}

// Of those that it had: that one was too small.
uint64_t smallest_gpu(const Worker& worker, const Claim& claim) {
  uint64_t smallest = 0;
  for (const Gpu& gpu : worker.info.gpus) {
    if (std::find(claim.gpus.begin(), claim.gpus.end(), gpu.uuid) == claim.gpus.end()) continue;
    if (smallest == 0 || gpu.memory_bytes < smallest) smallest = gpu.memory_bytes;
  }
  return smallest;
}

}  // namespace pesc::coordinator
