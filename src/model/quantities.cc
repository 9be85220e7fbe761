// Amounts of bytes and of time, as people write and read them.
#include <array>
#include <cmath>
#include <cstdio>
#include <limits>

#include "model/job_spec.h"
#include "model/text.h"

namespace pesc {
namespace {

constexpr uint64_t kMaximum = std::numeric_limits<uint64_t>::max();
constexpr uint64_t kSecond = 1'000, kMinute = 60 * kSecond, kHour = 60 * kMinute, kDay = 24 * kHour;

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

// A decimal number, exact: whole + fraction / scale.
struct Decimal {
  uint64_t whole = 0, fraction = 0, scale = 1;
  bool overflow = false;
};

// Takes a number from the front of `text`; false when none is there.
bool take_decimal(std::string_view& text, Decimal& number) {
  if (text.empty() || !is_digit(text.front())) return false;
  while (!text.empty() && is_digit(text.front())) {
    const auto digit = static_cast<uint64_t>(text.front() - '0');
    number.overflow |= __builtin_mul_overflow(number.whole, uint64_t{10}, &number.whole) ||
                       __builtin_add_overflow(number.whole, digit, &number.whole);
    text.remove_prefix(1);
  }
  if (text.empty() || text.front() != '.') return true;
  text.remove_prefix(1);
  if (text.empty() || !is_digit(text.front())) return false;
  while (!text.empty() && is_digit(text.front())) {
    if (number.scale < 1'000'000'000) {  // further digits are less than any unit here
      number.fraction = number.fraction * 10 + static_cast<uint64_t>(text.front() - '0');
      number.scale *= 10;
    }
    text.remove_prefix(1);
  }
  return true;
}

// The number times `unit`, rounded down; false on overflow.
bool scaled(const Decimal& number, uint64_t unit, uint64_t& result) {
  __extension__ using Wide = unsigned __int128;
  if (number.overflow) return false;
  const Wide value = static_cast<Wide>(number.whole) * unit +
                     static_cast<Wide>(number.fraction) * unit / number.scale;
  if (value > kMaximum) return false;
  result = static_cast<uint64_t>(value);
  return true;
}

std::string lower_suffix(std::string_view text) {
  std::string suffix(text);
  for (char& c : suffix) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return suffix;
}

// 0 when it is no unit.
uint64_t byte_unit(std::string_view text) {
  const std::string suffix = lower_suffix(text);
  if (suffix.empty() || suffix == "b") return 1;
  constexpr std::string_view kPrefixes = "kmgtpe";
  const size_t power = kPrefixes.find(suffix[0]);
  if (power == std::string_view::npos) return 0;
  const std::string rest = suffix.substr(1);
  const bool binary = rest.empty() || rest == "ib" || rest == "i";
  if (!binary && rest != "b") return 0;
  uint64_t unit = 1;
  for (size_t i = 0; i <= power; ++i) unit *= binary ? 1024 : 1000;
  return unit;
}

uint64_t duration_unit(std::string_view text) {
  const std::string suffix = lower_suffix(text);
  if (suffix == "ms") return 1;
  if (suffix == "s") return kSecond;
  if (suffix == "m" || suffix == "min") return kMinute;
  if (suffix == "h") return kHour;
  if (suffix == "d") return kDay;
  return 0;
}

absl::Status bad_bytes(std::string_view text) {
  return absl::InvalidArgumentError(in_quotes(text) +
                                    " is not an amount of bytes: write a number with K, M, G or T "
                                    "(powers of 1024), such as 512M or 2G");
}

absl::Status bad_duration(std::string_view text) {
  return absl::InvalidArgumentError(in_quotes(text) +
                                    " is not a duration: write seconds, or a number with ms, s, m, "
                                    "h or d, such as 90s, 15m or 1h30m");
}

absl::Status too_large(std::string_view text, std::string_view what) {
  return absl::InvalidArgumentError(in_quotes(text) + " is too large " + std::string(what) +
                                    ": write a smaller one");
}

// Two units, the smaller with two digits: "4m05s".
std::string two_units(uint64_t ms, uint64_t unit, char name, uint64_t small, char small_name) {
  std::array<char, 40> text;
  std::snprintf(text.data(), text.size(), "%llu%c%02llu%c",
                static_cast<unsigned long long>(ms / unit), name,
                static_cast<unsigned long long>(ms % unit / small), small_name);
  return text.data();
}

}  // namespace

absl::StatusOr<uint64_t> parse_bytes(std::string_view text) {
  std::string_view rest = trimmed(text);
  Decimal number;
  if (!take_decimal(rest, number)) return bad_bytes(text);
  const uint64_t unit = byte_unit(trimmed(rest));
  if (unit == 0) return bad_bytes(text);
  uint64_t bytes = 0;
  if (!scaled(number, unit, bytes)) return too_large(text, "an amount of bytes");
  return bytes;
}

std::string format_bytes(uint64_t bytes) {
  if (bytes < 1024) return std::to_string(bytes) + " B";
  constexpr std::array<const char*, 6> kUnits = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  double value = static_cast<double>(bytes) / 1024;
  size_t unit = 0;
  // 1023.95 would be printed as 1024.0 of a unit: go on to the next one.
  while (value >= 1023.95 && unit + 1 < kUnits.size()) {
    value /= 1024;
    ++unit;
  }
  const auto tenths = static_cast<uint64_t>(std::llround(value * 10));
  std::string text = std::to_string(tenths / 10);
  if (tenths % 10 != 0) text += "." + std::to_string(tenths % 10);
  return text + " " + kUnits[unit];
}

absl::StatusOr<uint64_t> parse_duration_ms(std::string_view text) {
  std::string_view rest = trimmed(text);
  if (rest.empty()) return bad_duration(text);
  uint64_t total = 0;
  uint64_t previous_unit = kMaximum;
  while (!rest.empty()) {
    Decimal number;
    if (!take_decimal(rest, number)) return bad_duration(text);
    size_t letters = 0;
    while (letters < rest.size() && is_letter(rest[letters])) ++letters;
    uint64_t unit = duration_unit(rest.substr(0, letters));
    // A number alone is seconds; after another part it would be a guess.
    if (rest.empty() && previous_unit == kMaximum) unit = kSecond;
    if (unit == 0 || unit >= previous_unit) return bad_duration(text);
    rest.remove_prefix(letters);
    previous_unit = unit;
    uint64_t part = 0;
    if (!scaled(number, unit, part) || __builtin_add_overflow(total, part, &total)) {
      return too_large(text, "a duration");
    }
  }
  return total;
}

std::string format_duration_ms(uint64_t ms) {
  if (ms < kSecond) return std::to_string(ms) + "ms";
  if (ms < kMinute) {
    return std::to_string(ms / kSecond) + "." + std::to_string(ms % kSecond / 100) + "s";
  }
  if (ms < kHour) return two_units(ms, kMinute, 'm', kSecond, 's');
  if (ms < kDay) return two_units(ms, kHour, 'h', kMinute, 'm');
  return two_units(ms, kDay, 'd', kHour, 'h');
}

}  // namespace pesc
