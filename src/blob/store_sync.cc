// The store: making safe what was put, and giving back the space of what is gone.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "blob/store_impl.h"

namespace pesc::blob {
namespace {

void keep_first(absl::Status& status, absl::Status other) {
  if (status.ok()) status = std::move(other);
}

absl::Status sync_directory(const std::filesystem::path& path) {
  Fd fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd) {
    // A parent that we may not read was made by someone else: it is theirs to have made safe.
    if (errno == EACCES) return absl::OkStatus();
    return errno_status(errno, "cannot open", path);
  }
  if (::fsync(fd.get()) != 0) return errno_status(errno, "cannot make safe on disk", path);
  return absl::OkStatus();
}

}  // namespace

int StoreImpl::flush(int fd) const {
  if (options_.sync_for_test) return options_.sync_for_test(fd);
  return ::fdatasync(fd) == 0 ? 0 : errno;
}

absl::Status StoreImpl::sync() {
  std::lock_guard lock(sync_mutex_);
  return sync_locked();
}

absl::Status StoreImpl::sync_locked() {
  if (options_.durable) {
    Batch batch;
    {
      std::lock_guard lock(mutex_);
      if (absl::Status taken = take_batch(batch); !taken.ok()) return taken;
    }
    absl::Status status = sync_packs(batch);
    keep_first(status, sync_large(batch));
    keep_first(status, sync_directories(batch));
    if (!status.ok()) return status;
  }
  write_indexes();
  return absl::OkStatus();
}

absl::Status StoreImpl::take_batch(Batch& batch) {
  if (absl::Status rescued = rescue_failed_packs(); !rescued.ok()) return rescued;
  for (const PackPtr& pack : dirty_packs_) {
    if (pack->gone) continue;
    absl::StatusOr<std::shared_ptr<Fd>> fd = pack_fd(*pack);
    if (!fd.ok()) return fd.status();
    batch.packs.push_back({pack, *std::move(fd), pack->end});
  }
  for (const Batch::Item& item : batch.packs) item.pack->dirty = false;
  dirty_packs_.clear();
  batch.large.swap(pending_large_);
  batch.directories.swap(dirty_directories_);
  return absl::OkStatus();
}

absl::Status StoreImpl::sync_packs(const Batch& batch) {
  absl::Status status;
  for (const Batch::Item& item : batch.packs) {
    const int error = flush(item.fd->get());
    std::lock_guard lock(mutex_);
    Pack& pack = *item.pack;
    if (error == 0) {
      pack.synced = std::max(pack.synced, item.end);
      continue;
    }
    keep_first(status, errno_status(error, "cannot make safe on disk", pack.path));
    // The kernel has forgotten which pages failed, so another fsync of them would lie: they are
    // written anew, to another pack, by the next sync().
    if (pack.gone || pack.failed) continue;
    pack.failed = true;
    failed_packs_.push_back(item.pack);
    if (active_ == item.pack) active_ = nullptr;
  }
  return status;
}

absl::Status StoreImpl::rescue_failed_packs() {
  while (!failed_packs_.empty()) {
    PackPtr pack = failed_packs_.back();
    if (!pack->gone) {
      if (absl::Status rescued = rescue_pack(*pack); !rescued.ok()) return rescued;
      pack->failed = false;
      if (pack->live_bytes == 0) {
        unlink_pack(*pack);
      } else {
        unindexed_packs_.push_back(pack);
      }
    }
    failed_packs_.pop_back();
  }
  return absl::OkStatus();
}

absl::Status StoreImpl::rescue_pack(Pack& pack) {
  auto suspect = [&](const PackEntry& entry) { return entry.offset >= pack.synced; };
  for (const PackEntry& entry : pack.entries) {
    if (!suspect(entry)) continue;
    if (absl::Status moved = move_entry(pack, entry); !moved.ok()) return moved;
  }
  std::erase_if(pack.entries, suspect);
  pack.end = pack.synced;
  absl::StatusOr<std::shared_ptr<Fd>> fd = pack_fd(pack);
  // What is cut off is in another pack by now; if it cannot be cut, the next start hashes it.
  if (fd.ok() && ::ftruncate((*fd)->get(), static_cast<off_t>(pack.end)) != 0) return {};
  return absl::OkStatus();
}

// Appends a copy of the entry to the pack that is being filled, if the index still points to it.
absl::Status StoreImpl::move_entry(Pack& from, const PackEntry& entry) {
  const auto it = packed_.find(entry.digest);
  if (it == packed_.end() || it->second.pack != from.id || it->second.offset != entry.offset) {
    return absl::OkStatus();
  }
  absl::StatusOr<std::shared_ptr<Fd>> fd = pack_fd(from);
  if (!fd.ok()) return fd.status();
  absl::StatusOr<std::string> bytes =
      pread_up_to((*fd)->get(), entry.offset, entry.size_bytes, from.path);
  if (!bytes.ok()) return bytes.status();
  const bool good = bytes->size() == entry.size_bytes && sha256(*bytes) == entry.digest;
  if (good) {
    if (absl::Status appended = append(entry.digest, *bytes); !appended.ok()) return appended;
  } else {
    packed_.erase(it);
  }
  from.live_bytes -= entry.size_bytes + kEntryHeaderBytes;
  live_bytes_ -= entry.size_bytes;
  if (good) return absl::OkStatus();
  return absl::DataLossError("blob " + to_hex(entry.digest) + " is damaged in " +
                             from.path.string() + " and was dropped; check the disk");
}

absl::Status StoreImpl::sync_large(Batch& batch) {
  absl::Status status;
  for (const Digest& digest : batch.large) keep_first(status, sync_one_large(digest, batch));
  return status;
}

absl::Status StoreImpl::sync_one_large(const Digest& digest, Batch& batch) {
  std::shared_ptr<Fd> fd;
  std::string name;
  {
    std::lock_guard lock(mutex_);
    const auto it = large_.find(digest);
    if (it == large_.end() || it->second.temporary.empty()) return absl::OkStatus();
    name = it->second.temporary;
    absl::StatusOr<std::shared_ptr<Fd>> opened = open_large(digest, it->second);
    if (!opened.ok()) {
      pending_large_.push_back(digest);
      return opened.status();
    }
    fd = *std::move(opened);
  }
  const int error = flush(fd->get());
  std::lock_guard lock(mutex_);
  const auto it = large_.find(digest);
  // Erased meanwhile, or erased and put again: the new one is in pending_large_ by itself.
  if (it == large_.end() || it->second.temporary != name) return absl::OkStatus();
  if (error == 0) return publish_large(digest, batch);
  drop_large(digest, it->second);
  large_.erase(it);
  return errno_status(error, "cannot make safe on disk", temporary_path(name));
}

// Only what is safe on disk gets its name in large/: what is found there at a start is whole.
absl::Status StoreImpl::publish_large(const Digest& digest, Batch& batch) {
  Large& large = large_[digest];
  const std::filesystem::path path = large_path(digest);
  absl::Status status;
  if (::mkdir(path.parent_path().c_str(), 0700) == 0) {
    batch.directories.insert(options_.directory / "large");
  } else if (errno != EEXIST) {
    status = errno_status(errno, "cannot make the directory", path.parent_path());
  }
  if (status.ok() && ::rename(temporary_path(large.temporary).c_str(), path.c_str()) != 0) {
    status = errno_status(errno, "cannot make", path);
  }
  if (!status.ok()) {
    pending_large_.push_back(digest);
    return status;
  }
  large.temporary.clear();
  batch.directories.insert(path.parent_path());
  return absl::OkStatus();
}

absl::Status StoreImpl::sync_directories(const Batch& batch) {
  absl::Status status;
  for (const std::filesystem::path& path : batch.directories) {
    if (absl::Status synced = sync_directory(path); !synced.ok()) {
      std::lock_guard lock(mutex_);
      dirty_directories_.insert(path);
      keep_first(status, synced);
    }
  }
  return status;
}

// Index files only save time at the next start, so their errors are nobody's.
void StoreImpl::write_indexes() {
  std::vector<PackPtr> packs;
  {
    std::lock_guard lock(mutex_);
    packs.swap(unindexed_packs_);
    std::erase_if(packs, [](const PackPtr& pack) { return pack->gone || pack->failed; });
    if (options_.durable) {
      for (const PackPtr& pack : packs) {
        if (pack->synced < pack->end) unindexed_packs_.push_back(pack);
      }
      std::erase_if(packs, [](const PackPtr& pack) { return pack->synced < pack->end; });
    }
  }
  for (const PackPtr& pack : packs) write_index(pack);
}

// A pack that is sealed is changed only under sync_mutex_, which is held.
void StoreImpl::write_index(const PackPtr& pack) {
  const std::string bytes = encode_index(pack->end, pack->entries);
  const std::filesystem::path path = temporary_path(new_temporary_name());
  Fd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  bool good = fd && write_all(fd.get(), bytes, path).ok();
  if (good && options_.durable) good = ::fdatasync(fd.get()) == 0;
  std::lock_guard lock(mutex_);
  // Erased meanwhile: no index may stay without its pack.
  if (good && !pack->gone && ::rename(path.c_str(), pack->index_path.c_str()) == 0) {
    pack->index_bytes = bytes.size();
    pack->index_covered = pack->end;
  } else {
    ::unlink(path.c_str());
  }
  std::vector<PackEntry>().swap(pack->entries);
}

absl::Status StoreImpl::retain(const std::function<bool(const Digest&)>& wanted) {
  std::lock_guard sync_lock(sync_mutex_);
  {
    std::lock_guard lock(mutex_);
    absl::erase_if(packed_, [&](const auto& item) {
      if (wanted(item.first)) return false;
      drop_packed(item.second);
      return true;
    });
    absl::erase_if(large_, [&](const auto& item) {
      if (wanted(item.first)) return false;
      drop_large(item.first, item.second);
      return true;
    });
  }
  return rewrite_packs();
}

std::vector<PackPtr> StoreImpl::choose_victims() {
  std::vector<PackPtr> victims;
  for (const auto& [id, pack] : packs_) {
    if (pack->end > 0 && !pack->failed && pack->live_bytes * 2 < pack->end) {
      victims.push_back(pack);
    }
  }
  for (const PackPtr& pack : victims) {
    pack->pinned = true;
    if (active_ == pack) active_ = nullptr;
  }
  return victims;
}

absl::Status StoreImpl::rewrite_packs() {
  std::vector<PackPtr> victims;
  absl::flat_hash_map<uint32_t, std::vector<PackEntry>> entries;
  {
    std::lock_guard lock(mutex_);
    victims = choose_victims();
    if (victims.empty()) return absl::OkStatus();
    for (const PackPtr& pack : victims) entries[pack->id];
    for (const auto& [digest, where] : packed_) {
      if (auto it = entries.find(where.pack); it != entries.end()) {
        it->second.push_back({digest, where.offset, where.size_bytes});
      }
    }
  }
  absl::Status status;
  for (const PackPtr& pack : victims) {
    std::vector<PackEntry>& list = entries[pack->id];
    std::sort(list.begin(), list.end(),
              [](const PackEntry& a, const PackEntry& b) { return a.offset < b.offset; });
    std::lock_guard lock(mutex_);
    for (const PackEntry& entry : list) {
      keep_first(status, move_entry(*pack, entry));
      if (absl::IsResourceExhausted(status)) break;
    }
  }
  absl::Status synced = sync_locked();
  std::lock_guard lock(mutex_);
  for (const PackPtr& pack : victims) {
    pack->pinned = false;
    if (pack->gone) continue;
    if (synced.ok() && pack->live_bytes == 0) {
      unlink_pack(*pack);
    } else if (!pack->failed && pack->index_covered != pack->end) {
      unindexed_packs_.push_back(pack);
    }
  }
  keep_first(status, synced);
  return status;
}

}  // namespace pesc::blob
