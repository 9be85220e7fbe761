#include "tests/sim/disk/sqlite_vfs.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <utility>

namespace pesc::sim {
namespace {

constexpr int kSqliteSectorBytes = 4096;

// What an open file is to SQLite: it allocates szOsFile bytes, this class lives in them.
struct Handle {
  const sqlite3_io_methods* methods;
  SqliteVfs* vfs;
  std::string name;  // empty: a temporary file
  std::shared_ptr<SimDisk::File> file;
  bool sync_directory;  // with the first sync, as SQLite's own VFS does for journals
  bool delete_on_close;
  bool uses_shared;
};

Handle& of(sqlite3_file* file) { return *reinterpret_cast<Handle*>(file); }
SqliteVfs& of(sqlite3_vfs* vfs) { return *static_cast<SqliteVfs*>(vfs->pAppData); }

int code_of(DiskAnswer answer, int otherwise) {
  if (answer == DiskAnswer::done) return SQLITE_OK;
  return answer == DiskAnswer::full ? SQLITE_FULL : otherwise;
}

void leave_shared(Handle& handle) {
  if (!std::exchange(handle.uses_shared, false)) return;
  SharedMemory& shared = handle.vfs->shared[handle.name];
  if (--shared.users == 0) handle.vfs->shared.erase(handle.name);
}

int close_file(sqlite3_file* file) {
  Handle& handle = of(file);
  leave_shared(handle);
  if (handle.delete_on_close && !handle.name.empty()) {
    handle.vfs->disk().remove(handle.name, false);
  }
  handle.~Handle();
  return SQLITE_OK;
}

int read_file(sqlite3_file* file, void* to, int size, sqlite3_int64 offset) {
  const std::string& content = of(file).file->cache;
  const auto want = static_cast<size_t>(size), from = static_cast<size_t>(offset);
  const size_t there = from >= content.size() ? 0 : std::min(want, content.size() - from);
  if (there > 0) std::memcpy(to, content.data() + from, there);
  if (there == want) return SQLITE_OK;
  std::memset(static_cast<char*>(to) + there, 0, want - there);
  return SQLITE_IOERR_SHORT_READ;
}

int write_file(sqlite3_file* file, const void* from, int size, sqlite3_int64 offset) {
  Handle& handle = of(file);
  const std::string_view bytes(static_cast<const char*>(from), static_cast<size_t>(size));
  return code_of(handle.vfs->disk().write(*handle.file, static_cast<uint64_t>(offset), bytes),
                 SQLITE_IOERR_WRITE);
}

int truncate_file(sqlite3_file* file, sqlite3_int64 size) {
  Handle& handle = of(file);
  return code_of(handle.vfs->disk().truncate(*handle.file, static_cast<uint64_t>(size)),
                 SQLITE_IOERR_TRUNCATE);
}

int sync_file(sqlite3_file* file, int) {
  Handle& handle = of(file);
  const DiskAnswer answer = handle.vfs->disk().sync(*handle.file, handle.sync_directory);
  if (answer == DiskAnswer::done) handle.sync_directory = false;
  return code_of(answer, SQLITE_IOERR_FSYNC);
}

int file_size(sqlite3_file* file, sqlite3_int64* size) {
  *size = static_cast<sqlite3_int64>(of(file).file->cache.size());
  return SQLITE_OK;
}

int lock(sqlite3_file*, int) { return SQLITE_OK; }
int check_reserved(sqlite3_file*, int* held) {
  *held = 0;
  return SQLITE_OK;
}
int control(sqlite3_file*, int, void*) { return SQLITE_NOTFOUND; }
int sector_size(sqlite3_file*) { return kSqliteSectorBytes; }
int characteristics(sqlite3_file*) { return SQLITE_IOCAP_POWERSAFE_OVERWRITE; }

int map_shared(sqlite3_file* file, int region, int size, int extend, void volatile** to) {
  Handle& handle = of(file);
  SharedMemory& shared = handle.vfs->shared[handle.name];
  if (!std::exchange(handle.uses_shared, true)) ++shared.users;
  const auto index = static_cast<size_t>(region);
  *to = nullptr;
  if (index >= shared.regions.size() && extend == 0) return SQLITE_OK;
  while (shared.regions.size() <= index) {
    shared.regions.push_back(std::make_unique<char[]>(static_cast<size_t>(size)));
  }
  *to = shared.regions[index].get();
  return SQLITE_OK;
}
int lock_shared(sqlite3_file*, int, int, int) { return SQLITE_OK; }
void barrier(sqlite3_file*) {}
int unmap_shared(sqlite3_file* file, int) {
  leave_shared(of(file));
  return SQLITE_OK;
}

constexpr sqlite3_io_methods kMethods = {
    .iVersion = 2,
    .xClose = close_file,
    .xRead = read_file,
    .xWrite = write_file,
    .xTruncate = truncate_file,
    .xSync = sync_file,
    .xFileSize = file_size,
    .xLock = lock,
    .xUnlock = lock,
    .xCheckReservedLock = check_reserved,
    .xFileControl = control,
    .xSectorSize = sector_size,
    .xDeviceCharacteristics = characteristics,
    .xShmMap = map_shared,
    .xShmLock = lock_shared,
    .xShmBarrier = barrier,
    .xShmUnmap = unmap_shared,
};

int open_file(sqlite3_vfs* vfs, const char* name, sqlite3_file* file, int flags, int* out_flags) {
  file->pMethods = nullptr;  // nothing to close, until it is open
  SimDisk& disk = of(vfs).disk();
  const bool temporary = name == nullptr;
  auto found = temporary ? std::make_shared<SimDisk::File>()
                         : disk.open(name, (flags & SQLITE_OPEN_CREATE) != 0);
  if (found == nullptr) return SQLITE_CANTOPEN;
  constexpr int kJournals = SQLITE_OPEN_MAIN_JOURNAL | SQLITE_OPEN_SUPER_JOURNAL | SQLITE_OPEN_WAL;
  new (file) Handle{&kMethods,
                    &of(vfs),
                    temporary ? "" : name,
                    std::move(found),
                    (flags & kJournals) != 0,
                    (flags & SQLITE_OPEN_DELETEONCLOSE) != 0,
                    false};
  if (out_flags != nullptr) *out_flags = flags;
  return SQLITE_OK;
}

int delete_file(sqlite3_vfs* vfs, const char* name, int sync_directory) {
  return code_of(of(vfs).disk().remove(name, sync_directory != 0), SQLITE_IOERR_DELETE);
}

int access_file(sqlite3_vfs* vfs, const char* name, int, int* there) {
  *there = of(vfs).disk().exists(name) ? 1 : 0;
  return SQLITE_OK;
}

int full_path(sqlite3_vfs*, const char* name, int size, char* to) {
  sqlite3_snprintf(size, to, "%s", name);
  return SQLITE_OK;
}

int no_randomness(sqlite3_vfs*, int size, char* to) {
  std::memset(to, 7, static_cast<size_t>(size));
  return size;
}
int no_sleep(sqlite3_vfs*, int microseconds) { return microseconds; }
int no_time(sqlite3_vfs*, double* time) {
  *time = 2'460'000.5;
  return SQLITE_OK;
}

}  // namespace

SqliteVfs::SqliteVfs(SimDisk& disk) : disk_(disk) {
  static uint64_t last = 0;
  name_ = "pesc-sim-disk-" + std::to_string(++last);
  vfs_ = std::make_unique<sqlite3_vfs>(sqlite3_vfs{
      .iVersion = 1,
      .szOsFile = sizeof(Handle),
      .mxPathname = 512,
      .zName = name_.c_str(),
      .pAppData = this,
      .xOpen = open_file,
      .xDelete = delete_file,
      .xAccess = access_file,
      .xFullPathname = full_path,
      .xRandomness = no_randomness,
      .xSleep = no_sleep,
      .xCurrentTime = no_time,
  });
  sqlite3_vfs_register(vfs_.get(), 0);
}

SqliteVfs::~SqliteVfs() { sqlite3_vfs_unregister(vfs_.get()); }

void SqliteVfs::seed(uint64_t seed) {
  const int value = static_cast<int>(seed & 0x7FFF'FFFF) | 1;
  sqlite3_test_control(SQLITE_TESTCTRL_PRNG_SEED, value, static_cast<sqlite3*>(nullptr));
}

}  // namespace pesc::sim
