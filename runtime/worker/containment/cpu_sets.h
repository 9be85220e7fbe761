// Which cores an attempt is bound to where no cgroup bounds its share of them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace pesc::containment {

class CpuSets {
 public:
  // The cores there are to hand out.
  explicit CpuSets(std::vector<int> cores);

  // As many cores as it takes, those with the least on them, the lowest first. Empty: all of them.
  std::vector<int> take(uint32_t cpus_milli);
  void give_back(const std::vector<int>& cores, uint32_t cpus_milli);

 private:
  struct Core {
    int number;
    uint64_t load = 0;
  };
  static uint64_t share(uint32_t cpus_milli, size_t cores) { return cpus_milli / cores; }

  std::vector<Core> cores_;
};

}  // namespace pesc::containment
