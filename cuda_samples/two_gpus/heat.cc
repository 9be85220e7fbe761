#include "two_gpus/heat.h"

namespace samples::two_gpus {

Field initial_field(const Plate& plate) {
  Field field(plate.cells(), 0.0F);
  for (std::uint64_t column = 0; column < plate.stride(); ++column) field[column] = 100.0F;
  for (std::uint64_t row = 1; row <= plate.height; ++row) {
    for (std::uint64_t column = 1; column <= plate.width; ++column) {
      const std::uint64_t cell = (row - 1) * plate.width + column - 1;
      const std::uint64_t bits = random_at(plate.seed, cell, 3).low();
      field[row * plate.stride() + column] =
          static_cast<float>(bits >> 40) * (100.0F / 16777216.0F);  // 24 bits
    }
  }
  return field;
}

std::vector<Part> divided(const Plate& plate, unsigned parts) {
  std::vector<Part> out;
  std::uint64_t first = 1;
  for (unsigned i = 0; i < parts; ++i) {
    const std::uint64_t rows = plate.height / parts + (i < plate.height % parts ? 1 : 0);
    out.push_back({first, rows, plate.width});
    first += rows;
  }
  return out;
}

}  // namespace samples::two_gpus
