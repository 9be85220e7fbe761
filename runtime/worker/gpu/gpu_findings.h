// What `pesc doctor` says of this machine's GPUs.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "runtime/worker/gpu/reading.h"

namespace pesc::worker {

struct GpuFinding {
  bool good = false;
  std::string subject, text;
};

// Asks NVIDIA's library once; the driver first, then each GPU. A driver that hangs is waited for
// `limit_ms`.
std::vector<GpuFinding> find_gpus(const std::string& nvml_library, uint64_t limit_ms);
std::vector<GpuFinding> find_gpus(std::unique_ptr<GpuProbe> probe, uint64_t limit_ms);

}  // namespace pesc::worker
