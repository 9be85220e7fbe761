// Which workers a rank waits for whose size was learned: those that have room for it when nothing
// else is there. On a smaller one it would take all there is, outgrow it, and go elsewhere after
// all. Only where none of those that take work could ever hold it, the largest must do.
#include <algorithm>
#include <utility>

#include "runtime/coordinator/core/state.h"

namespace pesc::coordinator {
namespace {

// Machines that were bought alike differ a little in what they have left.
uint64_t nearly(uint64_t bytes, uint64_t wanted) {
  return bytes < wanted ? bytes - bytes / 16 : bytes;
}

bool is_learned(const Need& need) { return need.memory_learned || need.gpu_memory_learned; }

}  // namespace

// Gangs are placed by what is stated: with others of them in the way, one might never fit again.
Demand Core::State::preferring(Demand demand) const {
  Need& need = demand.need;
  need.least_memory_bytes = need.least_gpu_memory_bytes = 0;
  if (demand.gang > 0 || !is_learned(need)) return demand;
  const Size all = wanted_size(need);
  Size most;
  for (const auto& [id, worker] : workers) {
    if (!worker.serves || worker.info.cpus_milli < need.cpus_milli) continue;
    if (!demand.room.empty() && demand.room != worker.info.room) continue;
    if (!could_hold(worker, need)) continue;
    most = std::max(most, size_there(worker.capacity(), need));
    if (most == all) break;
  }
  need.least_memory_bytes = nearly(most.memory_bytes, all.memory_bytes);
  need.least_gpu_memory_bytes = nearly(most.gpu_memory_bytes, all.gpu_memory_bytes);
  return demand;
}

// All workers are looked at when there are others than before, and not at each placement.
const Demand& Core::State::wanted(DemandQueue& queue) {
  if (!is_learned(queue.demand.need)) return queue.demand;
  const uint64_t version = fleet_version + (queue.demand.need.gpus > 0 ? gpus_version : 0);
  if (queue.version != version) {
    queue.preferring = preferring(queue.demand);
    queue.version = version;
  }
  return queue.preferring;
}

void Core::State::note_service(Worker& worker) {
  if (worker.serves == worker.in_service()) return;
  worker.serves = worker.in_service();
  fleet_changed();
}

void Core::State::fleet_changed() {
  ++fleet_version;
  unblock_learned(false);
}

void Core::State::gpus_changed() {
  ++gpus_version;
  unblock_learned(true);
}

// Without the largest worker, another is.
void Core::State::unblock_learned(bool of_gpus_alone) {
  for (auto& [demand, queue] : queues) {
    if (demand.gang > 0 || !is_learned(demand.need)) continue;
    if (!of_gpus_alone || demand.need.gpus > 0) queue.blocked = queue.nowhere = false;
  }
}

}  // namespace pesc::coordinator
