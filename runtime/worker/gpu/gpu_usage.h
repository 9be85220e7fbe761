// What each attempt has had of GPU memory: samples in, the most that was seen out.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "model/ids.h"
#include "runtime/worker/gpu/gpu_table.h"

namespace pesc::worker {

struct GpuUse {
  std::map<std::string, uint64_t> now_bytes;  // by GPU
  // The most that was seen on one GPU at one time: what placement asks of a GPU. 0: never seen,
  // the attempt was shorter than a sample or used none.
  uint64_t peak_bytes = 0;
  bool operator==(const GpuUse&) const = default;
};

class GpuUsage {
 public:
  void begin(const AttemptKey& key) { uses_.try_emplace(key); }
  void sample(const GpuSnapshot& snapshot);
  const GpuUse* find(const AttemptKey& key) const;
  uint64_t end(const AttemptKey& key);  // its peak
  const std::map<AttemptKey, GpuUse>& all() const { return uses_; }

 private:
  std::map<AttemptKey, GpuUse> uses_;
};

}  // namespace pesc::worker
