// A simulated disk with a few files, for one SQLite database: what was written stays in a cache
// until it is synced, and a power failure decides what becomes of the rest. Everything that happens
// is a function of the calls and of the generator that a fault is given: nothing is looked up
// outside.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "tests/sim/world.h"

namespace pesc::sim {

inline constexpr size_t kDiskSectorBytes = 512;

// What a disk answers to a write.
enum class DiskAnswer : uint8_t { done, full, broken, gone };

class SimDisk {
 public:
  struct File {
    std::string cache;    // as processes see it
    std::string durable;  // as of the last sync
    bool entry_durable = false;
    struct Change {
      uint64_t offset = 0;
      std::string bytes;
      bool truncates = false;  // to `offset`
    };
    std::vector<Change> unsynced;
  };

  // ---- what the database does ----
  std::shared_ptr<File> open(const std::string& name, bool create);
  bool exists(const std::string& name) const;
  DiskAnswer write(File& file, uint64_t offset, std::string_view bytes);
  DiskAnswer truncate(File& file, uint64_t size);
  // `directory`: also the entries of all files, as an fsync of the directory does.
  DiskAnswer sync(File& file, bool directory);
  DiskAnswer remove(const std::string& name, bool sync_directory);

  // ---- faults ----
  // The next `changes` changes (writes, truncations, syncs, removals) work; then the process is
  // dead: the change after them reaches the cache in part, and everything fails from there on.
  void die_after(uint64_t changes, Random& random);
  void die() { dead_ = true; }
  bool dead() const { return dead_; }
  // Not more than this many bytes in all files together; 0: no bound.
  void set_room(uint64_t bytes) { room_ = bytes; }
  uint64_t room() const { return room_; }
  // The next `count` syncs fail (what they should have written stays unsynced).
  void fail_syncs(uint32_t count) { failing_syncs_ = count; }
  // A planted bug: syncs do nothing and say that they did.
  void lie_about_syncs(bool lie) { lies_ = lie; }

  // After the process is gone; a new one may open the files again.
  void process_killed();              // the cache is the machine's and stays
  void power_failed(Random& random);  // what was not synced is lost, whole or in part

  uint64_t changes() const { return changes_; }
  uint64_t bytes() const;
  File* find(const std::string& name);

 private:
  bool dies();
  DiskAnswer sync_directory();

  std::map<std::string, std::shared_ptr<File>> files_;
  std::map<std::string, std::shared_ptr<File>> removed_;  // their removal is not durable
  uint64_t changes_ = 0;
  uint64_t dies_at_ = UINT64_MAX;
  uint64_t torn_part_ = 0;  // of the change that is cut short, in 1/256
  bool dead_ = false, lies_ = false;
  uint64_t room_ = 0;
  uint32_t failing_syncs_ = 0;
};

}  // namespace pesc::sim
