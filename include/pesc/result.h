// What a job did: states, counts, results.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace pesc {

enum class State { waiting, running, succeeded, failed, cancelled };
std::string_view to_string(State state);

/// What a job's attempts came to so far. All attempts count, those of before a restart of the
/// coordinator too.
struct AttemptTally {
  /// Attempts by how they ended ("succeeded", "exit_code", "worker_lost", …), those that occurred.
  std::map<std::string, uint32_t> ended;
  double useful_seconds = 0;     ///< running time of the attempts whose results count
  double redone_seconds = 0;     ///< of the others: what no checkpoint had saved, done again
  uint32_t checkpoints = 0;      ///< saved on the coordinator
  uint32_t second_attempts = 0;  ///< started of slow ranks
  uint32_t second_won = 0;       ///< that succeeded first
  uint32_t gang_starts = 0;      ///< of a parallel job: how often all its ranks were started
};

/// A job at one moment. A plain value.
struct JobStatus {
  std::string id, name, owner;
  State state = State::waiting;
  uint32_t repetitions = 0;
  uint32_t waiting = 0, running = 0, succeeded = 0, failed = 0, cancelled = 0;  ///< ranks
  int64_t submitted_unix_ms = 0;
  int64_t finished_unix_ms = 0;  ///< 0: not yet
  std::string detail;            ///< why it was stopped early, else empty
  AttemptTally tally;
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
  uint64_t written_bytes = 0;            ///< to files on disks
  uint64_t peak_gpu_bytes = 0;           ///< on the GPU where it used most; 0: not known
  std::vector<std::string> gpus;         ///< UUIDs of those that it had
  uint64_t memory_bytes = 0;             ///< what it was placed with: stated or learned; 0: neither
  uint64_t memory_limit_bytes = 0;       ///< what it was held to; 0: not known
  uint64_t gpu_memory_bytes = 0;  ///< on each of its GPUs: what it was placed with; 0: neither
};

/// Takes the next bytes of a stream; an error ends it, and is what the streaming call returns.
using OutputSink = std::function<absl::Status(std::string_view bytes)>;

/// What a call that returns output as a string takes into memory at most.
inline constexpr uint64_t kMaxOutputBytes = uint64_t{64} << 20;

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
  /// Standard output of one rank, whole. OutOfRange: no such rank; NotFound: it left none;
  /// ResourceExhausted: longer than kMaxOutputBytes, use stream_output() or save().
  absl::StatusOr<std::string> output(uint32_t rank) const;
  /// The same piece by piece, of any length, with bounded memory. `sink` runs on this thread and
  /// may block; it has been given nothing, or a beginning, when this fails.
  absl::Status stream_output(uint32_t rank, const OutputSink& sink,
                             bool standard_error = false) const;
  /// Writes DIR/output.txt (merged in rank order), DIR/rank-N/…, DIR/ranks.csv. Blocks.
  absl::Status save(const std::string& directory, const SaveOptions& options = {}) const;

  struct State;
  explicit JobResult(std::shared_ptr<State> state) : state_(std::move(state)) {}

 private:
  std::shared_ptr<State> state_;
};

}  // namespace pesc
