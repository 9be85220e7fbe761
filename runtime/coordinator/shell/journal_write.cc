// Records become rows.
#include "protocol/codec.h"
#include "runtime/coordinator/shell/sqlite_journal.h"

namespace pesc::coordinator {

absl::Status SqliteJournal::prepare() {
  statements_ = {};
  const std::pair<Statement*, const char*> all[] = {
      {&statements_.begin, "BEGIN IMMEDIATE"},
      {&statements_.commit, "COMMIT"},
      {&statements_.rollback, "ROLLBACK"},
      {&statements_.add_job,
       "INSERT INTO jobs(id,seq,owner,spec,submitted,crc) VALUES(?1,?2,?3,?4,?5,?6)"},
      {&statements_.lease,
       "INSERT OR REPLACE INTO attempts(job,rank,attempt,worker,leased_seq,checkpoint,second,base,"
       "claim,crc) VALUES(?1,?2,?3,?4,?5,?6,?7,?8,?9,?10)"},
      {&statements_.end,
       "UPDATE attempts SET ended_seq=?4,final=?5,state=?6,reason=?7,exit_code=?8,signal=?9,"
       "refused=?10,detail=?11,started=?12,duration=?13,cpu=?14,rss=?15,output=?16,"
       "output_size=?17,uncollected=?18,saved=?19,written=?20,"
       "gpu_peak=?21,crc=?22 WHERE job=?1 AND rank=?2 AND attempt=?3"},
      {&statements_.end_unknown,
       "INSERT OR IGNORE INTO attempts(job,rank,attempt,worker,leased_seq,crc) "
       "VALUES(?1,?2,?3,0,0,0)"},
      {&statements_.find_attempt,
       "SELECT worker,leased_seq,checkpoint,second,base,claim FROM attempts "
       "WHERE job=?1 AND rank=?2 AND attempt=?3"},
      {&statements_.event,
       "INSERT INTO job_events(job,seq,kind,payload,crc) VALUES(?1,?2,?3,?4,?5)"},
      {&statements_.find_worker, "SELECT name,room,draining FROM workers WHERE id=?1"},
      {&statements_.worker,
       "INSERT OR REPLACE INTO workers(id,name,room,draining,crc) VALUES(?1,?2,?3,?4,?5)"},
      {&statements_.keep_checkpoint,
       "INSERT OR REPLACE INTO checkpoints(job,rank,number,attempt,manifest,manifest_size,chunks,"
       "saved,total,seq,crc) VALUES(?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11)"},
      {&statements_.collect_dropped,
       "INSERT INTO dropped_blobs(manifest,chunks) SELECT manifest,chunks FROM checkpoints "
       "WHERE job=?1 AND rank=?2 AND number BETWEEN ?3 AND ?4"},
      {&statements_.delete_dropped,
       "DELETE FROM checkpoints WHERE job=?1 AND rank=?2 AND number BETWEEN ?3 AND ?4"},
      {&statements_.drop,
       "INSERT OR REPLACE INTO checkpoint_drops(job,rank,first,through,seq,crc) "
       "VALUES(?1,?2,?3,?4,?5,?6)"},
      {&statements_.learn,
       "INSERT OR REPLACE INTO programs(seq,program,memory,gpu_memory,gpu_known,crc) "
       "VALUES(?1,?2,?3,?4,?5,?6)"},
      {&statements_.forget_learned,
       "DELETE FROM programs WHERE seq<=(SELECT seq FROM programs ORDER BY seq DESC LIMIT 1 "
       "OFFSET ?1)"},
      {&statements_.mark_erased,
       "INSERT OR IGNORE INTO erased(job,spec) SELECT id,spec FROM jobs WHERE id=?1"},
      {&statements_.erase_job, "DELETE FROM jobs WHERE id=?1"},
      {&statements_.erase_events, "DELETE FROM job_events WHERE job=?1"},
      {&statements_.collect_erased,
       "INSERT INTO dropped_blobs(manifest,chunks) SELECT manifest,chunks FROM checkpoints "
       "WHERE job=?1"},
      {&statements_.erase_checkpoints, "DELETE FROM checkpoints WHERE job=?1"},
  };
  for (const auto& [statement, sql] : all) {
    absl::StatusOr<Statement> prepared = Statement::prepare(db_.get(), sql);
    if (!prepared.ok()) return prepared.status();
    *statement = std::move(*prepared);
  }
  return absl::OkStatus();
}

absl::Status SqliteJournal::write(const JobAdded& record) {
  const std::string spec = protocol::serialize_spec(*record.spec);
  Statement& s = statements_.add_job;
  s.bind_u64(1, record.id.value);
  s.bind_u64(2, next_seq_);
  s.bind_bytes(3, record.owner);
  s.bind_bytes(4, spec);
  s.bind(5, record.submitted_unix_ms);
  s.bind(6, job_crc(record.id, next_seq_, record.owner, spec, record.submitted_unix_ms));
  return s.run();
}

absl::Status SqliteJournal::write(const AttemptLeased& record) {
  StoredAttempt attempt;
  attempt.row.key = record.key;
  attempt.row.worker = record.worker;
  attempt.row.checkpoint = record.checkpoint;
  attempt.row.second = record.second;
  attempt.row.base_ms = record.base_ms;
  attempt.row.claim = record.claim;
  attempt.leased_seq = next_seq_;
  Statement& s = statements_.lease;
  s.bind_u64(1, record.key.job.value);
  s.bind(2, record.key.rank);
  s.bind(3, record.key.attempt);
  s.bind_u64(4, record.worker.value);
  s.bind_u64(5, next_seq_);
  s.bind(6, record.checkpoint);
  s.bind(7, record.second);
  s.bind_u64(8, record.base_ms);
  const std::string claim = encode(record.claim);
  s.bind_bytes(9, claim);
  s.bind(10, attempt_crc(attempt));
  return s.run();
}

// The worker and the place of the lease, which the checksum of the ended row covers too. A row that
// was never leased (a result of an attempt that this journal does not know) has neither.
absl::StatusOr<StoredAttempt> SqliteJournal::stored(const AttemptKey& key) {
  Statement& s = statements_.find_attempt;
  ResetOnExit reset(s);
  s.bind_u64(1, key.job.value);
  s.bind(2, key.rank);
  s.bind(3, key.attempt);
  absl::StatusOr<bool> found = s.next();
  if (!found.ok()) return found.status();
  StoredAttempt attempt;
  attempt.row.key = key;
  if (*found) {
    attempt.row.worker = WorkerId{s.u64(0)};
    attempt.leased_seq = s.u64(1);
    attempt.row.checkpoint = uint32_t(s.integer(2));
    attempt.row.second = s.integer(3) != 0;
    attempt.row.base_ms = s.u64(4);
    attempt.row.claim = decode_claim(s.bytes(5));
    return attempt;
  }
  Statement& insert = statements_.end_unknown;
  insert.bind_u64(1, key.job.value);
  insert.bind(2, key.rank);
  insert.bind(3, key.attempt);
  if (absl::Status status = insert.run(); !status.ok()) return status;
  return attempt;
}

absl::Status SqliteJournal::write(const AttemptEnded& record) {
  absl::StatusOr<StoredAttempt> attempt = stored(record.key);
  if (!attempt.ok()) return attempt.status();
  attempt->ended_seq = next_seq_;
  attempt->row.final = record.final;
  attempt->row.state = record.state;
  attempt->row.outcome = record.outcome;
  const AttemptOutcome& o = record.outcome;
  const std::string uncollected = join_names(o.uncollected);
  Statement& s = statements_.end;
  s.bind_u64(1, record.key.job.value);
  s.bind(2, record.key.rank);
  s.bind(3, record.key.attempt);
  s.bind_u64(4, next_seq_);
  s.bind(5, record.final);
  s.bind(6, int64_t(record.state));
  s.bind(7, int64_t(o.reason));
  s.bind(8, o.exit_code);
  s.bind(9, o.signal);
  s.bind(10, o.refused_arguments);
  s.bind_bytes(11, o.detail);
  s.bind(12, o.started_unix_ms);
  s.bind_u64(13, o.duration_ms);
  s.bind_u64(14, o.cpu_ms);
  s.bind_u64(15, o.max_rss_bytes);
  s.bind_bytes(16, output_bytes(o.output));
  s.bind_u64(17, o.output.size_bytes);
  s.bind_bytes(18, uncollected);
  s.bind_u64(19, o.saved_ms);
  s.bind_u64(20, o.written_bytes);
  s.bind_u64(21, o.peak_gpu_bytes);
  s.bind(22, attempt_crc(*attempt));
  return s.run();
}

absl::StatusOr<StoredWorker> SqliteJournal::stored_worker(WorkerId id) {
  Statement& s = statements_.find_worker;
  ResetOnExit reset(s);
  s.bind_u64(1, id.value);
  absl::StatusOr<bool> found = s.next();
  if (!found.ok()) return found.status();
  StoredWorker worker;
  worker.seen.worker = id;
  if (!*found) return worker;
  worker.seen.name = s.bytes(0);
  worker.seen.room = s.bytes(1);
  set_orders(worker, s.integer(2));
  return worker;
}

absl::Status SqliteJournal::write_worker(const StoredWorker& worker) {
  Statement& s = statements_.worker;
  s.bind_u64(1, worker.seen.worker.value);
  s.bind_bytes(2, worker.seen.name);
  s.bind_bytes(3, worker.seen.room);
  s.bind(4, orders_of(worker));
  s.bind(5, worker_crc(worker));
  return s.run();
}

absl::Status SqliteJournal::write(const WorkerSeen& record) {
  absl::StatusOr<StoredWorker> worker = stored_worker(record.worker);
  if (!worker.ok()) return worker.status();
  worker->seen = record;
  return write_worker(*worker);
}

absl::Status SqliteJournal::write(const WorkerDraining& record) {
  absl::StatusOr<StoredWorker> worker = stored_worker(record.worker);
  if (!worker.ok()) return worker.status();
  worker->draining = record.draining;
  worker->paused = record.paused;
  return write_worker(*worker);
}

absl::Status SqliteJournal::write(const CheckpointKept& record) {
  const std::string chunks = record.chunks ? join_blobs(*record.chunks) : std::string();
  Statement& s = statements_.keep_checkpoint;
  s.bind_u64(1, record.key.job.value);
  s.bind(2, record.key.rank);
  s.bind(3, record.checkpoint.number);
  s.bind(4, record.key.attempt);
  s.bind_bytes(5, output_bytes(record.checkpoint.manifest));
  s.bind_u64(6, record.checkpoint.manifest.size_bytes);
  s.bind_bytes(7, chunks);
  s.bind_u64(8, record.saved_ms);
  s.bind_u64(9, record.total_ms);
  s.bind_u64(10, next_seq_);
  s.bind(11, checkpoint_crc(record, chunks, next_seq_));
  return s.run();
}

// Its row goes, what it named waits to be collected. That numbers up to this one were there is
// kept, in one row that moves along: a rank that saves each minute for weeks has no more.
absl::Status SqliteJournal::write(const CheckpointsDropped& record) {
  for (Statement* s : {&statements_.collect_dropped, &statements_.delete_dropped}) {
    s->bind_u64(1, record.job.value);
    s->bind(2, record.rank);
    s->bind(3, record.first);
    s->bind(4, record.through);
    if (absl::Status status = s->run(); !status.ok()) return status;
  }
  Statement& s = statements_.drop;
  s.bind_u64(1, record.job.value);
  s.bind(2, record.rank);
  s.bind(3, record.first);
  s.bind(4, record.through);
  s.bind_u64(5, next_seq_);
  s.bind(6, drop_crc(record, next_seq_));
  return s.run();
}

absl::Status SqliteJournal::write(const ProgramLearned& record) {
  Statement& s = statements_.learn;
  s.bind_u64(1, next_seq_);
  s.bind_bytes(2, bytes_of(record.program));
  s.bind_u64(3, record.memory_bytes);
  s.bind_u64(4, record.gpu_memory_bytes);
  s.bind(5, record.gpu_known);
  s.bind(6, program_crc(record, next_seq_));
  if (absl::Status status = s.run(); !status.ok()) return status;
  statements_.forget_learned.bind(1, kMaxKeptPrograms);
  return statements_.forget_learned.run();
}

absl::Status SqliteJournal::event(JobId job, JobEventKind kind, const std::string& payload) {
  Statement& s = statements_.event;
  s.bind_u64(1, job.value);
  s.bind_u64(2, next_seq_);
  s.bind(3, int64_t(kind));
  s.bind_bytes(4, payload);
  s.bind(5, job_event_crc(job, next_seq_, kind, payload));
  return s.run();
}

absl::Status SqliteJournal::erase(JobId job) {
  for (Statement* s : {&statements_.mark_erased, &statements_.erase_job, &statements_.erase_events,
                       &statements_.collect_erased, &statements_.erase_checkpoints}) {
    s->bind_u64(1, job.value);
    if (absl::Status status = s->run(); !status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace pesc::coordinator
