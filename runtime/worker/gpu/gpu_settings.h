// What a worker's configuration says of GPUs.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/worker/gpu/process_tree.h"

namespace pesc::worker {

struct GpuSettings {
  bool none = false;              // offers none, and asks no driver
  std::vector<std::string> only;  // UUIDs; empty: all
  std::string nvml_library;       // empty: as the dynamic linker finds it
  // While ranks may use GPUs, and for a moment after; what lives shorter is not measured.
  uint64_t busy_interval_ms = 250;
  uint64_t idle_interval_ms = 5'000;
  uint64_t full_interval_ms = 5'000;  // between readings of temperature, ECC and the like
  uint64_t answer_limit_ms = 10'000;  // after this, the driver hangs
  bool sees_all_processes = sees_the_machines_processes();
};

// "auto", "none", or UUIDs; says what is wrong with it.
absl::StatusOr<GpuSettings> parse_gpu_settings(const std::vector<std::string>& words);

}  // namespace pesc::worker
