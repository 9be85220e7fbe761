#include "runtime/worker/containment/cpu_sets.h"

#include <algorithm>

namespace pesc::containment {

CpuSets::CpuSets(std::vector<int> cores) {
  for (int core : cores) cores_.push_back({core});
}

std::vector<int> CpuSets::take(uint32_t cpus_milli) {
  const size_t wanted = (cpus_milli + 999u) / 1000;
  if (wanted == 0 || wanted >= cores_.size()) return {};
  std::vector<Core*> order;
  for (Core& core : cores_) order.push_back(&core);
  std::stable_sort(order.begin(), order.end(),
                   [](const Core* a, const Core* b) { return a->load < b->load; });
  std::vector<int> taken;
  for (size_t i = 0; i < wanted; ++i) {
    order[i]->load += share(cpus_milli, wanted);
    taken.push_back(order[i]->number);
  }
  std::sort(taken.begin(), taken.end());
  return taken;
}

void CpuSets::give_back(const std::vector<int>& cores, uint32_t cpus_milli) {
  for (Core& core : cores_) {
    if (std::find(cores.begin(), cores.end(), core.number) != cores.end()) {
      core.load -= std::min(core.load, share(cpus_milli, cores.size()));
    }
  }
}

}  // namespace pesc::containment
