#include "runtime/coordinator/shell/journal.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <system_error>

#include "protocol/codec.h"
#include "rpc/log.h"
#include "runtime/coordinator/shell/journal_rows.h"
#include "runtime/coordinator/shell/sqlite.h"

namespace pesc::coordinator {
namespace {

constexpr int kApplicationId = 0x50455343;  // "PESC"
constexpr size_t kNamedDamages = 10;

constexpr const char* kSchema = R"sql(
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
)sql";

// Leases and ends are two records of one row, replayed at the places they were emitted at.
constexpr const char* kReplayJob =
    "SELECT seq, 0, kind, payload, crc, 0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0 "
    "FROM job_events WHERE job=?1 "
    "UNION ALL SELECT leased_seq, 1, 0, 0, 0, " PESC_ATTEMPT_COLUMNS
    " FROM attempts WHERE job=?1 AND leased_seq>0 "
    "UNION ALL SELECT ended_seq, 2, 0, 0, 0, " PESC_ATTEMPT_COLUMNS
    " FROM attempts WHERE job=?1 AND ended_seq>0 ORDER BY 1";

absl::Status explain_damage(absl::Status status, const std::filesystem::path& path) {
  if (status.code() != absl::StatusCode::kDataLoss) return status;
  return absl::DataLossError("the journal " + path.string() +
                             " is damaged: " + std::string(status.message()) +
                             ". Put a backup of the state directory back, or try `sqlite3 "
                             "journal.db .recover`; nothing was changed");
}

void sync_directory(const std::filesystem::path& directory) {
  const int fd = ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;
  fsync(fd);
  close(fd);
}

class Damages {
 public:
  void add(std::string what) {
    if (named_.size() < kNamedDamages) named_.push_back(std::move(what));
    ++count_;
  }
  void add(JobId job, std::string what) {
    jobs_.insert(job);
    add("job " + to_string(job) + ": " + std::move(what));
  }
  void add(WorkerId worker) {
    workers_.insert(worker);
    add("the row of worker " + to_string(worker));
  }
  const std::set<JobId>& jobs() const { return jobs_; }
  const std::set<WorkerId>& workers() const { return workers_; }

  absl::Status status(const std::filesystem::path& path) const {
    if (count_ == 0) return absl::OkStatus();
    std::string text = "the journal " + path.string() + " has damaged rows (checksums differ): ";
    for (size_t i = 0; i < named_.size(); ++i) text += (i > 0 ? "; " : "") + named_[i];
    if (count_ > named_.size()) text += "; and " + std::to_string(count_ - named_.size()) + " more";
    return absl::DataLossError(text +
                               ". Put a backup of the state directory back, or start once with "
                               "--drop-damaged, which removes these jobs with their results and "
                               "keeps all others");
  }

 private:
  std::vector<std::string> named_;
  size_t count_ = 0;
  std::set<JobId> jobs_;
  std::set<WorkerId> workers_;
};

class SqliteJournal final : public Journal {
 public:
  explicit SqliteJournal(JournalOptions options) : options_(std::move(options)) {}

  absl::Status open_first();
  absl::Status replay(const std::function<void(const Record&)>& apply) override;
  absl::Status commit(const std::vector<Record>& records) override;
  absl::Status reopen() override;
  absl::StatusOr<std::vector<JobId>> erased() override;
  absl::StatusOr<bool> purge(JobId job, uint32_t max_rows) override;

 private:
  struct Statements {
    Statement begin, commit, rollback, add_job, lease, end, end_unknown, event, worker, erase_job,
        erase_events, mark_erased;
  };

  absl::Status connect();
  absl::Status check_schema();
  absl::Status make_schema();
  absl::Status prepare();
  absl::Status drop_damaged();
  absl::Status probe();
  absl::Status in_transaction(const std::function<absl::Status()>& body);
  absl::Status replay_into(const std::function<void(const Record&)>& apply, Damages& damages);
  absl::Status replay_workers(const std::function<void(const Record&)>& apply, Damages& damages);
  absl::Status replay_job(Statement& rows, JobId job,
                          const std::function<void(const Record&)>& apply, Damages& damages);

  absl::Status write(const JobAdded& record);
  absl::Status write(const AttemptLeased& record);
  absl::Status write(const AttemptEnded& record);
  absl::Status write(const RanksCancelled& r) {
    return event(r.job, JobEventKind::ranks_cancelled, encode(r));
  }
  absl::Status write(const JobStopped& r) { return event(r.job, JobEventKind::stopped, encode(r)); }
  absl::Status write(const JobFinished& r) {
    return event(r.job, JobEventKind::finished, encode(r));
  }
  absl::Status write(const RanksReopened& r) {
    return event(r.job, JobEventKind::reopened, encode(r));
  }
  absl::Status write(const JobErased& record) { return erase(record.job); }
  absl::Status write(const WorkerSeen& record);
  absl::Status event(JobId job, JobEventKind kind, const std::string& payload);
  absl::Status erase(JobId job);
  absl::StatusOr<StoredAttempt> stored(const AttemptKey& key);

  JournalOptions options_;
  Database db_;
  Statements statements_;
  Statement find_attempt_;
  uint64_t next_seq_ = 0;  // 0: unknown before a replay
};

absl::Status SqliteJournal::open_first() {
  std::error_code ignored;
  const bool fresh = !std::filesystem::exists(options_.path, ignored);
  if (absl::Status status = connect(); !status.ok()) return explain_damage(status, options_.path);
  if (fresh && options_.durable) sync_directory(options_.path.parent_path());
  return options_.drop_damaged ? drop_damaged() : absl::OkStatus();
}

absl::Status SqliteJournal::connect() {
  statements_ = {};
  find_attempt_ = {};
  db_ = {};
  absl::StatusOr<Database> db = Database::open(options_.path, false, options_.vfs);
  if (!db.ok()) return db.status();
  db_ = std::move(*db);
  if (absl::Status status = check_schema(); !status.ok()) return status;
  // A WAL that a burst made long is cut again; the checkpoint runs on this thread, after commits.
  const std::string pragmas =
      std::string(
          "PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=2000;"
          "PRAGMA journal_size_limit=67108864; PRAGMA cache_size=-16384;"
          "PRAGMA synchronous=") +
      (options_.durable ? "FULL;" : "OFF;") +
      (options_.max_pages > 0 ? "PRAGMA max_page_count=" + std::to_string(options_.max_pages) + ";"
                              : "");
  if (absl::Status status = db_.execute(pragmas.c_str()); !status.ok()) return status;
  absl::StatusOr<int64_t> version = db_.query_integer("PRAGMA user_version");
  if (!version.ok()) return version.status();
  if (*version == 0) {
    if (absl::Status status = make_schema(); !status.ok()) return status;
    next_seq_ = 1;
  }
  return prepare();
}

absl::Status SqliteJournal::check_schema() {
  absl::StatusOr<int64_t> application = db_.query_integer("PRAGMA application_id");
  if (!application.ok()) return application.status();
  absl::StatusOr<int64_t> version = db_.query_integer("PRAGMA user_version");
  if (!version.ok()) return version.status();
  absl::StatusOr<int64_t> tables = db_.query_integer("SELECT count(*) FROM sqlite_master");
  if (!tables.ok()) return tables.status();
  if (*tables == 0 && *version == 0) return absl::OkStatus();
  if (*application != kApplicationId) {
    return absl::FailedPreconditionError(options_.path.string() +
                                         " is not a journal of PESC; name another state directory");
  }
  if (*version != kJournalSchema) {
    return absl::FailedPreconditionError(
        "the journal " + options_.path.string() + " has schema version " +
        std::to_string(*version) + "; this PESC (" PESC_VERSION ") knows version " +
        std::to_string(kJournalSchema) +
        " only. Start the version of PESC that wrote it, or name another state directory");
  }
  return absl::OkStatus();
}

absl::Status SqliteJournal::make_schema() {
  const std::string sql = "BEGIN IMMEDIATE;" + std::string(kSchema) +
                          "PRAGMA application_id=" + std::to_string(kApplicationId) +
                          "; PRAGMA user_version=" + std::to_string(kJournalSchema) + "; COMMIT;";
  absl::Status status = db_.execute(sql.c_str());
  if (!status.ok()) (void)db_.execute("ROLLBACK");
  return status;
}

absl::Status SqliteJournal::prepare() {
  const std::pair<Statement*, const char*> all[] = {
      {&statements_.begin, "BEGIN IMMEDIATE"},
      {&statements_.commit, "COMMIT"},
      {&statements_.rollback, "ROLLBACK"},
      {&statements_.add_job,
       "INSERT INTO jobs(id,seq,owner,spec,submitted,crc) VALUES(?1,?2,?3,?4,?5,?6)"},
      {&statements_.lease,
       "INSERT OR REPLACE INTO attempts(job,rank,attempt,worker,leased_seq,crc) "
       "VALUES(?1,?2,?3,?4,?5,?6)"},
      {&statements_.end,
       "UPDATE attempts SET ended_seq=?4,final=?5,state=?6,reason=?7,exit_code=?8,signal=?9,"
       "refused=?10,detail=?11,started=?12,duration=?13,cpu=?14,rss=?15,output=?16,"
       "output_size=?17,uncollected=?18,crc=?19 WHERE job=?1 AND rank=?2 AND attempt=?3"},
      {&statements_.end_unknown,
       "INSERT OR IGNORE INTO attempts(job,rank,attempt,worker,leased_seq,crc) "
       "VALUES(?1,?2,?3,0,0,0)"},
      {&statements_.event,
       "INSERT INTO job_events(job,seq,kind,payload,crc) VALUES(?1,?2,?3,?4,?5)"},
      {&statements_.worker, "INSERT OR REPLACE INTO workers(id,name,room,crc) VALUES(?1,?2,?3,?4)"},
      {&statements_.erase_job, "DELETE FROM jobs WHERE id=?1"},
      {&statements_.erase_events, "DELETE FROM job_events WHERE job=?1"},
      {&statements_.mark_erased,
       "INSERT OR IGNORE INTO erased(job,spec) SELECT id,spec FROM jobs WHERE id=?1"},
      {&find_attempt_,
       "SELECT worker,leased_seq FROM attempts WHERE job=?1 AND rank=?2 AND attempt=?3"},
  };
  for (const auto& [statement, sql] : all) {
    absl::StatusOr<Statement> prepared = Statement::prepare(db_.get(), sql);
    if (!prepared.ok()) return prepared.status();
    *statement = std::move(*prepared);
  }
  return absl::OkStatus();
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
  attempt.leased_seq = next_seq_;
  Statement& s = statements_.lease;
  s.bind_u64(1, record.key.job.value);
  s.bind(2, record.key.rank);
  s.bind(3, record.key.attempt);
  s.bind_u64(4, record.worker.value);
  s.bind_u64(5, next_seq_);
  s.bind(6, attempt_crc(attempt));
  return s.run();
}

// The worker and the place of the lease, which the checksum of the ended row covers too. A row that
// was never leased (a result of an attempt that this journal does not know) has neither.
absl::StatusOr<StoredAttempt> SqliteJournal::stored(const AttemptKey& key) {
  Statement& s = find_attempt_;
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
  s.bind(19, attempt_crc(*attempt));
  return s.run();
}

absl::Status SqliteJournal::write(const WorkerSeen& record) {
  Statement& s = statements_.worker;
  s.bind_u64(1, record.worker.value);
  s.bind_bytes(2, record.name);
  s.bind_bytes(3, record.room);
  s.bind(4, worker_crc(record.worker, record.name, record.room));
  return s.run();
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
  for (Statement* s :
       {&statements_.mark_erased, &statements_.erase_job, &statements_.erase_events}) {
    s->bind_u64(1, job.value);
    if (absl::Status status = s->run(); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status SqliteJournal::replay(const std::function<void(const Record&)>& apply) {
  Damages damages;
  if (absl::Status status = replay_into(apply, damages); !status.ok()) {
    return explain_damage(status, options_.path);
  }
  return damages.status(options_.path);
}

absl::Status SqliteJournal::replay_into(const std::function<void(const Record&)>& apply,
                                        Damages& damages) {
  next_seq_ = 1;
  if (absl::Status status = replay_workers(apply, damages); !status.ok()) return status;
  absl::StatusOr<Statement> jobs = Statement::prepare(
      db_.get(), "SELECT id,seq,owner,spec,submitted,crc FROM jobs ORDER BY seq");
  if (!jobs.ok()) return jobs.status();
  absl::StatusOr<Statement> rows = Statement::prepare(db_.get(), kReplayJob);
  if (!rows.ok()) return rows.status();
  while (true) {
    absl::StatusOr<bool> row = jobs->next();
    if (!row.ok()) return row.status();
    if (!*row) return absl::OkStatus();
    const JobId id{jobs->u64(0)};
    const uint64_t seq = jobs->u64(1);
    next_seq_ = std::max(next_seq_, seq + 1);
    const std::string_view owner = jobs->bytes(2), spec_bytes = jobs->bytes(3);
    absl::StatusOr<JobSpec> spec = absl::DataLossError("");
    if (job_crc(id, seq, owner, spec_bytes, jobs->integer(4)) == uint32_t(jobs->integer(5))) {
      spec = protocol::parse_spec(spec_bytes);
    }
    if (!spec.ok()) {
      damages.add(id, "its description");
      continue;
    }
    apply(JobAdded{id, std::string(owner), std::make_shared<const JobSpec>(std::move(*spec)),
                   jobs->integer(4)});
    if (absl::Status status = replay_job(*rows, id, apply, damages); !status.ok()) return status;
  }
}

absl::Status SqliteJournal::replay_workers(const std::function<void(const Record&)>& apply,
                                           Damages& damages) {
  absl::StatusOr<Statement> workers =
      Statement::prepare(db_.get(), "SELECT id,name,room,crc FROM workers ORDER BY id");
  if (!workers.ok()) return workers.status();
  while (true) {
    absl::StatusOr<bool> row = workers->next();
    if (!row.ok()) return row.status();
    if (!*row) return absl::OkStatus();
    const WorkerId id{workers->u64(0)};
    const std::string name(workers->bytes(1)), room(workers->bytes(2));
    if (worker_crc(id, name, room) != uint32_t(workers->integer(3))) {
      damages.add(id);
    } else {
      apply(WorkerSeen{id, name, room});
    }
  }
}

absl::Status SqliteJournal::replay_job(Statement& rows, JobId job,
                                       const std::function<void(const Record&)>& apply,
                                       Damages& damages) {
  ResetOnExit reset(rows);
  rows.bind_u64(1, job.value);
  while (true) {
    absl::StatusOr<bool> row = rows.next();
    if (!row.ok()) return row.status();
    if (!*row) return absl::OkStatus();
    const uint64_t place = rows.u64(0);
    next_seq_ = std::max(next_seq_, place + 1);
    if (rows.integer(1) == 0) {
      const auto kind = static_cast<JobEventKind>(rows.integer(2));
      absl::StatusOr<Record> record = absl::DataLossError("");
      if (job_event_crc(job, place, kind, rows.bytes(3)) == uint32_t(rows.integer(4))) {
        record = decode_job_event(job, kind, rows.bytes(3));
      }
      record.ok() ? apply(*record)
                  : damages.add(job, "row " + std::to_string(place) + " of its life");
      continue;
    }
    bool intact = false;
    const StoredAttempt attempt = read_attempt(rows, 5, &intact);
    if (!intact) {
      // Both records of an ended attempt come from one row: named once.
      if (rows.integer(1) == 1) {
        damages.add(job, "rank " + std::to_string(attempt.row.key.rank) + " attempt " +
                             std::to_string(attempt.row.key.attempt));
      }
    } else if (rows.integer(1) == 1) {
      apply(AttemptLeased{attempt.row.key, attempt.row.worker});
    } else {
      apply(
          AttemptEnded{attempt.row.key, attempt.row.outcome, attempt.row.final, attempt.row.state});
    }
  }
}

absl::Status SqliteJournal::drop_damaged() {
  Damages damages;
  absl::Status status = replay_into([](const Record&) {}, damages);
  if (!status.ok()) return explain_damage(status, options_.path);
  return in_transaction([&] {
    for (const JobId job : damages.jobs()) {
      rpc::log().warn("event=damaged_job_dropped job={}", to_string(job));
      if (absl::Status erased = erase(job); !erased.ok()) return erased;
    }
    for (const WorkerId worker : damages.workers()) {
      const std::string sql =
          "DELETE FROM workers WHERE id=" + std::to_string(static_cast<int64_t>(worker.value));
      if (absl::Status dropped = db_.execute(sql.c_str()); !dropped.ok()) return dropped;
    }
    return absl::OkStatus();
  });
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
  absl::StatusOr<Statement> s =
      Statement::prepare(db_.get(), "SELECT job FROM erased ORDER BY job");
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
    sql += all ? "; DELETE FROM erased WHERE job=" + id : " AND rank<=" + std::to_string(*bound);
    return db_.execute(sql.c_str());
  });
  if (!status.ok()) return status;
  return all;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Journal>> Journal::open(const JournalOptions& options) {
  auto journal = std::make_unique<SqliteJournal>(options);
  if (absl::Status status = journal->open_first(); !status.ok()) return status;
  return journal;
}

}  // namespace pesc::coordinator
