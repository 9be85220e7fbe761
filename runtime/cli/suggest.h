// What a mistyped word was meant to be.
#pragma once

#include <string>
#include <vector>

namespace pesc::cli {

// " (did you mean 'X'?)" for the nearest of `words`; empty when none is near.
std::string suggestion(const std::string& typed, const std::vector<std::string>& words);

}  // namespace pesc::cli
