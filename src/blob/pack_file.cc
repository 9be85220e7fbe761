#include "blob/pack_file.h"

#include <algorithm>
#include <cstring>

#include "blob/files.h"

namespace pesc::blob {
namespace {

constexpr uint32_t kEntryMagic = 0x31425350;  // "PSB1"
constexpr uint32_t kIndexMagic = 0x31495350;  // "PSI1"
constexpr size_t kIndexHeaderBytes = 24, kIndexEntryBytes = 40, kChecksumBytes = 32;

// Little-endian whatever the machine is: a state directory may move with its disk.
template <typename T>
void put_le(char* to, T value) {
  for (size_t i = 0; i < sizeof(T); ++i) to[i] = static_cast<char>(value >> (8 * i));
}

template <typename T>
T get_le(const char* from) {
  T value = 0;
  for (size_t i = 0; i < sizeof(T); ++i) {
    value |= static_cast<T>(static_cast<uint8_t>(from[i])) << (8 * i);
  }
  return value;
}

constexpr std::array<uint32_t, 256> make_crc_table() {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t c = i;
    for (int k = 0; k < 8; ++k) c = (c & 1) != 0 ? 0x82f63b78u ^ (c >> 1) : c >> 1;
    table[i] = c;
  }
  return table;
}

uint32_t crc32c(std::string_view bytes) {
  static constexpr std::array<uint32_t, 256> kTable = make_crc_table();
  uint32_t crc = ~0u;
  for (const char c : bytes) crc = kTable[(crc ^ static_cast<uint8_t>(c)) & 0xff] ^ (crc >> 8);
  return ~crc;
}

struct Header {
  Digest digest;
  uint64_t size_bytes;
};

std::optional<Header> decode_entry_header(std::string_view bytes) {
  if (bytes.size() < kEntryHeaderBytes || get_le<uint32_t>(bytes.data()) != kEntryMagic ||
      get_le<uint32_t>(bytes.data() + 48) != crc32c(bytes.substr(0, 48))) {
    return std::nullopt;
  }
  Header header;
  header.size_bytes = get_le<uint64_t>(bytes.data() + 8);
  std::memcpy(header.digest.bytes.data(), bytes.data() + 16, 32);
  return header;
}

// Serves pieces of a file from a window, so that a scan is a few large reads.
class Window {
 public:
  Window(int fd, uint64_t file_bytes, const std::filesystem::path& path)
      : fd_(fd), file_bytes_(file_bytes), path_(path) {}

  // Shorter only at the end of the file. Valid until the next call.
  absl::StatusOr<std::string_view> at(uint64_t offset, uint64_t bytes) {
    bytes = offset >= file_bytes_ ? 0 : std::min(bytes, file_bytes_ - offset);
    if (offset < start_ || offset + bytes > start_ + data_.size()) {
      const uint64_t want = std::min(std::max<uint64_t>(bytes, 1 << 20), file_bytes_ - offset);
      absl::StatusOr<std::string> data = pread_up_to(fd_, offset, want, path_);
      if (!data.ok()) return data.status();
      data_ = *std::move(data);
      start_ = offset;
      bytes = std::min<uint64_t>(bytes, data_.size());
    }
    return std::string_view(data_).substr(offset - start_, bytes);
  }

 private:
  int fd_;
  uint64_t file_bytes_, start_ = 0;
  const std::filesystem::path& path_;
  std::string data_;
};

// Where the next thing that looks like a header begins, or the file's end. What it finds may lie
// inside a blob: the scan's hash is what decides.
absl::StatusOr<uint64_t> next_header(Window& window, uint64_t from, uint64_t file_bytes) {
  char magic[4];
  put_le(magic, kEntryMagic);
  while (from + kEntryHeaderBytes <= file_bytes) {
    absl::StatusOr<std::string_view> bytes = window.at(from, 64 * 1024);
    if (!bytes.ok()) return bytes.status();
    if (bytes->size() < kEntryHeaderBytes) break;
    const size_t found = bytes->find(std::string_view(magic, 4));
    if (found == std::string_view::npos) {
      from += bytes->size() - 3;
      continue;
    }
    absl::StatusOr<std::string_view> header = window.at(from + found, kEntryHeaderBytes);
    if (!header.ok()) return header.status();
    if (decode_entry_header(*header)) return from + found;
    from += found + 1;
  }
  return file_bytes;
}

}  // namespace

std::array<char, kEntryHeaderBytes> encode_entry_header(const Digest& digest, uint32_t size_bytes) {
  std::array<char, kEntryHeaderBytes> out{};
  put_le(out.data(), kEntryMagic);
  put_le(out.data() + 4, uint32_t{0});
  put_le(out.data() + 8, uint64_t{size_bytes});
  std::memcpy(out.data() + 16, digest.bytes.data(), 32);
  put_le(out.data() + 48, crc32c({out.data(), 48}));
  return out;
}

absl::StatusOr<PackScan> scan_pack(int fd, uint64_t from, uint64_t file_bytes,
                                   const std::filesystem::path& path) {
  Window window(fd, file_bytes, path);
  PackScan scan;
  scan.end = from;
  uint64_t at = from;
  while (at + kEntryHeaderBytes <= file_bytes) {
    absl::StatusOr<std::string_view> bytes = window.at(at, kEntryHeaderBytes);
    if (!bytes.ok()) return bytes.status();
    const std::optional<Header> header = decode_entry_header(*bytes);
    const uint64_t data_at = at + kEntryHeaderBytes;
    if (header && header->size_bytes <= file_bytes - data_at) {
      absl::StatusOr<std::string_view> data = window.at(data_at, header->size_bytes);
      if (!data.ok()) return data.status();
      if (data->size() == header->size_bytes && sha256(*data) == header->digest) {
        at = scan.end = data_at + header->size_bytes;
        scan.entries.push_back({header->digest, static_cast<uint32_t>(data_at),
                                static_cast<uint32_t>(header->size_bytes)});
        continue;
      }
    }
    absl::StatusOr<uint64_t> next = next_header(window, at + 1, file_bytes);
    if (!next.ok()) return next.status();
    at = *next;
  }
  return scan;
}

std::string encode_index(uint64_t covered_bytes, const std::vector<PackEntry>& entries) {
  std::string out(kIndexHeaderBytes + entries.size() * kIndexEntryBytes, '\0');
  put_le(out.data(), kIndexMagic);
  put_le(out.data() + 8, covered_bytes);
  put_le(out.data() + 16, uint64_t{entries.size()});
  char* at = out.data() + kIndexHeaderBytes;
  for (const PackEntry& entry : entries) {
    std::memcpy(at, entry.digest.bytes.data(), 32);
    put_le(at + 32, entry.offset);
    put_le(at + 36, entry.size_bytes);
    at += kIndexEntryBytes;
  }
  const Digest checksum = sha256(out);
  out.append(reinterpret_cast<const char*>(checksum.bytes.data()), kChecksumBytes);
  return out;
}

std::optional<PackIndex> decode_index(std::string_view bytes) {
  if (bytes.size() < kIndexHeaderBytes + kChecksumBytes) return std::nullopt;
  const std::string_view body = bytes.substr(0, bytes.size() - kChecksumBytes);
  const uint64_t count = (body.size() - kIndexHeaderBytes) / kIndexEntryBytes;
  if (get_le<uint32_t>(body.data()) != kIndexMagic || get_le<uint64_t>(body.data() + 16) != count ||
      body.size() != kIndexHeaderBytes + count * kIndexEntryBytes) {
    return std::nullopt;
  }
  const Digest checksum = sha256(body);
  if (std::memcmp(checksum.bytes.data(), bytes.data() + body.size(), kChecksumBytes) != 0) {
    return std::nullopt;
  }
  PackIndex index;
  index.covered_bytes = get_le<uint64_t>(body.data() + 8);
  index.entries.resize(count);
  const char* at = body.data() + kIndexHeaderBytes;
  for (PackEntry& entry : index.entries) {
    std::memcpy(entry.digest.bytes.data(), at, 32);
    entry.offset = get_le<uint32_t>(at + 32);
    entry.size_bytes = get_le<uint32_t>(at + 36);
    at += kIndexEntryBytes;
  }
  return index;
}

}  // namespace pesc::blob
