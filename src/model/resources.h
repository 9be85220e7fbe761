// What a rank needs and what a worker has.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

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
  uint64_t ranks_bytes = 0;     // by PESC's ranks, as its driver tells
  bool operator==(const Gpu&) const = default;
};

// An amount of something that a worker's configuration declares, in thousandths.
using NamedResources = std::vector<std::pair<std::string, uint64_t>>;  // sorted by name, no twice
inline constexpr uint64_t kMaxNamedMilli = 1'000'000'000'000;
// Letters, digits, '_', '-' and '.', 1 to 64 of them.
bool is_resource_name(std::string_view name);
// "licence=2", "bandwidth=0.5": a name and an amount, 1 when it is left out.
absl::StatusOr<std::pair<std::string, uint64_t>> parse_named_resource(std::string_view text);
// "8.6" -> 806.
absl::StatusOr<ComputeCapability> parse_compute_capability(std::string_view text);
std::string format_compute_capability(ComputeCapability capability);  // "8.6"
// Thousandths as people write them: 500 is "0.5", 2000 is "2".
std::string format_milli(uint64_t milli);

// What one rank needs. 0 means "not stated".
struct Resources {
  uint32_t cpus_milli = 1000;
  uint64_t memory_bytes = 0;
  uint64_t disk_bytes = 0;
  // Below 1000: one GPU, of which it computes on this part; else this many, in whole ones. Without
  // gpu_exclusive ranks share GPUs as far as their memory goes.
  uint32_t gpus_milli = 0;
  uint64_t gpu_memory_bytes = 0;  // on each of them
  bool gpu_exclusive = false;     // shares its GPUs with nobody
  ComputeCapability min_compute_capability = 0;
  NamedResources named;
  auto operator<=>(const Resources&) const = default;
};

// What an attempt was given of its worker beside cpus: counted against it until it ends.
struct Claim {
  uint64_t memory_bytes = 0;
  uint64_t gpu_memory_bytes = 0;  // on each of its GPUs
  bool gpu_alone = false;         // nothing else may be on them
  std::vector<std::string> gpus;  // uuids
  bool operator==(const Claim&) const = default;
};

}  // namespace pesc
