// The simulated disk under plain SQLite: what SQLite promises on a good disk must hold on this one,
// whatever becomes of what was not synced; and a disk that lies must be found out.
#include <gtest/gtest.h>

#include "tests/sim/disk/sqlite_vfs.h"

namespace pesc::sim {
namespace {

constexpr const char* kPath = "/sim/test.db";

// A connection, closed on every way out.
class Connection {
 public:
  explicit Connection(const SqliteVfs& vfs) {
    open_code_ = sqlite3_open_v2(kPath, &db_, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE,
                                 vfs.name().c_str());
  }
  ~Connection() { sqlite3_close_v2(db_); }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  bool ok() const { return open_code_ == SQLITE_OK; }
  int run(const std::string& sql) {
    return sqlite3_exec(db_, sql.c_str(), nullptr, nullptr, nullptr);
  }
  std::string text(const char* sql) {
    std::string found = "nothing";
    sqlite3_exec(
        db_, sql,
        [](void* to, int, char** values, char**) {
          *static_cast<std::string*>(to) = values[0] != nullptr ? values[0] : "null";
          return 0;
        },
        &found, nullptr);
    return found;
  }
  int prepare() {
    const int code =
        run("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;"
            "PRAGMA wal_autocheckpoint=8; PRAGMA cache_size=8;");
    return code != SQLITE_OK ? code
                             : run("CREATE TABLE IF NOT EXISTS t(a INTEGER PRIMARY KEY, b BLOB)");
  }

 private:
  sqlite3* db_ = nullptr;
  int open_code_ = 0;
};

// Transactions number first, first+1, …: each adds a row of a size of its own and changes another.
// Returns the number of the last that was committed.
int commit_until_dead(Connection& db, int first, int last) {
  for (int i = first; i <= last; ++i) {
    const std::string number = std::to_string(i);
    const int code =
        db.run("BEGIN IMMEDIATE; INSERT INTO t VALUES(" + number + ",randomblob(" +
               std::to_string(100 + i * 37 % 3000) +
               ")); UPDATE t SET b=zeroblob(50) WHERE a=" + std::to_string(i / 2) + "; COMMIT;");
    if (code != SQLITE_OK) return i - 1;
  }
  return last;
}

// Plays 30 transactions with a crash at change number `at`; returns what is wrong afterwards.
std::string crash_at(uint64_t at, bool power, bool lies) {
  Random random(at * 2 + (power ? 1 : 0));
  SimDisk disk;
  disk.lie_about_syncs(lies);
  SqliteVfs vfs(disk);
  int committed = 0;
  disk.die_after(at, random);
  {
    Connection db(vfs);
    if (db.ok() && db.prepare() == SQLITE_OK) committed = commit_until_dead(db, 1, 30);
  }
  if (!disk.dead()) committed = 30;
  if (power) {
    disk.power_failed(random);
  } else {
    disk.process_killed();
  }
  Connection db(vfs);
  if (!db.ok() || db.prepare() != SQLITE_OK) return "cannot be opened any more";
  if (db.text("PRAGMA integrity_check") != "ok") return db.text("PRAGMA integrity_check");
  const int found = std::stoi(db.text("SELECT count(*) FROM t"));
  if (found < committed) return "lost a transaction that was committed";
  if (found > committed + 1) return "has transactions that were never made";
  if (commit_until_dead(db, found + 1, found + 5) != found + 5) return "cannot be written any more";
  return {};
}

uint64_t changes_of_a_run() {
  SimDisk disk;
  SqliteVfs vfs(disk);
  {
    Connection db(vfs);
    db.prepare();
    commit_until_dead(db, 1, 30);
  }
  return disk.changes();
}

TEST(SimDisk, KeepsWhatWasCommittedWhateverTheMomentOfAPowerFailure) {
  const uint64_t all = changes_of_a_run();
  ASSERT_GT(all, 150u);
  for (uint64_t at = 0; at <= all; ++at) ASSERT_EQ(crash_at(at, true, false), "") << "at " << at;
}

TEST(SimDisk, KeepsWhatWasCommittedWhateverTheMomentOfAKill) {
  const uint64_t all = changes_of_a_run();
  for (uint64_t at = 0; at <= all; ++at) ASSERT_EQ(crash_at(at, false, false), "") << "at " << at;
}

TEST(SimDisk, ADiskThatLiesAboutItsSyncsIsFoundOut) {
  uint64_t found_out = 0;
  const uint64_t all = changes_of_a_run();
  for (uint64_t at = 0; at <= all; ++at) found_out += crash_at(at, true, true).empty() ? 0 : 1;
  EXPECT_GT(found_out, all / 2);
}

TEST(SimDisk, AFullDiskRefusesAndGoesOnWhenThereIsRoom) {
  SimDisk disk;
  SqliteVfs vfs(disk);
  Connection db(vfs);
  ASSERT_EQ(db.prepare(), SQLITE_OK);
  ASSERT_EQ(commit_until_dead(db, 1, 5), 5);
  disk.set_room(disk.bytes());
  EXPECT_LT(commit_until_dead(db, 6, 30), 30);
  db.run("ROLLBACK");  // SQLite may have done that itself
  const int found = std::stoi(db.text("SELECT count(*) FROM t"));
  disk.set_room(0);
  EXPECT_EQ(commit_until_dead(db, found + 1, 30), 30);
  EXPECT_EQ(db.text("PRAGMA integrity_check"), "ok");
}

TEST(SimDisk, ASyncThatFailsFailsTheTransaction) {
  SimDisk disk;
  SqliteVfs vfs(disk);
  Connection db(vfs);
  ASSERT_EQ(db.prepare(), SQLITE_OK);
  disk.fail_syncs(1);
  EXPECT_EQ(commit_until_dead(db, 1, 1), 0);
}

TEST(SimDisk, TheSameSeedIsTheSameDisk) {
  auto content = [] {
    SqliteVfs::seed(7);
    Random random(3);
    SimDisk disk;
    SqliteVfs vfs(disk);
    disk.die_after(60, random);
    {
      Connection db(vfs);
      db.prepare();
      commit_until_dead(db, 1, 30);
    }
    disk.power_failed(random);
    const SimDisk::File* file = disk.find(std::string(kPath) + "-wal");
    return file == nullptr ? std::string("none") : file->cache;
  };
  const std::string once = content();
  EXPECT_GT(once.size(), 1000u);
  EXPECT_EQ(once, content());
}

}  // namespace
}  // namespace pesc::sim
