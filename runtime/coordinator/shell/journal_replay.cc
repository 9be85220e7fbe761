// Rows become records again, checked.
#include <algorithm>

#include "protocol/codec.h"
#include "runtime/coordinator/shell/sqlite_journal.h"

namespace pesc::coordinator {
namespace {

// The rows of a job come from five statements, each in the order of their places, and are merged.
// (One UNION ALL, sorted as a whole, takes twice as long.) SQLite sorts within its bounds of
// memory. A lease and an end are two records of one row; of an attempt that has ended the end's row
// is the one that is checked.
enum RowPart : size_t { kEvent, kLease, kEnd, kCheckpoint, kDrop };
struct Part {
  const char* sql;
  int place;  // the column it is sorted by
};
constexpr Part kParts[] = {
    {"SELECT seq,kind,payload,crc FROM job_events WHERE job=?1 ORDER BY seq", 0},
    {"SELECT leased_seq,rank,attempt,worker,ended_seq,checkpoint,second,base,claim,crc "
     "FROM attempts WHERE job=?1 AND leased_seq>0 ORDER BY leased_seq",
     0},
    {"SELECT " PESC_ATTEMPT_COLUMNS
     " FROM attempts WHERE job=?1 AND ended_seq>0 ORDER BY ended_seq",
     5},
    {"SELECT seq,rank,attempt,number,manifest,manifest_size,chunks,saved,total,crc FROM "
     "checkpoints "
     "WHERE job=?1 ORDER BY seq",
     0},
    {"SELECT seq,rank,first,through,crc FROM checkpoint_drops WHERE job=?1 ORDER BY seq", 0},
};

constexpr const char* kJobs = "SELECT id,seq,owner,spec,submitted,crc FROM jobs ORDER BY seq";

std::string attempt_name(const AttemptKey& key) {
  return "rank " + std::to_string(key.rank) + " attempt " + std::to_string(key.attempt);
}

}  // namespace

absl::Status Replay::prepare() {
  static_assert(std::size(kParts) == kSources);
  for (size_t part = 0; part < kSources; ++part) {
    std::string sql = kParts[part].sql;
    // Nothing can be looked up then: all rows are read for each job.
    if (out_of_order_) sql.replace(sql.find("job=?1"), 3, "+job");
    absl::StatusOr<Statement> rows = Statement::prepare(db_.get(), sql.c_str());
    if (!rows.ok()) return rows.status();
    sources_[part].rows = std::move(*rows);
  }
  return absl::OkStatus();
}

absl::Status Replay::run(const Apply& apply) {
  if (absl::Status status = load_jobs(); !status.ok()) return status;
  absl::StatusOr<bool> sorted = in_order();
  if (!sorted.ok()) return sorted.status();
  if (!*sorted) {
    survey();
    return absl::OkStatus();
  }
  if (absl::Status status = workers(apply); !status.ok()) return status;
  if (absl::Status status = programs(apply); !status.ok()) return status;
  absl::StatusOr<Statement> jobs = Statement::prepare(db_.get(), kJobs);
  if (!jobs.ok()) return jobs.status();
  while (true) {
    absl::StatusOr<bool> row = jobs->next();
    if (!row.ok()) return row.status();
    if (!*row) break;
    ++jobs_;
    std::optional<JobRow> found = job_row(*jobs);
    if (!found) continue;
    const JobId id = found->added.id;
    apply(std::move(found->added));
    if (absl::Status status = job(id, apply); !status.ok()) return status;
  }
  if (!damages_.none()) find_strays();  // one may be another job's row
  return absl::OkStatus();
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
    set_orders(worker, workers->integer(3));
    if (worker_crc(worker) != uint32_t(workers->integer(4))) {
      damages_.add(worker.seen.worker);
      continue;
    }
    apply(worker.seen);
    if (worker.draining || worker.paused) {
      apply(WorkerDraining{worker.seen.worker, worker.draining, worker.paused});
    }
  }
}

// In the order in which they were written.
absl::Status Replay::programs(const Apply& apply) {
  absl::StatusOr<Statement> rows = Statement::prepare(
      db_.get(), "SELECT seq,program,memory,gpu_memory,gpu_known,crc FROM programs ORDER BY seq");
  if (!rows.ok()) return rows.status();
  uint64_t before = 0;
  while (true) {
    absl::StatusOr<bool> row = rows->next();
    if (!row.ok()) return row.status();
    if (!*row) return absl::OkStatus();
    const uint64_t seq = rows->u64(0);
    ProgramLearned learned{blob_ref(rows->bytes(1), 0).digest, rows->u64(2), rows->u64(3),
                           rows->integer(4) != 0};
    if (seq <= before || program_crc(learned, seq) != uint32_t(rows->integer(5))) {
      damages_.add_programs();
      continue;
    }
    before = seq;
    last_seq_ = std::max(last_seq_, seq);
    apply(learned);
  }
}

absl::Status Replay::advance(size_t part) {
  Source& source = sources_[part];
  absl::StatusOr<bool> row = source.rows.next();
  if (!row.ok()) return row.status();
  source.place = *row ? source.rows.u64(kParts[part].place) : UINT64_MAX;
  if (*row) last_seq_ = std::max(last_seq_, source.place);
  return absl::OkStatus();
}

absl::Status Replay::job(JobId job, const Apply& apply) {
  absl::Status status;
  for (size_t part = 0; part < kSources && status.ok(); ++part) {
    sources_[part].rows.bind_u64(1, job.value);
    status = advance(part);
  }
  while (status.ok()) {
    const auto next =
        std::min_element(sources_.begin(), sources_.end(),
                         [](const Source& a, const Source& b) { return a.place < b.place; });
    if (next->place == UINT64_MAX) break;
    const size_t part = size_t(next - sources_.begin());
    row(part, job, apply);
    status = advance(part);
  }
  for (Source& source : sources_) source.rows.reset();
  return status;
}

void Replay::row(size_t part, JobId job, const Apply& apply) {
  switch (part) {
    case kEvent:
      return event_row(job, apply);
    case kLease:
      return lease_row(job, apply);
    case kEnd:
      return end_row(job, apply);
    case kCheckpoint:
      return checkpoint_row(job, apply);
    case kDrop:
      return drop_row(job, apply);
  }
}

void Replay::event_row(JobId job, const Apply& apply) {
  const Source& source = sources_[kEvent];
  const auto kind = static_cast<JobEventKind>(source.rows.integer(1));
  const std::string_view payload = source.rows.bytes(2);
  absl::StatusOr<Record> record = absl::DataLossError("");
  if (job_event_crc(job, source.place, kind, payload) == uint32_t(source.rows.integer(3))) {
    record = decode_job_event(job, kind, payload);
  }
  if (record.ok()) {
    apply(*record);
  } else {
    damages_.add(job, "row " + std::to_string(source.place) + " of its life");
  }
}

void Replay::lease_row(JobId job, const Apply& apply) {
  const Statement& s = sources_[kLease].rows;
  StoredAttempt attempt;
  attempt.row.key = {job, uint32_t(s.integer(1)), uint32_t(s.integer(2))};
  attempt.row.worker = WorkerId{s.u64(3)};
  attempt.leased_seq = sources_[kLease].place;
  attempt.row.checkpoint = uint32_t(s.integer(5));
  attempt.row.second = s.integer(6) != 0;
  attempt.row.base_ms = s.u64(7);
  attempt.row.claim = decode_claim(s.bytes(8));
  if (s.u64(4) == 0 && attempt_crc(attempt) != uint32_t(s.integer(9))) {
    damages_.add(job, attempt_name(attempt.row.key));
    return;
  }
  apply(AttemptLeased{attempt.row.key, attempt.row.worker, attempt.row.checkpoint,
                      attempt.row.second, attempt.row.base_ms, std::move(attempt.row.claim)});
}

void Replay::end_row(JobId job, const Apply& apply) {
  bool intact = false;
  StoredAttempt attempt = read_attempt(sources_[kEnd].rows, 0, &intact);
  if (!intact) {
    damages_.add(job, attempt_name(attempt.row.key));
    return;
  }
  apply(AttemptEnded{attempt.row.key, std::move(attempt.row.outcome), attempt.row.final,
                     attempt.row.state});
}

void Replay::checkpoint_row(JobId job, const Apply& apply) {
  const Source& source = sources_[kCheckpoint];
  const Statement& s = source.rows;
  CheckpointKept kept;
  kept.key = {job, uint32_t(s.integer(1)), uint32_t(s.integer(2))};
  kept.checkpoint.number = uint32_t(s.integer(3));
  kept.checkpoint.manifest = blob_ref(s.bytes(4), s.u64(5));
  kept.saved_ms = s.u64(7);
  kept.total_ms = s.u64(8);
  const std::string_view chunks = s.bytes(6);
  if (checkpoint_crc(kept, chunks, source.place) != uint32_t(s.integer(9))) {
    damages_.add_checkpoint(kept.key, kept.checkpoint.number);
    return;
  }
  if (with_chunks_) {
    kept.chunks = std::make_shared<const std::vector<BlobRef>>(split_blobs(chunks));
  }
  apply(kept);
}

void Replay::drop_row(JobId job, const Apply& apply) {
  const Source& source = sources_[kDrop];
  const CheckpointsDropped dropped{job, uint32_t(source.rows.integer(1)),
                                   uint32_t(source.rows.integer(3)),
                                   uint32_t(source.rows.integer(2))};
  if (drop_crc(dropped, source.place) != uint32_t(source.rows.integer(4))) {
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
  if (!programs([](const Record&) {}).ok()) damages_.add_unreadable("sizes of programs");
  // From both ends: a page in the middle that cannot be read ends a scan.
  std::map<uint64_t, JobRow> found;
  scan_jobs("SELECT id,seq,owner,spec,submitted,crc FROM jobs ORDER BY id", found);
  scan_jobs("SELECT id,seq,owner,spec,submitted,crc FROM jobs ORDER BY id DESC", found);
  (void)load_jobs();  // what of them can be read
  for (const auto& [id, row] : found) live_.insert(id);
  find_strays();
  if (out_of_order_) (void)prepare();
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

}  // namespace pesc::coordinator
