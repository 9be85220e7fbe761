#include "runtime/coordinator/shell/journal_schema.h"

#include <string>

#include "runtime/coordinator/shell/journal.h"

namespace pesc::coordinator {
namespace {

constexpr int kApplicationId = 0x50455343;  // "PESC"

// kSteps[n] makes version n + 1 of version n. A new journal takes all of them, so that there is one
// way to each version. Steps never change: another version is another step.
constexpr const char* kSteps[] = {
    R"sql(
CREATE TABLE jobs(
  id INTEGER PRIMARY KEY, seq INTEGER NOT NULL, owner BLOB NOT NULL, spec BLOB NOT NULL,
  submitted INTEGER NOT NULL, crc INTEGER NOT NULL);
CREATE TABLE workers(
  id INTEGER PRIMARY KEY, name BLOB NOT NULL, room BLOB NOT NULL, crc INTEGER NOT NULL);
CREATE TABLE job_events(
  job INTEGER NOT NULL, seq INTEGER NOT NULL, kind INTEGER NOT NULL, payload BLOB NOT NULL,
  crc INTEGER NOT NULL, PRIMARY KEY(job, seq)) WITHOUT ROWID;
CREATE TABLE attempts(
  job INTEGER NOT NULL, rank INTEGER NOT NULL, attempt INTEGER NOT NULL, worker INTEGER,
  leased_seq INTEGER, ended_seq INTEGER, final INTEGER, state INTEGER, reason INTEGER,
  exit_code INTEGER, signal INTEGER, refused INTEGER, detail BLOB, started INTEGER,
  duration INTEGER, cpu INTEGER, rss INTEGER, output BLOB, output_size INTEGER, uncollected BLOB,
  crc INTEGER NOT NULL, PRIMARY KEY(job, rank, attempt)) WITHOUT ROWID;
CREATE TABLE erased(job INTEGER PRIMARY KEY, spec BLOB NOT NULL);
CREATE TABLE probe(bytes BLOB);
)sql",
    // Rows that are there stay as they are, and their checksums hold.
    R"sql(
ALTER TABLE attempts ADD COLUMN checkpoint INTEGER NOT NULL DEFAULT 0;
ALTER TABLE attempts ADD COLUMN second INTEGER NOT NULL DEFAULT 0;
ALTER TABLE attempts ADD COLUMN saved INTEGER NOT NULL DEFAULT 0;
ALTER TABLE attempts ADD COLUMN base INTEGER NOT NULL DEFAULT 0;
ALTER TABLE workers ADD COLUMN draining INTEGER NOT NULL DEFAULT 0;
CREATE TABLE checkpoints(
  job INTEGER NOT NULL, rank INTEGER NOT NULL, number INTEGER NOT NULL, attempt INTEGER NOT NULL,
  manifest BLOB NOT NULL, manifest_size INTEGER NOT NULL, chunks BLOB NOT NULL,
  saved INTEGER NOT NULL, total INTEGER NOT NULL, seq INTEGER NOT NULL, crc INTEGER NOT NULL,
  PRIMARY KEY(job, rank, number)) WITHOUT ROWID;
CREATE TABLE checkpoint_drops(
  job INTEGER NOT NULL, rank INTEGER NOT NULL, seq INTEGER NOT NULL, first INTEGER NOT NULL,
  through INTEGER NOT NULL, crc INTEGER NOT NULL, PRIMARY KEY(job, rank)) WITHOUT ROWID;
CREATE TABLE dropped_blobs(
  id INTEGER PRIMARY KEY AUTOINCREMENT, manifest BLOB NOT NULL, chunks BLOB NOT NULL);
)sql",
    R"sql(
ALTER TABLE attempts ADD COLUMN claim BLOB;
ALTER TABLE attempts ADD COLUMN written INTEGER NOT NULL DEFAULT 0;
ALTER TABLE attempts ADD COLUMN gpu_peak INTEGER NOT NULL DEFAULT 0;
)sql",
    R"sql(
CREATE TABLE programs(
  seq INTEGER PRIMARY KEY, program BLOB NOT NULL UNIQUE, memory INTEGER NOT NULL,
  gpu_memory INTEGER NOT NULL, gpu_known INTEGER NOT NULL, crc INTEGER NOT NULL);
)sql",
    // No other tables: a row of a retry says when it was, and earlier versions would take it for a
    // damaged one.
    "",
};
static_assert(std::size(kSteps) == kJournalSchema);

}  // namespace

absl::StatusOr<int> journal_version(Database& db, const std::filesystem::path& path) {
  absl::StatusOr<int64_t> application = db.query_integer("PRAGMA application_id");
  if (!application.ok()) return application.status();
  absl::StatusOr<int64_t> version = db.query_integer("PRAGMA user_version");
  if (!version.ok()) return version.status();
  absl::StatusOr<int64_t> tables = db.query_integer("SELECT count(*) FROM sqlite_master");
  if (!tables.ok()) return tables.status();
  if (*tables == 0 && *version == 0) return 0;
  if (*application != kApplicationId) {
    return absl::FailedPreconditionError(path.string() +
                                         " is not a journal of PESC; name another state directory");
  }
  if (*version < 1 || *version > kJournalSchema) {
    return absl::FailedPreconditionError(
        "the journal " + path.string() + " has schema version " + std::to_string(*version) +
        "; this PESC (" PESC_VERSION ") knows versions 1 to " + std::to_string(kJournalSchema) +
        ". Start the version of PESC that wrote it, or name another state directory");
  }
  return int(*version);
}

absl::Status migrate_journal(Database& db, int from_version) {
  if (from_version == kJournalSchema) return absl::OkStatus();
  std::string sql = "BEGIN IMMEDIATE;";
  for (int step = from_version; step < kJournalSchema; ++step) sql += kSteps[step];
  sql += "PRAGMA application_id=" + std::to_string(kApplicationId) +
         "; PRAGMA user_version=" + std::to_string(kJournalSchema) + "; COMMIT;";
  absl::Status status = db.execute(sql.c_str());
  if (!status.ok() && sqlite3_get_autocommit(db.get()) == 0) (void)db.execute("ROLLBACK");
  return status;
}

}  // namespace pesc::coordinator
