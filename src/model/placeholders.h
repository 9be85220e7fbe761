// The placeholders of a program's own arguments, found once for all who expand or check them.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace pesc {

// Calls literal(text) for what stays and value(name) for what stands between braces, in order.
// value() returns whether it knew the name; what it does not know stays as it is, braces and all.
// `}}` is an escape only where a `{{` is open: the end of {"a":{"b":1}} loses nothing.
template <class Literal, class Value>
void scan_placeholders(std::string_view text, Literal&& literal, Value&& value) {
  size_t begin = 0;  // of the literal text not yet handed out
  size_t at = 0;
  size_t open = 0;  // escaped braces not closed yet
  while (at < text.size()) {
    const char c = text[at];
    const bool twice = at + 1 < text.size() && text[at + 1] == c;
    if (twice && (c == '{' || (c == '}' && open > 0))) {
      open += c == '{' ? 1 : -1;
      literal(text.substr(begin, at + 1 - begin));
      at += 2;
      begin = at;
      continue;
    }
    if (c == '{') {
      const size_t end = text.find_first_of("{}", at + 1);
      if (end != std::string_view::npos && text[end] == '}') {
        literal(text.substr(begin, at - begin));
        begin = at;
        if (value(text.substr(at + 1, end - at - 1))) begin = end + 1;
        at = end + 1;
        continue;
      }
    }
    ++at;
  }
  literal(text.substr(begin));
}

// Whether `name` is one of the placeholders that stand for a directory or a number.
bool is_placeholder(std::string_view name);

// The i of "parameters[i]".
std::optional<uint64_t> parameter_index(std::string_view name);
// The index is the rank: each rank gets a value of its own.
inline constexpr std::string_view kParameterOfRank = "parameters[rank]";

}  // namespace pesc
