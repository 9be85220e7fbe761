// The format of the store's pack files and of their indexes (docs/on-disk.md): bytes in, values
// out.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "model/ids.h"

namespace pesc::blob {

inline constexpr size_t kEntryHeaderBytes = 52;

struct PackEntry {
  Digest digest;
  uint32_t offset = 0;  // of the blob's first byte; its header lies before it
  uint32_t size_bytes = 0;
  bool operator==(const PackEntry&) const = default;
  uint64_t end() const { return uint64_t{offset} + size_bytes; }
};

std::array<char, kEntryHeaderBytes> encode_entry_header(const Digest& digest, uint32_t size_bytes);

struct PackScan {
  std::vector<PackEntry> entries;
  uint64_t end = 0;  // of the last whole entry: what follows is a torn tail
};
// Reads the entries in [from, file_bytes). Each is hashed, and what does not hash right is left
// out: a damaged entry costs itself, not those behind it.
absl::StatusOr<PackScan> scan_pack(int fd, uint64_t from, uint64_t file_bytes,
                                   const std::filesystem::path& path);

struct PackIndex {
  uint64_t covered_bytes = 0;  // of the pack; what lies behind was appended later
  std::vector<PackEntry> entries;
};
std::string encode_index(uint64_t covered_bytes, const std::vector<PackEntry>& entries);
// Nothing when it is damaged.
std::optional<PackIndex> decode_index(std::string_view bytes);

}  // namespace pesc::blob
