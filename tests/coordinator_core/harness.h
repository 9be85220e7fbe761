// A core under test: every step is checked against the core's invariants, and its records are kept
// twice, as a log and as rows like the journal's.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "runtime/coordinator/core/core.h"

namespace pesc::coordinator {

std::string describe(const Record& record);
std::string describe(const Action& action);
std::string describe(const Step& step);

// One row per attempt (latest lease, latest end), per kept checkpoint, and per rank for the latest
// drop of its checkpoints; one list of events per job; one row per worker.
class RowStore {
 public:
  void add(const Record& record);
  std::vector<Record> replay() const;

 private:
  struct Row {
    uint64_t leased_at = 0, ended_at = 0;
    AttemptLeased leased;
    AttemptEnded ended;
  };
  struct JobRows {
    std::map<uint64_t, Record> events;
    std::map<AttemptKey, Row> attempts;
    std::map<uint32_t, std::map<uint32_t, std::pair<uint64_t, CheckpointKept>>> checkpoints;
    std::map<uint32_t, std::pair<uint64_t, CheckpointsDropped>> dropped;
  };
  uint64_t next_ = 1;
  std::map<JobId, JobRows> jobs_;
  std::map<WorkerId, WorkerSeen> workers_;
  std::map<WorkerId, WorkerDraining> orders_;
  std::map<Digest, ProgramLearned> programs_;
};

inline JobId job_id(uint64_t n) { return JobId{n}; }
inline WorkerId worker_id(uint64_t n) { return WorkerId{n}; }

JobSpec spec_of(uint32_t repetitions);
WorkerInfo worker_info(uint64_t n, uint32_t cpus = 4, uint64_t memory = 8ull << 30,
                       const std::string& room = "");
AttemptOutcome outcome_of(EndReason reason, uint64_t duration_ms = 5000);

class Harness {
 public:
  explicit Harness(CoreConfig config = {}) : config(config), core(std::make_unique<Core>(config)) {}

  Step step(const Event& event);
  Step at(TimeMs time, const Event& event = TimerFired{});
  Step settle();  // fires the timer while something is due now

  absl::Status submit(uint64_t job, const JobSpec& spec, const std::string& owner = "ada");
  absl::Status cancel(uint64_t job);
  absl::Status retry(uint64_t job, uint32_t* count = nullptr);
  absl::Status remove(uint64_t job);
  AnswerAttach attach(uint64_t session, const WorkerInfo& info,
                      std::vector<AttemptKey> holding = {});
  void detach(uint64_t session) { step(WorkerDetached{session}); }
  AnswerReport report(uint64_t session, std::vector<AttemptKey> holding,
                      std::vector<FinishedAttempt> finished = {},
                      uint64_t last_update = UINT64_MAX);
  // Reports the end of one attempt; the worker holds on to its other leases.
  AnswerReport end(uint64_t session, const AttemptKey& key, EndReason reason,
                   uint64_t duration_ms = 5000);
  AnswerReport end(uint64_t session, const AttemptKey& key, const AttemptOutcome& outcome);

  // From the latest step.
  template <typename T>
  std::vector<T> records() const {
    std::vector<T> found;
    for (const Record& r : last.records) {
      if (const T* t = std::get_if<T>(&r)) found.push_back(*t);
    }
    return found;
  }
  template <typename T>
  std::vector<T> actions() const {
    std::vector<T> found;
    for (const Action& a : last.actions) {
      if (const T* t = std::get_if<T>(&a)) found.push_back(*t);
    }
    return found;
  }
  std::vector<AttemptKey> leased() const;                  // sent in the latest step
  std::vector<StopRequest> stops(uint64_t session) const;  // sent in the latest step
  std::vector<AttemptKey> held(uint64_t worker) const;     // all its open leases
  // Attempts of it, held ones and those ahead of time too.
  size_t leased(uint64_t job) const { return core->running(job_id(job)).size(); }
  JobView view(uint64_t job) const { return core->job(job_id(job)).value_or(JobView{}); }

  void restore();  // from the rows, in place
  std::unique_ptr<Core> restored_from_rows() const;
  std::unique_ptr<Core> restored_from_log() const;

  CoreConfig config;
  std::unique_ptr<Core> core;
  std::unique_ptr<Core> twin;  // sees the same events, and must do the same
  TimeMs now = 1'000'000;
  int64_t unix_ms = 5'000'000;
  Step last;
  std::vector<Record> log;
  RowStore rows;
};

}  // namespace pesc::coordinator
