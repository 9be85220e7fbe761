// What is wrong with a journal is named; what is intact is saved.
#include <system_error>
#include <utility>

#include "rpc/log.h"
#include "runtime/coordinator/shell/sqlite_journal.h"

namespace pesc::coordinator {
namespace {

constexpr size_t kNamedDamages = 10;
constexpr size_t kCopiedAtOnce = 10'000;  // records in a transaction

std::string count_of(size_t count, std::string_view what) {
  return std::to_string(count) + " " + std::string(what) + (count == 1 ? "" : "s");
}

}  // namespace

void Damages::name(std::string what) {
  if (named_.size() < kNamedDamages) named_.push_back(std::move(what));
  ++count_;
}

void Damages::add(JobId job, std::string what) {
  jobs_.insert(job);
  name("job " + to_string(job) + ": " + std::move(what));
}

void Damages::add(WorkerId worker) {
  workers_.insert(worker);
  name("the row of worker " + to_string(worker));
}

void Damages::add_programs() {
  if (!std::exchange(programs_, true)) name("what was learned of programs");
}

void Damages::add_stray(JobId job, std::string what) {
  if (strays_.insert(job).second) name(std::move(what));
}

void Damages::add_checkpoint(const AttemptKey& key, uint32_t number) {
  checkpoints_.push_back({key.job, key.rank, number});
  name("job " + to_string(key.job) + ": checkpoint " + std::to_string(number) + " of rank " +
       std::to_string(key.rank));
}

void Damages::add_unreadable(std::string what) {
  unreadable_ = true;
  name(std::move(what));
}

std::string Damages::names() const {
  std::string text;
  for (size_t i = 0; i < named_.size(); ++i) text += (i > 0 ? "; " : "") + named_[i];
  if (count_ > named_.size()) text += "; and " + std::to_string(count_ - named_.size()) + " more";
  return text;
}

absl::Status Damages::status(const std::filesystem::path& path, size_t all_jobs) const {
  if (none()) return absl::OkStatus();
  std::string lost = jobs_.empty() ? "" : count_of(jobs_.size(), "job") + " with all results";
  if (!checkpoints_.empty()) {
    lost += (lost.empty() ? "" : ", ") + count_of(checkpoints_.size(), "checkpoint");
  }
  if (!workers_.empty()) {
    lost += (lost.empty() ? "" : ", ") + count_of(workers_.size(), "worker") +
            " (which attach again by themselves)";
  }
  if (programs_) lost += (lost.empty() ? "" : ", ") + std::string("what was learned of programs");
  const size_t others = all_jobs > jobs_.size() ? all_jobs - jobs_.size() : 0;
  return absl::DataLossError(
      "the journal " + path.string() +
      " has damaged rows (their checksums differ, or they cannot be read): " + names() + ". " +
      (others == 0   ? "No other job is in it"
       : others == 1 ? "1 other job in it is intact"
                     : std::to_string(others) + " other jobs in it are intact") +
      ". Put a backup of the state directory back, or start once with --drop-damaged, which "
      "loses " +
      (lost.empty() ? "what is named here" : lost) +
      " and keeps everything else; nothing was changed");
}

absl::Status SqliteJournal::refuse_damaged(const std::string& pages) {
  Damages damages;
  damages.add_unreadable("SQLite says: " + pages.substr(0, pages.find('\n')));
  Replay replay(db_, damages);
  if (absl::Status status = replay.prepare(); !status.ok()) {
    return absl::DataLossError("the journal " + options_.path.string() +
                               " is damaged: " + damages.names() +
                               ", and it is of an earlier version or has lost its tables. Put a "
                               "backup of the state directory back; nothing was changed");
  }
  replay.survey();
  return damages.status(options_.path, replay.jobs());
}

absl::Status SqliteJournal::drop_damaged(bool pages_are_damaged) {
  if (pages_are_damaged) return copy_what_is_intact();
  Damages damages;
  Replay replay(db_, damages);
  absl::Status status = replay.prepare();
  if (status.ok()) status = replay.run([](const Record&) {});
  if (status.code() == absl::StatusCode::kDataLoss) return copy_what_is_intact();
  if (!status.ok() || damages.none()) return status;
  if (damages.unreadable()) return copy_what_is_intact();
  return drop_rows(damages);
}

absl::Status SqliteJournal::drop_rows(const Damages& damages) {
  rpc::log().warn("event=damaged_rows_dropped rows=\"{}\"", damages.names());
  return in_transaction([&] {
    for (const JobId job : damages.jobs()) {
      if (absl::Status erased = erase(job); !erased.ok()) return erased;
    }
    std::string sql;
    // One without a description has rows to be purged all the same.
    for (const JobId job : damages.jobs()) {
      sql += "INSERT OR IGNORE INTO erased(job,spec) VALUES(" + std::to_string(int64_t(job.value)) +
             ",x'');";
    }
    for (const JobId job : damages.strays()) {
      for (const char* table : {"attempts", "job_events", "checkpoints", "checkpoint_drops"}) {
        sql += std::string("DELETE FROM ") + table +
               " WHERE job=" + std::to_string(int64_t(job.value)) + ";";
      }
    }
    for (const WorkerId worker : damages.workers()) {
      sql += "DELETE FROM workers WHERE id=" + std::to_string(int64_t(worker.value)) + ";";
    }
    // All: where one is out of order, a look-up would miss others.
    if (damages.programs()) sql += "DELETE FROM programs;";
    for (const Damages::Checkpoint& lost : damages.checkpoints()) {
      sql += "DELETE FROM checkpoints WHERE job=" + std::to_string(int64_t(lost.job.value)) +
             " AND rank=" + std::to_string(lost.rank) +
             " AND number=" + std::to_string(lost.number) + ";";
    }
    return db_.execute(sql.c_str());
  });
}

// Into a new file, job by job; the damaged one stays beside it, whatever it is still good for.
absl::Status SqliteJournal::copy_what_is_intact() {
  Damages damages;
  Replay replay(db_, damages, true);
  if (absl::Status status = replay.prepare(); !status.ok()) return status;
  const std::vector<Replay::JobRow> jobs = replay.survey();

  JournalOptions options = options_;
  options.path += ".new";
  options.drop_damaged = false;
  std::error_code error;
  for (const char* suffix : {"", "-wal", "-shm"}) {
    std::filesystem::remove(options.path.string() + suffix, error);
  }
  auto copy = std::make_unique<SqliteJournal>(options);
  if (absl::Status status = copy->open_first(); !status.ok()) return status;
  std::vector<Record> batch;
  absl::Status status;
  const Apply add = [&](const Record& record) {
    batch.push_back(record);
    if (batch.size() < kCopiedAtOnce || !status.ok()) return;
    status = copy->commit(batch);
    batch.clear();
  };
  (void)replay.workers(add);  // those that can be read; the others attach again
  (void)replay.programs(add);
  for (const Replay::JobRow& row : jobs) {
    if (damages.jobs().contains(row.added.id)) continue;
    add(row.added);
    if (status.ok()) status = replay.job(row.added.id, add);
  }
  if (status.ok()) status = copy->commit(batch);
  copy = nullptr;  // all of it is in the one file now
  if (!status.ok()) return status;

  statements_ = {};
  db_ = {};
  const std::string kept = options_.path.string() + ".damaged";
  for (const char* suffix : {"-wal", "-shm", ""}) {
    std::filesystem::rename(options_.path.string() + suffix, kept + suffix, error);
  }
  std::filesystem::rename(options.path, options_.path, error);
  if (error) {
    return absl::UnavailableError("cannot put the new journal " + options.path.string() +
                                  " in its place: " + error.message());
  }
  rpc::log().warn("event=journal_copied lost=\"{}\" kept_jobs={} damaged_file={}", damages.names(),
                  replay.jobs() - damages.jobs().size(), kept);
  return connect();
}

}  // namespace pesc::coordinator
