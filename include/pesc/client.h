// Submitting jobs and following them.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "pesc/job.h"
#include "pesc/result.h"

namespace pesc {
namespace client {
class Session;
}

/// Runs a function somewhere: pass one that posts to your own event loop to get callbacks there.
using Executor = std::function<void(std::function<void()>)>;

/// A submitted job. Copies refer to the same job; all functions are thread-safe. Callbacks come one
/// at a time on a thread of PESC's own, or on the Executor given; a callback must not block. A
/// handle that is dropped stops its callbacks (none runs any more when the last one's destructor
/// returns, but for the callback that dropped it) and leaves a job on a coordinator running; an
/// embedded job ends with the last handle and client that refer to it.
class JobHandle {
 public:
  const std::string& id() const;
  absl::StatusOr<JobStatus> status() const;

  /// Calls back with the first status at once, then after each change, at most ten times a second.
  void on_progress(std::function<void(const Progress&)> callback, Executor executor = {});
  /// Each rank once, as it reaches its final state, those already there first.
  void on_result(std::function<void(const RankResult&)> callback, Executor executor = {});
  /// Once, when the job is over, or with the error that keeps this process from knowing.
  void on_finished(std::function<void(const absl::StatusOr<JobResult>&)> callback,
                   Executor executor = {});

  /// The next rank that reaches its final state, in that order; nothing when there are no more.
  /// One iteration per handle object (copies iterate on their own).
  absl::StatusOr<std::optional<RankResult>> next_result();

  /// All ranks in rank order as they stand.
  absl::StatusOr<std::vector<RankResult>> ranks() const;
  absl::StatusOr<RankResult> rank(uint32_t rank) const;  ///< OutOfRange: no such rank

  /// Standard output (or error) of a rank as far as it is written, running or finished, from a
  /// byte offset on, but at most kMaxOutputBytes of it (of a running rank 1 MiB): ask again from
  /// where that ended. Empty: nothing more there yet. A rank that is tried again writes from the
  /// beginning: when RankResult::attempts of rank() has grown since an offset was taken, ask again
  /// from offset 0, or bytes of the new attempt are missed.
  absl::StatusOr<std::string> read_output(uint32_t rank, uint64_t offset = 0,
                                          bool standard_error = false) const;
  /// The same, all that there is, piece by piece and with bounded memory: right for output of any
  /// length. `sink` runs on this thread and may block; when this fails, it has been given what came
  /// before, and one can go on from there; Aborted: the rank was started again meanwhile, go on
  /// from offset 0.
  absl::Status stream_output(uint32_t rank, const OutputSink& sink, uint64_t offset = 0,
                             bool standard_error = false) const;

  absl::Status cancel();  ///< durable when it returns; wait() then ends soon
  absl::StatusOr<JobResult> wait();
  /// DeadlineExceeded when the job is not over by then; it goes on.
  absl::StatusOr<JobResult> wait(std::chrono::milliseconds timeout);

  struct State;
  explicit JobHandle(std::shared_ptr<State> state);

 private:
  std::shared_ptr<State> state_;
  uint32_t next_ = 0;
};

/// One GPU of a worker, or one MIG device.
struct GpuStatus {
  std::string uuid, name, driver, compute_capability;
  uint64_t memory_bytes = 0;
  uint64_t used_bytes = 0;   ///< what PESC's ranks there were placed with
  uint64_t taken_bytes = 0;  ///< by others' processes
  uint32_t ranks = 0;
  bool shared = false;  ///< its driver tells the memory of each process, so ranks may share it
  std::string trouble;  ///< why it gets no ranks; empty: it does
  uint64_t measured_bytes = 0;  ///< what those ranks have of it now, as its driver tells
};

struct WorkerStatus {
  std::string id, name, room, address, state, software;
  double cpus = 0, cpus_used = 0;
  uint64_t memory_bytes = 0, memory_used_bytes = 0;
  uint64_t disk_bytes = 0, disk_used_bytes = 0;
  std::map<std::string, double> named, named_used;
  std::vector<GpuStatus> gpus;
  uint32_t running = 0;
  uint64_t finished = 0;
  int64_t last_seen_unix_ms = 0;
  std::vector<std::string> warnings;
  std::string trouble;       ///< why it gets no work although it is attached; empty: it does
  double cpus_measured = 0;  ///< what its ranks use together, as it has measured a moment ago
  uint64_t memory_measured_bytes = 0;
};

/// The answer to Client::drain() and to Client::pause().
struct DrainedWorker {
  std::string id, name;
  uint32_t attempts = 0;  ///< that are checkpointed, stopped, and placed elsewhere; or frozen
};

struct WhyLine {
  std::string ranks;  ///< "3", "5-9,12"
  uint32_t count = 0;
  State state = State::waiting;
  std::string reason;
};

struct LocalOptions {
  uint32_t workers = 1;
  uint32_t slots = 0;  ///< ranks at once of each worker; 0: the machine's cores, shared out
  std::string state_directory;  ///< empty: temporary. Else an interrupted run can be gone on with
  bool gpus = false;  ///< ranks may ask for this machine's; its driver is asked at the start
};

/// A connection to a coordinator, or one embedded in this process. Copies share it; thread-safe.
/// Connections that break are made again; calls wait for that as long as `retry_for`.
class Client {
 public:
  /// "host:port" or the path of a join file; empty: what $PESC_COORDINATOR or the configuration
  /// names (NotFound when nothing does). Unavailable: it does not answer. Unauthenticated: it
  /// refuses the token.
  static absl::StatusOr<Client> connect(const std::string& coordinator = "");
  /// Coordinator and workers inside this process.
  static absl::StatusOr<Client> local(const LocalOptions& options = {});

  /// `id`: empty, or one from new_job_id(): the same job submitted again with the same id is the
  /// same job, whatever became of the first answer. AlreadyExists: that id is another job's.
  absl::StatusOr<JobHandle> submit(const Job& job, const std::string& id = "");
  absl::StatusOr<JobHandle> attach(const std::string& id);
  absl::StatusOr<std::vector<JobStatus>> jobs(uint32_t max = 1'000);  ///< newest first
  absl::StatusOr<std::vector<WhyLine>> why(const std::string& id);
  absl::StatusOr<uint32_t> retry(const std::string& id);  ///< number of ranks that run again
  absl::Status remove(const std::string& id);             ///< a finished job and its outputs
  absl::StatusOr<std::vector<WorkerStatus>> workers();
  /// The text of a join file. role: "worker" or "user". PermissionDenied unless administrator.
  absl::StatusOr<std::string> make_join_file(const std::string& role, const std::string& name);
  /// No more work for this worker (its name or id), also after restarts; its ranks save a
  /// checkpoint and go on elsewhere. false takes it back. NotFound; InvalidArgument: several
  /// workers have that name; PermissionDenied unless administrator.
  absl::StatusOr<DrainedWorker> drain(const std::string& worker, bool drain = true);
  /// Freezes what runs on a worker, and gives it no more until it is resumed (pause = false; that
  /// ends a drain, too). Frozen time counts towards no time limit. Administrators only.
  absl::StatusOr<DrainedWorker> pause(const std::string& worker, bool pause = true);
  bool embedded() const;

  struct State;
  explicit Client(std::shared_ptr<State> state);
  /// The connection itself, for PESC's own tools.
  const std::shared_ptr<client::Session>& session() const;

 private:
  std::shared_ptr<State> state_;
};

/// Coordinator and workers inside this process, explicitly. The cluster ends with the last object
/// that refers to it; ranks that still run are ended then.
class LocalCluster {
 public:
  static absl::StatusOr<LocalCluster> start(const LocalOptions& options = {});
  Client client() const { return client_; }

 private:
  explicit LocalCluster(Client client) : client_(std::move(client)) {}
  Client client_;
};

/// A new id for Client::submit.
std::string new_job_id();

/// Submits to the coordinator that $PESC_COORDINATOR or the configuration names, else to one
/// embedded in this process (shared by all such calls). InvalidArgument: what is wrong with the job
/// and what to do; nothing was stored.
absl::StatusOr<JobHandle> submit(const Job& job);

}  // namespace pesc
