// Philox4x32-10, the counter-based generator of Salmon, Moraes, Dror and Shaw, "Parallel Random
// Numbers: As Easy as 1, 2, 3" (SC 2011). A number is a pure function of (seed, stream, index): any
// thread on any device computes the same one, in any order, on any attempt.
#pragma once

#include <cstdint>

#include "common/host_device.h"

namespace samples {

struct Random128 {
  std::uint32_t words[4];

  PESC_HOST_DEVICE std::uint64_t low() const {
    return words[0] | (static_cast<std::uint64_t>(words[1]) << 32);
  }
  PESC_HOST_DEVICE std::uint64_t high() const {
    return words[2] | (static_cast<std::uint64_t>(words[3]) << 32);
  }
};

PESC_HOST_DEVICE inline Random128 philox(Random128 counter, std::uint32_t key0,
                                         std::uint32_t key1) {
  std::uint32_t* const c = counter.words;
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t product0 = std::uint64_t{0xD2511F53} * c[0];
    const std::uint64_t product1 = std::uint64_t{0xCD9E8D57} * c[2];
    const Random128 next = {{static_cast<std::uint32_t>(product1 >> 32) ^ c[1] ^ key0,
                             static_cast<std::uint32_t>(product1),
                             static_cast<std::uint32_t>(product0 >> 32) ^ c[3] ^ key1,
                             static_cast<std::uint32_t>(product0)}};
    counter = next;
    key0 += 0x9E3779B9;
    key1 += 0xBB67AE85;
  }
  return counter;
}

PESC_HOST_DEVICE inline Random128 random_at(std::uint64_t seed, std::uint64_t index,
                                            std::uint32_t stream, std::uint32_t substream = 0) {
  const Random128 counter = {{static_cast<std::uint32_t>(index),
                              static_cast<std::uint32_t>(index >> 32), stream, substream}};
  return philox(counter, static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32));
}

// 64 random bits as a whole number in [0, n). The bias is below n / 2^64.
PESC_HOST_DEVICE inline std::uint64_t random_below(std::uint64_t bits, std::uint64_t n) {
  return multiply_high(bits, n);
}

// 64 random bits as a double in (0, 1], fit for a logarithm.
PESC_HOST_DEVICE inline double random_unit(std::uint64_t bits) {
  return (static_cast<double>(bits >> 11) + 1.0) * 0x1p-53;
}

}  // namespace samples
