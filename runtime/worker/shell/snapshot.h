// A moment of a checkpoint_dir, kept while it is hashed and uploaded.
//
// What lies in the directory is not trusted: nothing is followed, and only regular files of the
// ranks' user, symbolic links as such, and directories are taken. Files named *.tmp are left out:
// they are what a program is about to rename into place.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "blob/files.h"
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

// 4 MiB of zeros: what a hole of a sparse file consists of.
const BlobRef& zero_chunk();

// Hashes slice by slice: a file of any size keeps nobody else from being saved. Memory: what the
// snapshot has, and a small buffer.
class SnapshotHashing {
 public:
  // Set from any thread, `cancelled` ends it soon.
  SnapshotHashing(Snapshot snapshot, std::shared_ptr<const std::atomic<bool>> cancelled);

  // Blocks for a tenth of a second or so; nothing: there is more to do. Aborted when a file was
  // changed in place meanwhile; Cancelled; InvalidArgument when what is there could be saved, but
  // never restored.
  std::optional<absl::StatusOr<HashedSnapshot>> step();

 private:
  absl::Status next();
  absl::Status add_small(Snapshot::File& file);
  absl::Status add_chunk(Snapshot::File& file);
  absl::Status add(Snapshot::File& file, HashedSnapshot::Piece piece);
  absl::StatusOr<BlobRef> hash(const Snapshot::File& file, uint64_t end);
  bool is_hole(uint64_t end);
  absl::StatusOr<HashedSnapshot> finish();

  Snapshot snapshot_;
  std::shared_ptr<const std::atomic<bool>> cancelled_;
  HashedSnapshot result_;
  std::set<Digest> known_;
  size_t chunks_ = 0;
  uint64_t read_bytes_ = 0;
  // Where it is: files_[file_], if that is a large one at offset_; data_: where its next bytes are.
  size_t file_ = 0;
  blob::Fd fd_;
  uint64_t offset_ = 0, data_ = 0;
};

}  // namespace pesc::worker
