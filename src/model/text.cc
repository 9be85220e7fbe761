#include "model/text.h"

#include <algorithm>

namespace pesc {
namespace {
constexpr size_t kMaxQuotedBytes = 120;
constexpr char kHexDigits[] = "0123456789abcdef";

bool is_control(char c) {
  return static_cast<unsigned char>(c) < 0x20 || static_cast<unsigned char>(c) == 0x7f;
}
}  // namespace

std::string quoted(std::string_view text) {
  const std::string_view shown = cut_utf8(text, kMaxQuotedBytes);
  std::string result = "'";
  for (char c : shown) {
    if (is_control(c)) {
      const auto byte = static_cast<unsigned char>(c);
      result += "\\x";
      result += kHexDigits[byte >> 4];
      result += kHexDigits[byte & 15];
    } else {
      result += c;
    }
  }
  if (shown.size() < text.size()) result += "...";
  result += '\'';
  return result;
}

bool has_control_character(std::string_view text) {
  return std::any_of(text.begin(), text.end(), is_control);
}

std::string_view cut_utf8(std::string_view text, size_t max_bytes) {
  if (text.size() <= max_bytes) return text;
  size_t end = max_bytes;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80) --end;
  // Bytes that are no UTF-8 at all have no sequence to keep whole.
  return text.substr(0, max_bytes - end < 4 ? end : max_bytes);
}

}  // namespace pesc
