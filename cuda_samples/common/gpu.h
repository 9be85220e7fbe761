// The host's side of CUDA: choosing a GPU, memory, and what to say when something is missing. Needs
// the toolkit's headers, not nvcc.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <string>

namespace samples {

// Throws Failure with the call, the file and line, CUDA's name for the error and what to do.
void check_cuda(cudaError_t result, const char* call, const char* file, int line);
#define PESC_CUDA(call) ::samples::check_cuda((call), #call, __FILE__, __LINE__)

struct Gpu {
  int index = 0;
  std::string name;  // as in "NVIDIA TITAN V, 12,288 MiB, compute capability 7.0"
  int multiprocessors = 1;
};

// How many GPUs this process may use. Throws when there are none (kNoGpu), or when the driver is
// too old for the program (kDriverTooOld).
int count_gpus();

// Makes the GPU current, which creates its context. `kernel` is any kernel of the program's: that
// it can be loaded shows that the program has code for this model, else kGpuUnsupported.
Gpu open_gpu(int index, const void* kernel);

// Throws kGpuMemory when less is free on the current GPU, with both numbers and `remedy`.
void require_gpu_memory(const Gpu& gpu, std::uint64_t bytes, const std::string& remedy);

// A block of the current GPU's memory.
class GpuMemory {
 public:
  explicit GpuMemory(std::uint64_t bytes);
  ~GpuMemory();
  GpuMemory(const GpuMemory&) = delete;
  GpuMemory& operator=(const GpuMemory&) = delete;
  void* get() const { return memory_; }

 private:
  void* memory_ = nullptr;
};

}  // namespace samples
