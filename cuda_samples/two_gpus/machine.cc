#include "two_gpus/machine.h"

#include <algorithm>
#include <utility>

namespace samples::two_gpus {

std::uint64_t bytes_per_gpu(const Plate& plate, unsigned gpus) {
  const Part largest = divided(plate, gpus).front();
  return 2 * largest.cells() * sizeof(float) + sizeof(std::uint32_t);
}

Emulation::Emulation(const Plate& plate, unsigned parts) : plate_(plate) {
  for (const Part& part : divided(plate, parts)) halves_.push_back({part, {}, {}});
}

void Emulation::load(const Field& field) {
  for (Half& half : halves_) {
    const float* const first = &field[(half.part.first - 1) * plate_.stride()];
    half.now.assign(first, first + half.part.cells());
    half.next = half.now;
  }
}

float Emulation::run(std::uint64_t iterations) {
  float largest = 0;
  for (std::uint64_t i = 0; i < iterations; ++i) {
    largest = 0;
    for (Half& half : halves_) {
      for (std::uint64_t row = 1; row <= half.part.rows; ++row) {
        for (std::uint64_t column = 1; column <= half.part.width; ++column) {
          largest =
              std::max(largest, relax(half.part, half.now.data(), half.next.data(), row, column));
        }
      }
    }
    exchange();
    for (Half& half : halves_) std::swap(half.now, half.next);
  }
  return largest;
}

void Emulation::exchange() {
  for (std::size_t i = 0; i + 1 < halves_.size(); ++i) {
    Half &upper = halves_[i], &lower = halves_[i + 1];
    const std::uint64_t stride = plate_.stride(), last = upper.part.rows * stride;
    std::copy_n(&upper.next[last], stride, lower.next.data());
    std::copy_n(&lower.next[stride], stride, &upper.next[last + stride]);
  }
}

void Emulation::store(Field& field) {
  field.resize(plate_.cells());
  for (const Half& half : halves_) {
    // Its halo rows too: the border is one, and the others are written over by whom they belong to.
    std::copy(half.now.begin(), half.now.end(),
              field.begin() + static_cast<std::ptrdiff_t>((half.part.first - 1) * plate_.stride()));
  }
}

}  // namespace samples::two_gpus
