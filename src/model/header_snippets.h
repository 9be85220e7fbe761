// What `pesc header LANG` prints: a file that wraps the contract in a language.
#pragma once

#include <optional>
#include <string_view>

namespace pesc {

// cpp (also c, c++), python, r, java, shell (also sh, bash), in any case; nothing for another one.
// The text ends with a line break.
std::optional<std::string_view> header_snippet(std::string_view language);

// The name the file is best saved under: "pesc_rank.py", "PescRank.java".
std::optional<std::string_view> header_snippet_file(std::string_view language);

}  // namespace pesc
