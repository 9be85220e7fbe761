// The blobs of the store, as one session sees them: checked, bounded, durable when answered.
#pragma once

#include <kj/async.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <unordered_set>

#include "blob/store.h"
#include "pesc.capnp.h"
#include "rpc/loop.h"

namespace pesc::coordinator {

inline constexpr uint64_t kMaxTransferBytes = 1024 * 1024;  // of one call
inline constexpr uint64_t kMaxInlineBytes = 64 * 1024;      // of an output in a report

// The first 8 bytes of a digest: enough to decide that a blob must stay (a collision keeps one too
// many), at a quarter of the memory.
uint64_t digest_prefix(const Digest& digest);

// Blobs that a session has uploaded, or was told are here, and that no record names yet: not to be
// collected while the session lives, and some time after.
class BlobHold {
 public:
  explicit BlobHold(std::function<void(const std::unordered_set<uint64_t>&)> released)
      : released_(std::move(released)) {}
  ~BlobHold() { released_(prefixes_); }
  BlobHold(const BlobHold&) = delete;
  BlobHold& operator=(const BlobHold&) = delete;

  void add(const Digest& digest) { prefixes_.insert(digest_prefix(digest)); }
  // A record names it now, or never will.
  void remove(const Digest& digest) { prefixes_.erase(digest_prefix(digest)); }
  const std::unordered_set<uint64_t>& prefixes() const { return prefixes_; }

 private:
  std::unordered_set<uint64_t> prefixes_;
  std::function<void(const std::unordered_set<uint64_t>&)> released_;
};

// What a session's blobs need of the coordinator.
class BlobAccess {
 public:
  virtual ~BlobAccess() = default;
  virtual rpc::Loop& loop() = 0;
  virtual blob::Store& store() = 0;
  virtual absl::Status open_status() const = 0;  // an error once the coordinator shuts down
  // Blobs stored so far survive power loss.
  virtual kj::Promise<void> durable() = 0;
  // Resolves when no collection is erasing blobs: nothing may be stored, or found to be here,
  // meanwhile.
  virtual kj::Promise<void> no_erasing() = 0;
  // A running collection must not take it.
  virtual void touched(const Digest& digest) = 0;
};

protocol::Blobs::Client make_blobs(std::shared_ptr<BlobAccess> access,
                                   std::shared_ptr<BlobHold> hold);

}  // namespace pesc::coordinator
