#include "runtime/worker/shell/cache.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>

#include "blob/hash.h"
#include "rpc/log.h"
#include "runtime/common/state_dir.h"
#include "runtime/worker/shell/attempt_dirs.h"
#include "runtime/worker/shell/identity.h"

namespace pesc::worker {
namespace {

namespace fs = std::filesystem;

int64_t nanoseconds(const timespec& t) { return int64_t{t.tv_sec} * 1'000'000'000 + t.tv_nsec; }

}  // namespace

FilePrint file_print(const std::string& path) {
  struct stat info {};
  if (::lstat(path.c_str(), &info) != 0) return {};
  return {info.st_dev, info.st_ino, static_cast<uint64_t>(info.st_size), nanoseconds(info.st_mtim),
          nanoseconds(info.st_ctim)};
}

absl::StatusOr<std::shared_ptr<Cache>> Cache::open(const fs::path& state_dir,
                                                   uint64_t limit_bytes) {
  std::shared_ptr<Cache> cache(new Cache);
  cache->shared_dir_ = state_dir / "shared";
  cache->marker_ = state_dir / "cache.open";
  cache->limit_bytes_ = limit_bytes;
  const fs::path directory = state_dir / "cache";

  // Nothing in the cache is synced while the worker runs. A marker of an earlier boot means that
  // the machine went down under it: what the disk has may not be what was written.
  const std::string boot = this_machine().boot_id;
  absl::StatusOr<std::string> marker = common::read_small_file(cache->marker_, 4096);
  if (marker.ok() && *marker != boot) {
    rpc::log().warn("event=cache_dropped reason=\"the machine went down while the worker ran\"");
    absl::Status removed = remove_tree(directory);
    if (!removed.ok()) return removed;
  }
  absl::Status marked = common::write_file_atomically(cache->marker_, boot, 0600);
  if (!marked.ok()) return marked;

  // Shared copies are made anew from the blobs: nobody watched them while the worker was away.
  absl::Status removed = remove_tree(cache->shared_dir_);
  if (!removed.ok()) return removed;
  if (::mkdir(cache->shared_dir_.c_str(), 0700) != 0) {
    return common::errno_status(errno, "make the directory", cache->shared_dir_);
  }

  // The store's own directories are made under the umask of whatever program this is.
  if ((::mkdir(directory.c_str(), 0700) != 0 && errno != EEXIST) ||
      ::chmod(directory.c_str(), 0700) != 0) {
    return common::errno_status(errno, "make the directory", directory);
  }
  blob::StoreOptions options;
  options.directory = directory;
  auto store = blob::Store::open(options);
  if (!store.ok()) return store.status();
  cache->store_ = std::move(*store);
  // The store has no other way to be listed.
  absl::Status listed = cache->store_->retain([&](const Digest& digest) {
    cache->uses_.try_emplace(digest);
    return true;
  });
  if (!listed.ok()) return listed;
  for (auto& [digest, use] : cache->uses_) {
    use.size_bytes = cache->store_->size_bytes(digest).value_or(0);
    cache->known_bytes_ += use.size_bytes;
  }
  return cache;
}

std::string Cache::shared_path(const Digest& digest, bool executable) const {
  return (shared_dir_ / (to_hex(digest) + (executable ? ".x" : ""))).string();
}

absl::StatusOr<std::string> Cache::shared_copy(const Digest& digest, bool executable) {
  const std::string path = shared_path(digest, executable);
  std::lock_guard lock(shared_mutex_);
  struct stat info {};
  if (::lstat(path.c_str(), &info) == 0) return path;
  const std::string temporary = path + ".new";
  ::unlink(temporary.c_str());
  const mode_t mode = executable ? 0555 : 0444;
  // An executable one gets bytes of its own: one inode cannot have two modes.
  absl::Status made = store_->materialise(digest, temporary, mode, !executable);
  if (!made.ok()) return made;
  if (::chmod(temporary.c_str(), mode) != 0) return common::errno_status(errno, "set up", path);
  if (::rename(temporary.c_str(), path.c_str()) != 0) {
    return common::errno_status(errno, "make", path);
  }
  return path;
}

void Cache::forget_shared(const Digest& digest) {
  std::lock_guard lock(shared_mutex_);
  ::unlink(shared_path(digest, false).c_str());
  ::unlink(shared_path(digest, true).c_str());
}

bool Cache::verify_shared_copy(const std::string& path, const Digest& digest,
                               const FilePrint& before) {
  if (file_print(path) == before) return true;
  absl::StatusOr<BlobRef> now = blob::hash_file(path);
  if (now.ok() && now->digest == digest) return true;
  forget_shared(digest);
  if (absl::Status erased = store_->erase({digest}); !erased.ok()) {
    rpc::log().warn("event=cache_erase_failed error=\"{}\"", std::string(erased.message()));
  }
  return false;
}

void Cache::pin(const std::vector<BlobRef>& blobs) {
  for (const BlobRef& blob : blobs) {
    auto [it, added] = uses_.try_emplace(blob.digest);
    if (added) {
      it->second.size_bytes = blob.size_bytes;
      known_bytes_ += blob.size_bytes;
    }
    ++it->second.pins;
    it->second.last = ++clock_;
  }
}

void Cache::unpin(const std::vector<BlobRef>& blobs) {
  for (const BlobRef& blob : blobs) {
    auto it = uses_.find(blob.digest);
    if (it != uses_.end() && it->second.pins > 0) --it->second.pins;
  }
}

std::vector<Digest> Cache::choose_victims() {
  std::vector<Digest> victims;
  if (known_bytes_ <= limit_bytes_) return victims;
  std::vector<std::pair<uint64_t, Digest>> idle;
  for (const auto& [digest, use] : uses_) {
    if (use.pins == 0) idle.emplace_back(use.last, digest);
  }
  std::sort(idle.begin(), idle.end());
  for (const auto& [last, digest] : idle) {
    if (known_bytes_ <= limit_bytes_) break;
    auto it = uses_.find(digest);
    known_bytes_ -= it->second.size_bytes;
    uses_.erase(it);
    victims.push_back(digest);
  }
  return victims;
}

absl::Status Cache::evict(const std::vector<Digest>& digests) {
  for (const Digest& digest : digests) forget_shared(digest);
  return store_->erase(digests);
}

absl::Status Cache::close() {
  absl::Status synced = store_->sync();
  if (synced.ok()) ::unlink(marker_.c_str());
  return synced;
}

}  // namespace pesc::worker
