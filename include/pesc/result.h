// What a job did: states, counts, results.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace pesc {

enum class State { waiting, running, succeeded, failed, cancelled };
std::string_view to_string(State state);

/// A job at one moment. A plain value.
struct JobStatus {
  std::string id, name, owner;
  State state = State::waiting;
  uint32_t repetitions = 0;
  uint32_t waiting = 0, running = 0, succeeded = 0, failed = 0, cancelled = 0;  ///< ranks
  int64_t submitted_unix_ms = 0;
  int64_t finished_unix_ms = 0;  ///< 0: not yet
  std::string detail;            ///< why it was stopped early, else empty
  bool finished() const { return state != State::waiting && state != State::running; }
};

/// A rank's own word on how far it is (PESC_EVENTS).
struct RankProgress {
  uint32_t rank = 0;
  double fraction = 0;  ///< 0 to 1
  std::string text, worker;
};

/// What a progress callback is given.
struct Progress {
  JobStatus status;
  std::vector<RankProgress> ranks;  ///< running ranks that report progress
  double fraction() const;          ///< of the whole job, 0 to 1
};

/// One rank in its final state, or as it stands.
struct RankResult {
  uint32_t rank = 0;
  State state = State::waiting;
  uint32_t attempts = 0;
  std::string worker;
  int64_t started_unix_ms = 0;
  double seconds = 0;  ///< of the attempt that decided
  double cpu_seconds = 0;
  int exit_code = 0;   ///< -1: none
  int signal = 0;      ///< 0: none
  std::string reason;  ///< "succeeded", "exit_code", "time_limit", …: a failure class
  std::string detail;  ///< one line
  uint64_t max_rss_bytes = 0;
  uint64_t output_bytes = 0;             ///< packed
  std::vector<std::string> uncollected;  ///< files it left in app_dir that did not come back
};

struct SaveOptions {
  bool overwrite = false;  ///< false: the directory must be empty, or hold this very job's results
};

/// The results of a finished job. Copies share the same state. Thread-safe.
class JobResult {
 public:
  const JobStatus& status() const;
  bool succeeded() const;  ///< every rank did
  /// All ranks in rank order; reads them from the coordinator.
  absl::StatusOr<std::vector<RankResult>> ranks() const;
  /// Standard output of one rank, whole. OutOfRange: no such rank; NotFound: it left none.
  absl::StatusOr<std::string> output(uint32_t rank) const;
  /// Writes DIR/output.txt (merged in rank order), DIR/rank-N/…, DIR/ranks.csv. Blocks.
  absl::Status save(const std::string& directory, const SaveOptions& options = {}) const;

  struct State;
  explicit JobResult(std::shared_ptr<State> state) : state_(std::move(state)) {}

 private:
  std::shared_ptr<State> state_;
};

}  // namespace pesc
