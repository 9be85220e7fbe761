#include "runtime/worker/gpu/gpu_usage.h"

#include <algorithm>

namespace pesc::worker {

void GpuUsage::sample(const GpuSnapshot& snapshot) {
  for (auto& [key, use] : uses_) use.now_bytes.clear();
  for (const GpuState& state : snapshot.gpus) {
    for (const auto& [key, bytes] : state.attempt_bytes) {
      auto at = uses_.find(key);
      if (at == uses_.end()) continue;
      at->second.now_bytes[state.gpu.uuid] = bytes;
      at->second.peak_bytes = std::max(at->second.peak_bytes, bytes);
    }
  }
}

const GpuUse* GpuUsage::find(const AttemptKey& key) const {
  auto at = uses_.find(key);
  return at == uses_.end() ? nullptr : &at->second;
}

uint64_t GpuUsage::end(const AttemptKey& key) {
  auto at = uses_.find(key);
  if (at == uses_.end()) return 0;
  const uint64_t peak = at->second.peak_bytes;
  uses_.erase(at);
  return peak;
}

}  // namespace pesc::worker
