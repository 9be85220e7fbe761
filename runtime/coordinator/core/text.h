// Numbers and ranks in words, for `pesc why`. Private to this folder.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace pesc::coordinator {

inline constexpr size_t kMaxRangesText = 1000;

inline std::string cpus_text(uint64_t milli) {
  std::string text = std::to_string(milli / 1000);
  if (milli % 1000 == 0) return text;
  std::string decimals = std::to_string(1000 + milli % 1000).substr(1);
  decimals.erase(decimals.find_last_not_of('0') + 1);
  return text + "." + decimals;
}

// "5-9,12", built rank by rank in ascending order.
struct RangesText {
  std::vector<std::pair<uint32_t, uint32_t>> ranges;
  uint32_t count = 0;

  void add(uint32_t first, uint32_t last) {
    count += last - first + 1;
    if (!ranges.empty() && ranges.back().second + 1 == first) {
      ranges.back().second = last;
    } else {
      ranges.emplace_back(first, last);
    }
  }
  std::string text() const {
    std::string text;
    for (const auto& [first, last] : ranges) {
      if (text.size() > kMaxRangesText) return text + ",…";
      if (!text.empty()) text += ',';
      text += std::to_string(first);
      if (last > first) text += "-" + std::to_string(last);
    }
    return text;
  }
};

}  // namespace pesc::coordinator
