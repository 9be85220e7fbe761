#include "runtime/worker/gpu/nvml.h"

#include <dlfcn.h>

#include <algorithm>
#include <cstring>
#include <map>

#include "model/text.h"

namespace pesc::worker {

using namespace nvml;  // its types, in the folder that is about it

namespace {

// Where WSL and NixOS have it, whose dynamic linker may not know.
const char* const kPlaces[] = {"libnvidia-ml.so.1", "/usr/lib/wsl/lib/libnvidia-ml.so.1",
                               "/run/opengl-driver/lib/libnvidia-ml.so.1"};
constexpr unsigned kMaxProcesses = 4096;
constexpr int kListTries = 4;  // processes may start between the count and the list
constexpr unsigned char kFill = 0xa5;
constexpr size_t kLongestEntry = 32;

std::string text_of(const char* buffer) {
  return std::string(buffer, ::strnlen(buffer, kTextBytes));
}

}  // namespace

struct Nvml::Functions {
  Return (*init)();
  Return (*shutdown)();
  const char* (*error_string)(Return);
  Return (*driver_version)(char*, unsigned);
  Return (*device_count)(unsigned*);
  Return (*device)(unsigned, Device*);
  Return (*uuid)(Device, char*, unsigned);
  Return (*name)(Device, char*, unsigned);
  Return (*compute_capability)(Device, int*, int*);
  Return (*memory)(Device, Memory*);
  Return (*memory_v2)(Device, MemoryV2*);
  Return (*compute_v1)(Device, unsigned*, ProcessV1*);
  Return (*compute_v2)(Device, unsigned*, void*);
  Return (*compute_v3)(Device, unsigned*, void*);
  Return (*graphics_v1)(Device, unsigned*, ProcessV1*);
  Return (*graphics_v2)(Device, unsigned*, void*);
  Return (*graphics_v3)(Device, unsigned*, void*);
  Return (*compute_mode)(Device, int*);
  Return (*temperature)(Device, int, unsigned*);
  Return (*ecc)(Device, int, int, unsigned long long*);
  Return (*utilization)(Device, Utilization*);
  Return (*mig_mode)(Device, unsigned*, unsigned*);
  Return (*mig_slots)(Device, unsigned*);
  Return (*mig_device)(Device, unsigned, Device*);
  Return (*event_set_create)(EventSet*);
  Return (*event_set_free)(EventSet);
  Return (*register_events)(Device, unsigned long long, EventSet);
  Return (*event_wait)(EventSet, EventData*, unsigned);

  explicit Functions(void* library) {
    const auto find = [library](auto& function, const char* symbol) {
      function =
          reinterpret_cast<std::remove_reference_t<decltype(function)>>(::dlsym(library, symbol));
    };
    find(init, "nvmlInit_v2");
    find(shutdown, "nvmlShutdown");
    find(error_string, "nvmlErrorString");
    find(driver_version, "nvmlSystemGetDriverVersion");
    find(device_count, "nvmlDeviceGetCount_v2");
    find(device, "nvmlDeviceGetHandleByIndex_v2");
    find(uuid, "nvmlDeviceGetUUID");
    find(name, "nvmlDeviceGetName");
    find(compute_capability, "nvmlDeviceGetCudaComputeCapability");
    find(memory, "nvmlDeviceGetMemoryInfo");
    find(memory_v2, "nvmlDeviceGetMemoryInfo_v2");
    find(compute_v1, "nvmlDeviceGetComputeRunningProcesses");
    find(compute_v2, "nvmlDeviceGetComputeRunningProcesses_v2");
    find(compute_v3, "nvmlDeviceGetComputeRunningProcesses_v3");
    find(graphics_v1, "nvmlDeviceGetGraphicsRunningProcesses");
    find(graphics_v2, "nvmlDeviceGetGraphicsRunningProcesses_v2");
    find(graphics_v3, "nvmlDeviceGetGraphicsRunningProcesses_v3");
    find(compute_mode, "nvmlDeviceGetComputeMode");
    find(temperature, "nvmlDeviceGetTemperature");
    find(ecc, "nvmlDeviceGetTotalEccErrors");
    find(utilization, "nvmlDeviceGetUtilizationRates");
    find(mig_mode, "nvmlDeviceGetMigMode");
    find(mig_slots, "nvmlDeviceGetMaxMigDeviceCount");
    find(mig_device, "nvmlDeviceGetMigDeviceHandleByIndex");
    find(event_set_create, "nvmlEventSetCreate");
    find(event_set_free, "nvmlEventSetFree");
    find(register_events, "nvmlDeviceRegisterEvents");
    find(event_wait, "nvmlEventSetWait_v2");
    if (event_wait == nullptr) {
      // Its data lacks the two last members; the memory for them is there.
      find(event_wait, "nvmlEventSetWait");
    }
  }
};

namespace {

template <typename... Parameters, typename... Arguments>
Return call(Return (*function)(Parameters...), Arguments... arguments) {
  return function == nullptr ? kFunctionNotFound : function(arguments...);
}

}  // namespace

Nvml::Nvml() = default;

Nvml::~Nvml() {
  if (events_ != nullptr) call(functions_->event_set_free, events_);
  if (initialised_) call(functions_->shutdown);
  if (library_ != nullptr) ::dlclose(library_);
}

absl::StatusOr<std::unique_ptr<Nvml>> Nvml::open(const std::string& library) {
  std::unique_ptr<Nvml> nvml(new Nvml);
  std::string error;
  const auto load = [&](const char* path) {
    nvml->library_ = ::dlopen(path, RTLD_NOW | RTLD_LOCAL);
    const char* said = nvml->library_ == nullptr ? ::dlerror() : nullptr;
    if (error.empty() && said != nullptr) error = said;
    return nvml->library_ != nullptr;
  };
  if (!library.empty()) {
    load(library.c_str());
  } else {
    for (const char* place : kPlaces) {
      if (load(place)) break;
    }
  }
  if (nvml->library_ == nullptr) {
    return absl::NotFoundError("the NVIDIA driver's library cannot be loaded: " +
                               for_terminal(error));
  }
  nvml->functions_ = std::make_unique<Functions>(nvml->library_);
  if (nvml->functions_->init == nullptr || nvml->functions_->device_count == nullptr ||
      nvml->functions_->device == nullptr) {
    return absl::NotFoundError(
        (library.empty() ? std::string("libnvidia-ml.so.1") : in_quotes(library)) +
        " is not the NVIDIA driver's library: it has no nvmlInit_v2");
  }
  const Return code = nvml->functions_->init();
  if (code != kSuccess) {
    std::string text = "the NVIDIA driver does not start: " + nvml->error_text(code);
    if (code == kVersionMismatch) {
      text += ": it was updated while an older one is loaded; reboot the machine";
    } else if (code == kDriverNotLoaded) {
      text += ": load its kernel module (modprobe nvidia), or reboot the machine";
    }
    return absl::UnavailableError(text);
  }
  nvml->initialised_ = true;
  return nvml;
}

std::string Nvml::error_text(Return code) const {
  if (code == kGpuIsLost) return "it has fallen off the bus (GPU is lost)";
  if (code == kFunctionNotFound) return "this driver has no such function";
  const char* text = functions_->error_string == nullptr ? nullptr : functions_->error_string(code);
  std::string number = "NVML error " + std::to_string(code);
  if (text == nullptr || *text == '\0') return number;
  return for_terminal(cut_utf8(text, 200)) + " (" + number + ")";
}

NvmlAnswer<std::string> Nvml::driver_version() const {
  char buffer[kTextBytes] = {};
  const Return code = call(functions_->driver_version, buffer, kTextBytes - 1);
  return {code, text_of(buffer)};
}

NvmlAnswer<unsigned> Nvml::device_count() const {
  NvmlAnswer<unsigned> answer;
  answer.code = call(functions_->device_count, &answer.value);
  return answer;
}

NvmlAnswer<Device> Nvml::device(unsigned index) const {
  NvmlAnswer<Device> answer;
  answer.code = call(functions_->device, index, &answer.value);
  return answer;
}

NvmlAnswer<std::string> Nvml::uuid(Device device) const {
  char buffer[kTextBytes] = {};
  const Return code = call(functions_->uuid, device, buffer, kTextBytes - 1);
  return {code, text_of(buffer)};
}

NvmlAnswer<std::string> Nvml::name(Device device) const {
  char buffer[kTextBytes] = {};
  const Return code = call(functions_->name, device, buffer, kTextBytes - 1);
  return {code, text_of(buffer)};
}

NvmlAnswer<std::pair<int, int>> Nvml::compute_capability(Device device) const {
  NvmlAnswer<std::pair<int, int>> answer;
  answer.code =
      call(functions_->compute_capability, device, &answer.value.first, &answer.value.second);
  return answer;
}

// Drivers that lack the second version (before R510) count nothing as reserved.
NvmlAnswer<MemoryReading> Nvml::memory(Device device) const {
  MemoryV2 second{};
  second.version = kMemoryV2;
  Return code = call(functions_->memory_v2, device, &second);
  if (code == kSuccess) {
    const uint64_t reserved = std::min(second.reserved, second.total);
    return {code, {second.total - reserved, second.used}};
  }
  if (code != kFunctionNotFound && code != kNotSupported && code != kInvalidArgument) {
    return {code, {}};
  }
  Memory first{};
  code = call(functions_->memory, device, &first);
  return {code, {first.total, first.used}};
}

size_t process_entry_bytes(const std::vector<unsigned char>& buffer, size_t count,
                           unsigned char fill) {
  const size_t usual = count * sizeof(ProcessV2);
  const size_t end = std::min(buffer.size(), count * kLongestEntry);
  for (size_t i = usual; i < end; ++i) {
    if (buffer[i] != fill) return kLongestEntry;
  }
  return sizeof(ProcessV2);
}

NvmlAnswer<std::vector<ProcessReading>> Nvml::list_processes(Device device, bool compute) const {
  const auto v3 = compute ? functions_->compute_v3 : functions_->graphics_v3;
  const auto v2 = compute ? functions_->compute_v2 : functions_->graphics_v2;
  const auto v1 = compute ? functions_->compute_v1 : functions_->graphics_v1;
  NvmlAnswer<std::vector<ProcessReading>> answer;
  std::vector<unsigned char> buffer;
  unsigned room = 32, count = 0;
  size_t entry_bytes = 0;
  for (int tries = 0; tries < kListTries; ++tries) {
    buffer.assign(room * kLongestEntry, kFill);
    count = room;
    answer.code = call(v3, device, &count, static_cast<void*>(buffer.data()));
    if (answer.code == kFunctionNotFound) {
      answer.code = call(v2, device, &count, static_cast<void*>(buffer.data()));
    }
    entry_bytes = 0;
    if (answer.code == kFunctionNotFound) {
      answer.code = call(v1, device, &count, reinterpret_cast<ProcessV1*>(buffer.data()));
      entry_bytes = sizeof(ProcessV1);
    }
    if (answer.code != kInsufficientSize) break;
    room = std::min(std::max(std::min(count, kMaxProcesses) + 8, room * 2), kMaxProcesses);
  }
  if (!answer.ok()) return answer;
  count = std::min(count, room);
  if (entry_bytes == 0) entry_bytes = process_entry_bytes(buffer, count, kFill);
  for (size_t i = 0; i < count; ++i) {
    ProcessV1 entry;  // the others begin with the same members
    std::memcpy(&entry, buffer.data() + i * entry_bytes, sizeof entry);
    ProcessReading reading{entry.pid, entry.bytes};
    if (entry.bytes == kNotAvailable) reading.bytes.reset();
    answer.value.push_back(reading);
  }
  return answer;
}

NvmlAnswer<std::vector<ProcessReading>> Nvml::processes(Device device) const {
  NvmlAnswer<std::vector<ProcessReading>> answer = list_processes(device, true);
  if (!answer.ok()) return answer;
  // A GPU without a display says that it has none.
  const NvmlAnswer<std::vector<ProcessReading>> graphics = list_processes(device, false);
  std::map<uint32_t, ProcessReading> by_pid;
  const auto add = [&by_pid](const ProcessReading& process) {
    auto [at, is_new] = by_pid.emplace(process.pid, process);
    // In both lists it has the same memory; what one cannot tell, none is believed about.
    if (is_new) return;
    if (!process.bytes || !at->second.bytes) {
      at->second.bytes.reset();
    } else {
      at->second.bytes = std::max(*at->second.bytes, *process.bytes);
    }
  };
  for (const ProcessReading& process : answer.value) add(process);
  for (const ProcessReading& process : graphics.value) add(process);
  answer.value.clear();
  for (const auto& [pid, process] : by_pid) answer.value.push_back(process);
  return answer;
}

NvmlAnswer<GpuSharing> Nvml::sharing(Device device) const {
  int mode = 0;
  const Return code = call(functions_->compute_mode, device, &mode);
  return {code, mode == kComputeProhibited  ? GpuSharing::prohibited
                : mode == kComputeExclusive ? GpuSharing::one_process
                                            : GpuSharing::shared};
}

NvmlAnswer<uint32_t> Nvml::temperature(Device device) const {
  NvmlAnswer<uint32_t> answer;
  answer.code = call(functions_->temperature, device, kTemperatureGpu, &answer.value);
  return answer;
}

NvmlAnswer<uint32_t> Nvml::utilization(Device device) const {
  Utilization rates{};
  const Return code = call(functions_->utilization, device, &rates);
  return {code, rates.gpu};
}

NvmlAnswer<uint64_t> Nvml::ecc_uncorrected(Device device) const {
  unsigned long long count = 0;
  const Return code = call(functions_->ecc, device, kEccUncorrected, kEccSinceLoad, &count);
  return {code, count};
}

NvmlAnswer<bool> Nvml::mig_enabled(Device device) const {
  unsigned current = 0, pending = 0;
  const Return code = call(functions_->mig_mode, device, &current, &pending);
  return {code, current == 1};
}

NvmlAnswer<unsigned> Nvml::mig_slots(Device device) const {
  NvmlAnswer<unsigned> answer;
  answer.code = call(functions_->mig_slots, device, &answer.value);
  return answer;
}

NvmlAnswer<Device> Nvml::mig_device(Device parent, unsigned slot) const {
  NvmlAnswer<Device> answer;
  answer.code = call(functions_->mig_device, parent, slot, &answer.value);
  return answer;
}

bool Nvml::watch_xids(Device device) {
  if (events_ == nullptr && call(functions_->event_set_create, &events_) != kSuccess) return false;
  return call(functions_->register_events, device, kEventXid, events_) == kSuccess;
}

std::optional<std::pair<Device, uint64_t>> Nvml::next_xid() const {
  if (events_ == nullptr) return std::nullopt;
  EventData data{};
  if (call(functions_->event_wait, events_, &data, 0u) != kSuccess) return std::nullopt;
  return std::pair(data.device, data.type == kEventXid ? uint64_t{data.data} : 0);
}

}  // namespace pesc::worker
