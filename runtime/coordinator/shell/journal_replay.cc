// Rows become records again, checked.
#include <algorithm>

#include "protocol/codec.h"
#include "runtime/coordinator/shell/sqlite_journal.h"

namespace pesc::coordinator {
namespace {

// The rows of a job, each with its place and what it is, in one order; SQLite sorts them, within
// its bounds of memory. All have the columns of an attempt. A lease and an end are two records of
// one row; of an attempt that has ended the lease's record is narrow, and the end's row is the one
// that is checked.
enum RowPart : int { kEvent, kLease, kEnd, kCheckpoint, kDrop };
constexpr int kFirst = 2;             // column of the first of PESC_ATTEMPT_COLUMNS
constexpr int kAttempt = kFirst + 2;  // …
constexpr int kWorker = kFirst + 3, kLeased = kFirst + 4, kEnded = kFirst + 5;
constexpr int kDetail = kFirst + 12, kOutput = kFirst + 17;
constexpr int kBegunFrom = kFirst + 20, kSecond = kFirst + 21, kSaved = kFirst + 22;
constexpr int kCrc = kFirst + 23;
constexpr const char* kRows =
    "SELECT seq,0, job,kind,0,0,0,0,0,0,0,0,0,0,payload,0,0,0,0,0,0,0,0,0,0,crc "
    "FROM job_events WHERE job=?1 "
    "UNION ALL SELECT leased_seq,1, job,rank,attempt,worker,leased_seq,ended_seq,"
    "0,0,0,0,0,0,0,0,0,0,0,0,0,0,checkpoint,second,0,crc "
    "FROM attempts WHERE job=?1 AND leased_seq>0 "
    "UNION ALL SELECT ended_seq,2, " PESC_ATTEMPT_COLUMNS
    " FROM attempts WHERE job=?1 AND ended_seq>0 "
    "UNION ALL SELECT seq,3, job,rank,attempt,number,manifest_size,0,0,0,0,0,0,0,"
    "chunks,0,0,0,0,manifest,0,0,0,0,saved,crc FROM checkpoints WHERE job=?1 "
    "UNION ALL SELECT seq,4, job,rank,through,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,crc "
    "FROM checkpoint_drops WHERE job=?1 ORDER BY 1";

constexpr const char* kJobs = "SELECT id,seq,owner,spec,submitted,crc FROM jobs ORDER BY seq";

std::string attempt_name(const AttemptKey& key) {
  return "rank " + std::to_string(key.rank) + " attempt " + std::to_string(key.attempt);
}

}  // namespace

absl::Status Replay::prepare() {
  absl::StatusOr<Statement> rows = Statement::prepare(db_.get(), kRows);
  if (rows.ok()) rows_ = std::move(*rows);
  return rows.status();
}

absl::Status Replay::run(const Apply& apply) {
  if (absl::Status status = workers(apply); !status.ok()) return status;
  absl::StatusOr<Statement> jobs = Statement::prepare(db_.get(), kJobs);
  if (!jobs.ok()) return jobs.status();
  while (true) {
    absl::StatusOr<bool> row = jobs->next();
    if (!row.ok()) return row.status();
    if (!*row) return absl::OkStatus();
    ++jobs_;
    std::optional<JobRow> found = job_row(*jobs);
    if (!found) continue;
    const JobId id = found->added.id;
    apply(std::move(found->added));
    if (absl::Status status = job(id, apply); !status.ok()) return status;
  }
}

std::optional<Replay::JobRow> Replay::job_row(Statement& row) {
  JobRow found;
  found.added.id = JobId{row.u64(0)};
  found.seq = row.u64(1);
  last_seq_ = std::max(last_seq_, found.seq);
  const std::string_view owner = row.bytes(2), spec_bytes = row.bytes(3);
  found.added.owner = owner;
  found.added.submitted_unix_ms = row.integer(4);
  absl::StatusOr<JobSpec> spec = absl::DataLossError("");
  if (job_crc(found.added.id, found.seq, owner, spec_bytes, row.integer(4)) ==
      uint32_t(row.integer(5))) {
    spec = protocol::parse_spec(spec_bytes);
  }
  if (!spec.ok()) {
    damages_.add(found.added.id, "its description");
    return std::nullopt;
  }
  found.added.spec = std::make_shared<const JobSpec>(std::move(*spec));
  return found;
}

absl::Status Replay::workers(const Apply& apply) {
  absl::StatusOr<Statement> workers =
      Statement::prepare(db_.get(), "SELECT id,name,room,draining,crc FROM workers ORDER BY id");
  if (!workers.ok()) return workers.status();
  while (true) {
    absl::StatusOr<bool> row = workers->next();
    if (!row.ok()) return row.status();
    if (!*row) return absl::OkStatus();
    StoredWorker worker;
    worker.seen = {WorkerId{workers->u64(0)}, std::string(workers->bytes(1)),
                   std::string(workers->bytes(2))};
    worker.draining = workers->integer(3) != 0;
    if (worker_crc(worker) != uint32_t(workers->integer(4))) {
      damages_.add(worker.seen.worker);
      continue;
    }
    apply(worker.seen);
    if (worker.draining) apply(WorkerDraining{worker.seen.worker, true});
  }
}

absl::Status Replay::job(JobId job, const Apply& apply) {
  ResetOnExit reset(rows_);
  rows_.bind_u64(1, job.value);
  while (true) {
    absl::StatusOr<bool> row = rows_.next();
    if (!row.ok()) return row.status();
    if (!*row) return absl::OkStatus();
    last_seq_ = std::max(last_seq_, rows_.u64(0));
    switch (rows_.integer(1)) {
      case kEvent:
        event_row(job, apply);
        break;
      case kCheckpoint:
        checkpoint_row(job, apply);
        break;
      case kDrop:
        drop_row(job, apply);
        break;
      default:
        attempt_row(job, apply);
    }
  }
}

void Replay::event_row(JobId job, const Apply& apply) {
  const uint64_t place = rows_.u64(0);
  const auto kind = static_cast<JobEventKind>(rows_.integer(kFirst + 1));
  const std::string_view payload = rows_.bytes(kDetail);
  absl::StatusOr<Record> record = absl::DataLossError("");
  if (job_event_crc(job, place, kind, payload) == uint32_t(rows_.integer(kCrc))) {
    record = decode_job_event(job, kind, payload);
  }
  if (record.ok()) {
    apply(*record);
  } else {
    damages_.add(job, "row " + std::to_string(place) + " of its life");
  }
}

void Replay::attempt_row(JobId job, const Apply& apply) {
  const AttemptKey key{job, uint32_t(rows_.integer(kFirst + 1)), uint32_t(rows_.integer(kAttempt))};
  const bool lease = rows_.integer(1) == kLease;
  if (lease && rows_.u64(kEnded) != 0) {
    apply(AttemptLeased{key, WorkerId{rows_.u64(kWorker)}, uint32_t(rows_.integer(kBegunFrom)),
                        rows_.integer(kSecond) != 0});
    return;
  }
  bool intact = false;
  StoredAttempt attempt = read_attempt(rows_, kFirst, &intact);
  if (!intact) {
    damages_.add(job, attempt_name(key));
  } else if (lease) {
    apply(AttemptLeased{key, attempt.row.worker, attempt.row.checkpoint, attempt.row.second});
  } else {
    apply(AttemptEnded{key, std::move(attempt.row.outcome), attempt.row.final, attempt.row.state});
  }
}

void Replay::checkpoint_row(JobId job, const Apply& apply) {
  CheckpointKept kept;
  kept.key = {job, uint32_t(rows_.integer(kFirst + 1)), uint32_t(rows_.integer(kAttempt))};
  kept.checkpoint.number = uint32_t(rows_.integer(kWorker));
  kept.checkpoint.manifest = blob_ref(rows_.bytes(kOutput), rows_.u64(kLeased));
  kept.saved_ms = rows_.u64(kSaved);
  const std::string_view chunks = rows_.bytes(kDetail);
  if (checkpoint_crc(kept, chunks, rows_.u64(0)) != uint32_t(rows_.integer(kCrc))) {
    damages_.add_checkpoint(kept.key, kept.checkpoint.number);
    return;
  }
  if (with_chunks_) {
    kept.chunks = std::make_shared<const std::vector<BlobRef>>(split_blobs(chunks));
  }
  apply(kept);
}

void Replay::drop_row(JobId job, const Apply& apply) {
  const CheckpointsDropped dropped{job, uint32_t(rows_.integer(kFirst + 1)),
                                   uint32_t(rows_.integer(kAttempt))};
  if (drop_crc(dropped, rows_.u64(0)) != uint32_t(rows_.integer(kCrc))) {
    damages_.add(job, "the dropped checkpoints of rank " + std::to_string(dropped.rank));
  } else {
    apply(dropped);
  }
}

// ---- what can be read of a damaged file ---------------------------------------------------------

void Replay::scan_jobs(const char* sql, std::map<uint64_t, JobRow>& found) {
  absl::StatusOr<Statement> jobs = Statement::prepare(db_.get(), sql);
  if (!jobs.ok()) return;
  while (true) {
    absl::StatusOr<bool> row = jobs->next();
    if (!row.ok() || !*row) return;
    std::optional<JobRow> job = job_row(*jobs);
    if (job) found.emplace(job->added.id.value, std::move(*job));
  }
}

std::vector<Replay::JobRow> Replay::survey() {
  if (!workers([](const Record&) {}).ok()) damages_.add_unreadable("some workers");
  // From both ends: a page in the middle that cannot be read ends a scan.
  std::map<uint64_t, JobRow> found;
  scan_jobs("SELECT id,seq,owner,spec,submitted,crc FROM jobs ORDER BY id", found);
  scan_jobs("SELECT id,seq,owner,spec,submitted,crc FROM jobs ORDER BY id DESC", found);
  find_lost_descriptions(found);
  std::vector<JobRow> jobs;
  for (auto& [id, row] : found) {
    const absl::Status status = job(row.added.id, [](const Record&) {});
    if (!status.ok()) damages_.add(row.added.id, "rows that cannot be read");
    jobs.push_back(std::move(row));
  }
  std::sort(jobs.begin(), jobs.end(),
            [](const JobRow& a, const JobRow& b) { return a.seq < b.seq; });
  jobs_ = jobs.size();
  for (const JobId id : damages_.jobs()) jobs_ += found.contains(id.value) ? 0 : 1;
  return jobs;
}

// Jobs that have attempts, and no row of their own any more.
void Replay::find_lost_descriptions(const std::map<uint64_t, JobRow>& known) {
  absl::StatusOr<Statement> next =
      Statement::prepare(db_.get(),
                         "SELECT min(job) FROM attempts WHERE job>?1 AND NOT EXISTS "
                         "(SELECT 1 FROM erased WHERE erased.job=attempts.job)");
  if (!next.ok()) return;
  int64_t last = INT64_MIN;
  while (true) {
    next->bind(1, last);
    absl::StatusOr<bool> row = next->next();
    if (!row.ok() || !*row || next->is_null(0)) return;
    last = next->integer(0);
    next->reset();
    const JobId id{static_cast<uint64_t>(last)};
    if (!known.contains(id.value) && !damages_.jobs().contains(id)) {
      damages_.add(id, "its description cannot be read");
    }
  }
}

}  // namespace pesc::coordinator
