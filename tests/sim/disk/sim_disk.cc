#include "tests/sim/disk/sim_disk.h"

#include <algorithm>
#include <cstring>

namespace pesc::sim {
namespace {

using File = SimDisk::File;

void put(std::string& content, uint64_t offset, std::string_view bytes) {
  if (content.size() < offset + bytes.size()) content.resize(offset + bytes.size(), '\0');
  std::memcpy(content.data() + offset, bytes.data(), bytes.size());
}

void apply(std::string& content, const File::Change& change) {
  if (change.truncates) {
    if (content.size() > change.offset) content.resize(change.offset);
  } else {
    put(content, change.offset, change.bytes);
  }
}

// Calls back with each sector's part of a write.
template <class Each>
void for_sectors(const File::Change& change, Each each) {
  size_t at = 0;
  while (at < change.bytes.size()) {
    const size_t in_sector = (change.offset + at) % kDiskSectorBytes;
    const size_t size = std::min(kDiskSectorBytes - in_sector, change.bytes.size() - at);
    each(change.offset + at, std::string_view(change.bytes).substr(at, size));
    at += size;
  }
}

// How a power failure treats what was not synced.
enum class Loss : uint8_t { all, none, prefix, sectors, zeroed };

void lose(File& file, Loss loss, Random& random) {
  std::string content = file.durable;
  const auto count = static_cast<int64_t>(file.unsynced.size());
  const int64_t whole = loss == Loss::all      ? 0
                        : loss == Loss::prefix ? random.between(0, count)
                                               : count;
  for (int64_t i = 0; i < count; ++i) {
    const File::Change& change = file.unsynced[static_cast<size_t>(i)];
    if (i > whole) break;
    if (i == whole) {
      // The change at the cut: the first sectors of it arrived.
      if (loss != Loss::prefix || change.truncates) break;
      bool cut = false;
      for_sectors(change, [&](uint64_t offset, std::string_view bytes) {
        cut = cut || random.chance(0.3);
        if (!cut) put(content, offset, bytes);
      });
      break;
    }
    if (loss == Loss::prefix || loss == Loss::none || change.truncates) {
      if (loss != Loss::sectors || random.chance(0.7)) apply(content, change);
      continue;
    }
    // Any of them, in any order; or the file grew and its sectors were never filled.
    for_sectors(change, [&](uint64_t offset, std::string_view bytes) {
      if (random.chance(0.5)) {
        put(content, offset, bytes);
      } else if (loss == Loss::zeroed && offset + bytes.size() > content.size()) {
        content.resize(offset + bytes.size(), '\0');
      }
    });
  }
  file.cache = file.durable = std::move(content);
  file.unsynced.clear();
}

}  // namespace

std::shared_ptr<File> SimDisk::open(const std::string& name, bool create) {
  if (auto it = files_.find(name); it != files_.end()) return it->second;
  if (!create || dead_) return nullptr;
  auto file = std::make_shared<File>();
  files_[name] = file;
  return file;
}

bool SimDisk::exists(const std::string& name) const { return files_.contains(name); }

SimDisk::File* SimDisk::find(const std::string& name) {
  auto it = files_.find(name);
  return it == files_.end() ? nullptr : it->second.get();
}

uint64_t SimDisk::bytes() const {
  uint64_t all = 0;
  for (const auto& [name, file] : files_) all += file->cache.size();
  return all;
}

void SimDisk::die_after(uint64_t changes, Random& random) {
  dies_at_ = changes_ + changes;
  torn_part_ = static_cast<uint64_t>(random.between(0, 255));
}

bool SimDisk::dies() {
  if (!dead_ && changes_++ == dies_at_) dead_ = true;
  return dead_;
}

DiskAnswer SimDisk::write(File& file, uint64_t offset, std::string_view bytes) {
  if (dead_) return DiskAnswer::gone;
  const uint64_t end = offset + bytes.size();
  if (room_ != 0 && end > file.cache.size() && this->bytes() + (end - file.cache.size()) > room_) {
    return DiskAnswer::full;
  }
  const bool cut = dies();
  if (cut) bytes = bytes.substr(0, bytes.size() * torn_part_ / 256);
  put(file.cache, offset, bytes);
  file.unsynced.push_back({offset, std::string(bytes)});
  return cut ? DiskAnswer::gone : DiskAnswer::done;
}

DiskAnswer SimDisk::truncate(File& file, uint64_t size) {
  if (dead_ || dies()) return DiskAnswer::gone;
  if (file.cache.size() > size) file.cache.resize(size);
  file.unsynced.push_back({size, {}, true});
  return DiskAnswer::done;
}

DiskAnswer SimDisk::sync(File& file, bool directory) {
  if (dead_ || dies()) return DiskAnswer::gone;
  if (failing_syncs_ > 0) {
    --failing_syncs_;
    return DiskAnswer::broken;
  }
  if (lies_) return DiskAnswer::done;
  for (const File::Change& change : file.unsynced) apply(file.durable, change);
  file.unsynced.clear();
  return directory ? sync_directory() : DiskAnswer::done;
}

DiskAnswer SimDisk::sync_directory() {
  for (auto& [name, file] : files_) file->entry_durable = true;
  removed_.clear();
  return DiskAnswer::done;
}

DiskAnswer SimDisk::remove(const std::string& name, bool sync_directory) {
  if (dead_ || dies()) return DiskAnswer::gone;
  auto it = files_.find(name);
  if (it == files_.end()) return DiskAnswer::done;
  if (it->second->entry_durable) removed_.insert({name, it->second});
  files_.erase(it);
  return sync_directory && !lies_ ? this->sync_directory() : DiskAnswer::done;
}

void SimDisk::process_killed() {
  dead_ = false;
  dies_at_ = UINT64_MAX;
}

void SimDisk::power_failed(Random& random) {
  process_killed();
  // Entries that were not synced: each is there or not.
  for (auto& [name, file] : removed_) {
    if (random.chance(0.5)) continue;
    if (files_.contains(name) && files_[name]->entry_durable) continue;
    files_[name] = file;
  }
  removed_.clear();
  std::erase_if(files_,
                [&](const auto& one) { return !one.second->entry_durable && random.chance(0.5); });
  for (auto& [name, file] : files_) {
    file->entry_durable = true;
    lose(*file, static_cast<Loss>(random.between(0, 4)), random);
  }
}

}  // namespace pesc::sim
