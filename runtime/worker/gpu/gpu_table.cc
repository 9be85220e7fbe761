#include "runtime/worker/gpu/gpu_table.h"

#include <algorithm>

#include "model/job_spec.h"
#include "model/text.h"

namespace pesc::worker {
namespace {

constexpr size_t kMaxUuidBytes = 96, kMaxNameBytes = 96;
constexpr uint64_t kMostMemoryBytes = 64ull << 40;  // more than any GPU will have for long
constexpr int kMaxMajor = 99, kMaxMinor = 99;
constexpr int kMaxAncestors = 512;
constexpr uint32_t kSettlingReadings = 2;
constexpr uint32_t kHiddenReadings = 2;
constexpr size_t kMaxXidKinds = 32;
constexpr size_t kMaxEntries = 256;  // of a driver that makes up new names

std::string clean_name(std::string_view name) {
  std::string clean = for_terminal(cut_utf8(name, kMaxNameBytes));
  std::replace(clean.begin(), clean.end(), '\n', ' ');
  std::replace(clean.begin(), clean.end(), '\t', ' ');
  return clean.empty() ? "GPU" : clean;
}

std::string first_line(std::string_view text) {
  return for_terminal(text.substr(0, text.find('\n')));
}

ComputeCapability capability_of(const GpuReading& reading) {
  const bool sane = reading.major > 0 && reading.major <= kMaxMajor && reading.minor >= 0 &&
                    reading.minor <= kMaxMinor;
  return sane ? static_cast<ComputeCapability>(reading.major * 100 + reading.minor) : 0;
}

// What is wrong with what the driver says of its memory; empty: nothing.
std::string nonsense(const MemoryReading& memory) {
  if (memory.total_bytes == 0) return "the driver says that it has no memory";
  if (memory.total_bytes > kMostMemoryBytes) {
    return "the driver says that it has " + format_bytes(memory.total_bytes) + " of memory";
  }
  if (memory.used_bytes > memory.total_bytes) {
    return "the driver says that " + format_bytes(memory.used_bytes) + " of its " +
           format_bytes(memory.total_bytes) + " of memory are in use";
  }
  return {};
}

}  // namespace

std::vector<Gpu> GpuSnapshot::list() const {
  std::vector<Gpu> list;
  for (const GpuState& state : gpus) list.push_back(state.gpu);
  return list;
}

const GpuState* GpuSnapshot::find(const std::string& uuid) const {
  for (const GpuState& state : gpus) {
    if (state.gpu.uuid == uuid) return &state;
  }
  return nullptr;
}

bool is_gpu_uuid(std::string_view text) {
  if (text.size() < 5 || text.size() > kMaxUuidBytes) return false;
  if (!text.starts_with("GPU-") && !text.starts_with("MIG-")) return false;
  return std::all_of(text.begin(), text.end(), [](char c) {
    // "MIG-GPU-…/7/0": MIG devices of drivers before R470.
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' ||
           c == '/';
  });
}

// Numbers and remedies as in NVIDIA's "XID Errors". 13, 31, 43, 45 and the like are what a program
// with a bug causes: which GPU fails ranks that succeed elsewhere is for the coordinator to see.
std::string_view hardware_xid(uint64_t xid) {
  switch (xid) {
    case 48:
      return "an uncorrectable memory error";
    case 62:
    case 119:
    case 120:
      return "its own processor halted";
    case 64:
      return "a bad memory row could not be replaced";
    case 74:
      return "an NVLink error";
    case 79:
      return "it has fallen off the bus";
    case 95:
      return "an uncontained memory error";
    case 110:
      return "a security fault";
    case 140:
      return "an unrecovered memory error";
    default:
      return {};
  }
}

std::optional<AttemptKey> attempt_of(uint32_t pid, const std::vector<AttemptOnGpus>& attempts,
                                     const ParentOf& parent_of) {
  for (int i = 0; i < kMaxAncestors && pid > 1; ++i) {
    for (const AttemptOnGpus& attempt : attempts) {
      if (attempt.root_pid == pid) return attempt.key;
    }
    const std::optional<uint32_t> parent = parent_of(pid);
    if (!parent || *parent == pid) return std::nullopt;
    pid = *parent;
  }
  return std::nullopt;
}

bool GpuTable::offered(const std::string& uuid) const {
  return settings_.only.empty() ||
         std::find(settings_.only.begin(), settings_.only.end(), uuid) != settings_.only.end();
}

GpuTable::Entry* GpuTable::entry_for(const GpuReading& reading, std::vector<std::string>& notes) {
  if (reading.uuid.empty()) {
    notes.push_back("a GPU is left out: " + (reading.failure.empty()
                                                 ? std::string("the driver gives it no UUID")
                                                 : first_line(reading.failure)));
    return nullptr;
  }
  if (!is_gpu_uuid(reading.uuid)) {
    notes.push_back("a GPU is left out: the driver calls it " + in_quotes(reading.uuid));
    return nullptr;
  }
  if (!offered(reading.uuid)) return nullptr;
  auto at = std::find_if(entries_.begin(), entries_.end(),
                         [&](const Entry& entry) { return entry.state.gpu.uuid == reading.uuid; });
  if (at == entries_.end() && entries_.size() >= kMaxEntries) {
    notes.push_back("a GPU is left out: the driver has listed " + std::to_string(kMaxEntries) +
                    " others");
    return nullptr;
  }
  if (at == entries_.end()) {
    at = entries_.emplace(entries_.end());
    at->state.gpu.uuid = reading.uuid;
    at->mig = reading.mig;
  } else if (at->listed) {
    notes.push_back("a GPU is left out: the driver lists " + reading.uuid + " twice");
    return nullptr;
  }
  at->listed = true;
  return &*at;
}

void GpuTable::judge_health(Entry& entry, const GpuReading& reading) {
  GpuState& state = entry.state;
  if (reading.temperature_c) state.temperature_c = reading.temperature_c;
  if (reading.utilization_percent) state.utilization_percent = reading.utilization_percent;
  for (uint64_t xid : reading.xids) {
    if (state.xids.size() < kMaxXidKinds || state.xids.count(xid) > 0) ++state.xids[xid];
    const std::string_view meaning = hardware_xid(xid);
    if (meaning.empty() || !entry.sticky_trouble.empty()) continue;
    entry.sticky_trouble = "Xid " + std::to_string(xid) + ": " + std::string(meaning) +
                           "; reset it or reboot the machine";
  }
  if (!reading.ecc_uncorrected) return;
  state.ecc_uncorrected = reading.ecc_uncorrected;
  // What was there when we came may be long mended: pages are retired when the driver is loaded.
  if (!entry.first_ecc) entry.first_ecc = reading.ecc_uncorrected;
  if (*reading.ecc_uncorrected > *entry.first_ecc && entry.sticky_trouble.empty()) {
    entry.sticky_trouble =
        std::to_string(*reading.ecc_uncorrected - *entry.first_ecc) +
        " uncorrectable memory errors while the worker ran; reset it or reboot the machine";
  }
}

void GpuTable::judge(Entry& entry, const GpuReading& reading) {
  Gpu& gpu = entry.state.gpu;
  if (!reading.name.empty() || gpu.name.empty()) gpu.name = clean_name(reading.name);
  gpu.driver = driver_;
  const ComputeCapability capability = capability_of(reading);
  if (capability != 0) gpu.compute_capability = capability;
  judge_health(entry, reading);
  gpu.trouble = entry.sticky_trouble;
  const auto trouble = [&gpu](std::string text) {
    if (gpu.trouble.empty()) gpu.trouble = std::move(text);
  };
  if (!reading.failure.empty()) return trouble(first_line(reading.failure));
  if (!reading.memory) return trouble("the driver does not tell its memory");
  for (const auto& memory : {reading.memory, reading.memory_after}) {
    if (memory) trouble(nonsense(*memory));
  }
  if (gpu.compute_capability == 0) trouble("the driver does not tell its compute capability");
  if (reading.sharing == GpuSharing::prohibited) {
    trouble("its compute mode forbids programs (nvidia-smi -c 0 allows them)");
  }
}

GpuTable::Sums GpuTable::attribute(Entry& entry, const GpuReading& reading,
                                   const std::vector<AttemptOnGpus>& attempts,
                                   const ParentOf& parent_of) {
  Sums sums;
  for (const ProcessReading& process : *reading.processes) {
    GpuProcess known{process.pid, process.bytes, attempt_of(process.pid, attempts, parent_of)};
    if (known.bytes && *known.bytes > reading.memory->total_bytes) known.bytes.reset();
    const bool ours = known.attempt.has_value();
    sums.ours_seen = sums.ours_seen || ours;
    sums.all_known = sums.all_known && known.bytes;
    if (!ours && !known.bytes) sums.foreign_unknown = true;
    // One that is not there: it ended just now, or it is another PID namespace's, or it is hidden
    // (/proc with hidepid). Ours are hidden from nobody who counts them.
    const bool gone = !ours && !parent_of(process.pid);
    const bool nobodys = gone && (!settings_.sees_all_processes || entry.settling > 0);
    sums.doubtful = sums.doubtful || nobodys;
    if (ours) {
      sums.ours += known.bytes.value_or(0);
      entry.state.attempt_bytes[*known.attempt] += known.bytes.value_or(0);
    } else if (!nobodys) {
      sums.others += known.bytes.value_or(0);
    }
    entry.state.processes.push_back(known);
  }
  return sums;
}

void GpuTable::judge_reporting(Entry& entry, const GpuReading& reading, const Sums& sums,
                               uint64_t unexplained) {
  const bool grew = unexplained > entry.unlisted_bytes + kUnexplainedMarginBytes;
  if (sums.ours_seen) {
    entry.hides_ours = false;
    entry.hidden_readings = 0;
  } else if (!entry.here.empty() && entry.settling == 0 && grew) {
    if (++entry.hidden_readings >= kHiddenReadings) entry.hides_ours = true;
  } else {
    entry.hidden_readings = 0;
  }
  if (reading.processes && !reading.processes->empty()) entry.reports = sums.all_known;
  std::string& why = entry.state.one_at_a_time;
  why = !reading.processes ? "its driver does not list the processes on it"
        : !entry.reports   ? "its driver does not report the memory of each process"
        : entry.hides_ours ? "its driver does not show this worker's processes (a container's?)"
        : reading.sharing == GpuSharing::one_process ? "its compute mode allows one process"
                                                     : "";
  entry.state.gpu.reports_memory = why.empty();
}

void GpuTable::count_memory(Entry& entry, const GpuReading& reading,
                            const std::vector<AttemptOnGpus>& attempts, const ParentOf& parent_of) {
  GpuState& state = entry.state;
  std::set<AttemptKey> here;
  for (const AttemptOnGpus& attempt : attempts) {
    if (std::find(attempt.gpus.begin(), attempt.gpus.end(), state.gpu.uuid) != attempt.gpus.end()) {
      here.insert(attempt.key);
    }
  }
  const bool one_ended =
      !std::includes(here.begin(), here.end(), entry.here.begin(), entry.here.end());
  if (one_ended) {
    entry.settling = kSettlingReadings;
  } else if (entry.settling > 0) {
    --entry.settling;
  }
  entry.here = here;
  state.processes.clear();
  state.attempt_bytes.clear();
  const Sums sums =
      reading.processes ? attribute(entry, reading, attempts, parent_of) : Sums{.all_known = false};
  for (const auto& [key, bytes] : state.attempt_bytes) here.insert(key);

  const uint64_t used = std::min(reading.memory->used_bytes,
                                 reading.memory_after.value_or(*reading.memory).used_bytes);
  state.used_bytes = used;
  state.gpu.memory_bytes = reading.memory->total_bytes;
  const uint64_t explained = sums.ours + sums.others;
  uint64_t unexplained = used > explained ? used - explained : 0;
  judge_reporting(entry, reading, sums, unexplained);
  const uint64_t beyond =
      unexplained > entry.unlisted_bytes ? unexplained - entry.unlisted_bytes : 0;
  if (unexplained < kUnexplainedMarginBytes) unexplained = 0;
  // While ranks of ours may be what is not explained, what was there before them is believed.
  bool all_seen = sums.all_known && !sums.doubtful && entry.settling == 0;
  for (const AttemptKey& key : here) all_seen = all_seen && state.attempt_bytes.count(key) > 0;
  const bool ours_possible = !here.empty() || entry.settling > 0;
  entry.unlisted_bytes =
      all_seen || !ours_possible ? unexplained : std::min(entry.unlisted_bytes, unexplained);
  state.gpu.taken_bytes = std::min(state.gpu.memory_bytes, sums.others + entry.unlisted_bytes);
  if (!state.gpu.reports_memory && here.size() == 1 && entry.settling == 0 &&
      !sums.foreign_unknown && sums.ours == 0) {
    state.attempt_bytes[*here.begin()] = beyond;
  }
  state.gpu.ranks_bytes = 0;
  for (const auto& [key, bytes] : state.attempt_bytes) state.gpu.ranks_bytes += bytes;
}

GpuSnapshot GpuTable::update(const DriverReading& reading,
                             const std::vector<AttemptOnGpus>& attempts,
                             const ParentOf& parent_of) {
  driver_ = for_terminal(cut_utf8(reading.driver, kMaxNameBytes));
  std::vector<std::string> notes;
  for (const std::string& note : reading.notes) notes.push_back(first_line(note));
  for (Entry& entry : entries_) {
    entry.listed = false;
    if (!reloaded_) continue;
    entry.sticky_trouble.clear();
    entry.first_ecc.reset();
  }
  reloaded_ = false;
  for (const GpuReading& gpu : reading.gpus) {
    Entry* entry = entry_for(gpu, notes);
    if (entry == nullptr) continue;
    judge(*entry, gpu);
    const bool counted = gpu.memory && nonsense(*gpu.memory).empty() && gpu.failure.empty();
    if (counted) {
      count_memory(*entry, gpu, attempts, parent_of);
    } else {
      entry->state.processes.clear();
      entry->state.attempt_bytes.clear();
      entry->state.gpu.ranks_bytes = 0;
    }
  }
  // MIG devices come and go as the administrator wishes, and a whole GPU goes when it is cut up.
  std::erase_if(entries_, [&](const Entry& entry) {
    const bool cut_up = std::find(reading.cut_up.begin(), reading.cut_up.end(),
                                  entry.state.gpu.uuid) != reading.cut_up.end();
    return !entry.listed && (entry.mig || cut_up);
  });
  for (Entry& entry : entries_) {
    if (!entry.listed) entry.state.gpu.trouble = "the driver does not list it any more";
  }
  for (const std::string& uuid : settings_.only) {
    const bool there = std::any_of(entries_.begin(), entries_.end(), [&](const Entry& entry) {
      return entry.state.gpu.uuid == uuid;
    });
    if (!there) {
      notes.push_back("the configuration names the GPU " + in_quotes(uuid) +
                      ", which this machine does not have");
    }
  }
  return snapshot(std::move(notes));
}

GpuSnapshot GpuTable::lost(const absl::Status& why) {
  // One that hangs is still the one that was loaded.
  reloaded_ = reloaded_ || !absl::IsDeadlineExceeded(why);
  const std::string text = first_line(std::string(why.message()));
  for (Entry& entry : entries_) {
    entry.state.gpu.trouble = text;
    entry.state.processes.clear();
    entry.state.attempt_bytes.clear();
    entry.state.gpu.ranks_bytes = 0;
  }
  GpuSnapshot snapshot = this->snapshot({});
  snapshot.trouble = text;
  return snapshot;
}

GpuSnapshot GpuTable::snapshot(std::vector<std::string> notes) const {
  GpuSnapshot snapshot;
  snapshot.driver = driver_;
  snapshot.notes = std::move(notes);
  for (const Entry& entry : entries_) snapshot.gpus.push_back(entry.state);
  return snapshot;
}

}  // namespace pesc::worker
