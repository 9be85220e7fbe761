// SQLite on a SimDisk: a VFS under a name of its own. One connection at a time to each database, as
// the journal has it (locks are not modelled).
#pragma once

#include <sqlite3.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "tests/sim/disk/sim_disk.h"

namespace pesc::sim {

// What connections share while one is open (the -shm file).
struct SharedMemory {
  std::vector<std::unique_ptr<char[]>> regions;
  int users = 0;
};

class SqliteVfs {
 public:
  explicit SqliteVfs(SimDisk& disk);
  ~SqliteVfs();  // no connection is open any more
  SqliteVfs(const SqliteVfs&) = delete;
  SqliteVfs& operator=(const SqliteVfs&) = delete;

  const std::string& name() const { return name_; }
  SimDisk& disk() { return disk_; }
  // Makes what SQLite draws for itself (the salts of its WAL) the same in every run.
  static void seed(uint64_t seed);

  std::map<std::string, SharedMemory> shared;

 private:
  SimDisk& disk_;
  std::string name_;
  std::unique_ptr<sqlite3_vfs> vfs_;
};

}  // namespace pesc::sim
