// SHA-256 of bytes that come in pieces, and of files.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/ids.h"

struct evp_md_ctx_st;

namespace pesc::blob {

class Hasher {
 public:
  Hasher();
  ~Hasher();
  Hasher(const Hasher&) = delete;
  Hasher& operator=(const Hasher&) = delete;
  void update(std::string_view bytes);
  uint64_t size_bytes() const { return size_bytes_; }
  Digest finish();  // once

 private:
  evp_md_ctx_st* context_;
  uint64_t size_bytes_ = 0;
};

// Watches an open regular file for changes between two moments.
class ChangeCheck {
 public:
  // InvalidArgument when `fd` is not a regular file.
  static absl::StatusOr<ChangeCheck> start(int fd, const std::filesystem::path& path);
  uint64_t size_bytes() const { return size_bytes_; }
  // Aborted when the file is not what it was, or when `read_bytes` is not its size.
  absl::Status end(int fd, uint64_t read_bytes, const std::filesystem::path& path) const;

 private:
  uint64_t size_bytes_ = 0;
  int64_t modified_ns_ = 0, changed_ns_ = 0;
};

// What a regular file holds. Aborted ("changed while it was being read: …") when its size or times
// changed from the first to the last byte, or since `unchanged` saw it; InvalidArgument when it is
// no regular file.
absl::StatusOr<BlobRef> hash_file(const std::filesystem::path& path,
                                  const std::optional<ChangeCheck>& unchanged = std::nullopt);

}  // namespace pesc::blob
