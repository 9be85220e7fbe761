// NVIDIA's management library, loaded at run time: PESC is built and runs without it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/worker/gpu/nvml_abi.h"
#include "runtime/worker/gpu/reading.h"

namespace pesc::worker {

// What a call of the library gave: a value, or the code of its refusal.
template <typename T>
struct NvmlAnswer {
  nvml::Return code = nvml::kFunctionNotFound;
  T value{};
  bool ok() const { return code == nvml::kSuccess; }
};

// Each call may hang with the driver. A function that this driver's library lacks answers
// kFunctionNotFound.
class Nvml {
 public:
  // Loads and initialises it. `library` empty: as the dynamic linker finds it, and where some
  // distributions put it. NotFound: there is none.
  static absl::StatusOr<std::unique_ptr<Nvml>> open(const std::string& library);
  ~Nvml();  // shuts down and unloads it, so that the next one may be of another version
  Nvml(const Nvml&) = delete;
  Nvml& operator=(const Nvml&) = delete;

  std::string error_text(nvml::Return code) const;

  NvmlAnswer<std::string> driver_version() const;
  NvmlAnswer<unsigned> device_count() const;
  NvmlAnswer<nvml::Device> device(unsigned index) const;
  NvmlAnswer<std::string> uuid(nvml::Device device) const;
  NvmlAnswer<std::string> name(nvml::Device device) const;
  NvmlAnswer<std::pair<int, int>> compute_capability(nvml::Device device) const;
  NvmlAnswer<MemoryReading> memory(nvml::Device device) const;
  // Those that compute and those that draw; what is in both lists counts once. Not supported:
  // this GPU's driver does not list them.
  NvmlAnswer<std::vector<ProcessReading>> processes(nvml::Device device) const;
  NvmlAnswer<GpuSharing> sharing(nvml::Device device) const;
  NvmlAnswer<uint32_t> temperature(nvml::Device device) const;
  NvmlAnswer<uint32_t> utilization(nvml::Device device) const;
  NvmlAnswer<uint64_t> ecc_uncorrected(nvml::Device device) const;
  NvmlAnswer<bool> mig_enabled(nvml::Device device) const;
  NvmlAnswer<unsigned> mig_slots(nvml::Device device) const;
  NvmlAnswer<nvml::Device> mig_device(nvml::Device parent, unsigned slot) const;

  // From now on, the device's Xid events are kept for next_xid(). False: this one tells none.
  bool watch_xids(nvml::Device device);
  std::optional<std::pair<nvml::Device, uint64_t>> next_xid() const;  // never waits

 private:
  struct Functions;
  Nvml();
  NvmlAnswer<std::vector<ProcessReading>> list_processes(nvml::Device device, bool compute) const;

  void* library_ = nullptr;
  bool initialised_ = false;
  std::unique_ptr<Functions> functions_;
  nvml::EventSet events_ = nullptr;
};

// How long each of `count` entries is that a driver wrote to a buffer that was filled with `fill`
// and has room for `count` of 32 bytes: 24, or 32 where it wrote beyond 24 × count.
size_t process_entry_bytes(const std::vector<unsigned char>& buffer, size_t count,
                           unsigned char fill);

}  // namespace pesc::worker
