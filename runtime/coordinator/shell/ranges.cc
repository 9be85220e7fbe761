#include "runtime/coordinator/shell/service.h"

namespace pesc::coordinator {
namespace {

constexpr size_t kNamedRanges = 20;

}  // namespace

void RankRanges::add(uint32_t rank) {
  ++count_;
  if (!ranges_.empty() && ranges_.back().second + 1 == rank) {
    ranges_.back().second = rank;
  } else {
    ranges_.emplace_back(rank, rank);
  }
}

std::string RankRanges::text() const {
  std::string text;
  for (size_t i = 0; i < ranges_.size(); ++i) {
    if (i > 0) text += ",";
    if (i == kNamedRanges) return text + "…";
    const auto& [first, last] = ranges_[i];
    text += std::to_string(first);
    if (last > first) text += "-" + std::to_string(last);
  }
  return text;
}

}  // namespace pesc::coordinator
