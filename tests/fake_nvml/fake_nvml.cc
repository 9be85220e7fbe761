// A libnvidia-ml.so.1 for tests: the driver that the script named in PESC_FAKE_NVML describes (see
// script.h). Compiled twice: with FAKE_NVML_OLD it lacks what drivers before R470 lacked.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "script.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {

using fake_nvml::Gpu;
using fake_nvml::Process;
using fake_nvml::Script;

constexpr int kSuccess = 0, kUninitialized = 1, kInvalidArgument = 2, kNotSupported = 3,
              kNotFound = 6, kInsufficientSize = 7, kTimeout = 10, kLost = 15;

int initialised = 0;
std::vector<std::string> handles;    // a device is its UUID's place in here, from 1
std::set<std::string> listened;      // UUIDs whose Xids are told
std::map<std::string, size_t> told;  // how many of them

Script current() {
  const char* path = std::getenv("PESC_FAKE_NVML");
  return fake_nvml::read_script(path == nullptr ? "" : path);
}

void* handle_of(const std::string& uuid) {
  auto at = std::find(handles.begin(), handles.end(), uuid);
  if (at == handles.end()) at = handles.insert(handles.end(), uuid);
  return reinterpret_cast<void*>(at - handles.begin() + 1);
}

std::string uuid_of(const void* device) {
  const auto place = reinterpret_cast<size_t>(device);
  return place == 0 || place > handles.size() ? "" : handles[place - 1];
}

bool matches(const std::string& pattern, const std::string& call) {
  if (!pattern.empty() && pattern.back() == '*') {
    return call.compare(0, pattern.size() - 1, pattern, 0, pattern.size() - 1) == 0;
  }
  return pattern == call;
}

// What every call does first: hang, fail, find out that the driver has gone.
int enter(const Script& script, const char* call, const std::string& uuid = {}) {
  for (const auto& [pattern, fifo] : script.hangs) {
    if (!matches(pattern, call)) continue;
    const int gate = ::open(fifo.c_str(), O_RDONLY | O_CLOEXEC);
    char byte;
    while (gate >= 0 && ::read(gate, &byte, 1) > 0) {
    }
    if (gate >= 0) ::close(gate);
  }
  if (script.down) initialised = 0;
  for (const fake_nvml::Failure& failure : script.failures) {
    if (matches(failure.call, call) && (failure.uuid.empty() || failure.uuid == uuid)) {
      return failure.code;
    }
  }
  return initialised > 0 ? kSuccess : kUninitialized;
}

// The GPU that a call is about, or the call's answer.
struct Entered {
  Script script;
  const Gpu* gpu = nullptr;
  int code = kSuccess;

  Entered(const char* call, const void* device) : script(current()) {
    const std::string uuid = uuid_of(device);
    code = enter(script, call, uuid);
    if (code != kSuccess) return;
    gpu = script.find(uuid);
    if (uuid.empty())
      code = kInvalidArgument;
    else if (gpu == nullptr || is_lost(*gpu))
      code = kLost;
  }
  bool is_lost(const Gpu& of) const {
    const Gpu* whole = of.parent.empty() ? nullptr : script.find(of.parent);
    return of.lost || (whole != nullptr && whole->lost);
  }
};

int copy(const std::string& text, char* buffer, unsigned size) {
  if (buffer == nullptr) return kInvalidArgument;
  if (size <= text.size()) return kInsufficientSize;
  std::memcpy(buffer, text.c_str(), text.size() + 1);
  return kSuccess;
}

std::vector<Process> all_processes(const Script& script, const Gpu& gpu) {
  std::vector<Process> processes = fake_nvml::running_programs(script, gpu.uuid);
  processes.insert(processes.end(), gpu.processes.begin(), gpu.processes.end());
  return processes;
}

uint64_t used(const Script& script, const Gpu& gpu) {
  return gpu.used + fake_nvml::sum_of(all_processes(script, gpu));
}

int list(const char* call, void* device, bool graphics, unsigned* count, void* out,
         size_t entry_bytes) {
  Entered entered(call, device);
  if (entered.code != kSuccess) return entered.code;
  if (count == nullptr) return kInvalidArgument;
  const Gpu& gpu = *entered.gpu;
  if (gpu.reports == "unsupported") return kNotSupported;
  std::vector<Process> shown;
  if (gpu.reports != "hidden") {
    for (const Process& process : all_processes(entered.script, gpu)) {
      if (process.graphics == graphics) shown.push_back(process);
    }
  }
  const unsigned room = *count;
  *count = static_cast<unsigned>(shown.size());
  if (room < shown.size()) return kInsufficientSize;
  for (size_t i = 0; i < shown.size(); ++i) {
    const unsigned pid = static_cast<unsigned>(shown[i].pid + gpu.pid_offset);
    const unsigned long long bytes = gpu.reports == "no" ? ~0ull : shown[i].bytes;
    char* entry = static_cast<char*>(out) + i * entry_bytes;
    std::memcpy(entry, &pid, sizeof pid);
    std::memcpy(entry + 8, &bytes, sizeof bytes);
    if (entry_bytes >= 24) std::memset(entry + 16, 0xff, 8);  // no MIG instances
    if (entry_bytes >= 32) std::memset(entry + 24, 0, 8);     // no protected memory
  }
  return kSuccess;
}

}  // namespace

EXPORT const char* nvmlErrorString(int code) {
  switch (code) {
    case 9:
      return "Driver Not Loaded";
    case 15:
      return "GPU is lost";
    case 18:
      return "Driver/library version mismatch";
    case 3:
      return "Not Supported";
    default:
      return "Unknown Error";
  }
}

EXPORT int nvmlInit_v2() {
  const Script script = current();
  if (script.down) return *script.down;
  ++initialised;
  const int code = enter(script, "nvmlInit_v2");
  if (code != kSuccess) --initialised;
  return code;
}

EXPORT int nvmlShutdown() {
  if (initialised == 0) return kUninitialized;
  --initialised;
  listened.clear();
  return kSuccess;
}

EXPORT int nvmlSystemGetDriverVersion(char* buffer, unsigned size) {
  const Script script = current();
  const int code = enter(script, "nvmlSystemGetDriverVersion");
  return code != kSuccess ? code : copy(script.driver, buffer, size);
}

EXPORT int nvmlDeviceGetCount_v2(unsigned* count) {
  const Script script = current();
  const int code = enter(script, "nvmlDeviceGetCount_v2");
  if (code == kSuccess) {
    *count = script.count.value_or(static_cast<unsigned>(script.wholes().size()));
  }
  return code;
}

EXPORT int nvmlDeviceGetHandleByIndex_v2(unsigned index, void** device) {
  const Script script = current();
  const std::vector<const Gpu*> wholes = script.wholes();
  const std::string uuid = index < wholes.size() ? wholes[index]->uuid : "";
  const int code = enter(script, "nvmlDeviceGetHandleByIndex_v2", uuid);
  if (code != kSuccess) return code;
  if (index >= wholes.size()) return kInvalidArgument;
  if (wholes[index]->lost) return kLost;
  *device = handle_of(uuid);
  return kSuccess;
}

EXPORT int nvmlDeviceGetUUID(void* device, char* buffer, unsigned size) {
  Entered entered("nvmlDeviceGetUUID", device);
  return entered.code != kSuccess ? entered.code : copy(entered.gpu->uuid, buffer, size);
}

EXPORT int nvmlDeviceGetName(void* device, char* buffer, unsigned size) {
  Entered entered("nvmlDeviceGetName", device);
  return entered.code != kSuccess ? entered.code : copy(entered.gpu->name, buffer, size);
}

EXPORT int nvmlDeviceGetCudaComputeCapability(void* device, int* major, int* minor) {
  Entered entered("nvmlDeviceGetCudaComputeCapability", device);
  if (entered.code != kSuccess) return entered.code;
  *major = entered.gpu->major;
  *minor = entered.gpu->minor;
  return kSuccess;
}

struct MemoryV1 {
  unsigned long long total, free, used;
};

EXPORT int nvmlDeviceGetMemoryInfo(void* device, MemoryV1* memory) {
  Entered entered("nvmlDeviceGetMemoryInfo", device);
  if (entered.code != kSuccess) return entered.code;
  const unsigned long long in_use = used(entered.script, *entered.gpu) + entered.gpu->reserved;
  *memory = {entered.gpu->memory, entered.gpu->memory - in_use, in_use};
  return kSuccess;
}

EXPORT int nvmlDeviceGetComputeMode(void* device, int* mode) {
  Entered entered("nvmlDeviceGetComputeMode", device);
  if (entered.code != kSuccess) return entered.code;
  *mode = entered.gpu->mode == "prohibited" ? 2 : entered.gpu->mode == "exclusive" ? 3 : 0;
  return kSuccess;
}

EXPORT int nvmlDeviceGetTemperature(void* device, int, unsigned* celsius) {
  Entered entered("nvmlDeviceGetTemperature", device);
  if (entered.code == kSuccess) *celsius = entered.gpu->temperature;
  return entered.code;
}

EXPORT int nvmlDeviceGetTotalEccErrors(void* device, int type, int counter,
                                       unsigned long long* count) {
  Entered entered("nvmlDeviceGetTotalEccErrors", device);
  if (entered.code == kSuccess) *count = type == 1 && counter == 0 ? entered.gpu->ecc : 0;
  return entered.code;
}

struct Rates {
  unsigned gpu, memory;
};

EXPORT int nvmlDeviceGetUtilizationRates(void* device, Rates* rates) {
  Entered entered("nvmlDeviceGetUtilizationRates", device);
  if (entered.code == kSuccess) *rates = {entered.gpu->utilization, 0};
  return entered.code;
}

EXPORT int nvmlDeviceGetComputeRunningProcesses(void* device, unsigned* count, void* out) {
  return list("nvmlDeviceGetComputeRunningProcesses", device, false, count, out, 16);
}

EXPORT int nvmlDeviceGetGraphicsRunningProcesses(void* device, unsigned* count, void* out) {
  return list("nvmlDeviceGetGraphicsRunningProcesses", device, true, count, out, 16);
}

EXPORT int nvmlEventSetCreate(void** set) {
  *set = reinterpret_cast<void*>(1);
  return enter(current(), "nvmlEventSetCreate");
}

EXPORT int nvmlEventSetFree(void*) { return kSuccess; }

EXPORT int nvmlDeviceRegisterEvents(void* device, unsigned long long types, void*) {
  Entered entered("nvmlDeviceRegisterEvents", device);
  if (entered.code != kSuccess) return entered.code;
  if ((types & 8) != 0 && listened.insert(entered.gpu->uuid).second) {
    told[entered.gpu->uuid] = entered.gpu->xids.size();
  }
  return kSuccess;
}

#ifndef FAKE_NVML_OLD

struct Event {
  void* device;
  unsigned long long type, data;
  unsigned gpu_instance, compute_instance;
};

EXPORT int nvmlEventSetWait_v2(void*, Event* event, unsigned) {
  const Script script = current();
  const int code = enter(script, "nvmlEventSetWait_v2");
  if (code != kSuccess) return code;
  for (const Gpu& gpu : script.gpus) {
    if (listened.count(gpu.uuid) == 0 || told[gpu.uuid] >= gpu.xids.size()) continue;
    *event = {handle_of(gpu.uuid), 8, gpu.xids[told[gpu.uuid]++], ~0u, ~0u};
    return kSuccess;
  }
  return kTimeout;
}

struct MemoryV2 {
  unsigned version;
  unsigned long long total, reserved, free, used;
};

EXPORT int nvmlDeviceGetMemoryInfo_v2(void* device, MemoryV2* memory) {
  Entered entered("nvmlDeviceGetMemoryInfo_v2", device);
  if (entered.code != kSuccess) return entered.code;
  if (memory->version != (sizeof(MemoryV2) | 2u << 24)) return 25;
  const Gpu& gpu = *entered.gpu;
  const unsigned long long in_use = used(entered.script, gpu);
  memory->total = gpu.memory;
  memory->reserved = gpu.reserved;
  memory->used = in_use;
  memory->free = gpu.memory - gpu.reserved - in_use;
  return kSuccess;
}

EXPORT int nvmlDeviceGetComputeRunningProcesses_v3(void* device, unsigned* count, void* out) {
  return list("nvmlDeviceGetComputeRunningProcesses_v3", device, false, count, out,
              current().entry_bytes);
}

EXPORT int nvmlDeviceGetGraphicsRunningProcesses_v3(void* device, unsigned* count, void* out) {
  return list("nvmlDeviceGetGraphicsRunningProcesses_v3", device, true, count, out,
              current().entry_bytes);
}

EXPORT int nvmlDeviceGetMigMode(void* device, unsigned* now, unsigned* pending) {
  Entered entered("nvmlDeviceGetMigMode", device);
  if (entered.code != kSuccess) return entered.code;
  const bool on = entered.gpu->mode == "mig" || !entered.script.parts_of(entered.gpu->uuid).empty();
  *now = *pending = on ? 1 : 0;
  return kSuccess;
}

EXPORT int nvmlDeviceGetMaxMigDeviceCount(void* device, unsigned* count) {
  Entered entered("nvmlDeviceGetMaxMigDeviceCount", device);
  if (entered.code == kSuccess) *count = 7;
  return entered.code;
}

EXPORT int nvmlDeviceGetMigDeviceHandleByIndex(void* device, unsigned index, void** part) {
  Entered entered("nvmlDeviceGetMigDeviceHandleByIndex", device);
  if (entered.code != kSuccess) return entered.code;
  const std::vector<const Gpu*> parts = entered.script.parts_of(entered.gpu->uuid);
  if (index >= parts.size()) return kNotFound;
  *part = handle_of(parts[index]->uuid);
  return kSuccess;
}

#endif
