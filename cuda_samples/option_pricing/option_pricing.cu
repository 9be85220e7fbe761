// Monte Carlo on a GPU: the launches. A path is in option.h, the program in program.cc.
#include <algorithm>
#include <memory>
#include <utility>

#include "common/gpu.h"
#include "option_pricing/machine.h"
#include "option_pricing/program.h"

namespace samples::option_pricing {
namespace {

// A block per chunk at a time; how many blocks there are changes nothing in the sums.
__global__ void sum_chunks(Model model, std::uint64_t paths, std::uint64_t first,
                           std::uint64_t count, Sums* chunks) {
  __shared__ double values[kLanes], squares[kLanes];
  for (std::uint64_t i = blockIdx.x; i < count; i += gridDim.x) {
    const Sums mine = lane_sums(model, paths, first + i, threadIdx.x);
    values[threadIdx.x] = mine.values;
    squares[threadIdx.x] = mine.squares;
    __syncthreads();
    for (unsigned width = kLanes / 2; width > 0; width /= 2) {
      if (threadIdx.x < width) {
        values[threadIdx.x] += values[threadIdx.x + width];
        squares[threadIdx.x] += squares[threadIdx.x + width];
      }
      __syncthreads();
    }
    if (threadIdx.x == 0) chunks[i] = {values[0], squares[0]};
    __syncthreads();
  }
}

class GpuMachine : public Machine {
 public:
  GpuMachine(const Model& model, std::uint64_t paths, Gpu gpu)
      : model_(model),
        paths_(paths),
        gpu_(std::move(gpu)),
        batch_(batch_for(model, gpu_)),
        sums_(capacity() * sizeof(Sums)) {}

  std::string device() const override { return gpu_.name; }
  std::uint64_t batch() const override { return batch_; }

  void run(std::uint64_t first_chunk, std::vector<Sums>& chunks) override {
    for (std::uint64_t done = 0; done < chunks.size();) {
      const std::uint64_t count = std::min<std::uint64_t>(capacity(), chunks.size() - done);
      auto* const sums = static_cast<Sums*>(sums_.get());
      sum_chunks<<<static_cast<unsigned>(gpu_.multiprocessors) * 8, kLanes>>>(
          model_, paths_, first_chunk + done, count, sums);
      PESC_CUDA(cudaGetLastError());
      PESC_CUDA(cudaMemcpy(&chunks[done], sums, count * sizeof(Sums), cudaMemcpyDeviceToHost));
      done += count;
    }
  }

  static std::uint64_t batch_for(const Model& model, const Gpu& gpu) {
    // 32 chunks of short paths per block: a tenth of a second; long paths, fewer of them.
    const std::uint64_t blocks = static_cast<std::uint64_t>(gpu.multiprocessors) * 8;
    return std::max(blocks, blocks * 32 / model.steps);
  }

 private:
  std::uint64_t capacity() const { return batch_; }

  Model model_;
  std::uint64_t paths_;
  Gpu gpu_;
  std::uint64_t batch_;
  GpuMemory sums_;
};

std::unique_ptr<Machine> on_gpu(const Model& model, std::uint64_t paths) {
  (void)count_gpus();
  const Gpu gpu = open_gpu(0, reinterpret_cast<const void*>(sum_chunks));
  require_gpu_memory(gpu, GpuMachine::batch_for(model, gpu) * sizeof(Sums),
                     "wait until the GPU has some free memory again");
  return std::make_unique<GpuMachine>(model, paths, gpu);
}

}  // namespace
}  // namespace samples::option_pricing

int main(int argc, char** argv) {
  return samples::option_pricing::run_program(argc, argv, samples::option_pricing::on_gpu);
}
