// The state of the coordinator's core. Private to this folder.
//
// Durable state (jobs, ranks, attempts, which worker has which lease) changes only in the apply_*
// functions, which live steps and recovery share; the rest (sessions, deadlines, indices, queues)
// can be had from it again.
#pragma once

#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "runtime/coordinator/core/core.h"
#include "runtime/coordinator/core/ends.h"
#include "runtime/coordinator/core/inputs.h"
#include "runtime/coordinator/core/rank_table.h"
#include "runtime/coordinator/core/resources.h"

namespace pesc::coordinator {

inline constexpr TimeMs kNever = INT64_MAX;
inline constexpr uint32_t kMaxFreeTries = 5;  // per rank: of inputs_unavailable and disk_full;
                                              // as many of worker_faulty
inline constexpr uint32_t kMaxSeconds = 2;    // second attempts of a rank
inline constexpr uint64_t kEarlyMs = 1000;    // a failure by then is an early one: kAllFailEarly
inline constexpr TimeMs kForgottenMs = 7ll * 24 * 3600 * 1000;  // a worker away for longer
inline constexpr TimeMs kLateMs = 1000;  // a deadline noticed later: the coordinator was away
inline constexpr size_t kMaxLost = 16;   // lost attempts of a rank that may still succeed
inline constexpr size_t kMaxBusyText = 256;
inline constexpr size_t kMaxPrograms = 10'000;  // of which sizes are known

// What a rank asks for. Jobs that ask for the same share a queue, so that finding out that there is
// no room for them costs the same for one as for ten thousand.
struct Demand {
  std::string room;
  Need need;
  uint32_t ahead = 0;  // its ranks are short: they may be leased beyond the free cpus, for as many
                       // times the worker's cpus
  uint32_t gang = 0;   // this many ranks at the same time; 0: one by one
  bool same_worker = false;
  auto operator<=>(const Demand&) const = default;
};

struct OpenAttempt {
  uint32_t attempt = 0;
  WorkerId worker;
  double fraction = -1;
  std::string text;
  std::string trouble;      // what is wrong with it, as its worker says
  uint32_t checkpoint = 0;  // it began from; 0: from none
  uint64_t base_ms = 0;     // what that stands for
  bool second = false;
  TimeMs started = kNever;  // its lease, or when it was ahead no more; kNever: ahead. Not durable
  Claim claim;
};

struct LostAttempt {
  uint32_t attempt = 0;
  WorkerId worker;
  uint32_t checkpoint = 0;
  uint64_t base_ms = 0;
  bool second = false;
  bool counted = true;
  uint64_t redone_ms = 0;  // what was counted for it
  Claim claim;
};

struct KeptCheckpoint {
  CheckpointRef ref;
  uint32_t attempt = 0;   // that saved it
  uint64_t saved_ms = 0;  // of that attempt's running time
  uint64_t total_ms = 0;  // and of those whose checkpoints it goes back to
  uint32_t deaths = 0;    // of attempts that began from it
  WorkerId died_on;       // where the first of them did
  bool passed_over = false;
};

// A rank that was leased, and is not final: it runs, or it waits for another try.
struct ActiveRank {
  std::vector<OpenAttempt> open;
  std::vector<LostAttempt> lost;  // given up for lost, not revoked: a success of theirs counts
  uint32_t tries = 0;             // attempts that ended without success
  uint32_t failures = 0;          // of these: the program's own
  uint32_t free_tries = 0;        // of these: inputs_unavailable and disk_full
  uint32_t faulty_tries = 0;      // of these: worker_faulty
  uint32_t outgrown = 0;          // of these: more memory than was learned, of GPUs too
  bool gpu_alone = false;         // the next try has its GPUs for itself
  uint64_t more_memory_than = 0, more_gpu_than = 0;  // all of that was too little; not durable
  uint32_t seconds = 0;                              // second attempts it has had
  TimeMs not_before = kNever;                        // in the back-off set; kNever: not there
  WorkerId last_worker;
  uint32_t last_attempt = 0;  // that ended
  EndReason last_reason = EndReason::succeeded;
  uint64_t last_redone_ms = 0;
  std::string last_detail;
  uint64_t last_base_ms = 0;                // what that stands for
  uint32_t last_checkpoint = 0;             // that the last one began from
  uint32_t bad_checkpoints = 0;             // ends by them, since one was good
  std::vector<KeptCheckpoint> checkpoints;  // ascending
  // By attempt: what the checkpoints of it that led all others have saved of it. It stays saved
  // when they are dropped for better ones.
  std::map<uint32_t, uint64_t> saved;
  WorkerId failed_at_once_on;  // the first worker where it did; not durable
  std::string failed_on_gpu;   // likewise, of those that had a GPU
  bool own_fault = false;      // it did on another one too; not durable
};

// How long ranks take, in steps of a quarter of an octave.
struct DurationHistogram {
  std::map<uint8_t, uint32_t> buckets;
  uint64_t count = 0;
  void add(uint64_t duration_ms);
  uint64_t median_ms() const;  // no less than it is
};

// How long ranks of a job take on one worker.
struct Pace {
  uint32_t count = 0;
  uint64_t total_ms = 0;
};

struct DemandQueue;

// Among the jobs of an owner: the higher priority first, then who came first.
using JobTurn = std::tuple<int32_t, int64_t, JobId>;

// A worker that had ranks of a generation when another rank of it failed.
struct Unheard {
  std::set<uint32_t> ranks;  // whose ends it has not told
  uint64_t session = 0;      // 0: it was not attached
  uint64_t update = 0;       // of this session: the one that told it to stop them
};

// A rank has failed, and it is not known yet whether because a machine was lost. Not durable: after
// a restore it uses up no retry.
struct Verdict {
  uint32_t rank = 0;
  AttemptOutcome outcome;
  std::map<WorkerId, Unheard> unheard;
  std::string gone;  // what was lost
  TimeMs at = 0;     // those not heard of by then are lost
};

// What all ranks of a parallel job have in common. The number of a generation is the attempt number
// of all its ranks. No attempt of an earlier generation can come back: it was revoked.
struct Gang {
  uint32_t generation = 0;  // the newest that was leased
  uint32_t open = 0;        // attempts of it that have not ended
  bool broken = false;      // one of them ended without success: all of them are in vain
  TimeMs broken_at = 0;
  bool started = false;  // they were told to start, with this address
  std::string master_addr;
  uint16_t master_port = 0;
  // Ended well, and not committed: all are at once, when the last one ends well.
  std::map<uint32_t, AttemptOutcome> succeeded;
  std::set<uint32_t> ready;   // said to be prepared, since the last restore
  uint16_t offered_port = 0;  // by rank 0's worker
  // Generations that broke, since the submission or the last retry.
  uint32_t tries = 0;
  uint32_t failures = 0;         // of these: the program's own
  uint32_t free_tries = 0;       // of these: inputs_unavailable and disk_full
  uint32_t port_tries = 0;       // of these: port_taken
  uint32_t bad_checkpoints = 0;  // of these: bad_checkpoint; since a rank had a good one
  uint32_t excuses = 0;  // of these: failed when a machine was lost; since the last checkpoint
  bool judged = false, excused = false;  // this generation: counted as a failure, or as an excuse
  std::optional<Verdict> verdict;        // not spoken yet
  TimeMs not_before = kNever;
  WorkerId avoid;  // where the last one broke
  uint32_t last_rank = 0;
  EndReason last_reason = EndReason::succeeded;
  std::string last_detail;
};

struct Job;

// What is kept free for the gang that has waited longest, or for ranks of an owner who has far less
// than another and finds no room: on these workers others get only what lies beyond it, and nothing
// ahead of time. So no stream of small ranks can starve it.
struct Reservation {
  Job* job = nullptr;  // nullptr: none
  bool due = false;    // something has become free since it was tried
  std::set<WorkerId> workers;
  uint64_t need_version = 0;  // of what was known of its program
};

struct Job {
  JobId id;
  std::string owner;
  std::shared_ptr<const JobSpec> spec;
  int64_t submitted_unix_ms = 0, finished_unix_ms = 0;
  RankTable ranks;
  std::map<uint32_t, ActiveRank> active;
  std::set<uint32_t> ready;  // active, and its back-off is over
  bool started = false;      // something was leased since the submission, or the last retry
  bool stopped = false, stopped_by_user = false, finished = false;
  std::string detail;
  uint64_t revision = 1;
  uint32_t refused = 0;         // first attempts that died of an argument that PESC added
  uint32_t early_failures = 0;  // attempts that failed by kEarlyMs
  uint32_t late_failures = 0;   // later
  std::set<WorkerId> failed_early_on;
  std::set<WorkerId> build_failed_on;            // none of it is placed there any more
  bool built = false;                            // a rank of it has run: the build can succeed
  uint64_t measured = 0, measured_ms = 0;        // committed ranks, and their durations' sum
  DurationHistogram durations;                   // of these; empty when the job is finished
  std::map<WorkerId, Pace> paces;                // of these; likewise
  std::array<WorkerId, 2> succeeded_on{};        // two of the workers where ranks were committed
  std::array<std::string, 2> succeeded_on_gpus;  // and of the GPUs
  JobTally tally;
  std::map<uint32_t, uint32_t> checkpoint_numbers;  // the highest, of ranks that may yet save
  uint32_t ahead_leases = 0;
  int64_t limit_from_unix_ms = 0;  // its time limit counts from then; 0: from the restore
  TimeMs limit_at = kNever;        // its time limit is over; kNever: not armed
  TimeMs tail_at = kNever;         // its slow ranks are looked at; kNever: not near its end
  DemandQueue* queue = nullptr;    // where it waits for placement
  uint32_t own_faults = 0;         // ranks that failed at once on two workers; not durable
  bool changed = false;            // in this step
  Learned* learned = nullptr;      // of its program; of a job that is over, null
  JobInputs inputs;                // its large ones; of a job that is over, none
  uint64_t need_version = 0;       // of what is learned, when it was queued
  std::optional<Gang> gang;        // of a parallel job

  std::pair<int64_t, JobId> order() const { return {submitted_unix_ms, id}; }
  JobTurn turn() const { return {-spec->priority, submitted_unix_ms, id}; }
  bool placeable() const {
    if (gang) {
      return !stopped && gang->open == 0 && gang->succeeded.empty() && gang->not_before == kNever &&
             !gang->verdict && !ranks.all_final();
    }
    return !stopped && (!ready.empty() || ranks.unclaimed() > 0 || ranks.fresh() > 0);
  }
};

struct Lease {
  uint32_t cpus_milli = 0;
  Claim claim;
  uint64_t update = 0;    // the update that carried it in the current session; 0: held at attach
  uint64_t ahead = 0;     // its place among the leases beyond the free cpus; 0: none of them
  uint64_t start = 0;     // of a gang: the update of this session that told it to start
  bool restored = false;  // of an earlier life of the coordinator
  bool told = false;      // its worker has said that it has it
};

// What its ranks' ends say of a GPU: worker_health.cc. Not durable.
struct GpuHealth {
  uint32_t streak = 0;  // failures in a row
  JobId streak_job;     // of the latest of them
  std::string streak_detail;
  TimeMs aside_until = kNever;  // set aside; kNever: it is not
  uint64_t aside_ms = 0;        // for how long it was, the last time; 0: never since it did well
  bool said = false;            // its `trouble` is this
};

// Not wanted any more, and not known to have ended: ending.cc.
struct Ending {
  Claim claim;
  Resources asked;
  uint64_t update = 0;  // that tells the worker to stop it; before that it may not even have begun
  bool sized = false;   // else nobody knows what it takes
};

struct Worker {
  WorkerInfo info;
  bool seen = false;  // WorkerSeen was recorded with this name and room
  bool attached = false;
  bool responsive = false;  // attached, and heard of within a lease's time
  bool forgiven = false;    // its silence since it was last heard of: the coordinator was away
  // It has given ranks back: it is about to go, and what it were given now would come back too.
  // Until a heartbeat brings nothing of the kind, or another report a heartbeat's time later.
  bool leaving = false;
  TimeMs gave_back = 0;
  bool draining = false, paused = false;  // durable
  // Attempts that failed at once there, in a row: worker_health.cc. Not durable.
  uint32_t streak = 0;
  JobId streak_job;             // of the latest of them
  std::string streak_detail;    // what it died of
  TimeMs aside_until = kNever;  // set aside; kNever: it is not
  uint64_t aside_ms = 0;        // for how long it was, the last time; 0: never since it did well
  bool probation = false;       // one attempt at a time, until one does well
  uint64_t session = 0, updates = 0, finished = 0, next_ahead = 1;
  TimeMs last_seen = 0;
  // Of an attempt; or when it had nothing and was given something, or the first one ahead of time.
  TimeMs last_end = 0;
  TimeMs lag_ms = 0;  // by how much later than they came about its ends were heard of, of late
  TimeMs ahead_at = kNever;  // what is leased ahead is looked at; kNever: nothing is
  TimeMs ran_until = 0;  // last known to be there: its last report, or the end of its connection
  TimeMs deadline = kNever;  // all its leases expire; kNever: not armed
  uint64_t used_milli = 0, ahead_milli = 0;
  Use use;
  // For the gang that has a reservation. Nobody else gets anything scarce there meanwhile.
  uint64_t reserved_milli = 0, reserved_memory = 0;
  bool excused = false;  // attached with more than it has room for
  Measured measured;
  std::map<std::string, GpuHealth> gpu_health;  // of those that have failed ranks
  std::map<AttemptKey, Lease> leases;
  std::map<uint64_t, AttemptKey> ahead;
  std::map<AttemptKey, Ending> ending;  // `use` counts them
  uint32_t unsized = 0;                 // of these
  // Ended by a report of this session, and still in what the worker says it holds: several reports
  // are under way at once, so it may say so before it has read the answer.
  std::set<AttemptKey> reported;
  bool counts_in_sizes = false;  // as long as it is there, drained and paused ones are not
  bool indexed = false;
  bool in_load_index = false;
  int64_t indexed_free = 0, indexed_load = 0;
  std::string indexed_room;

  int64_t free_milli() const { return int64_t(info.cpus_milli) - int64_t(used_milli); }
  // What may still be leased ahead, of as many times the cpus that it has.
  int64_t spare_milli(uint32_t times) const {
    return int64_t(info.cpus_milli) * times - int64_t(ahead_milli);
  }
  // How much is leased ahead for its size: a thousand for as many cpus as it has.
  int64_t ahead_load() const {
    return info.cpus_milli == 0 ? 0 : int64_t(ahead_milli * 1000 / info.cpus_milli);
  }
  bool set_aside() const { return aside_until != kNever; }
  bool takes_leases() const {
    return attached && responsive && !leaving && !draining && !paused && info.busy.empty() &&
           unsized == 0 && !set_aside() && !(probation && !leases.empty());
  }
  Capacity capacity() const {
    return {info.memory_bytes, info.disk_bytes, &info.gpus, &info.named};
  }
  bool has_spare(const Demand& demand) const {
    return spare_milli(std::max<uint32_t>(demand.ahead, 1)) >= int64_t(demand.need.cpus_milli);
  }
  // Beside cpus.
  std::optional<Claim> claim_for(const Need& need) const;
};

// Workers that can be given leases, those with the most room first.
struct RoomIndex {
  std::set<std::pair<int64_t, WorkerId>> by_free;  // negated free cpus
  std::set<std::pair<int64_t, WorkerId>> by_load;  // ahead_load(), where nothing is stuck
  int64_t free_milli = 0;                          // of all that have any
  int64_t load_milli = 0;                          // cpus of those in by_load
};

// The worker that was given a new rank last, in a round of placement.
struct BeingFilled {
  WorkerId worker;   // none: WorkerId()
  int64_t load = 0;  // the least ahead_load() of all when it was chosen
};

// Whose turn it is: who has the fewest cpus in use, and of equals who was served least recently.
struct OwnerTurn {
  uint64_t used_milli = 0;
  uint64_t served = 0;
  std::string name;
  auto operator<=>(const OwnerTurn&) const = default;
};

struct Owner {
  uint64_t used_milli = 0;  // cpus of all its leases but those ahead of time
  uint64_t served = 0;      // when it was served last
  std::vector<DemandQueue*> queues;
};

// Jobs of one demand that have ranks to place: owners by turn, jobs of an owner by submission.
struct DemandQueue {
  Demand demand;
  bool blocked = false;     // no worker has room; until one has
  bool impossible = false;  // gangs: all workers together have not; until another one comes
  bool nowhere = false;     // blocked, and no worker could have room if nothing else were there
  std::map<OwnerTurn, std::map<JobTurn, Job*>> owners;
};

struct Backoff {
  TimeMs not_before = 0;
  JobId job;
  uint32_t rank = 0;
  auto operator<=>(const Backoff&) const = default;
};

struct Core::State {
  explicit State(CoreConfig c) : config(c) {}

  CoreConfig config;
  PlantedBug bug = PlantedBug::none;
  std::map<JobId, Job> jobs;
  std::map<std::pair<int64_t, JobId>, Job*> by_submission;
  std::map<WorkerId, Worker> workers;
  std::map<uint64_t, WorkerId> sessions;  // current ones only
  std::set<std::pair<TimeMs, WorkerId>> deadlines;
  std::pair<TimeMs, WorkerId> looked_late{};  // the first of them, when all were looked at last
  std::set<Backoff> backoffs;
  std::set<std::pair<TimeMs, WorkerId>> asides;  // workers that are set aside, until then
  std::set<std::tuple<TimeMs, WorkerId, std::string>> gpu_asides;
  std::set<std::pair<TimeMs, JobId>> limits;     // of jobs that have one
  std::set<std::pair<TimeMs, JobId>> verdicts;   // gangs that wait for one, until then
  std::set<std::pair<TimeMs, JobId>> tails;      // jobs near their end, when to look next
  std::set<std::pair<TimeMs, WorkerId>> aheads;  // workers with leases ahead, when to look next
  std::set<JobId> unlimited;  // after a restore: their limit counts from a wall time not known yet
  TimeMs restored_at = 0;
  uint32_t ahead_total = 0;                // leases ahead, of all jobs
  TimeMs lag_ms = 0;                       // Worker::lag_ms, of those heard of late
  TimeMs heard_lag_ms = 0;                 // of the report that is being heard
  std::map<std::string, RoomIndex> rooms;  // "": all workers
  std::map<Digest, Learned> learned;       // by program_key
  Inputs inputs;
  std::map<Demand, DemandQueue> queues;
  std::map<std::string, Owner> owners;
  Reservation reservation;
  bool gang_had_it = false;  // the latest reservation was a gang's
  uint64_t turns = 0;
  bool restoring = false;
  bool placement_due = false;
  std::set<JobId> unsettled;  // after a restore: may have to be stopped or finished
  TimeMs now = 0;
  int64_t unix_ms = 0;  // the newest wall time that an event has brought

  // ---- one step ----
  Step out;
  std::map<uint64_t, SendUpdate> updates;  // by session; of several steps, while events wait
  std::vector<JobId> changed;
  std::vector<std::pair<WorkerId, FinishedAttempt>> late;  // a planted bug's
  std::optional<AttemptKey> reporting;                     // whose end is being reported

  Step step(const Event& event, TimeMs at, bool more);
  void emit(Record record);
  void touch(Job& job);
  SendUpdate& update_for(Worker& worker);
  void send_stop(WorkerId worker, const AttemptKey& key, EndReason reason);
  void send_updates();
  void say_changed();
  std::optional<TimeMs> next_deadline() const;
  Job* find_job(JobId id);
  Worker* find_worker(WorkerId id);

  // ---- jobs.cc ----
  void on(const JobSubmitted& event);
  void on(const JobCancelled& event);
  void on(const JobRetried& event);
  void on(const JobRemoved& event);
  absl::Status submit(const JobSubmitted& event);
  absl::Status cancel(const JobCancelled& event);
  absl::Status retry(const JobRetried& event, uint32_t& count);
  absl::Status remove(const JobRemoved& event);
  void stop_job(Job& job, bool by_user, std::string detail);
  void arm_limit(Job& job, TimeMs at);
  void settle_limits(bool timer);
  void end_limits();
  void cancel_waiting(Job& job);
  void finish_if_done(Job& job);
  void settle_after_restore();

  // ---- attempts.cc ----
  void finished(WorkerId worker, const AttemptKey& key, AttemptOutcome outcome);
  void commit(Job& job, const AttemptKey& key, AttemptOutcome outcome);
  void failed(Job& job, ActiveRank& rank, const AttemptKey& key, AttemptOutcome outcome);
  void ended_of_stopped(Job& job, const AttemptKey& key, AttemptOutcome outcome);
  void lost(const AttemptKey& key, const char* why, bool began = true);
  void revoke_others(Job& job, const AttemptKey& decided);
  void classify(Job& job, ActiveRank& rank, const OpenAttempt& open, AttemptOutcome& outcome);
  void fill_duration(const OpenAttempt& open, AttemptOutcome& outcome) const;
  AttemptOutcome ended_here(const ActiveRank& rank, const OpenAttempt& open, EndReason reason,
                            std::string detail) const;
  void judge_size(const Job& job, const ActiveRank& rank, const OpenAttempt& open,
                  AttemptOutcome& outcome) const;
  std::optional<std::string> breaker(const Job& job, const AttemptOutcome& last) const;

  // ---- builds.cc ----
  std::optional<std::string> cannot_be_built(const Job& job, const AttemptKey& key,
                                             const AttemptOutcome& outcome) const;
  bool another_could_take(const Job& job, WorkerId except) const;
  bool others_may_build(const Job& job, const std::set<WorkerId>& failed) const;
  void note_build(Job& job, const AttemptOutcome& outcome, WorkerId worker);

  // ---- checkpoints.cc ----
  void on(const CheckpointOffered& event);
  absl::Status keep_checkpoint(WorkerId worker, const CheckpointOffered& event, uint32_t& number);
  void drop_worst(const Job& job, uint32_t rank);
  void drop_all(const Job& job, uint32_t rank);  // before the rank is final
  void drop_before(const Record& record);  // what a rank has, when it is final with this record
  void note_number(Job& job, uint32_t rank, uint32_t number);
  void count_death(ActiveRank& rank, uint32_t checkpoint, WorkerId worker);
  void judge_checkpoint(Job& job, ActiveRank& rank, const AttemptOutcome& outcome);
  bool excuses_checkpoints(const Job& job, const ActiveRank& rank) const;
  bool died_of_checkpoint(const ActiveRank& rank, const OpenAttempt& open,
                          const AttemptOutcome& outcome) const;
  void blame_checkpoint(const ActiveRank& rank, const OpenAttempt& open,
                        AttemptOutcome& outcome) const;

  // ---- worker_health.cc ----
  void on(const WorkerDrained& event);
  void on(const WorkerPaused& event);
  absl::Status drain(const WorkerDrained& event, AnswerDrain& answer);
  absl::Status pause(const WorkerPaused& event, AnswerDrain& answer);
  void order(Worker& worker, bool draining, bool paused);
  void trust_again(Worker& worker);
  void hear_busy(Worker& worker, const std::string& busy);
  void look_again();
  absl::Status named_worker(const std::string& name, Worker*& found);
  bool failed_at_once(const AttemptOutcome& outcome) const;
  bool does_well_elsewhere(const Job& job, WorkerId worker) const;
  bool another_is_well(WorkerId id, const Job& job) const;
  bool runs_elsewhere(const Job& job, WorkerId worker, TimeMs since) const;
  bool excuse_start(const Job& job, const ActiveRank& rank, const Worker& worker,
                    AttemptOutcome& outcome) const;
  bool blame_worker(Job& job, ActiveRank& rank, Worker& worker, AttemptOutcome& outcome);
  void exonerate(WorkerId id);
  void proved_well(Worker& worker);
  void put_aside(Worker& worker);
  void put_aside_for(Worker& worker, uint64_t ms);
  void hurry_asides(const Demand& demand);
  void end_aside(Worker& worker);
  void release_asides();
  std::string trouble(const Worker& worker, TimeMs at) const;

  // ---- gpu_health.cc ----
  bool blame_gpus(Job& job, ActiveRank& rank, Worker& worker, const OpenAttempt& open,
                  AttemptOutcome& outcome);
  void blame_gpu(Job& job, Worker& worker, const std::string& uuid, const AttemptOutcome& outcome);
  bool does_well_on_others(const Job& job, const std::vector<std::string>& gpus) const;
  bool another_gpu_is_well(const Job& job, const std::string& uuid) const;
  void gpus_proved_well(Worker& worker, const std::vector<std::string>& gpus);
  void exonerate_gpu(const std::string& uuid);
  void put_gpu_aside(Worker& worker, const std::string& uuid, GpuHealth& health, uint64_t ms);
  void end_gpu_aside(Worker& worker, const std::string& uuid, GpuHealth& health);
  void hurry_gpu_asides(const Demand& demand);
  void release_gpu_asides();
  void say_gpu_troubles(Worker& worker);

  // ---- stragglers.cc ----
  void watch_tail(Job& job);
  bool near_its_end(const Job& job) const;
  void try_seconds();
  TimeMs try_seconds_of(Job& job);
  struct Outpaced {
    uint64_t left_ms = 0;
    uint32_t rank = 0;
    WorkerId own;
  };
  struct Slow {
    std::vector<std::pair<uint32_t, WorkerId>> stragglers;  // ranks, and who has them
    std::vector<Outpaced> outpaced;  // most left first: a faster worker may end them sooner
    TimeMs look_at = 0;
  };
  Slow find_slow(const Job& job) const;
  Worker* choose_faster(const Job& job, const Demand& demand, WorkerId own, uint64_t left_ms);
  std::optional<std::string> refusal(const Job& job, const ActiveRank& rank,
                                     const AttemptOutcome& outcome) const;
  absl::Status check_report(WorkerId worker, const FinishedAttempt& report) const;

  // ---- workers.cc ----
  void on(const WorkerAttached& event);
  void on(const WorkerDetached& event);
  void on(const WorkerReported& event);
  void on(const TimerFired& event);
  absl::Status admit(const WorkerAttached& event);
  void reconcile(Worker& worker, const std::vector<AttemptKey>& holding, uint64_t last_update,
                 std::vector<StopRequest>& stop);
  std::optional<StopRequest> reconcile_held(Worker& worker, const AttemptKey& key);
  void hear_gpus(Worker& worker, const std::vector<Gpu>& gpus);
  void take_progress(const Worker& worker, const AttemptProgress& progress);
  void renew(Worker& worker);
  void arm(Worker& worker, TimeMs deadline);
  void expire_leases();
  void forgive_absence();

  // ---- placement.cc ----
  void place();
  DemandQueue* next_queue();
  struct Choice {
    uint32_t rank = 0;
    Worker* worker = nullptr;
    bool gpu_alone = false;
    uint64_t least_gpu_bytes = 0;
  };
  BeingFilled being_filled;
  Choice choose_rank(Job& job, const Demand& demand);
  Worker* choose_for_new(const Job& job, const Demand& demand);
  bool goes_on(const Worker& worker, const Job& job, const Demand& demand) const;
  Choice choose_ready(Job& job, const Demand& demand);
  Worker* choose_worker(const Job& job, const Demand& demand, WorkerId avoid);
  Worker* choose_any(const Demand& demand, WorkerId avoid);
  Worker* choose_free(const RoomIndex& room, const Demand& demand, WorkerId avoid);
  bool has_room(const Worker& worker, const Demand& demand) const;
  LeaseGrant& lease(Job& job, uint32_t rank, uint32_t attempt, Worker& worker, const Need& need,
                    bool second = false);
  Need need_of(const Job& job) const;

  // ---- sizes.cc ----
  uint64_t sizes_epoch = 0;
  void note_sizes(Worker& worker);
  void sizes_changed();
  uint64_t need_version(const Job& job) const;
  bool anybody_holds(const Job& job, const Need& need) const;
  bool has_larger(const Job& job, uint64_t memory_bytes, uint64_t gpu_bytes) const;
  void ask_for_least(const Job& job, Need& need) const;
  void raise_least(const Job& job, const ActiveRank& rank, Need& need) const;
  void raise_least_of_all(const Job& job, Need& need) const;
  void note_too_small(Job& job, ActiveRank& rank, const AttemptEnded& record, const Claim& claim,
                      const Worker& worker);

  void learn_of(Job& job);  // from now on: what is known of its program
  void forget_program(Job& job);
  void keep_learned(const Job& job);  // that will be erased
  void serve(const std::string& owner);
  void change_turn(const std::string& name, uint64_t used_milli, uint64_t served);
  void use_cpus(const AttemptKey& key, int64_t milli);
  bool reserve_for_owed(const DemandQueue& next);
  bool reserve_ranks(Job& job, uint64_t cpus_milli);
  bool place_owed(uint32_t& budget);
  bool another_comes_first(const Job& job, const Worker& worker) const;
  std::optional<uint32_t> rank_for(Job& job, WorkerId worker);
  void requeue(Job& job);
  void dequeue(Job& job);
  void reindex(Worker& worker);
  void unindex(Worker& worker);
  template <typename F>
  void for_rooms_of(const Worker& worker, const F& each);
  void leave_index(Worker& worker);
  void leave_load_index(Worker& worker);
  void unblock(const Worker& worker);
  void release_backoffs();
  int64_t free_for(const Worker& worker) const;
  int64_t unreserved(const Worker& worker) const;

  // ---- inputs.cc ----
  void know_holders(Job& job);
  Worker* choose_holder(const Job& job, const Demand& demand, WorkerId avoid);
  std::vector<WorkerId> holders_of(const Job& job) const;  // those that lack least first
  std::string check_inputs() const;

  // ---- ending.cc ----
  void note_ending(Worker& worker, const AttemptKey& key, const Lease& lease,
                   const Resources& asked);
  void note_unsized(Worker& worker, const AttemptKey& key);
  void forget_ending(Worker& worker, const AttemptKey& key);
  void forget_ended(Worker& worker, const std::vector<AttemptKey>& holding, uint64_t last_update);

  // ---- ahead.cc ----
  uint32_t times_ahead(const Job& job) const;
  Worker* choose_ahead(RoomIndex& room, const Demand& demand, WorkerId avoid);
  bool may_go_ahead(const Worker& worker, const Demand& demand) const;
  TimeMs patience_ms(const Worker& worker) const;
  bool is_stuck(const Worker& worker) const;
  void hear_lag(const OpenAttempt& open, const AttemptOutcome& outcome);
  void note_lag(Worker& worker);
  void count_ahead(Job& job, bool more);
  void watch_ahead(Worker& worker, TimeMs at);
  bool take_back_aheads();  // whether anything was
  bool take_back(Worker& worker);

  // ---- gangs.cc ----
  void gang_ended(Job& job, const AttemptKey& key, AttemptOutcome outcome);
  void gang_failed(Job& job, const AttemptKey& key, AttemptOutcome outcome);
  void gang_is_to_blame(Job& job, const AttemptKey& key, AttemptOutcome outcome);
  bool gang_gives_up(const Job& job, const AttemptOutcome& outcome) const;
  void revoke_gang(Job& job, const std::string& why);
  void commit_gang(Job& job);
  void take_ready(Worker& worker, const ReadyAttempt& ready, uint64_t last_update);
  void start_gang_if_ready(Job& job);
  void send_start(Worker& worker, const Job& job, uint32_t rank);
  void withdraw_gangs_of(Worker& worker);
  void settle_gang(Job& job);
  void apply_gang_leased(Job& job, const AttemptKey& key);
  void apply_gang_ended(Job& job, const AttemptEnded& record, WorkerId worker);
  bool gang_is_torn(const Job& job) const;
  void forget_successes(Job& job);
  void gang_waits(Job& job);
  void gang_leaves(Job& job);
  void gang_reopened(Job& job);
  std::string check_gang(const Job& job) const;

  // ---- gang_verdict.cc ----
  bool await_verdict(Job& job, const AttemptKey& key, const AttemptOutcome& outcome,
                     const std::string& cause);
  void hear_end(Job& job, const ActiveRank& rank, const AttemptKey& key, AttemptOutcome outcome);
  void hear_worker(Worker& worker, const std::vector<AttemptKey>& holding, uint64_t last_update,
                   bool attached);
  void settle_verdicts();
  Verdict take_verdict(Job& job);
  void convict(Job& job);
  void excuse(Job& job);
  std::string verdict_why(const Job& job) const;
  bool ends_again(const Job& job, const ActiveRank& rank, const AttemptKey& key) const;
  void count_fault(Gang& gang, const AttemptEnded& record);
  std::string check_verdict(const Job& job) const;

  // ---- gang_placement.cc ----
  using GangPlan = std::vector<std::pair<WorkerId, uint32_t>>;  // ranks on each worker, in order
  bool takes_doubtful(const Job& job) const;
  uint32_t gang_ranks_on(const Worker& worker, const Job& job, bool doubtful) const;
  GangPlan plan_gang(const Job& job, WorkerId avoid) const;
  GangPlan plan_gang(const Job& job, WorkerId avoid, const std::vector<WorkerId>& first) const;
  bool place_gang(Job& job);
  bool place_reserved(uint32_t& budget);
  GangPlan plan_on_empty_workers(const Job& job, bool doubtful, WorkerId except = {}) const;
  bool reserve(Job& job);
  void release_reservation();
  void renew_reservation();
  std::string check_reservation() const;

  // ---- gang_views.cc ----
  std::string gang_missing(const Job& job, TimeMs at) const;
  std::string gang_unprepared(const Job& job) const;
  std::vector<WhyLine> gang_why(const Job& job, TimeMs at) const;

  // ---- apply.cc: durable state ----
  void apply(const Record& record);
  void apply_record(const JobAdded& record);
  void apply_record(const AttemptLeased& record);
  void apply_record(const AttemptEnded& record);
  void apply_record(const RanksCancelled& record);
  void apply_record(const JobStopped& record);
  void apply_record(const JobFinished& record);
  void apply_record(const RanksReopened& record);
  void apply_record(const JobErased& record);
  void apply_record(const WorkerSeen& record);
  void apply_record(const CheckpointKept& record);
  void apply_record(const CheckpointsDropped& record);
  void apply_record(const GangStarted& record);
  void apply_record(const WorkerDraining& record);
  void apply_record(const ProgramLearned& record);
  ActiveRank& activate(Job& job, uint32_t rank);
  void deactivate(Job& job, uint32_t rank);
  void wait_again(Job& job, uint32_t rank, ActiveRank& active);
  void finalise(Job& job, uint32_t rank, RankState state);
  void leave_queues(Job& job, uint32_t rank, ActiveRank& active);
  void close_attempt(ActiveRank& rank, const AttemptKey& key);
  void learn_end(Learned& known, const AttemptOutcome& outcome, const Claim& claim);
  void count_attempt(Job& job, ActiveRank& rank, const AttemptEnded& record, WorkerId worker);
  void count_try(Job& job, ActiveRank& rank, const AttemptEnded& record, bool again);
  void count_success(Job& job, WorkerId worker, const AttemptOutcome& outcome,
                     const std::vector<std::string>& gpus);
  void add_lease(Worker& worker, const AttemptKey& key, const JobSpec& spec, Claim claim,
                 bool runs = false);
  void drop_lease(Worker& worker, const AttemptKey& key);
  void promote(Worker& worker);
  void recount(Worker& worker);
  void recount_use(Worker& worker);
  void count_endings(Worker& worker);
  void not_ahead(const AttemptKey& key);
  TimeMs backoff_ms(const ActiveRank& rank) const;
  TimeMs backoff_ms(uint32_t tries, EndReason last) const;
  void finish_restore(TimeMs at);

  // ---- invariants.cc ----
  std::string check_invariants() const;
  std::string check_job(const Job& job) const;
  std::string check_worker(const Worker& worker) const;
  std::string check_checkpoints(const Job& job, uint32_t number, const ActiveRank& rank) const;
  std::string check_times() const;
  std::string check_queues() const;
  std::string check_shares() const;

  // ---- views.cc ----
  JobView view(const Job& job) const;
  bool is_all_ahead(const Job& job, uint32_t rank) const;
  bool is_forgotten(const Worker& worker) const;

  // ---- why.cc ----
  std::string takes_no_work(const Worker& worker, TimeMs at) const;
  std::string missing(const Job& job, TimeMs at) const;
  std::string why_waits(const ActiveRank& rank, const std::string& startable, TimeMs at) const;
  std::vector<WhyLine> why(const Job& job, TimeMs at) const;
  void why_leased(const Job& job, TimeMs at, std::vector<WhyLine>& lines) const;
};

inline uint32_t cpus_of(const JobSpec& spec) {
  return spec.resources.cpus_milli == 0 ? 1000 : spec.resources.cpus_milli;
}

JobState job_state(const Job& job);
uint64_t smallest_gpu(const Worker& worker, const Claim& claim);  // 0: it had none

// Such a rank could run there if nothing else did. Cpus are not looked at.
inline bool could_hold(const Worker& worker, const Need& need) {
  return may_be_on(worker.info.id, need) && lacks(worker.capacity(), need).empty();
}

// How many ranks of a gang, at most `most`, the worker could take if it had nothing else.
uint32_t gang_ranks_on_empty(const Worker& worker, const JobSpec& spec, const Need& need,
                             uint32_t most, bool doubtful);
EndReason stop_reason(const Job& job);  // for the attempts of a stopped one

// The one that stands for most, of those that are not passed over, and of equal ones the newest;
// null: none.
const KeptCheckpoint* best_checkpoint(const ActiveRank& rank);
// What the checkpoints that the attempt saved have saved of it.
uint64_t saved_ms(const ActiveRank& rank, uint32_t attempt);

// ---- tally.cc: what is counted of a job's attempts ----
// A success that is not final is counted when it is.
void count_end(JobTally& tally, const AttemptEnded& record);
void uncount_end(JobTally& tally, EndReason reason, uint64_t redone_ms);
void uncount_lost(JobTally& tally, const LostAttempt& lost);  // it is back, or has succeeded

}  // namespace pesc::coordinator
