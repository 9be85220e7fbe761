// Where each array lies in the one block of device memory that a run takes. One block: it fits or
// it does not, and what it will take is known without a GPU.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "dijkstra/graph.h"
#include "dijkstra/steps.h"

namespace samples::dijkstra {

struct Layout {
  struct Array {
    const char* name;
    std::uint64_t offset, bytes;
  };
  std::vector<Array> arrays;
  std::uint64_t total = 0;  // bytes, a multiple of the 2 MiB in which drivers hand memory out

  std::uint64_t offset_of(const char* name) const;
  Slices slices(void* base) const;
};

// Nothing: the sizes do not fit in 64 bits.
std::optional<Layout> layout_for(std::uint64_t vertices, std::uint64_t degree);

// What a CUDA context takes beside it, for the estimate that --dry-run prints: it depends on the
// driver and the GPU (about 100 MB to 600 MB); this is a usual figure, not a measured one.
constexpr std::uint64_t kUsualContextBytes = std::uint64_t{256} << 20;

std::string describe(const GraphSpec& spec, const Layout& layout);

}  // namespace samples::dijkstra
