#include "runtime/worker/gpu/gpu_findings.h"

#include <utility>

#include "model/job_spec.h"
#include "runtime/worker/gpu/gpu_table.h"
#include "runtime/worker/gpu/nvml_probe.h"
#include "runtime/worker/gpu/probe_thread.h"

namespace pesc::worker {
namespace {

constexpr char kDriver[] = "GPU driver";

std::string describe(const GpuState& state) {
  const Gpu& gpu = state.gpu;
  std::string text = gpu.name;
  if (gpu.memory_bytes > 0) text += ", " + format_bytes(gpu.memory_bytes);
  if (gpu.compute_capability > 0) {
    text += ", compute capability " + std::to_string(gpu.compute_capability / 100) + "." +
            std::to_string(gpu.compute_capability % 100);
  }
  if (gpu.taken_bytes > 0) text += ", " + format_bytes(gpu.taken_bytes) + " taken by others";
  if (state.temperature_c) text += ", " + std::to_string(*state.temperature_c) + " °C";
  if (!gpu.trouble.empty()) return text + ": not used: " + gpu.trouble;
  if (!gpu.reports_memory) text += ": one rank at a time: " + state.one_at_a_time;
  return text;
}

GpuFinding driver_finding(const absl::Status& why) {
  GpuFinding finding{false, kDriver, std::string(why.message())};
  if (absl::IsNotFound(why)) {
    finding.text =
        "no NVIDIA driver on this machine (" + finding.text +
        "): ranks that ask for GPUs run elsewhere. With a GPU here: install its driver, and see "
        "that `nvidia-smi -L` lists it";
  }
  return finding;
}

}  // namespace

std::vector<GpuFinding> find_gpus(const std::string& nvml_library, uint64_t limit_ms) {
  return find_gpus(std::make_unique<NvmlProbe>(nvml_library), limit_ms);
}

std::vector<GpuFinding> find_gpus(std::unique_ptr<GpuProbe> probe, uint64_t limit_ms) {
  const absl::StatusOr<DriverReading> reading = read_once(std::move(probe), limit_ms);
  if (!reading.ok()) return {driver_finding(reading.status())};
  GpuTable table({{}, sees_the_machines_processes()});
  const GpuSnapshot snapshot =
      table.update(*reading, {}, [](uint32_t pid) { return parent_of(pid); });
  std::vector<GpuFinding> findings;
  const size_t count = snapshot.gpus.size();
  findings.push_back({count > 0, kDriver,
                      (snapshot.driver.empty() ? "of unknown version" : snapshot.driver) +
                          (count == 0   ? ", and it lists no GPU that can be used"
                           : count == 1 ? ", 1 GPU"
                                        : ", " + std::to_string(count) + " GPUs")});
  for (const GpuState& state : snapshot.gpus) {
    findings.push_back({state.gpu.trouble.empty(), state.gpu.uuid, describe(state)});
  }
  for (const std::string& note : snapshot.notes) findings.push_back({false, kDriver, note});
  return findings;
}

}  // namespace pesc::worker
