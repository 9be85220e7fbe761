// The store's inside. Locks: sync_mutex_ (one sync, retain at a time) before mutex_ (the index and
// the packs). Nothing that blocks on the disk's flushing happens under mutex_, so that the loop's
// puts never wait for a journal thread's sync().
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "blob/files.h"
#include "blob/hash.h"
#include "blob/pack_file.h"
#include "blob/store.h"

namespace pesc::blob {

// A digest is uniform already: its first bytes are its hash.
struct DigestHash {
  size_t operator()(const Digest& digest) const {
    size_t value;
    __builtin_memcpy(&value, digest.bytes.data(), sizeof value);
    return value;
  }
};

struct Pack {
  uint32_t id = 0;
  std::filesystem::path path, index_path;
  std::shared_ptr<Fd> fd;          // opened when used, closed when many are
  uint64_t end = 0;                // where the next entry goes
  uint64_t synced = 0;             // below it, everything survives power loss
  uint64_t live_bytes = 0;         // with headers
  uint64_t index_bytes = 0;        // of the index file; 0: there is none
  uint64_t index_covered = 0;      // bytes of the pack that the index file describes
  std::vector<PackEntry> entries;  // all ever written, until the index file is; then empty
  bool dirty = false;              // in dirty_packs_
  bool failed = false;  // a flush failed: what is not synced must be written anew, elsewhere
  bool pinned = false;  // being rewritten: unlinked only when the new copies are safe
  bool gone = false;
};
using PackPtr = std::shared_ptr<Pack>;

class StoreImpl final : public Store {
 public:
  explicit StoreImpl(StoreOptions options);
  ~StoreImpl() override;
  absl::Status load();

  bool contains(const Digest& digest) const override;
  std::optional<uint64_t> size_bytes(const Digest& digest) const override;
  bool has_large_of(uint64_t size_bytes) const override;
  absl::StatusOr<BlobRef> put(std::string_view bytes) override;
  absl::StatusOr<std::unique_ptr<Writer>> begin(std::optional<BlobRef> expected) override;
  absl::StatusOr<BlobRef> put_file(const std::filesystem::path& path) override;
  absl::Status sync() override;
  absl::StatusOr<std::string> read(const Digest& digest, uint64_t offset,
                                   uint64_t max_bytes) const override;
  bool read_cached(const Digest& digest, uint64_t offset, char* to, uint64_t size) const override;
  absl::Status materialise(const Digest& digest, const std::filesystem::path& target, uint32_t mode,
                           bool link) const override;
  absl::Status retain(const std::function<bool(const Digest&)>& wanted) override;
  absl::Status erase(const std::vector<Digest>& digests) override;
  StoreStats stats() const override;

 private:
  friend class StoreWriter;

  // 12 bytes: a million packed blobs cost under 100 MB.
  struct Packed {
    uint32_t pack, offset, size_bytes;
  };
  struct Large {
    uint64_t size_bytes = 0;
    std::string temporary;  // its name in tmp/ until a sync() has made it safe
  };
  // What a sync has taken to make safe.
  struct Batch {
    struct Item {
      PackPtr pack;
      std::shared_ptr<Fd> fd;
      uint64_t end;  // what will be safe
    };
    std::vector<Item> packs;
    std::vector<Digest> large;
    std::set<std::filesystem::path> directories;
  };

  // load()
  absl::Status lock_directory();
  absl::Status empty_temporary();
  absl::Status load_packs();
  absl::Status load_pack(const PackPtr& pack);
  absl::Status load_large();
  void adopt(const PackPtr& pack, const std::vector<PackEntry>& entries);

  std::filesystem::path temporary_path(const std::string& name) const;
  std::filesystem::path large_path(const Digest& digest) const;
  std::string new_temporary_name();

  // The rest with mutex_ held, unless they say otherwise.
  absl::StatusOr<std::shared_ptr<Fd>> pack_fd(Pack& pack) const;
  absl::StatusOr<PackPtr> active_pack(uint64_t bytes);
  PackPtr new_pack(uint32_t id);
  absl::Status append(const Digest& digest, std::string_view bytes);
  absl::StatusOr<std::shared_ptr<Fd>> open_large(const Digest& digest, const Large& large) const;
  struct Place {
    std::shared_ptr<Fd> fd;
    uint64_t start = 0, size_bytes = 0;
    std::filesystem::path path;
  };
  absl::StatusOr<Place> locate(const Digest& digest) const;  // takes mutex_
  void drop_packed(const Packed& where);
  void drop_large(const Digest& digest, const Large& large);
  void unlink_pack(Pack& pack);
  absl::Status rescue_failed_packs();
  absl::Status rescue_pack(Pack& pack);
  absl::Status move_entry(Pack& from, const PackEntry& entry);

  absl::StatusOr<BlobRef> put_hashed(const Digest& digest, std::string_view bytes);  // takes mutex_
  // Takes over tmp/name, which holds the blob; takes mutex_.
  absl::Status adopt_large(const BlobRef& blob, const std::string& name);
  absl::Status sync_locked();  // sync_mutex_ held
  absl::Status take_batch(Batch& batch);
  absl::Status sync_packs(const Batch& batch);
  absl::Status sync_large(Batch& batch);
  absl::Status sync_one_large(const Digest& digest, Batch& batch);
  absl::Status publish_large(const Digest& digest, Batch& batch);
  absl::Status sync_directories(const Batch& batch);
  void write_indexes();
  void write_index(const PackPtr& pack);
  std::vector<PackPtr> choose_victims();  // mutex_ held
  absl::Status rewrite_packs();
  int flush(int fd) const;
  bool link_large(const Digest& digest, const Large& large, const std::filesystem::path& target,
                  uint32_t mode, absl::Status& status) const;

  const StoreOptions options_;
  Fd lock_;
  std::mutex sync_mutex_;
  mutable std::mutex mutex_;
  absl::flat_hash_map<Digest, Packed, DigestHash> packed_;
  absl::flat_hash_map<Digest, Large, DigestHash> large_;
  std::map<uint32_t, PackPtr> packs_;
  PackPtr active_;
  mutable std::vector<std::weak_ptr<Pack>> open_packs_;  // oldest first
  std::vector<PackPtr> dirty_packs_, failed_packs_, unindexed_packs_;
  std::vector<Digest> pending_large_;
  std::set<std::filesystem::path> dirty_directories_;
  uint64_t live_bytes_ = 0;
  std::atomic<uint64_t> next_temporary_{0};
  uint32_t next_pack_ = 1;
};

}  // namespace pesc::blob
