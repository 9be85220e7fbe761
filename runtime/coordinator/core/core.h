// The coordinator's decisions, as a deterministic machine: events in, records and actions out. No
// clock, thread, I/O or randomness: time comes with each call, everything is ordered.
//
// The caller (the shell, or the simulator) must, for each step or batch of steps: commit all
// records in one transaction, then perform the actions, in order. Not thread-safe.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "model/checkpoint.h"
#include "model/job_spec.h"
#include "model/outcome.h"

namespace pesc::coordinator {

using TimeMs = int64_t;  // CLOCK_BOOTTIME in the shell, virtual in the simulator

struct CoreConfig {
  uint64_t lease_ms = 60'000;
  uint64_t heartbeat_ms = 5'000;
  uint64_t backoff_base_ms = 1'000;        // between tries of a rank: doubled each time…
  uint64_t backoff_max_ms = 60'000;        // …up to this
  uint32_t max_placements_per_step = 512;  // the rest follows at once, in the next step
  // Ranks shorter than this are leased ahead, one more per slot, so that a slot never waits for a
  // round trip; more of them when they are shorter still, so that a commit takes many: for about
  // prefetch_for_ms, and at most prefetch_most per slot.
  uint64_t prefetch_below_ms = 500;
  uint64_t prefetch_for_ms = 200;
  uint32_t prefetch_most = 64;
  // By all workers together: what ends is heard of in less than the patience below, however many
  // there are.
  uint32_t prefetch_total = 65'536;
  // What was leased ahead and still waits when nothing has ended there for this long goes to
  // another worker that has room. Longer while the coordinator is behind with what it is told.
  uint64_t prefetch_patience_ms = 1'000;
  // A job is stopped early when this many first attempts have failed within a second of their
  // start and their standard error named an argument that PESC added, and none succeeded.
  uint32_t refused_arguments_limit = 3;
  uint32_t keep_checkpoints = 3;  // of each rank
  // An attempt that fails within this time of its start has failed at once: that says something
  // about the checkpoint it began from, or about its worker.
  uint64_t at_once_ms = 2'000;
  // A worker on which this many attempts in a row failed at once, of jobs whose ranks succeed
  // elsewhere, is set aside for a while, which doubles each time.
  uint32_t set_aside_after = 3;
  uint64_t set_aside_ms = 60'000;
  uint64_t set_aside_max_ms = 600'000;
  // A second attempt of a rank: when it has run for this many times the median, and at least…
  uint32_t straggler_percent = 200;
  uint64_t straggler_min_ms = 5'000;
};

using Chunks = std::shared_ptr<const std::vector<BlobRef>>;

// ---- events -------------------------------------------------------------------------------------
// `request` is the caller's number for a call that waits for an answer (Answer carries it back).

struct JobSubmitted {
  uint64_t request = 0;
  JobId id;
  std::string owner;
  std::shared_ptr<const JobSpec> spec;
  int64_t unix_ms = 0;
};
struct JobCancelled {
  uint64_t request = 0;
  JobId id;
  int64_t unix_ms = 0;
};
struct JobRetried {
  uint64_t request = 0;
  JobId id;
  int64_t unix_ms = 0;
};
struct JobRemoved {
  uint64_t request = 0;
  JobId id;
};

struct WorkerInfo {
  WorkerId id;
  std::string name, room, advertise, software, machine;
  uint32_t cpus_milli = 0;
  uint64_t memory_bytes = 0;
  std::vector<std::string> warnings;
  // Why it takes no new ranks now (its owner is there…), in words that follow "it is"; empty: it
  // does. Each report says it anew.
  std::string busy;
  uint64_t disk_bytes = 0;  // for attempts
  std::vector<Gpu> gpus;
  NamedResources named;
};
// `session` is unique for ever (the shell counts them); a worker that attaches again replaces its
// older session.
struct WorkerAttached {
  uint64_t request = 0;
  uint64_t session = 0;
  WorkerInfo info;
  std::vector<AttemptKey> holding;
  int64_t unix_ms = 0;
};
struct WorkerDetached {
  uint64_t session = 0;
};  // the connection is gone; leases run on
struct FinishedAttempt {
  AttemptKey key;
  AttemptOutcome outcome;
};
struct AttemptProgress {
  AttemptKey key;
  double fraction = 0;  // below 0: as it was, and the text too
  std::string text;
  // What is wrong although it runs (its checkpoints are not saved); or empty.
  std::string trouble = {};
};
// A held attempt of a gang that is prepared.
struct ReadyAttempt {
  AttemptKey key;
  uint16_t master_port = 0;  // of rank 0
};
// What the ranks of a worker use together, as it measures.
struct Measured {
  uint64_t memory_bytes = 0;
  uint32_t cpus_milli = 0;
};
struct WorkerReported {
  uint64_t request = 0;
  uint64_t session = 0;
  std::vector<AttemptKey> holding;
  uint64_t last_update = 0;  // number of the last SendUpdate the worker has seen
  std::vector<FinishedAttempt> finished;
  std::vector<AttemptProgress> progress;
  std::vector<ReadyAttempt> ready;
  int64_t unix_ms = 0;
  std::string busy;                           // as in WorkerInfo
  std::optional<std::vector<Gpu>> gpus = {};  // nothing: as they were
  Measured measured = {};
};
// All blobs it names are in the store.
struct CheckpointOffered {
  uint64_t request = 0;
  uint64_t session = 0;
  AttemptKey key;
  BlobRef manifest;
  Chunks chunks;
  uint64_t saved_ms = 0;  // running time of the attempt at the snapshot
  int64_t unix_ms = 0;
};
struct WorkerDrained {
  uint64_t request = 0;
  std::string worker;  // name or id
  bool drain = true;   // false: it gets work again
};
struct WorkerPaused {
  uint64_t request = 0;
  std::string worker;  // name or id
  bool pause = true;   // false: resumed; that ends a drain as well
};
struct TimerFired {
  int64_t unix_ms = 0;
};

using Event =
    std::variant<JobSubmitted, JobCancelled, JobRetried, JobRemoved, WorkerAttached, WorkerDetached,
                 WorkerReported, CheckpointOffered, WorkerDrained, WorkerPaused, TimerFired>;

// ---- records: all durable state is made of them -------------------------------------------------
//
// A restore applies WorkerSeen records first (in any order), then job by job (in any order) the
// job's records in the order they were emitted. One row per attempt is enough: it may hold only the
// attempt's latest AttemptLeased, at its place, and its latest AttemptEnded, at its place, if that
// came after the lease. An attempt is leased again when it was given up for lost and turned out to
// run on (its row is open again: INSERT OR REPLACE), and ended again when it was given up for lost
// and succeeded nevertheless, or when it is known at last why its gang failed. An attempt that
// decided its rank is never leased or ended again.
//
// CheckpointKept is one row too, at its place, and may go when its checkpoint is dropped. Of a
// rank's CheckpointsDropped the latest is enough, at its place; it stays as long as the job: it is
// the highest number that was given out when no checkpoint is left that says so.
// WorkerDraining comes with the worker's WorkerSeen. ProgramLearned comes before all jobs, or is
// left out where a later one says more of the same program.

struct JobAdded {
  JobId id;
  std::string owner;
  std::shared_ptr<const JobSpec> spec;
  int64_t submitted_unix_ms = 0;
};
struct AttemptLeased {
  AttemptKey key;
  WorkerId worker;
  uint32_t checkpoint = 0;  // it begins from; 0: from none
  bool second = false;      // beside a slow one
  uint64_t base_ms = 0;     // total_ms of that checkpoint
  Claim claim = {};
};
// The chunks are for the journal, which keeps their blobs; a restore leaves them out.
struct CheckpointKept {
  AttemptKey key;
  CheckpointRef checkpoint;
  Chunks chunks;
  uint64_t saved_ms = 0;
  uint64_t total_ms = 0;  // what it stands for: saved_ms, and what its attempt began from
};
// These are not needed any more: all of the rank from the first to the last number, inclusive.
struct CheckpointsDropped {
  JobId job;
  uint32_t rank = 0;
  uint32_t through = 0;
  uint32_t first = 0;
};
// A gang's ranks were told to start; its generation is the attempt's number of every rank.
struct GangStarted {
  JobId job;
  uint32_t generation = 0;
  std::string master_addr;
  uint16_t master_port = 0;
};
// What a person has ordered of a worker: all of it, each time.
struct WorkerDraining {
  WorkerId worker;
  bool draining = true;
  bool paused = false;
};
// The end of an attempt. `final`: it decides its rank's state, which is `state`. Not final and
// `running`: no retry is used up, because another attempt of the rank goes on, or because a machine
// was lost when this rank of a gang failed, or may have been. Not final and `waiting`: it never
// began, because its lease did not reach its worker.
struct AttemptEnded {
  AttemptKey key;
  AttemptOutcome outcome;
  bool final = false;
  RankState state = RankState::failed;
};
// No attempt of these ranks is wanted any more: the rank is cancelled (final).
struct RanksCancelled {
  JobId job;
  uint32_t first = 0, last = 0;
};  // inclusive
struct JobStopped {
  JobId job;
  bool by_user = true;
  std::string detail;
};  // no new attempts
struct JobFinished {
  JobId job;
  JobState state = JobState::succeeded;
  int64_t unix_ms = 0;
};
// Retry: these ranks (ascending; all that had failed or were cancelled) wait again, with all their
// tries; the job is neither stopped nor finished any more.
struct RanksReopened {
  JobId job;
  std::vector<uint32_t> ranks;
  int64_t unix_ms = 0;  // of the retry; 0: not known (journals before version 5)
};
struct JobErased {
  JobId job;
};
struct WorkerSeen {
  WorkerId worker;
  std::string name;
  std::string room;
};

// The sizes that were learned of a program, when a job of it is erased: what else says so goes.
struct ProgramLearned {
  Digest program;  // of its bytes and arguments
  uint64_t memory_bytes = 0, gpu_memory_bytes = 0;
  bool gpu_known = false;
};

using Record = std::variant<JobAdded, AttemptLeased, AttemptEnded, RanksCancelled, JobStopped,
                            JobFinished, RanksReopened, JobErased, WorkerSeen, CheckpointKept,
                            CheckpointsDropped, GangStarted, WorkerDraining, ProgramLearned>;

// ---- actions
// --------------------------------------------------------------------------------------

struct StopRequest {
  AttemptKey key;
  EndReason reason = EndReason::revoked;
};
struct LeaseGrant {
  AttemptKey key;
  std::shared_ptr<const JobSpec> spec;
  CheckpointRef checkpoint;
  bool hold = false;  // of a gang: to be started by a StartOrder
  uint32_t local_rank = 0, local_world_size = 1;
  uint64_t memory_limit_bytes = 0;  // to hold it to; 0: none
  std::vector<std::string> gpus = {};
  uint64_t gpu_memory_limit_bytes = 0;  // on each of them; 0: none
};
struct StartOrder {
  AttemptKey key;
  std::string master_addr;
  uint16_t master_port = 0;
};

struct Answer {  // to submit, cancel, retry, remove
  uint64_t request = 0;
  absl::Status status;
  uint32_t count = 0;  // retry: the ranks that run again
};
struct AnswerAttach {
  uint64_t request = 0;
  absl::Status status;
  std::vector<StopRequest> stop;
  bool paused = false;  // it freezes what runs; a SendUpdate says when that changes
};
struct AnswerReport {
  uint64_t request = 0;
  absl::Status status;
  std::vector<AttemptKey> acknowledged;
  std::vector<StopRequest> stop;
};
struct SendUpdate {
  uint64_t session = 0;
  uint64_t number = 0;
  std::vector<LeaseGrant> leases;
  std::vector<StopRequest> stop;
  std::vector<StartOrder> start;
  std::optional<bool> paused;  // nothing: as it was
};
struct AnswerCheckpoint {
  uint64_t request = 0;
  absl::Status status;
  uint32_t number = 0;  // 0: not wanted
};
struct AnswerDrain {  // to drain and to pause
  uint64_t request = 0;
  absl::Status status;
  WorkerId worker;
  std::string name;
  uint32_t attempts = 0;  // that are vacated, or frozen
};
struct CloseSession {
  uint64_t session = 0;
  std::string reason;
};  // a newer one has replaced it
struct JobChanged {
  JobId job;
};  // wakes those who follow it

using Action = std::variant<Answer, AnswerAttach, AnswerReport, AnswerCheckpoint, AnswerDrain,
                            SendUpdate, CloseSession, JobChanged>;

struct Step {
  std::vector<Record> records;
  std::vector<Action> actions;
};

// ---- views: what the RPC front and `pesc` show --------------------------------------------------

// Of all attempts of a job, removed with it; restored whole.
struct JobTally {
  std::array<uint32_t, size_t(kLastEndReason) + 1> ended{};  // by EndReason
  uint64_t useful_ms = 0;                                    // of attempts that were committed
  uint64_t redone_ms = 0;  // of the others: what no checkpoint had saved
  uint32_t checkpoints = 0;
  uint32_t second_attempts = 0, second_won = 0;
  uint32_t gang_starts = 0;
};

struct JobView {
  JobId id;
  std::string owner;
  std::shared_ptr<const JobSpec> spec;
  JobState state = JobState::waiting;
  JobCounts counts;
  uint64_t revision = 0;   // another one after each change; starts anew with each life of the core
  uint32_t committed = 0;  // ranks in their final state; a retry takes the reopened ones off again
  std::string detail;
  JobTally tally;
  int64_t submitted_unix_ms = 0, finished_unix_ms = 0;
};
struct RunningRank {
  AttemptKey key;
  WorkerId worker;
  double fraction = -1;
  std::string text;
  bool ahead = false;   // leased ahead: it waits on its worker
  bool second = false;  // beside a slow one
};
struct WorkerView {
  WorkerInfo info;
  bool attached = false;
  uint64_t session = 0;
  uint32_t cpus_used_milli = 0;
  uint32_t leases = 0;  // without those ahead of time, and without held ones
  uint64_t memory_used_bytes = 0, disk_used_bytes = 0;
  NamedResources named_used;
  struct GpuView {
    uint64_t used_bytes = 0;
    uint32_t ranks = 0;
  };
  std::vector<GpuView> gpus;  // as info.gpus
  Measured measured;
  uint64_t finished = 0;  // ranks whose state it decided; removed jobs do not count after a restore
  TimeMs last_seen = 0;
  bool draining = false, paused = false;
  std::string trouble;  // why it gets no work although it is attached: set aside, draining, busy…
};
struct WhyLine {
  std::string ranks;
  uint32_t count = 0;
  RankState state = RankState::waiting;
  std::string reason;
};

// A planted bug, for the simulator only (PESC_PLANTED_BUGS): each must be caught by a checker.
enum class PlantedBug : uint8_t {
  none,
  commit_twice,
  lose_requeue,
  overcommit_worker,
  accept_revoked,
  forget_cancel,
  acknowledge_before_record,
  reuse_attempt_number,
  forget_loser,           // the other attempt of a rank that has its result is not revoked
  second_beside_itself,   // a second attempt may go to the worker that has the first
  lost_without_time,      // what died with its keeper is taken to have done nothing
  ignore_named,           // named resources are not counted
  share_exclusive,        // nobody has a GPU for itself
  use_sick_gpu,           // one that is out of service is given away
  first_gpu_always,       // whatever else the worker has
  revoked_takes_nothing,  // what is told to stop is taken to be gone
  forget_peaks,           // the last one counts, not the highest
  estimates_grow,         // each end raises them
  one_user_first,         // users have no turns
};

class Core {
 public:
  explicit Core(CoreConfig config);
  ~Core();
  Core(const Core&) = delete;
  Core& operator=(const Core&) = delete;

  // `more`: other events have come by `now` too, and are stepped next. No lease ends and nothing is
  // taken back before the last of them: it may be what renews it. Nor is anything placed, but by
  // TimerFired, which is due then.
  Step step(const Event& event, TimeMs now, bool more = false);
  // When TimerFired must be stepped at the latest; nothing: no need.
  std::optional<TimeMs> next_deadline() const;

  // Recovery: apply every journalled record (in which order is told above, at the records), then
  // finish. Every lease that was open gets one full lease from `now` to be re-attached before its
  // rank is placed again. What a cut history lacks (JobFinished…) comes with the next step, which
  // is due at once.
  void apply(const Record& record);
  void finish_restore(TimeMs now);

  // Empty when all invariants hold, else what does not.
  std::string check_invariants() const;

  std::vector<JobId> jobs() const;  // oldest first
  std::optional<JobView> job(JobId id) const;
  std::vector<RunningRank> running(JobId id) const;
  std::vector<RunningRank> running(JobId id, uint32_t rank) const;  // its open attempts
  // Ranks in their final state, in the order they were committed, from the from-th on.
  std::vector<uint32_t> committed_ranks(JobId id, uint32_t from, uint32_t max) const;
  RankState rank_state(JobId id, uint32_t rank) const;
  uint32_t attempts(JobId id, uint32_t rank) const;
  std::vector<WorkerView> workers() const;
  std::optional<uint64_t> session_of(WorkerId id) const;  // nothing: it is away
  std::vector<WhyLine> why(JobId id,
                           TimeMs now) const;  // of the ranks that wait; the shell adds failures

#ifdef PESC_PLANTED_BUGS
  void plant(PlantedBug bug);
#endif

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace pesc::coordinator
