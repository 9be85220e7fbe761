// Heat in a square plate: Jacobi's method for Laplace's equation, with the plate's rows divided
// among the GPUs. Each owns some rows and has a copy of its neighbours' nearest ones (the halo).
//
// A cell becomes ((left + right) + (above + below)) / 4, in that order, in single precision:
// nothing that a compiler could fuse, so one GPU, two GPUs and the CPU agree in every bit.
#pragma once

#include <cstdint>
#include <vector>

#include "common/host_device.h"
#include "common/philox.h"

namespace samples::two_gpus {

// The border, a cell wide around width x height cells, keeps its temperature: 100 above, 0
// elsewhere.
struct Plate {
  std::uint64_t width = 8192, height = 8192, seed = 0;

  std::uint64_t stride() const { return width + 2; }
  std::uint64_t cells() const { return (width + 2) * (height + 2); }
};

// Rows of a plate with its border: `height + 2` of `width + 2` cells.
using Field = std::vector<float>;

// The inner cells begin at random temperatures from 0 to 100.
Field initial_field(const Plate& plate);

// The rows that a GPU owns. Its arrays have one row more at each end: a halo, or the border.
struct Part {
  std::uint64_t first, rows;  // first: the field's row that is its first own one
  std::uint64_t width;        // without the border

  PESC_HOST_DEVICE std::uint64_t stride() const { return width + 2; }
  PESC_HOST_DEVICE std::uint64_t cells() const { return (rows + 2) * stride(); }
};

// Shares as equal as can be, upper ones first.
std::vector<Part> divided(const Plate& plate, unsigned parts);

// `row`: 1 ... rows; `column`: 1 ... width. Returns by how much the cell changed.
PESC_HOST_DEVICE inline float relax(const Part& part, const float* from, float* to,
                                    std::uint64_t row, std::uint64_t column) {
  const std::uint64_t at = row * part.stride() + column;
  const float mean = 0.25F * ((from[at - 1] + from[at + 1]) +
                              (from[at - part.stride()] + from[at + part.stride()]));
  const float change = mean - from[at];
  to[at] = mean;
  return change < 0 ? -change : change;
}

// The rows that neighbours need are computed first, and travel while the others are computed.
// Row `i` of those: a part of one row has one of them.
PESC_HOST_DEVICE inline std::uint64_t edge_rows(const Part& part) { return part.rows > 1 ? 2 : 1; }
PESC_HOST_DEVICE inline std::uint64_t edge_row(const Part& part, std::uint64_t i) {
  return i == 0 ? 1 : part.rows;
}

}  // namespace samples::two_gpus
