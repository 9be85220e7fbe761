// What a GPU driver says at one moment, before anything of it is believed.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace pesc::worker {

struct ProcessReading {
  uint32_t pid = 0;
  std::optional<uint64_t> bytes;  // nothing: the driver cannot tell
  bool operator==(const ProcessReading&) const = default;
};

struct MemoryReading {
  uint64_t total_bytes = 0;  // what programs can have: without the driver's own
  uint64_t used_bytes = 0;   // of these
};

enum class GpuSharing : uint8_t { shared, one_process, prohibited };  // its compute mode

struct GpuReading {
  std::string uuid;  // empty: the driver could not even name it
  std::string name;
  bool mig = false;  // a part of a GPU
  int major = 0, minor = 0;
  // Before and after its processes were asked for: what was freed or allocated meanwhile shows as
  // the difference.
  std::optional<MemoryReading> memory, memory_after;
  std::optional<std::vector<ProcessReading>> processes;  // nothing: the driver does not list them
  GpuSharing sharing = GpuSharing::shared;
  std::vector<uint64_t> xids;  // the kernel driver's error events since the last reading
  std::string failure;         // what could not be read, and why

  // In full readings only.
  std::optional<uint32_t> temperature_c, utilization_percent;
  std::optional<uint64_t> ecc_uncorrected;  // since the driver was loaded
};

struct DriverReading {
  std::string driver;               // version
  std::vector<GpuReading> gpus;     // a GPU that is cut up is not among them: its MIG devices are
  std::vector<std::string> cut_up;  // UUIDs of those
  std::vector<std::string> notes;   // for the log: what was left out, and why
};

// The seam between the driver's library and everything that thinks.
class GpuProbe {
 public:
  virtual ~GpuProbe() = default;
  // May block for long: never called on a loop's thread. A quick reading has memory and processes,
  // a full one the health as well. Fails with NotFound where there is no driver, and with
  // Unavailable when there is one that does not serve; the next call tries from the beginning.
  virtual absl::StatusOr<DriverReading> read(bool full) = 0;
};

}  // namespace pesc::worker
