// Shell globs, matched in time proportional to pattern times path, whatever the pattern.
#include <cstdint>

#include "model/contract.h"

namespace pesc {
namespace {

// A code point and the bytes it takes. A byte that is no UTF-8 is one character of its own.
struct Character {
  uint32_t code = 0;
  size_t bytes = 1;
};

Character character_at(std::string_view text, size_t at) {
  const auto first = static_cast<unsigned char>(text[at]);
  if (first < 0x80) return {first, 1};
  const size_t bytes = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : first >= 0xc2 ? 2 : 1;
  uint32_t code = first & (0xffu >> (bytes + 1));
  bool valid = bytes > 1 && first < 0xf5 && at + bytes <= text.size();
  for (size_t i = 1; valid && i < bytes; ++i) {
    const auto next = static_cast<unsigned char>(text[at + i]);
    valid = (next & 0xc0) == 0x80;
    code = code << 6 | (next & 0x3fu);
  }
  if (!valid) return {0x110000u + first, 1};
  return {code, bytes};
}

struct Token {
  enum class Kind : uint8_t {
    literal,
    any,             // ?
    one_of,          // [...]
    star,            // *
    globstar,        // **
    globstar_slash,  // **/ : nothing, or whole components
  };
  Kind kind = Kind::literal;
  uint32_t code = 0;  // literal
  size_t begin = 0;   // one_of: where its ranges begin in the pattern…
  size_t end = 0;     // …and end
  bool negated = false;
};

// The index of the ']' that closes the class opened at `open`, or npos.
size_t class_end(std::string_view pattern, size_t open) {
  size_t at = open + 1;
  if (at < pattern.size() && (pattern[at] == '!' || pattern[at] == '^')) ++at;
  if (at < pattern.size() && pattern[at] == ']') ++at;  // a ']' that comes first is a member
  return pattern.find(']', at);
}

Token take_class(std::string_view pattern, size_t& at, size_t close) {
  Token token;
  token.kind = Token::Kind::one_of;
  token.begin = at + 1;
  token.end = close;
  if (pattern[token.begin] == '!' || pattern[token.begin] == '^') {
    token.negated = true;
    ++token.begin;
  }
  at = close + 1;
  return token;
}

Token take_stars(std::string_view pattern, size_t& at) {
  size_t stars = 0;
  const size_t begin = at;
  while (at < pattern.size() && pattern[at] == '*') {
    ++at;
    ++stars;
  }
  Token token;
  token.kind = stars == 1 ? Token::Kind::star : Token::Kind::globstar;
  const bool component_begins = begin == 0 || pattern[begin - 1] == '/';
  if (stars > 1 && component_begins && at < pattern.size() && pattern[at] == '/') {
    token.kind = Token::Kind::globstar_slash;
    ++at;
  }
  return token;
}

Token take_token(std::string_view pattern, size_t& at) {
  Token token;
  if (pattern[at] == '*') return take_stars(pattern, at);
  if (pattern[at] == '?') {
    token.kind = Token::Kind::any;
    ++at;
    return token;
  }
  if (pattern[at] == '[') {
    const size_t close = class_end(pattern, at);
    if (close != std::string_view::npos) return take_class(pattern, at, close);
  }
  if (pattern[at] == '\\' && at + 1 < pattern.size()) ++at;
  const Character literal = character_at(pattern, at);
  token.code = literal.code;
  at += literal.bytes;
  return token;
}

bool in_class(std::string_view pattern, const Token& token, uint32_t code) {
  if (code == '/') return false;
  bool found = false;
  for (size_t at = token.begin; at < token.end;) {
    const Character low = character_at(pattern, at);
    at += low.bytes;
    uint32_t high = low.code;
    if (at + 1 < token.end && pattern[at] == '-') {
      const Character last = character_at(pattern, at + 1);
      high = last.code;
      at += 1 + last.bytes;
    }
    found = found || (low.code <= code && code <= high);
  }
  return found != token.negated;
}

bool matches_one(std::string_view pattern, const Token& token, uint32_t code) {
  switch (token.kind) {
    case Token::Kind::literal:
      return code == token.code;
    case Token::Kind::any:
      return code != '/';
    default:
      return in_class(pattern, token, code);
  }
}

// From "the tokens before this one can match the first i bytes" to the same with this one. Starts
// and ends are always at the beginnings of characters.
void advance(std::string_view pattern, const Token& token, std::string_view path,
             const std::vector<char>& before, std::vector<char>& after) {
  after.assign(path.size() + 1, 0);
  bool spanning = false;
  for (size_t at = 0; at <= path.size();) {
    const Character next = at < path.size() ? character_at(path, at) : Character{};
    switch (token.kind) {
      case Token::Kind::star:
        spanning = spanning || before[at];
        if (spanning) after[at] = 1;
        if (next.code == '/') spanning = false;
        break;
      case Token::Kind::globstar:
        spanning = spanning || before[at];
        if (spanning) after[at] = 1;
        break;
      case Token::Kind::globstar_slash:
        if (before[at] || (spanning && path[at - 1] == '/')) after[at] = 1;
        spanning = spanning || before[at];
        break;
      default:
        if (before[at] && at < path.size() && matches_one(pattern, token, next.code)) {
          after[at + next.bytes] = 1;
        }
    }
    at += next.bytes;
  }
}

}  // namespace

bool glob_match(std::string_view pattern, std::string_view path) {
  std::vector<char> reached(path.size() + 1, 0), next;
  reached[0] = 1;
  for (size_t at = 0; at < pattern.size();) {
    const Token token = take_token(pattern, at);
    advance(pattern, token, path, reached, next);
    reached.swap(next);
  }
  return reached[path.size()] != 0;
}

}  // namespace pesc
