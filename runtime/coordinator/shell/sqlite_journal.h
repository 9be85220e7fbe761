// The journal's class over SQLite. Private to this folder: journal.cc opens and commits,
// journal_write.cc turns records into rows, journal_replay.cc rows into records, journal_check.cc
// looks at the order of the rows, journal_damage.cc saves what can be saved.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "runtime/coordinator/shell/journal.h"
#include "runtime/coordinator/shell/journal_rows.h"
#include "runtime/coordinator/shell/sqlite.h"

namespace pesc::coordinator {

// What is wrong with a journal's rows, and whose they are.
class Damages {
 public:
  void add(JobId job, std::string what);  // the job cannot be restored without it
  void add(WorkerId worker);
  void add_programs();  // what was learned of programs is lost, and nothing else
  // A checkpoint is lost alone: its rank begins from another one.
  void add_checkpoint(const AttemptKey& key, uint32_t number);
  // Rows under a job that there is not. Nothing but these rows goes with it.
  void add_stray(JobId job, std::string what);
  // A part of the file that cannot be read at all, or not be found: what is intact must be copied.
  void add_unreadable(std::string what);

  struct Checkpoint {
    JobId job;
    uint32_t rank = 0, number = 0;
  };
  const std::set<JobId>& jobs() const { return jobs_; }
  const std::set<JobId>& strays() const { return strays_; }
  const std::set<WorkerId>& workers() const { return workers_; }
  bool programs() const { return programs_; }
  const std::vector<Checkpoint>& checkpoints() const { return checkpoints_; }
  bool unreadable() const { return unreadable_; }
  bool none() const { return count_ == 0; }
  std::string names() const;  // the first of them
  absl::Status status(const std::filesystem::path& path, size_t all_jobs) const;

 private:
  void name(std::string what);

  std::vector<std::string> named_;
  size_t count_ = 0;
  bool unreadable_ = false;
  std::set<JobId> jobs_, strays_;
  std::set<WorkerId> workers_;
  bool programs_ = false;
  std::vector<Checkpoint> checkpoints_;
};

using Apply = std::function<void(const Record&)>;

// Reads all rows of a database, and checks them. Rows that cannot be read are errors of run(), and
// damages to survey().
class Replay {
 public:
  // with_chunks: CheckpointKept gets them, which costs memory and only a copy of the journal needs.
  Replay(Database& db, Damages& damages, bool with_chunks = false)
      : db_(db), damages_(damages), with_chunks_(with_chunks) {}
  absl::Status prepare();
  absl::Status run(const Apply& apply);
  absl::Status workers(const Apply& apply);
  absl::Status programs(const Apply& apply);
  absl::Status job(JobId job, const Apply& apply);

  struct JobRow {
    JobAdded added;
    uint64_t seq = 0;
  };
  // Every job whose description can be read, in the order of their submission; reads each job's
  // rows, and names what cannot be read or is not what was written.
  std::vector<JobRow> survey();

  uint64_t last_seq() const { return last_seq_; }
  size_t jobs() const { return jobs_; }

 private:
  std::optional<JobRow> job_row(Statement& row);
  void scan_jobs(const char* sql, std::map<uint64_t, JobRow>& found);
  absl::Status load_jobs();
  bool known(JobId job) const;
  // False: some row is out of order, or of a job that is not known. find_strays() tells which.
  absl::StatusOr<bool> in_order();
  void find_strays();
  void find_strays(size_t table);
  std::optional<JobId> find_owner(size_t table, const Statement& row, JobId claimed);
  absl::Status advance(size_t part);
  void row(size_t part, JobId job, const Apply& apply);
  void event_row(JobId job, const Apply& apply);
  void lease_row(JobId job, const Apply& apply);
  void end_row(JobId job, const Apply& apply);
  void checkpoint_row(JobId job, const Apply& apply);
  void drop_row(JobId job, const Apply& apply);

  Database& db_;
  Damages& damages_;
  bool with_chunks_;
  std::set<uint64_t> live_, erased_;  // jobs
  bool out_of_order_ = false;
  int searched_ = 0;
  static constexpr size_t kSources = 5;
  struct Source {
    Statement rows;
    uint64_t place = 0;  // of the row it is at; UINT64_MAX: it has no more
  };
  std::array<Source, kSources> sources_;
  uint64_t last_seq_ = 0;
  size_t jobs_ = 0;
};

class SqliteJournal final : public Journal {
 public:
  explicit SqliteJournal(JournalOptions options) : options_(std::move(options)) {}

  absl::Status open_first();
  absl::Status replay(const Apply& apply) override;
  absl::Status commit(const std::vector<Record>& records) override;
  absl::Status reopen() override;
  absl::StatusOr<std::vector<JobId>> erased() override;
  absl::StatusOr<bool> purge(JobId job, uint32_t max_rows) override;
  absl::Status forget_dropped(uint64_t through) override;

 private:
  struct Statements {
    Statement begin, commit, rollback;
    Statement add_job, lease, end, end_unknown, find_attempt, event, find_worker, worker;
    Statement keep_checkpoint, collect_dropped, delete_dropped, drop;
    Statement learn, forget_learned;
    Statement mark_erased, erase_job, erase_events, collect_erased, erase_checkpoints;
  };

  absl::Status connect();
  absl::Status open_database();
  absl::Status make_ready(int version);
  absl::Status prepare();
  absl::Status refuse_damaged(const std::string& pages);
  absl::Status drop_damaged(bool pages_are_damaged);
  absl::Status drop_rows(const Damages& damages);
  absl::Status copy_what_is_intact();
  absl::Status probe();
  absl::Status sync_wal();
  absl::Status in_transaction(const std::function<absl::Status()>& body);

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
  absl::Status write(const GangStarted& r) {
    return event(r.job, JobEventKind::gang_started, encode(r));
  }
  absl::Status write(const JobErased& record) { return erase(record.job); }
  absl::Status write(const WorkerSeen& record);
  absl::Status write(const WorkerDraining& record);
  absl::Status write(const ProgramLearned& record);
  absl::Status write(const CheckpointKept& record);
  absl::Status write(const CheckpointsDropped& record);
  absl::Status write_worker(const StoredWorker& worker);
  absl::StatusOr<StoredWorker> stored_worker(WorkerId id);
  absl::Status event(JobId job, JobEventKind kind, const std::string& payload);
  absl::Status erase(JobId job);
  absl::StatusOr<StoredAttempt> stored(const AttemptKey& key);

  JournalOptions options_;
  Database db_;
  Statements statements_;
  uint64_t next_seq_ = 0;  // 0: unknown before a replay
};

}  // namespace pesc::coordinator
