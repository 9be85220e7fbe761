// The probe that asks NVIDIA's library.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "runtime/worker/gpu/nvml.h"
#include "runtime/worker/gpu/reading.h"

namespace pesc::worker {

class NvmlProbe final : public GpuProbe {
 public:
  explicit NvmlProbe(std::string library = {}) : library_(std::move(library)) {}
  absl::StatusOr<DriverReading> read(bool full) override;

 private:
  // What does not change while the library is loaded.
  struct Known {
    std::string uuid, name;
    int major = 0, minor = 0;
    GpuSharing sharing = GpuSharing::shared;
  };
  struct Whole {
    unsigned index = 0;
    nvml::Device device = nullptr;
    std::string failure;  // no handle: why
    bool mig = false;
    std::vector<nvml::Device> parts;
  };

  absl::Status open();
  absl::Status enumerate();
  void enumerate_parts(Whole& whole);
  // What NVML says when the driver as a whole is gone, not one GPU.
  bool driver_is_gone(nvml::Return code);
  const Known& known(nvml::Device device, GpuReading& reading);
  GpuReading read_gpu(nvml::Device device, bool mig, bool full);
  void read_memory(nvml::Device device, GpuReading& reading);
  void read_health(nvml::Device device, GpuReading& reading);
  std::multimap<nvml::Device, uint64_t> take_xids();
  void failed(GpuReading& reading, const char* what, nvml::Return code);

  const std::string library_;
  std::unique_ptr<Nvml> nvml_;
  std::string driver_;
  std::vector<Whole> wholes_;
  std::map<nvml::Device, Known> known_;
  std::map<unsigned, Known> seen_at_;  // what a GPU was called before it could not be asked
  std::vector<std::string> notes_;
  nvml::Return gone_ = nvml::kSuccess;
};

}  // namespace pesc::worker
