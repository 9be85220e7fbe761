// What holds a rank's processes together, as it is configured.
#pragma once

#include <cstdint>
#include <iterator>
#include <optional>
#include <string_view>

namespace pesc::containment {

enum class Mode : uint8_t {
  automatic,  // cgroup version 2 where it has what is needed, version 1 for the rest
  cgroup2,
  cgroup1,
  none,  // the sampling watchdog
};

inline constexpr std::string_view kModeNames[] = {"auto", "cgroup2", "cgroup1", "none"};

inline std::string_view to_string(Mode mode) { return kModeNames[static_cast<uint8_t>(mode)]; }

inline std::optional<Mode> parse_mode(std::string_view name) {
  for (size_t i = 0; i < std::size(kModeNames); ++i) {
    if (kModeNames[i] == name) return static_cast<Mode>(i);
  }
  return std::nullopt;
}

}  // namespace pesc::containment
