// Braces that were probably meant as one of PESC's placeholders.
#pragma once

#include <string>
#include <vector>

namespace pesc::cli {

// A line for each name in braces that PESC does not know but that is close to one that it does: it
// is passed on as it is (a program may want braces), which may be a surprise.
std::vector<std::string> placeholder_notes(const std::vector<std::string>& arguments);

}  // namespace pesc::cli
