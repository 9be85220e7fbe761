#include "model/resources.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "model/text.h"

namespace pesc {
namespace {

bool is_name_character(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
         c == '-' || c == '.';
}

}  // namespace

bool is_resource_name(std::string_view name) {
  return !name.empty() && name.size() <= 64 &&
         std::all_of(name.begin(), name.end(), is_name_character);
}

absl::StatusOr<std::pair<std::string, uint64_t>> parse_named_resource(std::string_view text) {
  const size_t equals = text.find('=');
  const std::string_view name = text.substr(0, equals);
  const std::string example = ": use NAME or NAME=AMOUNT, as in licence=2 or bandwidth=0.5";
  if (!is_resource_name(name)) {
    return absl::InvalidArgumentError(in_quotes(text) + example);
  }
  if (equals == std::string_view::npos) return std::pair(std::string(name), uint64_t{1000});
  const std::string_view amount = text.substr(equals + 1);
  double value = 0;
  const auto [end, error] = std::from_chars(amount.data(), amount.data() + amount.size(), value,
                                            std::chars_format::fixed);
  if (error != std::errc() || end != amount.data() + amount.size() || !(value >= 0.001) ||
      value > double(kMaxNamedMilli) / 1000) {
    return absl::InvalidArgumentError(in_quotes(text) + example);
  }
  return std::pair(std::string(name), static_cast<uint64_t>(std::llround(value * 1000)));
}

absl::StatusOr<ComputeCapability> parse_compute_capability(std::string_view text) {
  uint32_t major = 0, minor = 0;
  const char* const last = text.data() + text.size();
  auto [at, error] = std::from_chars(text.data(), last, major);
  bool good = error == std::errc() && major >= 1 && major <= 99;
  if (good && at != last) {
    good = *at == '.';
    const auto [end, second] = std::from_chars(at + 1, last, minor);
    good = good && second == std::errc() && end == last && minor <= 99;
  }
  if (!good) {
    return absl::InvalidArgumentError(in_quotes(text) +
                                      " is no compute capability: use one such as 7.5 or 9.0");
  }
  return major * 100 + minor;
}

std::string format_compute_capability(ComputeCapability capability) {
  return std::to_string(capability / 100) + "." + std::to_string(capability % 100);
}

std::string format_milli(uint64_t milli) {
  std::string text = std::to_string(milli / 1000);
  if (milli % 1000 == 0) return text;
  std::string part = std::to_string(milli % 1000 + 1000).substr(1);
  part.erase(part.find_last_not_of('0') + 1);
  return text + "." + part;
}

}  // namespace pesc
