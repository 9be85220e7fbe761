// What is kept of a rank's checkpoint_dir, and how one is named.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/ids.h"

namespace pesc {

// What a rank can begin from. Its manifest is a blob: a CheckpointManifest in canonical bytes.
struct CheckpointRef {
  uint32_t number = 0;  // of the rank, from 1; 0: none
  BlobRef manifest;
  bool operator==(const CheckpointRef&) const = default;
};

inline constexpr uint64_t kCheckpointChunkBytes = 4ull << 20;
inline constexpr size_t kMaxCheckpointFiles = 100'000;
inline constexpr size_t kMaxCheckpointChunks = 262'144;  // 1 TiB

enum class CheckpointFileKind : uint8_t { file, directory, symlink };

struct CheckpointFile {
  std::string path;  // relative to checkpoint_dir, normalised
  CheckpointFileKind kind = CheckpointFileKind::file;
  uint32_t mode = 0644;
  int64_t modified_unix_ms = 0;  // programs look for their newest file
  std::string target;            // of a symlink
  std::vector<BlobRef> chunks;   // of a file: kCheckpointChunkBytes each, but for the last
  bool operator==(const CheckpointFile&) const = default;
};

// Sorted by path, a directory before what it contains.
struct CheckpointManifest {
  std::vector<CheckpointFile> files;
  bool operator==(const CheckpointManifest&) const = default;
};

}  // namespace pesc
