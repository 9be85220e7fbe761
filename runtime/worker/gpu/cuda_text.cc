#include "runtime/worker/gpu/cuda_text.h"

#include <algorithm>
#include <cctype>
#include <initializer_list>

#include "model/text.h"

namespace pesc::worker {
namespace {

constexpr size_t kMaxTextBytes = 64 * 1024;  // the last of it
constexpr size_t kMaxLineBytes = 300;

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return out;
}

bool has_any(std::string_view line, std::initializer_list<std::string_view> words) {
  return std::any_of(words.begin(), words.end(),
                     [&](std::string_view word) { return line.find(word) != line.npos; });
}

// All below are given lines in lower case.

bool speaks_of_a_gpu(std::string_view line) {
  return has_any(line, {"cuda", "gpu", "device", "cumem", "cublas", "cudnn", "cupy", "nvidia",
                        "vram", ".cu:", ".cu(", ".cu\"", "nccl", "opencl", "thrust"});
}

// The machine's memory, by the words of those who ran out of it.
bool speaks_of_the_host(std::string_view line) {
  return has_any(
      line, {"device:cpu", "by allocator cpu", "mklcpu", "host_bfc", "cudahostalloc",
             "cudamallochost", "cumemhostalloc", "cumemallochost", "pinned", "host memory", "heap",
             "killed process", "oom-kill", "oom_kill", "mmap", "defaultcpuallocator",
             "virtual memory", "cannot allocate memory", "can't allocate memory"});
}

// A framework that tries again with less says so.
bool says_it_goes_on(std::string_view line) {
  return has_any(line, {"not a failure", "retrying", "will retry", "trying again", "falling back"});
}

bool is_out_of_memory(std::string_view line, bool about_a_gpu) {
  if (speaks_of_the_host(line) || says_it_goes_on(line)) return false;
  if (has_any(line, {"cuda_error_out_of_memory", "cudaerrormemoryallocation", "cuda out of memory",
                     "cuda.outofmemoryerror", "torch.outofmemoryerror", "memory.outofmemoryerror",
                     "cublas_status_alloc_failed", "cudnn_status_alloc_failed",
                     "cusolver_status_alloc_failed", "cusparse_status_alloc_failed",
                     "cufft_alloc_failed", "curand_status_allocation_failed", "rmm::out_of_memory",
                     "cl_mem_object_allocation_failure", "oom when allocating tensor"})) {
    return true;
  }
  const bool exhausted = has_any(line, {"resource_exhausted", "resourceexhaustederror"});
  if (exhausted) return has_any(line, {"out of memory", "oom", "allocat"});
  // The text of cudaGetErrorString, which many programs print with little around it.
  return line.find("out of memory") != line.npos && (about_a_gpu || speaks_of_a_gpu(line)) &&
         !has_any(line, {"bad_alloc", "memoryerror", "outofmemoryerror"});
}

bool is_device_fault(std::string_view line) {
  return has_any(line, {"uncorrectable ecc",
                        "cudaerroreccuncorrectable",
                        "cuda_error_ecc_uncorrectable",
                        "fallen off the bus",
                        "gpu is lost",
                        "nvrm: xid",
                        "cudaerrordevicesunavailable",
                        "devices are busy or unavailable",
                        "cudaerrorhardwarestackerror",
                        "hardware stack error",
                        "cuda_error_hardware_stack_error",
                        "cudaerrornodevice",
                        "cuda_error_no_device",
                        "no cuda-capable device is detected",
                        "cuda_error_not_initialized",
                        "cudaerrorinitializationerror",
                        "cudaerrorsystemnotready",
                        "cuda_error_system_not_ready",
                        "cudaerrorunknown",
                        "cuda_error_unknown",
                        "no cuda gpus are available",
                        "cudaerrorcontained",
                        "cuda_error_contained",
                        "nvlink uncorrectable"});
}

bool is_kernel_fault(std::string_view line) {
  if (has_any(line, {"unspecified launch failure", "cudaerrorlaunchfailure",
                     "cuda_error_launch_failed", "cudaerrorillegaladdress",
                     "cuda_error_illegal_address", "cudaerrorillegalinstruction",
                     "cuda_error_illegal_instruction", "cudaerrormisalignedaddress",
                     "cuda_error_misaligned_address", "cudaerrorlaunchtimeout",
                     "cuda_error_launch_timeout", "the launch timed out and was terminated",
                     "cudaerrorassert", "cuda_error_assert", "device-side assert"})) {
    return true;
  }
  return speaks_of_a_gpu(line) &&
         has_any(line, {"illegal memory access", "an illegal instruction was encountered",
                        "misaligned address"});
}

bool is_unsuitable(std::string_view line) {
  return has_any(line, {"cuda driver version is insufficient", "cudaerrorinsufficientdriver",
                        "no kernel image is available", "cudaerrornokernelimagefordevice",
                        "cuda_error_no_binary_for_gpu", "nvidia driver on your system is too old",
                        "cudaerrorunsupportedptxversion", "cuda_error_unsupported_ptx_version",
                        "unsupported toolchain"});
}

}  // namespace

std::vector<std::string> gpu_environment(const std::vector<std::string>& uuids) {
  std::string list;
  for (const std::string& uuid : uuids) {
    if (!list.empty()) list += ',';
    list += uuid;
  }
  return {"CUDA_VISIBLE_DEVICES=" + list};
}

std::string_view to_string(GpuFailure failure) {
  switch (failure) {
    case GpuFailure::none:
      return "none";
    case GpuFailure::out_of_memory:
      return "out_of_memory";
    case GpuFailure::kernel_fault:
      return "kernel_fault";
    case GpuFailure::device_fault:
      return "device_fault";
    case GpuFailure::unsuitable:
      return "unsuitable";
  }
  return "none";
}

GpuFailureFound find_gpu_failure(std::string_view standard_error) {
  if (standard_error.size() > kMaxTextBytes) {
    standard_error.remove_prefix(standard_error.size() - kMaxTextBytes);
  }
  const std::string text = lower(standard_error);
  const bool about_a_gpu = speaks_of_a_gpu(text);
  GpuFailureFound found;
  int found_rank = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    const std::string_view line = std::string_view(text).substr(at, end - at);
    // In the order in which one explains the others.
    const auto [kind, rank] = is_device_fault(line) ? std::pair(GpuFailure::device_fault, 4)
                              : is_out_of_memory(line, about_a_gpu)
                                  ? std::pair(GpuFailure::out_of_memory, 3)
                              : is_kernel_fault(line) ? std::pair(GpuFailure::kernel_fault, 2)
                              : is_unsuitable(line)   ? std::pair(GpuFailure::unsuitable, 1)
                                                      : std::pair(GpuFailure::none, 0);
    if (rank > found_rank) {
      found_rank = rank;
      found.kind = kind;
      std::string_view original = standard_error.substr(at, end - at);
      while (!original.empty() && (original.front() == ' ' || original.front() == '\t')) {
        original.remove_prefix(1);
      }
      while (!original.empty() && original.back() == '\r') original.remove_suffix(1);
      found.line = for_terminal(cut_utf8(original, kMaxLineBytes));
    }
    at = end + 1;
  }
  return found;
}

}  // namespace pesc::worker
