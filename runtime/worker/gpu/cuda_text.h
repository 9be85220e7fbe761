// What a rank is told of its GPUs, and what its last words say of them.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace pesc::worker {

// The variables that give a rank its GPUs and no others; without any, it sees none.
std::vector<std::string> gpu_environment(const std::vector<std::string>& uuids);

enum class GpuFailure : uint8_t {
  none,
  out_of_memory,  // of the GPU's, not the machine's
  kernel_fault,   // its code on the GPU failed: a bug, or a GPU about to fail
  device_fault,   // the GPU or its driver failed
  unsuitable,     // the driver is too old for it, or the GPU of another capability
};
std::string_view to_string(GpuFailure failure);

struct GpuFailureFound {
  GpuFailure kind = GpuFailure::none;
  std::string line;  // that says so, fit for a terminal
};

// Looks through the end of a failed rank's standard error (and what else is known of its end) for
// what CUDA, its libraries and the frameworks on it say. Asked only of ranks that had a GPU: the
// frameworks use some of these words for the machine's memory too.
// Of several findings, that which explains the others: a GPU's fault, then its memory.
GpuFailureFound find_gpu_failure(std::string_view standard_error);

}  // namespace pesc::worker
