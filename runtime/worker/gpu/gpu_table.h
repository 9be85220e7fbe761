// What a worker makes of its driver's readings: which GPUs there are, what of their memory is
// whose, and which of them are not to be trusted. Pure: readings in, a snapshot out.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "model/ids.h"
#include "model/resources.h"
#include "runtime/worker/gpu/process_tree.h"
#include "runtime/worker/gpu/reading.h"

namespace pesc::worker {

// An attempt that may use GPUs, and the process above all of its own.
struct AttemptOnGpus {
  AttemptKey key;
  uint32_t root_pid = 0;
  std::vector<std::string> gpus;  // UUIDs
};

struct GpuProcess {
  uint32_t pid = 0;
  std::optional<uint64_t> bytes;      // nothing: not known
  std::optional<AttemptKey> attempt;  // nothing: somebody else's
  bool operator==(const GpuProcess&) const = default;
};

struct GpuState {
  Gpu gpu;
  uint64_t used_bytes = 0;  // by everyone
  std::vector<GpuProcess> processes;
  // What each attempt has on it now. Where the driver does not report it and one attempt is alone
  // there: what is in use beyond what was before.
  std::map<AttemptKey, uint64_t> attempt_bytes;
  std::string one_at_a_time;  // why `reports_memory` is false
  std::optional<uint32_t> temperature_c, utilization_percent;
  std::optional<uint64_t> ecc_uncorrected;
  std::map<uint64_t, uint64_t> xids;  // error events seen: number, how often
  bool operator==(const GpuState&) const = default;
};

struct GpuSnapshot {
  std::string driver;
  std::string trouble;  // why there is nothing to be had from the driver
  std::vector<GpuState> gpus;
  std::vector<std::string> notes;  // for the log and the worker's warnings
  std::vector<Gpu> list() const;
  const GpuState* find(const std::string& uuid) const;
  bool operator==(const GpuSnapshot&) const = default;
};

class GpuTable {
 public:
  struct Settings {
    std::vector<std::string> only;  // UUIDs to offer; empty: all
    bool sees_all_processes = true;
  };
  explicit GpuTable(Settings settings) : settings_(std::move(settings)) {}

  GpuSnapshot update(const DriverReading& reading, const std::vector<AttemptOnGpus>& attempts,
                     const ParentOf& parent_of);
  // The driver gave no reading. What was there before stays listed, and not usable.
  GpuSnapshot lost(const absl::Status& why);

 private:
  struct Entry {
    GpuState state;
    bool mig = false, listed = false;
    std::string sticky_trouble;         // until the driver is loaded anew
    std::optional<uint64_t> first_ecc;  // since then
    bool reports = true;                // as its processes have shown so far
    bool hides_ours = false;            // memory grew with our ranks, and none of them is listed
    uint32_t hidden_readings = 0;
    uint64_t unlisted_bytes = 0;  // taken, when none of ours ran there, by nobody who is listed
    std::set<AttemptKey> here;    // attempts at the last reading
    uint32_t settling = 0;        // readings until what an attempt had is surely free again
  };
  struct Sums {
    uint64_t ours = 0, others = 0;
    bool all_known = true, ours_seen = false, foreign_unknown = false, doubtful = false;
  };

  Entry* entry_for(const GpuReading& reading, std::vector<std::string>& notes);
  void judge(Entry& entry, const GpuReading& reading);
  void judge_health(Entry& entry, const GpuReading& reading);
  Sums attribute(Entry& entry, const GpuReading& reading,
                 const std::vector<AttemptOnGpus>& attempts, const ParentOf& parent_of);
  void count_memory(Entry& entry, const GpuReading& reading,
                    const std::vector<AttemptOnGpus>& attempts, const ParentOf& parent_of);
  void judge_reporting(Entry& entry, const GpuReading& reading, const Sums& sums,
                       uint64_t unexplained);
  GpuSnapshot snapshot(std::vector<std::string> notes) const;
  bool offered(const std::string& uuid) const;

  const Settings settings_;
  std::string driver_;
  bool reloaded_ = false;
  std::vector<Entry> entries_;  // as the driver listed them first
};

// Memory in use that no process explains counts as taken above this: drivers and display servers
// keep a little that belongs to nobody.
inline constexpr uint64_t kUnexplainedMarginBytes = 64ull << 20;

// Whether text is fit to be a GPU's name in an environment variable: "GPU-…" or "MIG-…".
bool is_gpu_uuid(std::string_view text);

// What an Xid says of the hardware; empty for those that a program can cause by itself.
std::string_view hardware_xid(uint64_t xid);

// The attempt that a process belongs to: the nearest root above it (or it).
std::optional<AttemptKey> attempt_of(uint32_t pid, const std::vector<AttemptOnGpus>& attempts,
                                     const ParentOf& parent_of);

}  // namespace pesc::worker
