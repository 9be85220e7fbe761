#include "runtime/worker/gpu/nvml_probe.h"

#include <algorithm>
#include <tuple>

namespace pesc::worker {

using namespace nvml;

namespace {

constexpr unsigned kMaxGpus = 64;
constexpr unsigned kMaxParts = 16;      // of one GPU; today's have 7
constexpr int kMaxXidsPerReading = 64;  // a GPU in trouble may tell the same without end

}  // namespace

bool NvmlProbe::driver_is_gone(Return code) {
  if (code != kUninitialized && code != kDriverNotLoaded && code != kVersionMismatch) return false;
  gone_ = code;
  return true;
}

void NvmlProbe::failed(GpuReading& reading, const char* what, Return code) {
  if (driver_is_gone(code) || !reading.failure.empty()) return;
  if (code == kGpuIsLost) {
    reading.failure = nvml_->error_text(code);
  } else if (code == kResetRequired) {
    reading.failure = "it must be reset before it can be used (nvidia-smi --gpu-reset)";
  } else {
    reading.failure = std::string(what) + " cannot be read: " + nvml_->error_text(code);
  }
}

absl::Status NvmlProbe::open() {
  auto nvml = Nvml::open(library_);
  if (!nvml.ok()) return nvml.status();
  nvml_ = *std::move(nvml);
  driver_ = nvml_->driver_version().value;
  known_.clear();
  return enumerate();
}

absl::Status NvmlProbe::enumerate() {
  wholes_.clear();
  notes_.clear();
  NvmlAnswer<unsigned> count = nvml_->device_count();
  if (!count.ok()) {
    return absl::UnavailableError("the NVIDIA driver does not tell how many GPUs there are: " +
                                  nvml_->error_text(count.code));
  }
  if (count.value > kMaxGpus) {
    notes_.push_back("the NVIDIA driver speaks of " + std::to_string(count.value) +
                     " GPUs: the first " + std::to_string(kMaxGpus) + " are looked at");
    count.value = kMaxGpus;
  }
  for (unsigned index = 0; index < count.value; ++index) {
    Whole whole;
    whole.index = index;
    const NvmlAnswer<Device> device = nvml_->device(index);
    if (device.ok() && device.value != nullptr) {
      whole.device = device.value;
      nvml_->watch_xids(device.value);
    } else if (driver_is_gone(device.code)) {
      return absl::OkStatus();
    } else {
      whole.failure = nvml_->error_text(device.code);
    }
    wholes_.push_back(std::move(whole));
  }
  return absl::OkStatus();
}

// Anew in each full reading: an administrator may cut a GPU up while the worker runs.
void NvmlProbe::enumerate_parts(Whole& whole) {
  whole.parts.clear();
  const NvmlAnswer<bool> enabled = nvml_->mig_enabled(whole.device);
  if (driver_is_gone(enabled.code)) return;
  whole.mig = enabled.ok() && enabled.value;
  if (!whole.mig) return;
  const NvmlAnswer<unsigned> slots = nvml_->mig_slots(whole.device);
  for (unsigned slot = 0; slots.ok() && slot < std::min(slots.value, kMaxParts); ++slot) {
    const NvmlAnswer<Device> part = nvml_->mig_device(whole.device, slot);
    if (part.ok() && part.value != nullptr) whole.parts.push_back(part.value);
  }
}

const NvmlProbe::Known& NvmlProbe::known(Device device, GpuReading& reading) {
  auto at = known_.find(device);
  if (at != known_.end()) return at->second;
  static const Known nothing;
  const NvmlAnswer<std::string> uuid = nvml_->uuid(device);
  if (!uuid.ok()) {
    failed(reading, "its UUID", uuid.code);
    return nothing;
  }
  Known known;
  known.uuid = uuid.value;
  known.name = nvml_->name(device).value;
  const NvmlAnswer<std::pair<int, int>> capability = nvml_->compute_capability(device);
  if (capability.ok()) {
    std::tie(known.major, known.minor) = capability.value;
  } else {
    failed(reading, "its compute capability", capability.code);
  }
  const NvmlAnswer<GpuSharing> sharing = nvml_->sharing(device);
  if (sharing.ok()) known.sharing = sharing.value;
  // Asked again as long as something of it is not known.
  if (!reading.failure.empty()) {
    reading.uuid = known.uuid;
    reading.name = known.name;
    return nothing;
  }
  return known_.emplace(device, std::move(known)).first->second;
}

void NvmlProbe::read_memory(Device device, GpuReading& reading) {
  const NvmlAnswer<MemoryReading> before = nvml_->memory(device);
  if (!before.ok()) return failed(reading, "its memory", before.code);
  reading.memory = before.value;
  NvmlAnswer<std::vector<ProcessReading>> processes = nvml_->processes(device);
  if (processes.code == kGpuIsLost || driver_is_gone(processes.code)) {
    return failed(reading, "its processes", processes.code);
  }
  if (processes.ok()) reading.processes = std::move(processes.value);
  const NvmlAnswer<MemoryReading> after = nvml_->memory(device);
  if (!after.ok()) return failed(reading, "its memory", after.code);
  reading.memory_after = after.value;
}

void NvmlProbe::read_health(Device device, GpuReading& reading) {
  const NvmlAnswer<uint32_t> temperature = nvml_->temperature(device);
  if (temperature.ok() && temperature.value < 1000) reading.temperature_c = temperature.value;
  const NvmlAnswer<uint32_t> utilization = nvml_->utilization(device);
  if (utilization.ok() && utilization.value <= 100) {
    reading.utilization_percent = utilization.value;
  }
  const NvmlAnswer<uint64_t> ecc = nvml_->ecc_uncorrected(device);
  if (ecc.ok()) reading.ecc_uncorrected = ecc.value;
  // It may be changed at any time (nvidia-smi -c).
  const NvmlAnswer<GpuSharing> sharing = nvml_->sharing(device);
  auto at = known_.find(device);
  if (sharing.ok() && at != known_.end()) reading.sharing = at->second.sharing = sharing.value;
}

GpuReading NvmlProbe::read_gpu(Device device, bool mig, bool full) {
  GpuReading reading;
  reading.mig = mig;
  const Known& about = known(device, reading);
  if (!reading.failure.empty() || gone_ != kSuccess) return reading;
  reading.uuid = about.uuid;
  reading.name = about.name;
  reading.major = about.major;
  reading.minor = about.minor;
  reading.sharing = about.sharing;
  read_memory(device, reading);
  if (full && reading.failure.empty()) read_health(device, reading);
  return reading;
}

std::multimap<Device, uint64_t> NvmlProbe::take_xids() {
  std::multimap<Device, uint64_t> xids;
  for (int i = 0; i < kMaxXidsPerReading; ++i) {
    const auto xid = nvml_->next_xid();
    if (!xid) break;
    if (xid->second != 0) xids.insert(*xid);
  }
  return xids;
}

absl::StatusOr<DriverReading> NvmlProbe::read(bool full) {
  gone_ = kSuccess;
  if (nvml_ == nullptr) {
    absl::Status opened = open();
    if (!opened.ok()) {
      nvml_.reset();
      return opened;
    }
    full = true;
  }
  DriverReading reading;
  reading.driver = driver_;
  reading.notes = notes_;
  const std::multimap<Device, uint64_t> xids = take_xids();
  for (Whole& whole : wholes_) {
    if (gone_ != kSuccess) break;
    const auto add = [&](GpuReading gpu, bool is_whole) {
      const auto [from, to] = xids.equal_range(whole.device);
      for (auto at = from; at != to; ++at) gpu.xids.push_back(at->second);
      if (is_whole && !gpu.uuid.empty()) {
        seen_at_[whole.index] = {gpu.uuid, gpu.name, gpu.major, gpu.minor, gpu.sharing};
      }
      // One that fell off the bus does not tell who it is any more.
      if (is_whole && gpu.uuid.empty() && seen_at_.count(whole.index) > 0) {
        gpu.uuid = seen_at_[whole.index].uuid;
        gpu.name = seen_at_[whole.index].name;
      }
      reading.gpus.push_back(std::move(gpu));
    };
    if (whole.device == nullptr) {
      GpuReading gpu;
      gpu.failure = whole.failure;
      add(std::move(gpu), true);
      continue;
    }
    if (full) enumerate_parts(whole);
    if (!whole.mig) {
      add(read_gpu(whole.device, false, full), true);
      continue;
    }
    const std::string uuid = nvml_->uuid(whole.device).value;
    reading.cut_up.push_back(uuid);
    if (whole.parts.empty()) {
      reading.notes.push_back(
          uuid +
          " is in MIG mode and has no MIG devices: make some (nvidia-smi mig -cgi … -C), or "
          "end the mode (nvidia-smi -mig 0)");
    }
    for (Device part : whole.parts) add(read_gpu(part, true, full), false);
  }
  if (gone_ != kSuccess) {
    const std::string why = nvml_->error_text(gone_);
    nvml_.reset();  // from the beginning, with the library that is installed then
    return absl::UnavailableError("the NVIDIA driver went away: " + why);
  }
  return reading;
}

}  // namespace pesc::worker
