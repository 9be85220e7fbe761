// What a mistyped word was meant to be.
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace pesc::cli {

// The nearest of `words`; nothing when none is near, or one is the very word.
std::optional<std::string> nearest(const std::string& typed, const std::vector<std::string>& words);

// " (did you mean 'X'?)" for the nearest of `words`; empty when none is near.
std::string suggestion(const std::string& typed, const std::vector<std::string>& words);

}  // namespace pesc::cli
