#include "runtime/worker/gpu/cuda_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace pesc::worker {
namespace {

using ::testing::ElementsAre;

TEST(GpuEnvironment, NamesTheGpusAndNoOthers) {
  EXPECT_THAT(gpu_environment({"GPU-a", "MIG-b"}), ElementsAre("CUDA_VISIBLE_DEVICES=GPU-a,MIG-b"));
  EXPECT_THAT(gpu_environment({}), ElementsAre("CUDA_VISIBLE_DEVICES="));
}

struct Said {
  GpuFailure kind;
  const char* text;
};

class FindGpuFailure : public ::testing::TestWithParam<Said> {};

TEST_P(FindGpuFailure, TellsThemApart) {
  EXPECT_EQ(to_string(find_gpu_failure(GetParam().text).kind), to_string(GetParam().kind))
      << GetParam().text;
}

constexpr auto kMemory = GpuFailure::out_of_memory;
constexpr auto kKernel = GpuFailure::kernel_fault;
constexpr auto kDevice = GpuFailure::device_fault;
constexpr auto kUnsuitable = GpuFailure::unsuitable;
constexpr auto kNone = GpuFailure::none;

INSTANTIATE_TEST_SUITE_P(
    OutOfMemory, FindGpuFailure,
    ::testing::Values(
        Said{kMemory,
             "CUDA error at dijkstra.cu:120 code=2(cudaErrorMemoryAllocation) "
             "\"cudaMalloc(&p, n)\""},
        Said{kMemory, "GPUassert: out of memory main.cu 33"},
        Said{kMemory, "dijkstra.cu:33: out of memory"},
        Said{kMemory, "CUDA_ERROR_OUT_OF_MEMORY: out of memory"},
        Said{kMemory,
             "torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB "
             "(GPU 0; 11.76 GiB total capacity)"},
        Said{kMemory, "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20 MiB."},
        Said{kMemory,
             "RuntimeError: CUDA error: out of memory\nCUDA kernel errors might be "
             "asynchronously reported at some other API call"},
        Said{kMemory,
             "tensorflow.python.framework.errors_impl.ResourceExhaustedError: Graph "
             "execution error: OOM when allocating tensor with shape[64,512] and type "
             "float on /job:localhost/replica:0/task:0/device:GPU:0 by allocator "
             "GPU_0_bfc"},
        Said{kMemory,
             "jaxlib.xla_extension.XlaRuntimeError: RESOURCE_EXHAUSTED: Out of memory "
             "while trying to allocate 17179869184 bytes."},
        Said{kMemory,
             "cupy.cuda.memory.OutOfMemoryError: Out of memory allocating 8,000,000,000 "
             "bytes (allocated so far: 0 bytes)."},
        Said{kMemory,
             "numba.cuda.cudadrv.driver.CudaAPIError: [2] Call to cuMemAlloc results in "
             "CUDA_ERROR_OUT_OF_MEMORY"},
        Said{kMemory, "pycuda._driver.MemoryError: cuMemAlloc failed: CUDA_ERROR_OUT_OF_MEMORY"},
        Said{kMemory,
             "terminate called after throwing an instance of "
             "'thrust::system::detail::bad_alloc'\n  what():  std::bad_alloc: "
             "cudaErrorMemoryAllocation: out of memory"},
        Said{kMemory, "CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"},
        Said{kMemory, "on device 0 of NVIDIA RTX 3060\nerror: out of memory\n"},
        Said{kMemory, "first line\r\nCUDA out of memory\r\nlast line"}));

INSTANTIATE_TEST_SUITE_P(
    NotTheGpusMemory, FindGpuFailure,
    ::testing::Values(
        Said{kNone,
             "terminate called after throwing an instance of 'std::bad_alloc'\n  what():  "
             "std::bad_alloc"},
        Said{kNone, "MemoryError: Unable to allocate 8.00 GiB for an array with shape (1000000,)"},
        Said{kNone, "numpy.core._exceptions.MemoryError: Unable to allocate 4 GiB (cuda is idle)"},
        Said{kNone, "java.lang.OutOfMemoryError: Java heap space"},
        Said{kNone, "FATAL ERROR: JavaScript heap out of memory (gpu process)"},
        Said{kNone, "Error: cannot allocate vector of size 7.5 Gb"},
        Said{kNone, "Error: out of memory"}, Said{kNone, "fork: Cannot allocate memory"},
        Said{kNone,
             "RuntimeError: [enforce fail at alloc_cpu.cpp:75] DefaultCPUAllocator: can't "
             "allocate memory: you tried to allocate 400 bytes. out of memory, not CUDA"},
        Said{kNone,
             "ResourceExhaustedError: OOM when allocating tensor with shape[9] on "
             "/job:localhost/replica:0/task:0/device:CPU:0 by allocator cpu"},
        Said{kNone, "cudaHostAlloc failed: cudaErrorMemoryAllocation: out of memory"},
        Said{kNone, "grpc: RESOURCE_EXHAUSTED: Received message larger than max (5 vs. 4)"},
        Said{kNone,
             "Allocator (GPU_0_bfc) ran out of memory trying to allocate 2.13GiB. The "
             "caller indicates that this is not a failure"},
        Said{kNone, "Out of memory: Killed process 4711 (python3)"},
        Said{kNone, "ValueError: bad parameter"}, Said{kNone, ""}));

INSTANTIATE_TEST_SUITE_P(
    Faults, FindGpuFailure,
    ::testing::Values(
        Said{kKernel, "CUDA error: unspecified launch failure"},
        Said{kKernel, "CUDA error 719 (cudaErrorLaunchFailure)"},
        Said{kKernel, "RuntimeError: CUDA error: an illegal memory access was encountered"},
        Said{kKernel, "RuntimeError: CUDA error: device-side assert triggered"},
        Said{kKernel, "the launch timed out and was terminated (cudaErrorLaunchTimeout)"},
        Said{kDevice, "CUDA error: uncorrectable ECC error encountered"},
        Said{kDevice, "CUDA error 100 (cudaErrorNoDevice): no CUDA-capable device is detected"},
        Said{kDevice, "all CUDA-capable devices are busy or unavailable"},
        Said{kDevice, "Unable to determine the device handle for GPU 0000:01:00.0: GPU is lost."},
        Said{kDevice, "RuntimeError: No CUDA GPUs are available"},
        Said{kUnsuitable, "CUDA driver version is insufficient for CUDA runtime version"},
        Said{kUnsuitable, "no kernel image is available for execution on the device"},
        Said{kNone, "illegal memory access in my own allocator"}));

TEST(FindGpuFailureOrder, AFaultExplainsTheRest) {
  EXPECT_EQ(find_gpu_failure("CUDA error: out of memory\nuncorrectable ECC error\n").kind, kDevice);
  EXPECT_EQ(find_gpu_failure("unspecified launch failure\nCUDA out of memory\n").kind, kMemory);
}

TEST(FindGpuFailureOrder, TheLineIsFitForATerminal) {
  const GpuFailureFound found =
      find_gpu_failure("before\n  \x1b[31mCUDA error: out of memory\x1b[0m\r\nafter");
  EXPECT_EQ(found.line, "\\x1b[31mCUDA error: out of memory\\x1b[0m");
  EXPECT_LE(find_gpu_failure("CUDA out of memory" + std::string(100'000, 'x')).line.size(), 300u)
      << "what is at the beginning of a very long line is not read";
  EXPECT_EQ(find_gpu_failure(std::string(200'000, 'x') + "\nCUDA out of memory").line,
            "CUDA out of memory");
}

}  // namespace
}  // namespace pesc::worker
