#include "dijkstra/emulation.h"

#include <cstdlib>
#include <cstring>
#include <new>
#include <numeric>
#include <thread>
#include <vector>

namespace samples::dijkstra {

void Emulation::Free::operator()(void* memory) const { std::free(memory); }

Emulation::Emulation(const GraphSpec& spec, const Layout& layout, std::uint64_t shuffle,
                     unsigned threads)
    : Machine(spec, layout),
      memory_(std::malloc(layout.total)),
      shuffle_(shuffle),
      threads_(threads) {
  if (memory_ == nullptr) throw std::bad_alloc();
}

void Emulation::upload(void* to, const void* from, std::uint64_t bytes) {
  if (bytes != 0) std::memcpy(to, from, bytes);
}

void Emulation::download(void* to, const void* from, std::uint64_t bytes) {
  if (bytes != 0) std::memcpy(to, from, bytes);
}

template <class Step>
void Emulation::each_between(std::uint64_t begin, std::uint64_t end, std::uint64_t count,
                             const Step& step) {
  if (shuffle_ == 0) {
    for (std::uint64_t i = begin; i < end; ++i) step(i);
    return;
  }
  // Steps of a length that has no factor in common with count visit each index once.
  std::uint64_t stride = random_below(random_at(shuffle_, count, 0).low(), count) | 1;
  while (std::gcd(stride, count) != 1) ++stride;
  for (std::uint64_t i = begin; i < end; ++i) step((i * stride + shuffle_) % count);
}

template <class Step>
void Emulation::each(std::uint64_t count, const Step& step) {
  if (threads_ <= 1 || count < 2 * threads_) return each_between(0, count, count, step);
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < threads_; ++t) {
    threads.emplace_back(
        [&, t] { each_between(count * t / threads_, count * (t + 1) / threads_, count, step); });
  }
  for (std::thread& thread : threads) thread.join();
}

void Emulation::build(const Slices& s) {
  each(spec().vertices, [&](std::uint64_t v) { build_vertex(spec(), s, v); });
  each(spec().edges(), [&](std::uint64_t e) { build_edge(spec(), s, e); });
  each(spec().vertices, [&](std::uint64_t v) { build_min_out(s, v); });
}

void Emulation::phase(const Slices& s) {
  Control* const control = s.control;
  if (control->fringe_count == 0) return;
  each(control->fringe_count, [&](std::uint64_t i) {
    const Bounds bounds = bounds_of(s, s.fringe[i]);
    atomic_min(&control->nearest, bounds.nearest);
    atomic_min(&control->reach, bounds.reach);
  });
  const Bounds bounds = {control->nearest, control->reach};
  each(control->fringe_count,
       [&](std::uint64_t i) { split(s, static_cast<std::uint32_t>(i), bounds); });
  each(control->frontier_count, [&](std::uint64_t i) {
    const std::uint32_t v = s.frontier[i];
    const std::uint64_t distance = peek(&s.distances[v]);
    for (std::uint64_t e = s.offsets[v]; e < s.offsets[v + 1]; ++e) relax(s, distance, e);
    atomic_add(&control->relaxed_edges, s.offsets[v + 1] - s.offsets[v]);
  });
  advance(s);
}

}  // namespace samples::dijkstra
