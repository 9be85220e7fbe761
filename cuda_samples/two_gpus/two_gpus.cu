// Heat on several GPUs of one computer: the launches and the exchange. A cell is in heat.h, the
// program in program.cc.
//
// In an iteration each GPU computes its edge rows, sends them to its neighbours (from GPU to GPU
// where the hardware can, else through the computer's memory: cudaMemcpyPeerAsync chooses) and
// computes its inner rows meanwhile. Two streams per GPU, `edge` and `inner`, are kept in step by
// events:
//   the edge rows of iteration k read inner rows and halos of k-1, and write over edge rows of k-2;
//   the inner rows of k read edge rows of k-1;
//   a copy in k writes over a neighbour's halo of k-2, which its edge rows of k-1 read: those are
//   before its copy of k-1, for which the edge rows of k wait.
#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "common/failure.h"
#include "common/gpu.h"
#include "two_gpus/machine.h"
#include "two_gpus/program.h"

namespace samples::two_gpus {
namespace {

constexpr unsigned kThreads = 256;

// Of non-negative numbers, the larger one has the larger bits.
__device__ void report(float change, unsigned* largest) {
  for (unsigned offset = 16; offset > 0; offset /= 2) {
    change = fmaxf(change, __shfl_down_sync(0xFFFFFFFFU, change, offset));
  }
  if (threadIdx.x % 32 == 0 && change > 0) atomicMax(largest, __float_as_uint(change));
}

// Block (x, y): some columns of some rows. `edge`: the edge rows, else the rows between them.
// `largest` is null when nobody asks for it.
__global__ void relax_rows(Part part, const float* from, float* to, bool edge, unsigned* largest) {
  const std::uint64_t rows = edge ? edge_rows(part) : part.rows - edge_rows(part);
  float change = 0;
  for (std::uint64_t i = blockIdx.y; i < rows; i += gridDim.y) {
    const std::uint64_t row = edge ? edge_row(part, i) : 2 + i;
    const std::uint64_t step = std::uint64_t{gridDim.x} * kThreads;
    for (std::uint64_t column = 1 + std::uint64_t{blockIdx.x} * kThreads + threadIdx.x;
         column <= part.width; column += step) {
      change = fmaxf(change, relax(part, from, to, row, column));
    }
  }
  if (largest != nullptr) report(change, largest);
}

class OneGpu {
 public:
  OneGpu(const Gpu& gpu, const Part& part)
      : gpu_(gpu), part_(part), memory_(2 * part.cells() * sizeof(float)), largest_(4) {
    field_[0] = static_cast<float*>(memory_.get());
    field_[1] = field_[0] + part.cells();
    PESC_CUDA(cudaStreamCreateWithFlags(&edge, cudaStreamNonBlocking));
    PESC_CUDA(cudaStreamCreateWithFlags(&inner, cudaStreamNonBlocking));
    for (int parity = 0; parity < 2; ++parity) {
      for (cudaEvent_t* event : {&edge_done[parity], &inner_done[parity], &copied[parity]}) {
        PESC_CUDA(cudaEventCreateWithFlags(event, cudaEventDisableTiming));
      }
    }
  }

  void use() const { PESC_CUDA(cudaSetDevice(gpu_.index)); }
  const Gpu& gpu() const { return gpu_; }
  const Part& part() const { return part_; }
  float* field(unsigned which) const { return field_[which]; }
  unsigned* largest() const { return static_cast<unsigned*>(largest_.get()); }

  void launch(cudaStream_t stream, unsigned from, bool is_edge, bool ask) const {
    const std::uint64_t rows = is_edge ? edge_rows(part_) : part_.rows - edge_rows(part_);
    if (rows == 0) return;
    const dim3 grid(static_cast<unsigned>(
                        std::min<std::uint64_t>((part_.width + kThreads - 1) / kThreads, 1024)),
                    static_cast<unsigned>(std::min<std::uint64_t>(rows, 16384)));
    relax_rows<<<grid, kThreads, 0, stream>>>(part_, field_[from], field_[1 - from], is_edge,
                                              ask ? largest() : nullptr);
    PESC_CUDA(cudaGetLastError());
  }

  // Ended with the process: a stream or an event costs nothing there, and a failure says no more.
  cudaStream_t edge = nullptr, inner = nullptr;
  cudaEvent_t edge_done[2] = {}, inner_done[2] = {}, copied[2] = {};  // by the iteration's parity

 private:
  Gpu gpu_;
  Part part_;
  GpuMemory memory_, largest_;
  float* field_[2];
};

class GpuMachine : public Machine {
 public:
  GpuMachine(const Plate& plate, const std::vector<Gpu>& gpus) : plate_(plate) {
    const std::vector<Part> parts = divided(plate, static_cast<unsigned>(gpus.size()));
    for (std::size_t i = 0; i < gpus.size(); ++i) {
      PESC_CUDA(cudaSetDevice(gpus[i].index));
      gpus_.push_back(std::make_unique<OneGpu>(gpus[i], parts[i]));
    }
    for (std::size_t i = 0; i + 1 < gpus_.size(); ++i) connect(*gpus_[i], *gpus_[i + 1]);
  }

  std::string device() const override {
    std::string out;
    for (const auto& gpu : gpus_) out += (out.empty() ? "" : " + ") + gpu->gpu().name;
    if (gpus_.size() > 1) out += direct_ ? ", peer copies" : ", copies through the host";
    return out;
  }

  void load(const Field& field) override {
    for (const auto& gpu : gpus_) {
      gpu->use();
      const float* const first = &field[(gpu->part().first - 1) * plate_.stride()];
      for (unsigned which = 0; which < 2; ++which) {
        PESC_CUDA(cudaMemcpy(gpu->field(which), first, gpu->part().cells() * sizeof(float),
                             cudaMemcpyHostToDevice));
      }
    }
    synchronize();  // the streams do not wait for copies from pageable memory by themselves
  }

  float run(std::uint64_t iterations) override {
    for (std::uint64_t i = 0; i < iterations; ++i) {
      const bool last = i + 1 == iterations;
      if (last) forget_largest();
      for (std::size_t g = 0; g < gpus_.size(); ++g) start_edges(g, last);
      for (std::size_t g = 0; g < gpus_.size(); ++g) start_inner(g, last);
      ++iteration_;
    }
    synchronize();
    float largest = 0;
    for (const auto& gpu : gpus_) {
      gpu->use();
      unsigned bits = 0;
      PESC_CUDA(cudaMemcpy(&bits, gpu->largest(), sizeof bits, cudaMemcpyDeviceToHost));
      float change;
      std::memcpy(&change, &bits, sizeof change);
      largest = std::max(largest, change);
    }
    return largest;
  }

  void store(Field& field) override {
    field.resize(plate_.cells());
    for (const auto& gpu : gpus_) {
      gpu->use();
      PESC_CUDA(cudaMemcpy(&field[(gpu->part().first - 1) * plate_.stride()],
                           gpu->field(iteration_ % 2), gpu->part().cells() * sizeof(float),
                           cudaMemcpyDeviceToHost));
    }
  }

 private:
  void connect(const OneGpu& a, const OneGpu& b) {
    int there = 0, back = 0;
    PESC_CUDA(cudaDeviceCanAccessPeer(&there, a.gpu().index, b.gpu().index));
    PESC_CUDA(cudaDeviceCanAccessPeer(&back, b.gpu().index, a.gpu().index));
    if (there == 0 || back == 0) {
      direct_ = false;
      return;
    }
    for (const auto& [from, to] : {std::pair(&a, &b), std::pair(&b, &a)}) {
      from->use();
      const cudaError_t result = cudaDeviceEnablePeerAccess(to->gpu().index, 0);
      if (result == cudaErrorPeerAccessAlreadyEnabled) {
        (void)cudaGetLastError();  // or the next launch would be blamed for it
      } else {
        PESC_CUDA(result);
      }
    }
  }

  void start_edges(std::size_t g, bool ask) {
    OneGpu& gpu = *gpus_[g];
    const unsigned now = iteration_ % 2, before = 1 - now;
    gpu.use();
    // An event that was never recorded is waited for by nobody: the first iteration begins at once.
    PESC_CUDA(cudaStreamWaitEvent(gpu.edge, gpu.inner_done[before], 0));
    if (g > 0) PESC_CUDA(cudaStreamWaitEvent(gpu.edge, gpus_[g - 1]->copied[before], 0));
    if (g + 1 < gpus_.size()) {
      PESC_CUDA(cudaStreamWaitEvent(gpu.edge, gpus_[g + 1]->copied[before], 0));
    }
    gpu.launch(gpu.edge, now, true, ask);
    PESC_CUDA(cudaEventRecord(gpu.edge_done[now], gpu.edge));
    const std::uint64_t stride = plate_.stride();
    if (g > 0) {
      const OneGpu& upper = *gpus_[g - 1];
      send(gpu, stride, upper, (upper.part().rows + 1) * stride);
    }
    if (g + 1 < gpus_.size()) send(gpu, gpu.part().rows * stride, *gpus_[g + 1], 0);
    PESC_CUDA(cudaEventRecord(gpu.copied[now], gpu.edge));
  }

  // A row of what is being computed.
  void send(const OneGpu& from, std::uint64_t from_cell, const OneGpu& to, std::uint64_t to_cell) {
    const unsigned next = 1 - iteration_ % 2;
    PESC_CUDA(cudaMemcpyPeerAsync(to.field(next) + to_cell, to.gpu().index,
                                  from.field(next) + from_cell, from.gpu().index,
                                  plate_.stride() * sizeof(float), from.edge));
  }

  void start_inner(std::size_t g, bool ask) {
    OneGpu& gpu = *gpus_[g];
    const unsigned now = iteration_ % 2, before = 1 - now;
    gpu.use();
    PESC_CUDA(cudaStreamWaitEvent(gpu.inner, gpu.edge_done[before], 0));
    gpu.launch(gpu.inner, now, false, ask);
    PESC_CUDA(cudaEventRecord(gpu.inner_done[now], gpu.inner));
  }

  // Before any kernel that asks, after all that did.
  void forget_largest() {
    synchronize();
    for (const auto& gpu : gpus_) {
      gpu->use();
      PESC_CUDA(cudaMemset(gpu->largest(), 0, sizeof(unsigned)));
    }
    synchronize();
  }

  void synchronize() {
    for (const auto& gpu : gpus_) {
      gpu->use();
      PESC_CUDA(cudaDeviceSynchronize());
    }
  }

  Plate plate_;
  std::vector<std::unique_ptr<OneGpu>> gpus_;
  std::uint64_t iteration_ = 0;
  bool direct_ = true;
};

std::unique_ptr<Machine> on_gpus(const Plate& plate, unsigned wanted) {
  const int there = count_gpus();
  if (there < static_cast<int>(wanted)) {
    throw Failure(kTooFewGpus, "two GPUs are needed, and this program may use " +
                                   std::to_string(there) +
                                   "; ask for two with pesc run --gpus 2 (and a worker that has "
                                   "them), or try it with --cpu");
  }
  std::vector<Gpu> gpus;
  for (unsigned i = 0; i < wanted; ++i) {
    gpus.push_back(open_gpu(static_cast<int>(i), reinterpret_cast<const void*>(relax_rows)));
    require_gpu_memory(gpus.back(), bytes_per_gpu(plate, wanted),
                       "give a smaller --width or --height");
  }
  return std::make_unique<GpuMachine>(plate, gpus);
}

}  // namespace
}  // namespace samples::two_gpus

int main(int argc, char** argv) {
  return samples::two_gpus::run_program(argc, argv, samples::two_gpus::on_gpus);
}
