// Shortest paths on a GPU: the launches. What is computed is in steps.h, the program in program.cc.
#include <algorithm>
#include <memory>
#include <utility>

#include "common/gpu.h"
#include "dijkstra/machine.h"
#include "dijkstra/program.h"

namespace samples::dijkstra {
namespace {

constexpr unsigned kThreads = 256, kWarps = kThreads / 32;

// As many threads of a warp share a vertex's edges, so that neighbouring threads read neighbouring
// edges: with 8, two sectors of memory at once, and few idle threads at the default degree of 8.
constexpr unsigned kLanes = 8;

__device__ std::uint64_t this_thread() {
  return std::uint64_t{blockIdx.x} * blockDim.x + threadIdx.x;
}
__device__ std::uint64_t all_threads() { return std::uint64_t{gridDim.x} * blockDim.x; }

__global__ void build_vertices(GraphSpec spec, Slices s) {
  for (std::uint64_t v = this_thread(); v < spec.vertices; v += all_threads()) {
    build_vertex(spec, s, v);
  }
}

__global__ void build_edges(GraphSpec spec, Slices s) {
  for (std::uint64_t e = this_thread(); e < spec.edges(); e += all_threads()) {
    build_edge(spec, s, e);
  }
}

__global__ void build_min_outs(GraphSpec spec, Slices s) {
  for (std::uint64_t v = this_thread(); v < spec.vertices; v += all_threads()) build_min_out(s, v);
}

__global__ void find_bounds(Slices s) {
  const std::uint32_t count = s.control->fringe_count;
  Bounds bounds = {UINT64_MAX, UINT64_MAX};
  for (std::uint64_t i = this_thread(); i < count; i += all_threads()) {
    bounds = lower(bounds, bounds_of(s, s.fringe[i]));
  }
  for (unsigned offset = 16; offset > 0; offset /= 2) {
    bounds = lower(bounds, {__shfl_down_sync(0xFFFFFFFFU, bounds.nearest, offset),
                            __shfl_down_sync(0xFFFFFFFFU, bounds.reach, offset)});
  }
  __shared__ Bounds of_warps[kWarps];
  if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = bounds;
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (unsigned warp = 1; warp < kWarps; ++warp) bounds = lower(bounds, of_warps[warp]);
  if (bounds.nearest == UINT64_MAX) return;  // the block had nothing to look at
  atomic_min(&s.control->nearest, bounds.nearest);
  atomic_min(&s.control->reach, bounds.reach);
}

__global__ void split_fringe(Slices s) {
  const std::uint32_t count = s.control->fringe_count;
  const Bounds bounds = {s.control->nearest, s.control->reach};
  for (std::uint64_t i = this_thread(); i < count; i += all_threads()) {
    split(s, static_cast<std::uint32_t>(i), bounds);
  }
}

__global__ void relax_frontier(Slices s) {
  const std::uint32_t count = s.control->frontier_count;
  const std::uint64_t lane = threadIdx.x % kLanes;
  std::uint64_t relaxed = 0;
  for (std::uint64_t i = this_thread() / kLanes; i < count; i += all_threads() / kLanes) {
    const std::uint32_t v = s.frontier[i];
    const std::uint64_t distance = s.distances[v], end = s.offsets[v + 1];
    for (std::uint64_t e = s.offsets[v] + lane; e < end; e += kLanes) {
      relax(s, distance, e);
      ++relaxed;
    }
  }
  __syncwarp();
  for (unsigned offset = 16; offset > 0; offset /= 2) {
    relaxed += __shfl_down_sync(0xFFFFFFFFU, relaxed, offset);
  }
  if (threadIdx.x % 32 == 0 && relaxed != 0) atomic_add(&s.control->relaxed_edges, relaxed);
}

__global__ void advance_phase(Slices s) { advance(s); }

class GpuMachine : public Machine {
 public:
  GpuMachine(const GraphSpec& spec, const Layout& layout, Gpu gpu)
      : Machine(spec, layout), gpu_(std::move(gpu)), memory_(layout.total) {}

  std::string device() const override { return gpu_.name; }

 protected:
  void* memory() override { return memory_.get(); }
  void upload(void* to, const void* from, std::uint64_t bytes) override {
    PESC_CUDA(cudaMemcpy(to, from, bytes, cudaMemcpyHostToDevice));
  }
  void download(void* to, const void* from, std::uint64_t bytes) override {
    PESC_CUDA(cudaMemcpy(to, from, bytes, cudaMemcpyDeviceToHost));
  }

  void build(const Slices& s) override {
    build_vertices<<<blocks(spec().vertices), kThreads>>>(spec(), s);
    PESC_CUDA(cudaGetLastError());
    build_edges<<<blocks(spec().edges()), kThreads>>>(spec(), s);
    PESC_CUDA(cudaGetLastError());
    build_min_outs<<<blocks(spec().vertices), kThreads>>>(spec(), s);
    PESC_CUDA(cudaGetLastError());
    PESC_CUDA(cudaDeviceSynchronize());  // its time is not the search's
  }

  // How long the lists are is known to the GPU alone, so each launch is as wide as the GPU.
  void phase(const Slices& s) override {
    const unsigned wide = static_cast<unsigned>(gpu_.multiprocessors) * 8;
    find_bounds<<<wide, kThreads>>>(s);
    PESC_CUDA(cudaGetLastError());
    split_fringe<<<wide, kThreads>>>(s);
    PESC_CUDA(cudaGetLastError());
    relax_frontier<<<wide, kThreads>>>(s);
    PESC_CUDA(cudaGetLastError());
    advance_phase<<<1, 1>>>(s);
    PESC_CUDA(cudaGetLastError());
  }

 private:
  static unsigned blocks(std::uint64_t items) {
    return static_cast<unsigned>(
        std::clamp<std::uint64_t>((items + kThreads - 1) / kThreads, 1, 1U << 20));
  }

  Gpu gpu_;
  GpuMemory memory_;
};

std::unique_ptr<Machine> on_gpu(const GraphSpec& spec, const Layout& layout) {
  (void)count_gpus();
  const Gpu gpu = open_gpu(0, reinterpret_cast<const void*>(advance_phase));
  require_gpu_memory(gpu, layout.total,
                     "give fewer --vertices or a smaller --degree, or ask for a GPU with more "
                     "(--dry-run prints what a size needs)");
  return std::make_unique<GpuMachine>(spec, layout, gpu);
}

}  // namespace
}  // namespace samples::dijkstra

int main(int argc, char** argv) {
  return samples::dijkstra::run_program(argc, argv, samples::dijkstra::on_gpu);
}
