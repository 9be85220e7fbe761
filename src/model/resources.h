// What a rank needs and what a worker has.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace pesc {

// A compute capability as one number that orders like it: 8.6 is 806, 10.0 is 1000.
using ComputeCapability = uint32_t;

// One GPU of a worker, or one MIG device: as its driver tells, at one moment.
struct Gpu {
  std::string uuid;  // what CUDA_VISIBLE_DEVICES takes: "GPU-…" or "MIG-…"
  std::string name;
  std::string driver;  // version
  ComputeCapability compute_capability = 0;
  uint64_t memory_bytes = 0;
  uint64_t taken_bytes = 0;     // of these, by processes that are not PESC's
  bool reports_memory = false;  // of each process; where it does not, one rank at a time
  std::string trouble;          // empty: healthy; else one line for `pesc workers`
  bool operator==(const Gpu&) const = default;
};

// An amount of something that a worker's configuration declares, in thousandths.
using NamedResources = std::vector<std::pair<std::string, uint64_t>>;  // sorted by name

// What one rank needs. 0 means "not stated".
struct Resources {
  uint32_t cpus_milli = 1000;
  uint64_t memory_bytes = 0;
  uint64_t disk_bytes = 0;
  uint32_t gpus_milli = 0;  // below 1000: part of one; else whole ones
  uint64_t gpu_memory_bytes = 0;
  ComputeCapability min_compute_capability = 0;
  NamedResources named;
  auto operator<=>(const Resources&) const = default;
};

}  // namespace pesc
