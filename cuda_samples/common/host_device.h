// Functions that are the same on the CPU and on the GPU, and the atomic operations that they share.
// So the steps of an algorithm are written once, tested without a GPU and run on one.
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#include <cooperative_groups.h>
#define PESC_HOST_DEVICE __host__ __device__
#else
#define PESC_HOST_DEVICE
#endif

namespace samples {

// The upper 64 bits of a product: maps 64 random bits onto [0, n) without a division.
PESC_HOST_DEVICE inline std::uint64_t multiply_high(std::uint64_t a, std::uint64_t b) {
#ifdef __CUDA_ARCH__
  return __umul64hi(a, b);
#else
  __extension__ using Wide = unsigned __int128;
  return static_cast<std::uint64_t>((static_cast<Wide>(a) * b) >> 64);
#endif
}

// Each returns what was there before.
PESC_HOST_DEVICE inline std::uint64_t atomic_min(std::uint64_t* at, std::uint64_t value) {
#ifdef __CUDA_ARCH__
  return atomicMin(reinterpret_cast<unsigned long long*>(at), value);
#else
  std::uint64_t before = __atomic_load_n(at, __ATOMIC_RELAXED);
  while (value < before && !__atomic_compare_exchange_n(at, &before, value, true, __ATOMIC_RELAXED,
                                                        __ATOMIC_RELAXED)) {
  }
  return before;
#endif
}

PESC_HOST_DEVICE inline std::uint32_t atomic_min(std::uint32_t* at, std::uint32_t value) {
#ifdef __CUDA_ARCH__
  return atomicMin(at, value);
#else
  std::uint32_t before = __atomic_load_n(at, __ATOMIC_RELAXED);
  while (value < before && !__atomic_compare_exchange_n(at, &before, value, true, __ATOMIC_RELAXED,
                                                        __ATOMIC_RELAXED)) {
  }
  return before;
#endif
}

// A value that others may be lowering at the same time: an old one is harmless, a torn one is not.
PESC_HOST_DEVICE inline std::uint64_t peek(const std::uint64_t* at) {
#ifdef __CUDA_ARCH__
  return *at;
#else
  return __atomic_load_n(at, __ATOMIC_RELAXED);
#endif
}

PESC_HOST_DEVICE inline void atomic_add(std::uint64_t* at, std::uint64_t value) {
#ifdef __CUDA_ARCH__
  atomicAdd(reinterpret_cast<unsigned long long*>(at), static_cast<unsigned long long>(value));
#else
  __atomic_fetch_add(at, value, __ATOMIC_RELAXED);
#endif
}

// The next free place of a list. On the GPU the threads of a warp that want one ask once together.
PESC_HOST_DEVICE inline std::uint32_t claim_slot(std::uint32_t* count) {
#ifdef __CUDA_ARCH__
  const auto together = cooperative_groups::coalesced_threads();
  std::uint32_t first = 0;
  if (together.thread_rank() == 0) first = atomicAdd(count, together.size());
  return together.shfl(first, 0) + together.thread_rank();
#else
  return __atomic_fetch_add(count, 1U, __ATOMIC_RELAXED);
#endif
}

}  // namespace samples
