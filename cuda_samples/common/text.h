#pragma once

#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <string>

namespace samples {

// printf into a string.
__attribute__((format(printf, 1, 2))) inline std::string text(const char* format, ...) {
  char buffer[1024];
  va_list values;
  va_start(values, format);
  const int length = std::vsnprintf(buffer, sizeof buffer, format, values);
  va_end(values);
  return length < 0 ? std::string() : std::string(buffer);
}

// 1,124,000,256 bytes (1,072 MiB)
inline std::string grouped(std::uint64_t number) {
  std::string digits = std::to_string(number);
  for (std::size_t at = digits.size(); at > 3; at -= 3) digits.insert(at - 3, ",");
  return digits;
}
inline std::string shown_bytes(std::uint64_t bytes) {
  const std::uint64_t mebibytes = (bytes >> 20) + ((bytes >> 19) & 1);
  return grouped(bytes) + " bytes (" + grouped(mebibytes) + " MiB)";
}

}  // namespace samples
