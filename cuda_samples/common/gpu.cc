#include "common/gpu.h"

#include <cstdlib>
#include <cstring>

#include "common/failure.h"
#include "common/text.h"

namespace samples {
namespace {

std::string version_text(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

// Their messages carry CUDA's names for the errors: those PESC knows, and people search for.
[[noreturn]] void refuse_driver() {
  int driver = 0, runtime = 0;
  (void)cudaDriverGetVersion(&driver);
  (void)cudaRuntimeGetVersion(&runtime);
  // Without any driver CUDA calls it too old as well.
  if (driver == 0) {
    throw Failure(kNoGpu,
                  "no GPU: this computer has no NVIDIA driver (cudaErrorInsufficientDriver, no "
                  "libcuda.so.1); run it on one that has, with pesc run --gpus 1 (two_gpus: "
                  "2), or try it with --cpu");
  }
  throw Failure(kDriverTooOld,
                "the NVIDIA driver is too old (cudaErrorInsufficientDriver): it "
                "knows CUDA " +
                    version_text(driver) + ", the program needs " + version_text(runtime) +
                    "; update the driver, or build with an older CUDA toolkit");
}

[[noreturn]] void refuse_no_gpu() {
  const char* const visible = std::getenv("CUDA_VISIBLE_DEVICES");
  std::string why = "cudaErrorNoDevice";
  if (visible != nullptr) why += std::string("; CUDA_VISIBLE_DEVICES is '") + visible + "'";
  throw Failure(kNoGpu,
                "no GPU that this program may use (" + why +
                    "); ask for one with pesc run --gpus 1 (two_gpus: 2), or try it with --cpu");
}

}  // namespace

void check_cuda(cudaError_t result, const char* call, const char* file, int line) {
  if (result == cudaSuccess) return;
  const char* const slash = std::strrchr(file, '/');
  const std::string what =
      text("%s (%s) from %s, %s:%d", cudaGetErrorString(result), cudaGetErrorName(result), call,
           slash != nullptr ? slash + 1 : file, line);
  switch (result) {
    case cudaErrorInsufficientDriver:
      refuse_driver();
    case cudaErrorNoDevice:
      refuse_no_gpu();
    case cudaErrorMemoryAllocation:
      throw Failure(kGpuMemory, "CUDA out of memory: " + what +
                                    "; something else took the GPU's memory meanwhile: try again, "
                                    "or make the problem smaller");
    case cudaErrorDevicesUnavailable:
      throw Failure(kNoGpu, "the GPU is kept by another program (exclusive mode): " + what +
                                "; try again when it is free");
    case cudaErrorUnsupportedPtxVersion:
      throw Failure(
          kDriverTooOld,
          "the NVIDIA driver is too old for the program's code: " + what +
              "; update the driver, or build with -DCMAKE_CUDA_ARCHITECTURES for the GPU");
    case cudaErrorNoKernelImageForDevice:
    case cudaErrorInvalidDeviceFunction:
      throw Failure(kGpuUnsupported, "the program has no code for this GPU: " + what +
                                         "; build it with -DCMAKE_CUDA_ARCHITECTURES for it");
    default:
      throw Failure(kFailed, "CUDA: " + what);
  }
}

int count_gpus() {
  int count = 0;
  PESC_CUDA(cudaGetDeviceCount(&count));
  if (count == 0) refuse_no_gpu();
  return count;
}

Gpu open_gpu(int index, const void* kernel) {
  PESC_CUDA(cudaSetDevice(index));
  PESC_CUDA(cudaFree(nullptr));  // creates the context here, where its failure is understood
  cudaDeviceProp properties;
  PESC_CUDA(cudaGetDeviceProperties(&properties, index));
  cudaFuncAttributes attributes;
  PESC_CUDA(cudaFuncGetAttributes(&attributes, kernel));
  Gpu gpu;
  gpu.index = index;
  gpu.name =
      text("%s, %s MiB, compute capability %d.%d", properties.name,
           grouped(properties.totalGlobalMem >> 20).c_str(), properties.major, properties.minor);
  gpu.multiprocessors = properties.multiProcessorCount;
  return gpu;
}

void require_gpu_memory(const Gpu& gpu, std::uint64_t bytes, const std::string& remedy) {
  std::size_t free = 0, total = 0;
  PESC_CUDA(cudaMemGetInfo(&free, &total));
  if (bytes <= free) return;
  throw Failure(kGpuMemory, "CUDA out of memory before it began: " + shown_bytes(bytes) +
                                " are needed, " + shown_bytes(free) + " of " + shown_bytes(total) +
                                " are free on GPU " + std::to_string(gpu.index) + " (" + gpu.name +
                                "); " + remedy);
}

GpuMemory::GpuMemory(std::uint64_t bytes) { PESC_CUDA(cudaMalloc(&memory_, bytes)); }

GpuMemory::~GpuMemory() { (void)cudaFree(memory_); }

}  // namespace samples
