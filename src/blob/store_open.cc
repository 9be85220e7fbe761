// Opening a store: what is on the disk becomes the index.
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <system_error>

#include "blob/store_impl.h"

namespace pesc::blob {
namespace {

// Offsets in a pack are 32 bits wide.
constexpr uint64_t kMaxPackBytes = 1ull << 30;

StoreOptions bounded(StoreOptions options) {
  options.pack_target_bytes = std::clamp<uint64_t>(options.pack_target_bytes, 1, kMaxPackBytes);
  options.pack_below_bytes = std::min(options.pack_below_bytes, kMaxPackBytes);
  return options;
}

std::optional<uint32_t> pack_number(const std::string& name, std::string_view suffix) {
  if (name.size() != 8 + suffix.size() || !name.ends_with(suffix)) return std::nullopt;
  uint32_t number = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + 8, number);
  if (error != std::errc() || end != name.data() + 8) return std::nullopt;
  return number;
}

absl::StatusOr<std::vector<std::string>> names_in(const std::filesystem::path& directory) {
  std::error_code error;
  std::vector<std::string> names;
  std::filesystem::directory_iterator it(directory, error), end;
  while (!error && it != end) {
    names.push_back(it->path().filename().string());
    it.increment(error);
  }
  if (error) return errno_status(error.value(), "cannot read the directory", directory);
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Store>> Store::open(StoreOptions options) {
  auto store = std::make_unique<StoreImpl>(std::move(options));
  if (absl::Status loaded = store->load(); !loaded.ok()) return loaded;
  return std::unique_ptr<Store>(std::move(store));
}

StoreImpl::StoreImpl(StoreOptions options) : options_(bounded(std::move(options))) {}

absl::Status StoreImpl::load() {
  for (const char* name : {"packs", "large", "tmp"}) {
    if (absl::Status made = make_directories(options_.directory / name); !made.ok()) return made;
  }
  if (absl::Status locked = lock_directory(); !locked.ok()) return locked;
  if (absl::Status emptied = empty_temporary(); !emptied.ok()) return emptied;
  if (absl::Status loaded = load_packs(); !loaded.ok()) return loaded;
  if (absl::Status loaded = load_large(); !loaded.ok()) return loaded;
  // A process that was killed between making a name and syncing its directory left names that are
  // visible and not yet safe: the first sync() makes them so before anyone relies on them.
  for (const auto& path : {options_.directory / "..", options_.directory,
                           options_.directory / "packs", options_.directory / "large"}) {
    dirty_directories_.insert(path);
  }
  return absl::OkStatus();
}

absl::Status StoreImpl::lock_directory() {
  const std::filesystem::path path = options_.directory / "lock";
  lock_ = Fd(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!lock_) return errno_status(errno, "cannot open", path);
  if (::flock(lock_.get(), LOCK_EX | LOCK_NB) != 0) {
    return absl::FailedPreconditionError("the blob store " + options_.directory.string() +
                                         " is in use by another process; stop that one first");
  }
  return absl::OkStatus();
}

absl::Status StoreImpl::empty_temporary() {
  const std::filesystem::path directory = options_.directory / "tmp";
  absl::StatusOr<std::vector<std::string>> names = names_in(directory);
  if (!names.ok()) return names.status();
  for (const std::string& name : *names) {
    std::error_code error;
    std::filesystem::remove_all(directory / name, error);
    if (error) return errno_status(error.value(), "cannot remove", directory / name);
  }
  return absl::OkStatus();
}

absl::Status StoreImpl::load_packs() {
  const std::filesystem::path directory = options_.directory / "packs";
  absl::StatusOr<std::vector<std::string>> names = names_in(directory);
  if (!names.ok()) return names.status();
  for (const std::string& name : *names) {
    const std::optional<uint32_t> id = pack_number(name, ".pack");
    if (!id) continue;
    PackPtr pack = new_pack(*id);
    next_pack_ = std::max(next_pack_, *id + 1);
    if (absl::Status loaded = load_pack(pack); !loaded.ok()) return loaded;
    active_ = pack;
  }
  for (const std::string& name : *names) {
    const std::optional<uint32_t> id = pack_number(name, ".idx");
    if (id && !packs_.contains(*id)) ::unlink((directory / name).c_str());
  }
  for (const auto& [id, pack] : packs_) {
    if (pack != active_ && !pack->entries.empty()) unindexed_packs_.push_back(pack);
  }
  // The last pack is filled up, unless it is full. Its index file, if any, goes on to describe its
  // beginning; the list of its entries is needed for the next one.
  if (active_ && active_->end >= options_.pack_target_bytes) {
    if (!active_->entries.empty()) unindexed_packs_.push_back(active_);
    active_ = nullptr;
  }
  return absl::OkStatus();
}

absl::Status StoreImpl::load_pack(const PackPtr& pack) {
  absl::StatusOr<std::shared_ptr<Fd>> fd = pack_fd(*pack);
  if (!fd.ok()) return fd.status();
  struct stat info;
  if (::fstat((*fd)->get(), &info) != 0) return errno_status(errno, "cannot read", pack->path);
  const uint64_t file_bytes = static_cast<uint64_t>(info.st_size);

  PackIndex index;
  if (Fd index_fd(::open(pack->index_path.c_str(), O_RDONLY | O_CLOEXEC)); index_fd) {
    struct stat index_info;
    if (::fstat(index_fd.get(), &index_info) != 0) {
      return errno_status(errno, "cannot read", pack->index_path);
    }
    pack->index_bytes = static_cast<uint64_t>(index_info.st_size);
    absl::StatusOr<std::string> bytes =
        pread_up_to(index_fd.get(), 0, pack->index_bytes, pack->index_path);
    if (!bytes.ok()) return bytes.status();
    if (std::optional<PackIndex> good = decode_index(*bytes)) index = *std::move(good);
    // A pack that is shorter than its index says is not the one that was described.
    if (index.covered_bytes > file_bytes) index = PackIndex();
  }
  pack->index_covered = pack->synced = pack->end = index.covered_bytes;
  if (index.covered_bytes == file_bytes && file_bytes > 0) {
    adopt(pack, index.entries);
    // Only a pack that goes on to be filled needs the list again.
    if (file_bytes < options_.pack_target_bytes) pack->entries = std::move(index.entries);
    return absl::OkStatus();
  }

  // What no index covers was perhaps never synced. It is made safe now and then read back from the
  // disk itself: after a failed fsync the page cache holds what the disk does not.
  if (options_.durable && file_bytes > 0) {
    if (const int error = flush((*fd)->get()); error != 0) {
      return errno_status(error, "cannot make safe on disk", pack->path);
    }
    ::posix_fadvise((*fd)->get(), 0, 0, POSIX_FADV_DONTNEED);
  }
  absl::StatusOr<PackScan> scan =
      scan_pack((*fd)->get(), index.covered_bytes, file_bytes, pack->path);
  if (!scan.ok()) return scan.status();
  if (scan->end < file_bytes && ::ftruncate((*fd)->get(), static_cast<off_t>(scan->end)) != 0) {
    return errno_status(errno, "cannot cut the torn end of", pack->path);
  }
  pack->end = pack->synced = scan->end;
  pack->entries = std::move(index.entries);
  pack->entries.insert(pack->entries.end(), scan->entries.begin(), scan->entries.end());
  adopt(pack, pack->entries);
  return absl::OkStatus();
}

// A blob that a crash left in two packs, or twice in one, counts where it was found last.
void StoreImpl::adopt(const PackPtr& pack, const std::vector<PackEntry>& entries) {
  packed_.reserve(packed_.size() + entries.size());
  for (const PackEntry& entry : entries) {
    if (entry.end() > pack->end) continue;
    const Packed where{pack->id, entry.offset, entry.size_bytes};
    auto [it, added] = packed_.try_emplace(entry.digest, where);
    if (!added) {
      packs_[it->second.pack]->live_bytes -= it->second.size_bytes + kEntryHeaderBytes;
      live_bytes_ -= it->second.size_bytes;
      it->second = where;
    }
    pack->live_bytes += entry.size_bytes + kEntryHeaderBytes;
    live_bytes_ += entry.size_bytes;
  }
}

absl::Status StoreImpl::load_large() {
  const std::filesystem::path directory = options_.directory / "large";
  absl::StatusOr<std::vector<std::string>> folders = names_in(directory);
  if (!folders.ok()) return folders.status();
  for (const std::string& folder : *folders) {
    absl::StatusOr<std::vector<std::string>> names = names_in(directory / folder);
    if (!names.ok()) return names.status();
    for (const std::string& name : *names) {
      const absl::StatusOr<Digest> digest = digest_from_hex(name);
      struct stat info;
      if (!digest.ok() || ::lstat((directory / folder / name).c_str(), &info) != 0 ||
          !S_ISREG(info.st_mode)) {
        continue;
      }
      // Packed meanwhile, under another threshold: one copy is enough.
      if (packed_.contains(*digest)) {
        ::unlink((directory / folder / name).c_str());
        continue;
      }
      const uint64_t size_bytes = static_cast<uint64_t>(info.st_size);
      if (large_.try_emplace(*digest, Large{size_bytes, ""}).second) live_bytes_ += size_bytes;
      dirty_directories_.insert(directory / folder);
    }
  }
  return absl::OkStatus();
}

}  // namespace pesc::blob
