#include "runtime/coordinator/shell/journal.h"

#include <fcntl.h>
#include <unistd.h>

#include <system_error>

#include "rpc/log.h"
#include "runtime/coordinator/shell/journal_schema.h"
#include "runtime/coordinator/shell/sqlite_journal.h"

namespace pesc::coordinator {
namespace {

void sync_directory(const std::filesystem::path& directory) {
  const int fd = ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;
  fsync(fd);
  close(fd);
}

absl::Status explain_damage(absl::Status status, const std::filesystem::path& path) {
  if (status.code() != absl::StatusCode::kDataLoss) return status;
  return absl::DataLossError("the journal " + path.string() +
                             " is damaged: " + std::string(status.message()) +
                             ". Put a backup of the state directory back, or try `sqlite3 "
                             "journal.db .recover`; nothing was changed");
}

// What SQLite finds wrong with the file's pages; empty: nothing. It reads all of it, as the restore
// does after it: a tenth of the restore's time.
absl::StatusOr<std::string> page_damage(Database& db) {
  absl::StatusOr<std::string> found = db.query_text("PRAGMA quick_check(3)");
  if (found.status().code() == absl::StatusCode::kDataLoss) {
    return std::string(found.status().message());
  }
  if (!found.ok()) return found.status();
  return *found == "ok" ? std::string() : *found;
}

}  // namespace

absl::Status SqliteJournal::open_first() {
  std::error_code ignored;
  const bool fresh = !std::filesystem::exists(options_.path, ignored);
  if (absl::Status s = open_database(); !s.ok()) return s;
  const absl::StatusOr<int> version = journal_version(db_, options_.path);
  if (!version.ok()) return explain_damage(version.status(), options_.path);
  const absl::StatusOr<std::string> pages = page_damage(db_);
  if (!pages.ok()) return explain_damage(pages.status(), options_.path);
  if (!pages->empty() && !options_.drop_damaged) return refuse_damaged(*pages);
  if (absl::Status s = make_ready(*version); !s.ok()) return explain_damage(s, options_.path);
  if (fresh && options_.durable) sync_directory(options_.path.parent_path());
  return options_.drop_damaged ? drop_damaged(!pages->empty()) : absl::OkStatus();
}

absl::Status SqliteJournal::connect() {
  if (absl::Status status = open_database(); !status.ok()) return status;
  const absl::StatusOr<int> version = journal_version(db_, options_.path);
  return version.ok() ? make_ready(*version) : version.status();
}

absl::Status SqliteJournal::open_database() {
  statements_ = {};
  db_ = {};
  absl::StatusOr<Database> db = Database::open(options_.path, false, options_.vfs);
  if (!db.ok()) return db.status();
  db_ = std::move(*db);
  // Before anything else: the WAL's index is in memory then, not in a shared file.
  return options_.exclusive ? db_.execute("PRAGMA locking_mode=EXCLUSIVE") : absl::OkStatus();
}

absl::Status SqliteJournal::make_ready(int version) {
  // A WAL that a burst made long is cut again; the checkpoint runs on this thread, after commits.
  std::string pragmas =
      "PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=2000;"
      "PRAGMA journal_size_limit=67108864; PRAGMA cache_size=-16384; PRAGMA synchronous=";
  pragmas += options_.durable ? "FULL;" : "OFF;";
  if (options_.max_pages > 0) {
    pragmas += "PRAGMA max_page_count=" + std::to_string(options_.max_pages) + ";";
  }
  if (absl::Status status = db_.execute(pragmas.c_str()); !status.ok()) return status;
  if (absl::Status status = migrate_journal(db_, version); !status.ok()) return status;
  if (version == 0) {
    next_seq_ = 1;
  } else if (version != kJournalSchema) {
    rpc::log().info("event=journal_migrated from={} to={}", version, kJournalSchema);
  }
  if (absl::Status status = sync_wal(); !status.ok()) return status;
  return prepare();
}

// What a process before this one wrote, and did not live to sync, reads as committed: it must be
// durable before anybody is told of it. A checkpoint begins with a sync of the WAL; that it then
// finds no room in the database is no matter.
absl::Status SqliteJournal::sync_wal() {
  if (!options_.durable) return absl::OkStatus();
  absl::Status status = db_.execute("PRAGMA wal_checkpoint(PASSIVE)");
  return absl::IsResourceExhausted(status) ? absl::OkStatus() : status;
}

absl::Status SqliteJournal::in_transaction(const std::function<absl::Status()>& body) {
  if (absl::Status status = statements_.begin.run(); !status.ok()) return status;
  absl::Status status = body();
  if (status.ok()) status = statements_.commit.run();
  // Some errors (a full disk) have rolled back already: then this one fails, which is no matter.
  if (!status.ok() && sqlite3_get_autocommit(db_.get()) == 0) (void)statements_.rollback.run();
  return status;
}

absl::Status SqliteJournal::commit(const std::vector<Record>& records) {
  if (next_seq_ == 0) return absl::InternalError("a journal must be replayed before it is written");
  if (records.empty()) return absl::OkStatus();
  return in_transaction([&] {
    for (const Record& record : records) {
      absl::Status status = std::visit([this](const auto& r) { return write(r); }, record);
      if (!status.ok()) return status;
      ++next_seq_;
    }
    return absl::OkStatus();
  });
}

absl::Status SqliteJournal::replay(const Apply& apply) {
  Damages damages;
  Replay replay(db_, damages);
  absl::Status status = replay.prepare();
  if (status.ok()) status = replay.run(apply);
  if (!status.ok()) return explain_damage(status, options_.path);
  next_seq_ = replay.last_seq() + 1;
  return damages.status(options_.path, replay.jobs());
}

absl::Status SqliteJournal::reopen() {
  if (absl::Status status = connect(); !status.ok()) return status;
  return probe();
}

// A quarter of a MiB must find room in the database and in its WAL.
absl::Status SqliteJournal::probe() {
  absl::Status status = in_transaction(
      [&] { return db_.execute("INSERT INTO probe(bytes) VALUES(zeroblob(262144))"); });
  if (!status.ok()) return status;
  return in_transaction([&] { return db_.execute("DELETE FROM probe"); });
}

absl::StatusOr<std::vector<JobId>> SqliteJournal::erased() {
  absl::StatusOr<Statement> s = Statement::prepare(
      db_.get(), "SELECT job FROM erased WHERE job NOT IN (SELECT id FROM jobs) ORDER BY job");
  if (!s.ok()) return s.status();
  std::vector<JobId> jobs;
  while (true) {
    absl::StatusOr<bool> row = s->next();
    if (!row.ok()) return row.status();
    if (!*row) return jobs;
    jobs.push_back(JobId{s->u64(0)});
  }
}

absl::StatusOr<bool> SqliteJournal::purge(JobId job, uint32_t max_rows) {
  const std::string id = std::to_string(static_cast<int64_t>(job.value));
  // The rank at which the next `max_rows` rows end; a rank's attempts go together.
  absl::StatusOr<int64_t> bound =
      db_.query_integer(("SELECT ifnull((SELECT rank FROM attempts WHERE job=" + id +
                         " ORDER BY rank LIMIT 1 OFFSET " + std::to_string(max_rows) + "), -1)")
                            .c_str());
  if (!bound.ok()) return bound.status();
  const bool all = *bound < 0;
  absl::Status status = in_transaction([&] {
    std::string sql = "DELETE FROM attempts WHERE job=" + id;
    const std::string part = all ? "" : " AND rank<=" + std::to_string(*bound);
    sql += part + "; DELETE FROM checkpoint_drops WHERE job=" + id + part;
    if (all) sql += "; DELETE FROM erased WHERE job=" + id;
    return db_.execute(sql.c_str());
  });
  if (!status.ok()) return status;
  return all;
}

absl::Status SqliteJournal::forget_dropped(uint64_t through) {
  const std::string sql = "DELETE FROM dropped_blobs WHERE id<=" + std::to_string(through);
  return in_transaction([&] { return db_.execute(sql.c_str()); });
}

absl::StatusOr<std::unique_ptr<Journal>> Journal::open(const JournalOptions& options) {
  auto journal = std::make_unique<SqliteJournal>(options);
  if (absl::Status status = journal->open_first(); !status.ok()) return status;
  return journal;
}

}  // namespace pesc::coordinator
