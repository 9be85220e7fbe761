#pragma once

#include <cstddef>
#include <cstdint>

namespace samples {

// The CRC-32 of zip, gzip and PNG, so that anybody can check it: Python's zlib.crc32(data, before).
std::uint32_t crc32(const void* data, std::size_t size, std::uint32_t before = 0);

}  // namespace samples
