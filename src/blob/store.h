// A content-addressed store: bytes named by their SHA-256, in one directory. Small blobs are packed
// together in large files, large ones are files of their own.
//
// Thread-safe. No exception leaves it. The on-disk format is described in docs/on-disk.md.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/ids.h"

namespace pesc::blob {

struct StoreOptions {
  std::filesystem::path directory;
  uint64_t pack_below_bytes = 256 * 1024;         // blobs smaller than this are packed
  uint64_t pack_target_bytes = 64 * 1024 * 1024;  // a pack is sealed when it is larger
  bool durable = true;  // false: sync() does nothing (embedded, temporary)
  // Tests only: takes the place of fsync() on packs and large files; 0 or an errno.
  std::function<int(int fd)> sync_for_test;
};

struct StoreStats {
  uint64_t blobs = 0, live_bytes = 0, files = 0, file_bytes = 0;
};

class Store {
 public:
  // Makes the directory when it is missing, reads what is there, drops what a crash left half-made.
  // FailedPrecondition when another store, of this process or another, has it open.
  static absl::StatusOr<std::unique_ptr<Store>> open(StoreOptions options);
  virtual ~Store() = default;

  virtual bool contains(const Digest& digest) const = 0;
  virtual std::optional<uint64_t> size_bytes(const Digest& digest) const = 0;
  // Whether one that is a file of its own has exactly that size: if not, what is that large need
  // not be hashed to know that it is missing. Looks at each such file's entry.
  virtual bool has_large_of(uint64_t size_bytes) const = 0;

  // Stores a whole blob and returns its name. Not durable before sync().
  virtual absl::StatusOr<BlobRef> put(std::string_view bytes) = 0;

  // What has come of a blob that is being written. Thread-safe; may outlive the writer, whatever
  // its end.
  class Prefix {
   public:
    virtual ~Prefix() = default;
    // Bytes that were appended before; nobody has compared their hash with anything.
    virtual absl::StatusOr<std::string> read(uint64_t offset, uint64_t max_bytes) const = 0;
  };

  // A blob that arrives in pieces. Dropped when the writer dies before finish(). One thread at a
  // time; must die before the store.
  class Writer {
   public:
    virtual ~Writer() = default;
    virtual absl::Status append(std::string_view bytes) = 0;
    // Once. DataLoss when size or hash is not the expected one. After OK the blob is in the store.
    virtual absl::StatusOr<BlobRef> finish() = 0;
    virtual uint64_t written_bytes() const = 0;
    // Null while all of it is in memory: it is too small to be a file of its own, so far.
    virtual std::shared_ptr<const Prefix> prefix() = 0;
  };
  // `expected`: what it must turn out to be; nothing: whatever is written.
  virtual absl::StatusOr<std::unique_ptr<Writer>> begin(std::optional<BlobRef> expected) = 0;

  // Copies an existing file in, hashing it; the file stays. Aborted when it changes
  // meanwhile.
  virtual absl::StatusOr<BlobRef> put_file(const std::filesystem::path& path) = 0;

  // Everything put or finished so far survives power loss when this returns OK. Blocks (fsync):
  // never called on a loop's thread. Any number of threads may; each waits until what it put is
  // safe. After an error the packed blobs stay readable and the next call writes them anew, large
  // ones that were not yet safe are gone.
  virtual absl::Status sync() = 0;

  // At most max_bytes from `offset`; shorter only at the end. NotFound when it is not here.
  virtual absl::StatusOr<std::string> read(const Digest& digest, uint64_t offset,
                                           uint64_t max_bytes) const = 0;

  // The `size` bytes from `offset`, when they are there and in memory already; else false, and what
  // is at `to` is of no use: read() has them, and the error if there is one. Does not wait for a
  // disk.
  virtual bool read_cached(const Digest& digest, uint64_t offset, char* to,
                           uint64_t size) const = 0;

  // Writes the blob to a new file (reflink or copy) of exactly `mode`; `link`: a hard link to the
  // store's own file where the blob is one and no other link needs another mode; the caller
  // promises not to change it. AlreadyExists when something is there; nothing is left behind on an
  // error.
  virtual absl::Status materialise(const Digest& digest, const std::filesystem::path& target,
                                   uint32_t mode, bool link) const = 0;

  // Keeps only those for which `wanted` is true, and gives the space of packs back. Blocks
  // (rewrites packs, fsync); `wanted` must not call the store. For the owner's start: a blob that
  // is put while it runs is kept or dropped as `wanted` says.
  virtual absl::Status retain(const std::function<bool(const Digest&)>& wanted) = 0;
  // Unknown ones are no error. Not durable: a crash may bring them back, until the next retain().
  virtual absl::Status erase(const std::vector<Digest>& digests) = 0;

  virtual StoreStats stats() const = 0;
};

}  // namespace pesc::blob
