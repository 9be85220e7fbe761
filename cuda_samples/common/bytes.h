// Numbers in files: little-endian, whatever the machine.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>

namespace samples {

template <class Number>
void put(std::string& out, Number number) {
  static_assert(sizeof(Number) == 4 || sizeof(Number) == 8, "numbers in files have 32 or 64 bits");
  std::uint64_t bits = 0;
  std::memcpy(&bits, &number, sizeof number);  // the low bytes, on a little-endian machine
  for (std::size_t i = 0; i < sizeof number; ++i) out.push_back(static_cast<char>(bits >> (8 * i)));
}

template <class Number>
Number get(const std::string& in, std::size_t at) {
  std::uint64_t bits = 0;
  for (std::size_t i = 0; i < sizeof(Number); ++i) {
    bits |= static_cast<std::uint64_t>(static_cast<unsigned char>(in[at + i])) << (8 * i);
  }
  Number number;
  std::memcpy(&number, &bits, sizeof number);
  return number;
}

// Arrays go as they lie in memory.
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
              "CUDA's hosts are little-endian, and so are these files");

}  // namespace samples
