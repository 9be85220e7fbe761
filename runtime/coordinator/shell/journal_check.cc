// Are the rows in the order of their keys, and whose are they? SQLite finds a row only where its
// key says that it is: one flipped bit in a key hides others, though each of them is as it was
// written. (PRAGMA integrity_check sees the order too, but neither whose the row was nor rows of
// jobs that there are not; after this it would find nothing more.)
#include <algorithm>
#include <limits>

#include "runtime/coordinator/shell/sqlite_journal.h"

namespace pesc::coordinator {
namespace {

// Columns: the key, the places in the order of all records, then what the checksum needs.
struct Table {
  const char* name;
  const char* key_and_places;
  int keys, places;
  const char* rest;
};
enum TableIndex : size_t { kEvents, kAttempts, kCheckpoints, kDrops };
constexpr Table kTables[] = {
    {"job_events", "job,seq,seq", 2, 1, "kind,payload,crc"},
    {"attempts", "job,rank,attempt,leased_seq,ended_seq", 3, 2, "crc," PESC_ATTEMPT_COLUMNS},
    {"checkpoints", "job,rank,number,seq", 3, 1, "attempt,manifest,manifest_size,chunks,saved,crc"},
    {"checkpoint_drops", "job,rank,seq", 2, 1, "through,crc"},
};
// Each tries all jobs; damage that is larger than this is not a few bits.
constexpr int kSearchedOwners = 1'000;

using Key = std::array<int64_t, 3>;

Key key_of(const Table& table, const Statement& row) {
  Key key{};
  for (int i = 0; i < table.keys; ++i) key[size_t(i)] = row.integer(i);
  return key;
}

// What a look-up, or the statements of a replay, would pass over, whatever its checksum says. (NULL
// reads as 0, and has the checksum of 0.)
bool well_formed(const Table& table, const Statement& row, const Key& key) {
  for (int i = 0; i < table.keys; ++i) {
    const int64_t part = key[size_t(i)];
    if (part == 0 && !row.is_integer(i)) return false;
    if (i > 0 && part < 0) return false;
    if (i > 0 && table.keys == 3 && part > std::numeric_limits<uint32_t>::max()) return false;
  }
  bool placed = false;
  for (int i = 0; i < table.places; ++i) {
    const int64_t place = row.integer(table.keys + i);
    if (place < 0) return false;
    placed = placed || place > 0;
  }
  return placed;
}

// Whether this row is what was written, if it was written for that job.
bool intact_as(size_t table, const Statement& row, JobId job) {
  const int rest = kTables[table].keys + kTables[table].places;
  if (table == kEvents) {
    const auto kind = static_cast<JobEventKind>(row.integer(rest));
    return job_event_crc(job, row.u64(1), kind, row.bytes(rest + 1)) ==
           uint32_t(row.integer(rest + 2));
  }
  if (table == kAttempts) {
    StoredAttempt attempt = read_attempt(row, rest + 1, nullptr);
    attempt.row.key.job = job;
    return attempt_crc(attempt) == uint32_t(row.integer(rest));
  }
  if (table == kCheckpoints) {
    CheckpointKept kept;
    kept.key = {job, uint32_t(row.integer(1)), uint32_t(row.integer(rest))};
    kept.checkpoint.number = uint32_t(row.integer(2));
    kept.checkpoint.manifest = blob_ref(row.bytes(rest + 1), row.u64(rest + 2));
    kept.saved_ms = row.u64(rest + 4);
    return checkpoint_crc(kept, row.bytes(rest + 3), row.u64(3)) == uint32_t(row.integer(rest + 5));
  }
  const CheckpointsDropped dropped{job, uint32_t(row.integer(1)), uint32_t(row.integer(rest))};
  return drop_crc(dropped, row.u64(2)) == uint32_t(row.integer(rest + 1));
}

}  // namespace

absl::Status Replay::load_jobs() {
  const std::pair<const char*, std::set<uint64_t>*> sources[] = {
      {"SELECT id FROM jobs", &live_}, {"SELECT job FROM erased", &erased_}};
  for (const auto& [sql, ids] : sources) {
    absl::StatusOr<Statement> rows = Statement::prepare(db_.get(), sql);
    if (!rows.ok()) return rows.status();
    while (true) {
      absl::StatusOr<bool> row = rows->next();
      if (!row.ok()) return row.status();
      if (!*row) break;
      ids->insert(rows->u64(0));
    }
  }
  return absl::OkStatus();
}

bool Replay::known(JobId job) const {
  return live_.contains(job.value) || erased_.contains(job.value);
}

// Keys only: a small part of what a restore costs.
absl::StatusOr<bool> Replay::in_order() {
  for (const Table& table : kTables) {
    const std::string sql = std::string("SELECT ") + table.key_and_places + " FROM " + table.name;
    absl::StatusOr<Statement> rows = Statement::prepare(db_.get(), sql.c_str());
    if (!rows.ok()) return rows.status();
    std::optional<Key> before;
    while (true) {
      absl::StatusOr<bool> row = rows->next();
      if (!row.ok()) return row.status();
      if (!*row) break;
      const Key key = key_of(table, *rows);
      if (!well_formed(table, *rows, key) || (before && key <= *before)) return false;
      const bool same_job = before && key[0] == (*before)[0];
      if (!same_job && !known(JobId{uint64_t(key[0])})) return false;
      before = key;
    }
  }
  return true;
}

void Replay::find_strays() {
  searched_ = 0;
  for (size_t table = 0; table < std::size(kTables); ++table) find_strays(table);
}

// Each row once more, with its checksum. What cannot be read at all ends it: whose that is, is
// found when that job is read.
void Replay::find_strays(size_t table) {
  const Table& columns = kTables[table];
  const std::string sql = std::string("SELECT ") + columns.key_and_places + "," + columns.rest +
                          " FROM " + columns.name;
  absl::StatusOr<Statement> rows = Statement::prepare(db_.get(), sql.c_str());
  if (!rows.ok()) return;
  const std::string where = std::string("table ") + columns.name;
  std::optional<Key> before;
  std::optional<JobId> neighbour;  // the last job that is known
  bool next_too = false;           // the row before is of nobody: perhaps it was the next one's
  bool sorted = true;
  while (true) {
    absl::StatusOr<bool> row = rows->next();
    if (!row.ok() || !*row) break;
    const Key key = key_of(columns, *rows);
    const JobId job{uint64_t(key[0])};
    const bool formed = well_formed(columns, *rows, key);
    sorted = sorted && formed && (!before || key > *before);
    before = key;
    const bool live = live_.contains(job.value);
    if (live && next_too) damages_.add(job, "perhaps a row of " + where);
    if (live) next_too = false;
    if (intact_as(table, *rows, job)) {
      if (!known(job) && !damages_.jobs().contains(job)) {
        damages_.add(job, "its description cannot be read");
      }
    } else {
      const std::optional<JobId> owner = find_owner(table, *rows, job);
      if (!known(job)) {
        damages_.add_stray(
            job, "a row of " + where + " names job " + to_string(job) + ", which there is not");
      }
      // A checkpoint is lost alone.
      const bool whole_job = table != kCheckpoints;
      if (whole_job && owner && live_.contains(owner->value)) {
        damages_.add(*owner, "a row of " + where + " names job " + to_string(job) + " instead");
      } else if (!owner && live && !formed) {
        damages_.add(job, "a row of " + where);
      } else if (whole_job && !owner && !known(job)) {
        if (neighbour) damages_.add(*neighbour, "perhaps a row of " + where);
        next_too = true;
      }
    }
    if (live) neighbour = job;
  }
  if (!sorted) {
    out_of_order_ = true;
    damages_.add_unreadable("the rows of " + where + " are out of order, which hides some");
  }
}

// The job that makes the checksum right.
std::optional<JobId> Replay::find_owner(size_t table, const Statement& row, JobId claimed) {
  if (++searched_ > kSearchedOwners) return std::nullopt;
  for (const std::set<uint64_t>* ids : {&live_, &erased_}) {
    for (const uint64_t id : *ids) {
      if (id != claimed.value && intact_as(table, row, JobId{id})) return JobId{id};
    }
  }
  return std::nullopt;
}

}  // namespace pesc::coordinator
