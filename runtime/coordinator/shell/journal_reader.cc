#include <algorithm>
#include <optional>
#include <utility>

#include "protocol/codec.h"
#include "runtime/coordinator/shell/journal.h"
#include "runtime/coordinator/shell/journal_rows.h"
#include "runtime/coordinator/shell/sqlite.h"

namespace pesc::coordinator {
namespace {

class SqliteReader final : public JournalReader {
 public:
  absl::Status connect(const std::filesystem::path& path) {
    absl::StatusOr<Database> db = Database::open(path, true);
    if (!db.ok()) return db.status();
    db_ = std::move(*db);
    const std::pair<Statement*, const char*> all[] = {
        {&page_, "SELECT " PESC_ATTEMPT_COLUMNS
                 " FROM attempts WHERE job=?1 AND rank>=?2 AND rank<=?3 ORDER BY rank, attempt"},
        {&failures_, "SELECT " PESC_ATTEMPT_COLUMNS
                     " FROM attempts WHERE job=?1 AND ended_seq>0 AND ((final=1 AND state=?2) OR "
                     "(final=0 AND reason NOT IN (?3,?4,?5))) ORDER BY rank, attempt"},
        {&outputs_,
         "SELECT output,output_size FROM attempts WHERE job=?1 AND length(CAST(output AS BLOB))=32 "
         "ORDER BY "
         "rank"},
        {&spec_,
         "SELECT spec,0 FROM jobs WHERE id=?1 UNION ALL SELECT spec,1 FROM erased WHERE job=?1"},
        {&jobs_, "SELECT id FROM jobs ORDER BY seq"},
        {&checkpoints_, "SELECT manifest,chunks FROM checkpoints"},
        {&dropped_, "SELECT id,manifest,chunks FROM dropped_blobs ORDER BY id LIMIT ?1"},
    };
    for (const auto& [statement, sql] : all) {
      absl::StatusOr<Statement> prepared = Statement::prepare(db_.get(), sql);
      if (!prepared.ok()) return prepared.status();
      *statement = std::move(*prepared);
    }
    return absl::OkStatus();
  }

  absl::StatusOr<std::vector<RankRow>> ranks(JobId job,
                                             const std::vector<uint32_t>& ranks) override {
    std::vector<RankRow> rows(ranks.size());
    // One read transaction: a snapshot, and no lock and unlock for each rank.
    if (absl::Status status = db_.execute("BEGIN"); !status.ok()) return status;
    absl::Status status;
    for (size_t i = 0; i < ranks.size() && status.ok(); ++i) {
      rows[i].rank = ranks[i];
      status = read(job, ranks[i], ranks[i], [&](RankRow row) { rows[i] = std::move(row); });
    }
    absl::Status ended = db_.execute("COMMIT");
    if (!status.ok()) return status;
    if (!ended.ok()) return ended;
    return rows;
  }

  absl::StatusOr<std::vector<RankRow>> page(JobId job, uint32_t first, uint32_t count) override {
    std::vector<RankRow> rows(count);
    for (uint32_t i = 0; i < count; ++i) rows[i].rank = first + i;
    if (count == 0) return rows;
    absl::Status status = read(job, first, first + count - 1,
                               [&](RankRow row) { rows[row.rank - first] = std::move(row); });
    if (!status.ok()) return status;
    return rows;
  }

  absl::Status failures(JobId job, const std::function<void(const AttemptRow&)>& row) override {
    failures_.bind_u64(1, job.value);
    failures_.bind(2, int64_t(RankState::failed));
    failures_.bind(3, int64_t(EndReason::succeeded));
    failures_.bind(4, int64_t(EndReason::cancelled));
    failures_.bind(5, int64_t(EndReason::revoked));
    return each(failures_, [&](const Statement& s) { row(read_attempt(s, 0, nullptr).row); });
  }

  absl::Status outputs(JobId job, const std::function<void(const BlobRef&)>& output) override {
    outputs_.bind_u64(1, job.value);
    return each(outputs_, [&](const Statement& s) {
      const BlobRef blob = blob_ref(s.bytes(0), s.u64(1));
      if (!blob.empty()) output(blob);
    });
  }

  absl::Status inputs(JobId job, const std::function<void(const BlobRef&)>& input) override {
    spec_.bind_u64(1, job.value);
    absl::Status decoded;
    absl::Status status = each(spec_, [&](const Statement& s) {
      absl::StatusOr<JobSpec> spec = protocol::parse_spec(s.bytes(0));
      if (!spec.ok()) {
        // A job that was dropped because it was damaged: the blobs that only it named go at the
        // next start.
        if (s.integer(1) == 0) decoded = spec.status();
        return;
      }
      for (const FileRef& file : spec->files) {
        if (!file.blob.empty()) input(file.blob);
      }
    });
    return status.ok() ? decoded : status;
  }

  absl::StatusOr<std::vector<JobId>> jobs() override {
    std::vector<JobId> ids;
    absl::Status status = each(jobs_, [&](const Statement& s) { ids.push_back(JobId{s.u64(0)}); });
    if (!status.ok()) return status;
    return ids;
  }

  absl::Status checkpoints(const std::function<void(const Digest&)>& blob) override {
    return each(checkpoints_, [&](const Statement& s) { each_digest(s, 0, blob); });
  }

  absl::StatusOr<uint64_t> dropped(uint32_t max,
                                   const std::function<void(const Digest&)>& blob) override {
    uint64_t through = 0;
    dropped_.bind(1, max);
    absl::Status status = each(dropped_, [&](const Statement& s) {
      through = s.u64(0);
      each_digest(s, 1, blob);
    });
    if (!status.ok()) return status;
    return through;
  }

 private:
  // Of a manifest in one column and its chunks in the next.
  static void each_digest(const Statement& s, int column,
                          const std::function<void(const Digest&)>& blob) {
    const BlobRef manifest = blob_ref(s.bytes(column), 0);
    if (!manifest.empty()) blob(manifest.digest);
    for (const BlobRef& chunk : split_blobs(s.bytes(column + 1))) blob(chunk.digest);
  }

  static absl::Status each(Statement& statement, const std::function<void(const Statement&)>& row) {
    ResetOnExit reset(statement);
    while (true) {
      absl::StatusOr<bool> more = statement.next();
      if (!more.ok()) return more.status();
      if (!*more) return absl::OkStatus();
      row(statement);
    }
  }

  // Calls `done` for each rank in [first, last] that has attempts.
  absl::Status read(JobId job, uint32_t first, uint32_t last,
                    const std::function<void(RankRow)>& done) {
    page_.bind_u64(1, job.value);
    page_.bind(2, first);
    page_.bind(3, last);
    std::optional<RankRow> current;
    uint64_t decided_at = 0;
    absl::Status status = each(page_, [&](const Statement& s) {
      StoredAttempt attempt = read_attempt(s, 0, nullptr);
      if (current && current->rank != attempt.row.key.rank) {
        done(std::move(*current));
        current.reset();
      }
      if (!current) {
        current.emplace();
        current->rank = attempt.row.key.rank;
        decided_at = 0;
      }
      if (attempt.row.final && attempt.ended_seq > decided_at) {
        decided_at = attempt.ended_seq;
        current->decided = attempt.row;
      }
      current->latest = std::move(attempt.row);
    });
    if (status.ok() && current) done(std::move(*current));
    return status;
  }

  Database db_;
  Statement page_, failures_, outputs_, spec_, jobs_, checkpoints_, dropped_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<JournalReader>> JournalReader::open(
    const std::filesystem::path& path) {
  auto reader = std::make_unique<SqliteReader>();
  if (absl::Status status = reader->connect(path); !status.ok()) return status;
  return reader;
}

}  // namespace pesc::coordinator
