// A moment of a checkpoint_dir, kept while it is hashed and uploaded.
//
// What lies in the directory is not trusted: nothing is followed, and only regular files of the
// ranks' user, symbolic links as such, and directories are taken. Files named *.tmp are left out:
// they are what a program is about to rename into place.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/checkpoint.h"
#include "runtime/worker/shell/cache.h"

namespace pesc::worker {

struct Snapshot {
  struct File {
    CheckpointFile entry;  // without chunks
    uint64_t size_bytes = 0;
    std::string bytes;  // of a small one
    std::string copy;   // else: a reflink or a hard link
    // Of a hard link: the file as it was; a program that writes to it in place would change it.
    bool linked = false;
    FilePrint print = {};
    uint64_t links = 0;
  };
  std::vector<File> files;  // sorted as a manifest is
};

// `directory` gets what is not small; it is made anew. Aborted when checkpoint_dir changed
// meanwhile: such a save would mix two moments. Blocks, but reads only what is small.
absl::StatusOr<Snapshot> take_snapshot(const std::string& checkpoint_dir,
                                       const std::string& directory, uid_t owner);

struct HashedSnapshot {
  CheckpointManifest manifest;
  std::string manifest_bytes;
  BlobRef manifest_blob;
  struct Piece {
    BlobRef blob;
    std::string bytes;  // of a small one
    std::string file;   // else where it is
    uint64_t offset = 0;
  };
  std::vector<Piece> pieces;  // each blob once
};

// Aborted when a file was changed in place meanwhile; Cancelled when `cancelled` was set. Blocks;
// memory: what the snapshot has, and a small buffer.
absl::StatusOr<HashedSnapshot> hash_snapshot(Snapshot snapshot, const std::atomic<bool>& cancelled);

}  // namespace pesc::worker
