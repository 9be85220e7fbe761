// The store: putting, reading, forgetting. Opening is in store_open.cc, making safe in
// store_sync.cc.
#include "blob/store.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <system_error>

#include "blob/store_impl.h"

namespace pesc::blob {
namespace {

constexpr size_t kMaxOpenPacks = 64;

absl::Status not_here(const Digest& digest) {
  return absl::NotFoundError("blob " + to_hex(digest) + " is not in the store");
}

}  // namespace

StoreImpl::~StoreImpl() {
  // A clean end leaves indexes for a fast start. Not needed for anything else: errors don't matter.
  if (lock_) {
    std::lock_guard lock(sync_mutex_);
    if (sync_locked().ok()) {
      {
        std::lock_guard index_lock(mutex_);
        if (active_ && active_->index_covered != active_->end) unindexed_packs_.push_back(active_);
      }
      write_indexes();
    }
    for (const auto& [digest, large] : large_) {
      if (!large.temporary.empty()) ::unlink(temporary_path(large.temporary).c_str());
    }
  }
}

std::filesystem::path StoreImpl::temporary_path(const std::string& name) const {
  return options_.directory / "tmp" / name;
}

std::filesystem::path StoreImpl::large_path(const Digest& digest) const {
  const std::string hex = to_hex(digest);
  return options_.directory / "large" / hex.substr(0, 2) / hex;
}

std::string StoreImpl::new_temporary_name() { return std::to_string(++next_temporary_); }

bool StoreImpl::contains(const Digest& digest) const {
  std::lock_guard lock(mutex_);
  return packed_.contains(digest) || large_.contains(digest);
}

std::optional<uint64_t> StoreImpl::size_bytes(const Digest& digest) const {
  std::lock_guard lock(mutex_);
  if (auto it = packed_.find(digest); it != packed_.end()) return it->second.size_bytes;
  if (auto it = large_.find(digest); it != large_.end()) return it->second.size_bytes;
  return std::nullopt;
}

bool StoreImpl::has_large_of(uint64_t size_bytes) const {
  std::lock_guard lock(mutex_);
  return std::any_of(large_.begin(), large_.end(),
                     [&](const auto& each) { return each.second.size_bytes == size_bytes; });
}

absl::StatusOr<BlobRef> StoreImpl::put(std::string_view bytes) {
  const Digest digest = sha256(bytes);
  if (bytes.size() < options_.pack_below_bytes) return put_hashed(digest, bytes);
  const BlobRef blob{digest, bytes.size()};
  if (contains(digest)) return blob;
  const std::string name = new_temporary_name();
  const std::filesystem::path path = temporary_path(name);
  absl::Status status;
  {
    Fd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    if (!fd) return errno_status(errno, "cannot make", path);
    status = write_all(fd.get(), bytes, path);
  }
  if (status.ok()) status = adopt_large(blob, name);
  if (!status.ok()) {
    ::unlink(path.c_str());
    return status;
  }
  return blob;
}

absl::StatusOr<BlobRef> StoreImpl::put_hashed(const Digest& digest, std::string_view bytes) {
  std::lock_guard lock(mutex_);
  if (!packed_.contains(digest) && !large_.contains(digest)) {
    if (absl::Status appended = append(digest, bytes); !appended.ok()) return appended;
  }
  return BlobRef{digest, bytes.size()};
}

PackPtr StoreImpl::new_pack(uint32_t id) {
  auto pack = std::make_shared<Pack>();
  char name[16];
  std::snprintf(name, sizeof name, "%08u", id);
  pack->id = id;
  pack->path = options_.directory / "packs" / (std::string(name) + ".pack");
  pack->index_path = options_.directory / "packs" / (std::string(name) + ".idx");
  packs_[id] = pack;
  return pack;
}

absl::StatusOr<std::shared_ptr<Fd>> StoreImpl::pack_fd(Pack& pack) const {
  if (pack.fd) return pack.fd;
  const int create = pack.end == 0 ? O_CREAT : 0;
  auto fd = std::make_shared<Fd>(::open(pack.path.c_str(), O_RDWR | O_CLOEXEC | create, 0600));
  if (!*fd) return errno_status(errno, "cannot open", pack.path);
  if (open_packs_.size() >= kMaxOpenPacks) {
    // Who reads from one holds it by itself. A dirty one stays: its descriptor is the one that is
    // told of a failed write.
    for (auto it = open_packs_.begin(); it != open_packs_.end(); ++it) {
      PackPtr other = it->lock();
      if (other && other->dirty) continue;
      if (other) other->fd = nullptr;
      open_packs_.erase(it);
      break;
    }
  }
  if (auto it = packs_.find(pack.id); it != packs_.end()) open_packs_.push_back(it->second);
  pack.fd = fd;
  return fd;
}

absl::StatusOr<PackPtr> StoreImpl::active_pack(uint64_t bytes) {
  if (active_ && active_->end > 0 &&
      active_->end + kEntryHeaderBytes + bytes > options_.pack_target_bytes) {
    unindexed_packs_.push_back(active_);
    active_ = nullptr;
  }
  if (!active_) {
    PackPtr pack = new_pack(next_pack_);
    if (absl::StatusOr<std::shared_ptr<Fd>> fd = pack_fd(*pack); !fd.ok()) {
      packs_.erase(pack->id);
      return fd.status();
    }
    ++next_pack_;
    dirty_directories_.insert(options_.directory / "packs");
    active_ = pack;
  }
  return active_;
}

absl::Status StoreImpl::append(const Digest& digest, std::string_view bytes) {
  absl::StatusOr<PackPtr> pack = active_pack(bytes.size());
  if (!pack.ok()) return pack.status();
  absl::StatusOr<std::shared_ptr<Fd>> fd = pack_fd(**pack);
  if (!fd.ok()) return fd.status();
  auto header = encode_entry_header(digest, static_cast<uint32_t>(bytes.size()));
  const uint64_t total = header.size() + bytes.size();
  uint64_t done = 0;
  while (done < total) {
    iovec parts[2];
    int count = 0;
    if (done < header.size()) parts[count++] = {header.data() + done, header.size() - done};
    const uint64_t from = done < header.size() ? 0 : done - header.size();
    parts[count++] = {const_cast<char*>(bytes.data()) + from, bytes.size() - from};
    const ssize_t n =
        ::pwritev((*fd)->get(), parts, count, static_cast<off_t>((*pack)->end + done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      const int error = errno;
      // Nothing points there; cutting it gives the space back.
      if (::ftruncate((*fd)->get(), static_cast<off_t>((*pack)->end)) != 0) (*pack)->dirty = true;
      return errno_status(error, "cannot write", (*pack)->path);
    }
    done += static_cast<uint64_t>(n);
  }
  const auto offset = static_cast<uint32_t>((*pack)->end + kEntryHeaderBytes);
  const auto size_bytes = static_cast<uint32_t>(bytes.size());
  (*pack)->end += total;
  (*pack)->live_bytes += total;
  (*pack)->entries.push_back({digest, offset, size_bytes});
  live_bytes_ += bytes.size();
  packed_[digest] = Packed{(*pack)->id, offset, size_bytes};
  if (!(*pack)->dirty) {
    (*pack)->dirty = true;
    dirty_packs_.push_back(*pack);
  }
  return absl::OkStatus();
}

absl::Status StoreImpl::adopt_large(const BlobRef& blob, const std::string& name) {
  std::lock_guard lock(mutex_);
  if (packed_.contains(blob.digest) || large_.contains(blob.digest)) {
    ::unlink(temporary_path(name).c_str());
    return absl::OkStatus();
  }
  Large large{blob.size_bytes, name};
  if (!options_.durable) {
    const std::filesystem::path path = large_path(blob.digest);
    if (absl::Status made = make_directories(path.parent_path()); !made.ok()) return made;
    if (::rename(temporary_path(name).c_str(), path.c_str()) != 0) {
      return errno_status(errno, "cannot make", path);
    }
    large.temporary.clear();
  } else {
    pending_large_.push_back(blob.digest);
  }
  large_[blob.digest] = std::move(large);
  live_bytes_ += blob.size_bytes;
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<Fd>> StoreImpl::open_large(const Digest& digest,
                                                          const Large& large) const {
  const std::filesystem::path path =
      large.temporary.empty() ? large_path(digest) : temporary_path(large.temporary);
  auto fd = std::make_shared<Fd>(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  if (!*fd) return errno_status(errno, "cannot open", path);
  return fd;
}

absl::StatusOr<StoreImpl::Place> StoreImpl::locate(const Digest& digest) const {
  std::lock_guard lock(mutex_);
  absl::StatusOr<std::shared_ptr<Fd>> fd;
  Place place;
  if (auto packed = packed_.find(digest); packed != packed_.end()) {
    Pack& pack = *packs_.at(packed->second.pack);
    fd = pack_fd(pack);
    place = {nullptr, packed->second.offset, packed->second.size_bytes, pack.path};
  } else if (auto large = large_.find(digest); large != large_.end()) {
    fd = open_large(digest, large->second);
    place = {nullptr, 0, large->second.size_bytes, options_.directory / "large"};
  } else {
    return not_here(digest);
  }
  if (!fd.ok()) return fd.status();
  place.fd = *std::move(fd);
  return place;
}

absl::StatusOr<std::string> StoreImpl::read(const Digest& digest, uint64_t offset,
                                            uint64_t max_bytes) const {
  absl::StatusOr<Place> place = locate(digest);
  if (!place.ok()) return place.status();
  if (offset >= place->size_bytes) return std::string();
  const uint64_t wanted = std::min(max_bytes, place->size_bytes - offset);
  absl::StatusOr<std::string> bytes =
      pread_up_to(place->fd->get(), place->start + offset, wanted, place->path);
  if (bytes.ok() && bytes->size() != wanted) {
    return absl::DataLossError("blob " + to_hex(digest) + " is cut short in " +
                               place->path.string());
  }
  return bytes;
}

bool StoreImpl::read_cached(const Digest& digest, uint64_t offset, char* to, uint64_t size) const {
  absl::StatusOr<Place> place = locate(digest);
  if (!place.ok() || offset > place->size_bytes || size > place->size_bytes - offset) return false;
  uint64_t got = 0;
  while (got < size) {
    iovec part{to + got, size - got};
    const ssize_t n = ::preadv2(place->fd->get(), &part, 1,
                                static_cast<off_t>(place->start + offset + got), RWF_NOWAIT);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    got += static_cast<uint64_t>(n);
  }
  return true;
}

// Whether it is settled, by a link or by an error in `status`; else it is to be copied.
bool StoreImpl::link_large(const Digest& digest, const Large& large,
                           const std::filesystem::path& target, uint32_t mode,
                           absl::Status& status) const {
  const std::filesystem::path path =
      large.temporary.empty() ? large_path(digest) : temporary_path(large.temporary);
  struct stat info;
  if (::lstat(path.c_str(), &info) != 0) return false;
  if ((info.st_mode & 07777) != mode) {
    // A mode belongs to all links of a file: only while there is none it may be changed.
    if (info.st_nlink != 1 || ::chmod(path.c_str(), mode) != 0) return false;
  }
  if (::link(path.c_str(), target.c_str()) == 0) return true;
  if (errno != EEXIST && errno != ENOENT) return false;
  status = errno_status(errno, "cannot make", target);
  return true;
}

absl::Status StoreImpl::materialise(const Digest& digest, const std::filesystem::path& target,
                                    uint32_t mode, bool link) const {
  absl::StatusOr<std::shared_ptr<Fd>> from;
  bool is_large = false;
  {
    std::lock_guard lock(mutex_);
    if (auto it = large_.find(digest); it != large_.end()) {
      absl::Status status;
      if (link && link_large(digest, it->second, target, mode, status)) return status;
      from = open_large(digest, it->second);
      is_large = true;
      if (!from.ok()) return from.status();
    }
  }
  absl::StatusOr<std::string> bytes = std::string();
  if (!is_large) {
    bytes = read(digest, 0, UINT64_MAX);
    if (!bytes.ok()) return bytes.status();
  }
  Fd to(::open(target.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!to) return errno_status(errno, "cannot make", target);
  absl::Status status = is_large
                            ? copy_contents((*from)->get(), to.get(), large_path(digest), target)
                            : write_all(to.get(), *bytes, target);
  if (status.ok() && ::fchmod(to.get(), mode) != 0) {
    status = errno_status(errno, "cannot set the mode of", target);
  }
  if (!status.ok()) ::unlink(target.c_str());
  return status;
}

void StoreImpl::drop_packed(const Packed& where) {
  Pack& pack = *packs_.at(where.pack);
  pack.live_bytes -= where.size_bytes + kEntryHeaderBytes;
  live_bytes_ -= where.size_bytes;
  // The pack that is being filled stays: else a lone blob that comes and goes makes a file each
  // time.
  if (pack.live_bytes == 0 && !pack.pinned && active_.get() != &pack) unlink_pack(pack);
}

void StoreImpl::drop_large(const Digest& digest, const Large& large) {
  live_bytes_ -= large.size_bytes;
  ::unlink(
      (large.temporary.empty() ? large_path(digest) : temporary_path(large.temporary)).c_str());
}

void StoreImpl::unlink_pack(Pack& pack) {
  pack.gone = true;
  // The index first: without it a pack that a crash brings back is read and hashed anew.
  ::unlink(pack.index_path.c_str());
  ::unlink(pack.path.c_str());
  pack.fd = nullptr;
  const uint32_t id = pack.id;
  packs_.erase(id);
}

absl::Status StoreImpl::erase(const std::vector<Digest>& digests) {
  std::lock_guard lock(mutex_);
  for (const Digest& digest : digests) {
    if (auto it = packed_.find(digest); it != packed_.end()) {
      const Packed where = it->second;
      packed_.erase(it);
      drop_packed(where);
    } else if (auto large = large_.find(digest); large != large_.end()) {
      drop_large(digest, large->second);
      large_.erase(large);
    }
  }
  return absl::OkStatus();
}

StoreStats StoreImpl::stats() const {
  std::lock_guard lock(mutex_);
  StoreStats stats;
  stats.blobs = packed_.size() + large_.size();
  stats.live_bytes = live_bytes_;
  for (const auto& [id, pack] : packs_) {
    stats.files += pack->index_bytes > 0 ? 2 : 1;
    stats.file_bytes += pack->end + pack->index_bytes;
  }
  stats.files += large_.size();
  for (const auto& [digest, large] : large_) stats.file_bytes += large.size_bytes;
  return stats;
}

}  // namespace pesc::blob
