#include "model/text.h"

#include <algorithm>

namespace pesc {
namespace {
constexpr size_t kMaxQuotedBytes = 120;
constexpr char kHexDigits[] = "0123456789abcdef";

bool is_control(char c) {
  return static_cast<unsigned char>(c) < 0x20 || static_cast<unsigned char>(c) == 0x7f;
}

void append_escaped(std::string& out, char c) {
  const auto byte = static_cast<unsigned char>(c);
  out += "\\x";
  out += kHexDigits[byte >> 4];
  out += kHexDigits[byte & 15];
}

// The length of the UTF-8 sequence at the front, 0 when there is none.
size_t sequence_length(std::string_view text) {
  const auto first = static_cast<unsigned char>(text.front());
  const size_t length = first < 0x80   ? 1
                        : first < 0xc2 ? 0
                        : first < 0xe0 ? 2
                        : first < 0xf0 ? 3
                        : first < 0xf5 ? 4
                                       : 0;
  if (length > text.size()) return 0;
  for (size_t i = 1; i < length; ++i) {
    if ((static_cast<unsigned char>(text[i]) & 0xc0) != 0x80) return 0;
  }
  return length;
}

// U+0080 to U+009F: terminals obey these like an escape and a letter.
bool is_long_control(std::string_view sequence) {
  return sequence.size() == 2 && sequence[0] == '\xc2' &&
         static_cast<unsigned char>(sequence[1]) < 0xa0;
}
}  // namespace

std::string for_terminal(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const size_t length = sequence_length(text);
    const std::string_view sequence = text.substr(0, std::max<size_t>(length, 1));
    const char c = sequence.front();
    const bool shown =
        length > 0 && !is_long_control(sequence) && (!is_control(c) || c == '\n' || c == '\t');
    for (char byte : sequence) {
      if (shown) {
        out += byte;
      } else {
        append_escaped(out, byte);
      }
    }
    text.remove_prefix(sequence.size());
  }
  return out;
}

std::string in_quotes(std::string_view text) {
  const std::string_view shown = cut_utf8(text, kMaxQuotedBytes);
  std::string result = "'";
  for (char c : shown) {
    if (is_control(c)) {
      append_escaped(result, c);
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
