// What the worker keeps of the jobs' inputs: the blobs, each once, and of shared files the single
// copy that all ranks see. Bounded: what no attempt uses goes when room is needed, the least
// recently used first.
//
// pin, unpin and the choice of what to evict belong to the loop's thread; the rest is thread-safe.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "blob/store.h"
#include "model/ids.h"

namespace pesc::worker {

// What stat says of a file: enough to see that somebody changed it (a program cannot set ctime).
struct FilePrint {
  uint64_t device = 0, inode = 0, size_bytes = 0;
  int64_t modified_ns = 0, changed_ns = 0;
  bool operator==(const FilePrint&) const = default;
};
// Of the file itself, not of what a link points to. A file that is not there has inode 0.
FilePrint file_print(const std::string& path);

class Cache {
 public:
  static absl::StatusOr<std::shared_ptr<Cache>> open(const std::filesystem::path& state_dir,
                                                     uint64_t limit_bytes);

  blob::Store& store() { return *store_; }
  bool contains(const Digest& digest) const { return store_->contains(digest); }

  // The read-only single copy (mode 0444, or 0555), made when it is missing. Blocks.
  absl::StatusOr<std::string> shared_copy(const Digest& digest, bool executable);
  // Whether the copy still holds what it should; one that does not is deleted, and the blob too
  // where both are one file, so that it is fetched again. Blocks when the file has changed.
  bool verify_shared_copy(const std::string& path, const Digest& digest, const FilePrint& before);

  void pin(const std::vector<BlobRef>& blobs);
  void unpin(const std::vector<BlobRef>& blobs);

  // Those to give up, when the cache is over its limit; then evict() them. Nothing may be pinned
  // or fetched in between.
  std::vector<Digest> choose_victims();
  absl::Status evict(const std::vector<Digest>& digests);

  // At a clean end: what is there is durable, and is used again after the machine was restarted.
  absl::Status close();

 private:
  Cache() = default;
  std::string shared_path(const Digest& digest, bool executable) const;
  void forget_shared(const Digest& digest);

  struct Use {
    uint64_t size_bytes = 0, last = 0;
    uint32_t pins = 0;
  };
  std::filesystem::path shared_dir_, marker_;
  uint64_t limit_bytes_ = 0, known_bytes_ = 0, clock_ = 0;
  std::unique_ptr<blob::Store> store_;
  std::map<Digest, Use> uses_;
  std::mutex shared_mutex_;
};

}  // namespace pesc::worker
