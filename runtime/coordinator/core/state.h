// The state of the coordinator's core. Private to this folder.
//
// Durable state (jobs, ranks, attempts, which worker has which lease) changes only in the apply_*
// functions, which live steps and recovery share; the rest (sessions, deadlines, indices, queues)
// can be had from it again.
#pragma once

#include <array>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "runtime/coordinator/core/core.h"
#include "runtime/coordinator/core/rank_table.h"

namespace pesc::coordinator {

inline constexpr TimeMs kNever = INT64_MAX;
inline constexpr uint32_t kMaxFreeTries = 5;   // per rank, of inputs_unavailable and disk_full
inline constexpr size_t kMaxLost = 16;         // lost attempts of a rank that may still succeed
inline constexpr size_t kMaxTextBytes = 4096;  // of anything a peer reports

// What a rank asks for. Jobs that ask for the same share a queue, so that finding out that there is
// no room for them costs the same for one as for ten thousand.
struct Demand {
  std::string room;
  uint32_t cpus_milli = 0;
  uint64_t memory_bytes = 0;
  bool ahead = false;  // its ranks are short: they may be leased beyond the free cpus
  auto operator<=>(const Demand&) const = default;
};

struct OpenAttempt {
  uint32_t attempt = 0;
  WorkerId worker;
  double fraction = -1;
  std::string text;
};

struct LostAttempt {
  uint32_t attempt = 0;
  WorkerId worker;
};

// A rank that was leased, and is not final: it runs, or it waits for another try.
struct ActiveRank {
  std::vector<OpenAttempt> open;
  std::vector<LostAttempt> lost;  // given up for lost, not revoked: a success of theirs counts
  uint32_t tries = 0;             // attempts that ended without success
  uint32_t failures = 0;          // of these: the program's own
  uint32_t free_tries = 0;        // of these: inputs_unavailable and disk_full
  TimeMs not_before = kNever;     // in the back-off set; kNever: not there
  WorkerId last_worker;
  EndReason last_reason = EndReason::succeeded;
  std::string last_detail;
};

struct DemandQueue;

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
  uint32_t refused = 0;  // first attempts that died of an argument that PESC added
  uint64_t measured = 0, measured_ms = 0;  // committed ranks, and their durations' sum
  DemandQueue* queue = nullptr;            // where it waits for placement
  bool changed = false;                    // in this step

  std::pair<int64_t, JobId> order() const { return {submitted_unix_ms, id}; }
  bool placeable() const {
    return !stopped && (!ready.empty() || ranks.unclaimed() > 0 || ranks.fresh() > 0);
  }
};

struct Lease {
  uint32_t cpus_milli = 0;
  uint64_t memory_bytes = 0;
  uint64_t update = 0;  // the update that carried it in the current session; 0: held at attach
  uint64_t ahead = 0;   // its place among the leases beyond the free cpus; 0: none of them
};

struct Worker {
  WorkerInfo info;
  bool seen = false;  // WorkerSeen was recorded with this name and room
  bool attached = false;
  bool responsive = false;  // attached, and heard of within a lease's time
  // It has given ranks back: it is about to go, and what it were given now would come back too.
  // Until a heartbeat brings nothing of the kind.
  bool leaving = false;
  uint64_t session = 0, updates = 0, finished = 0, next_ahead = 1;
  TimeMs last_seen = 0;
  TimeMs deadline = kNever;  // all its leases expire; kNever: not armed
  uint64_t used_milli = 0, ahead_milli = 0, memory_used = 0;
  bool excused = false;  // attached with more than it has room for
  std::map<AttemptKey, Lease> leases;
  std::map<uint64_t, AttemptKey> ahead;
  // Ended by a report of this session, and still in what the worker says it holds: several reports
  // are under way at once, so it may say so before it has read the answer.
  std::set<AttemptKey> reported;
  bool indexed = false;
  int64_t indexed_free = 0, indexed_spare = 0;
  std::string indexed_room;

  int64_t free_milli() const { return int64_t(info.cpus_milli) - int64_t(used_milli); }
  // What may still be leased ahead: as many cpus again as it has.
  int64_t spare_milli() const { return int64_t(info.cpus_milli) - int64_t(ahead_milli); }
  bool takes_leases() const { return attached && responsive && !leaving; }
  bool fits_memory(uint64_t bytes) const {
    return bytes == 0 ||
           (memory_used <= info.memory_bytes && bytes <= info.memory_bytes - memory_used);
  }
};

// Workers that can be given leases, those with the most room first.
struct RoomIndex {
  std::set<std::pair<int64_t, WorkerId>> by_free;   // negated free cpus
  std::set<std::pair<int64_t, WorkerId>> by_spare;  // negated cpus to lease ahead
};

struct Owner {
  uint64_t turn = 0;  // when it was served last
  std::vector<DemandQueue*> queues;
};

// Jobs of one demand that have ranks to place: owners by turn, jobs of an owner by submission.
struct DemandQueue {
  Demand demand;
  bool blocked = false;  // no worker has room; until one has
  std::map<std::pair<uint64_t, std::string>, std::map<std::pair<int64_t, JobId>, Job*>> owners;
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
  std::set<Backoff> backoffs;
  std::map<std::string, RoomIndex> rooms;  // "": all workers
  std::map<Demand, DemandQueue> queues;
  std::map<std::string, Owner> owners;  // those that have jobs in a queue
  uint64_t turns = 0;
  bool restoring = false;
  bool placement_due = false;
  std::set<JobId> unsettled;  // after a restore: may have to be stopped or finished
  TimeMs now = 0;
  int64_t unix_ms = 0;  // the newest wall time that an event has brought

  // ---- one step ----
  Step out;
  std::map<uint64_t, SendUpdate> updates;  // by session
  std::vector<JobId> changed;
  std::vector<std::pair<WorkerId, FinishedAttempt>> late;  // a planted bug's

  Step step(const Event& event, TimeMs at);
  void emit(Record record);
  void touch(Job& job);
  SendUpdate& update_for(Worker& worker);
  void send_stop(WorkerId worker, const AttemptKey& key, EndReason reason);
  void flush();
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
  void cancel_waiting(Job& job);
  void finish_if_done(Job& job);
  void settle_after_restore();

  // ---- attempts.cc ----
  void finished(WorkerId worker, const AttemptKey& key, AttemptOutcome outcome);
  void commit(Job& job, const AttemptKey& key, AttemptOutcome outcome);
  void failed(Job& job, ActiveRank& rank, const AttemptKey& key, AttemptOutcome outcome);
  void ended_of_stopped(Job& job, const AttemptKey& key, AttemptOutcome outcome);
  void lost(const AttemptKey& key, const char* why);
  void revoke_others(Job& job, const AttemptKey& decided);
  std::optional<std::string> refusal(const Job& job, const ActiveRank& rank,
                                     const AttemptOutcome& outcome) const;
  absl::Status check_report(WorkerId worker, const FinishedAttempt& report) const;

  // ---- workers.cc ----
  void on(const WorkerAttached& event);
  void on(const WorkerDetached& event);
  void on(const WorkerReported& event);
  void on(const TimerFired& event);
  void on(const CheckpointOffered& event);
  void on(const WorkerDrained& event);
  absl::Status admit(const WorkerAttached& event);
  void reconcile(Worker& worker, const std::vector<AttemptKey>& holding, uint64_t last_update,
                 std::vector<StopRequest>& stop);
  std::optional<StopRequest> reconcile_held(Worker& worker, const AttemptKey& key);
  void take_progress(const Worker& worker, const AttemptProgress& progress);
  void renew(Worker& worker);
  void arm(Worker& worker, TimeMs deadline);
  void expire_leases();
  void forgive_absence();

  // ---- placement.cc ----
  void place();
  DemandQueue* next_queue();
  Worker* choose_worker(const Demand& demand, WorkerId avoid);
  Worker* choose_from(const std::set<std::pair<int64_t, WorkerId>>& index, const Demand& demand,
                      WorkerId avoid);
  bool has_room(const Worker& worker, const Demand& demand) const;
  void lease(Job& job, uint32_t rank, Worker& worker);
  void serve(const std::string& owner);
  void requeue(Job& job);
  void dequeue(Job& job);
  bool is_short(const Job& job) const;
  void reindex(Worker& worker);
  void unindex(Worker& worker);
  void unblock(const Worker& worker);
  void release_backoffs();
  int64_t free_for(const Worker& worker) const;

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
  ActiveRank& activate(Job& job, uint32_t rank);
  void deactivate(Job& job, uint32_t rank);
  void wait_again(Job& job, uint32_t rank, ActiveRank& active);
  void finalise(Job& job, uint32_t rank, RankState state);
  void leave_queues(Job& job, uint32_t rank, ActiveRank& active);
  void close_attempt(ActiveRank& rank, const AttemptKey& key);
  void count_try(Job& job, ActiveRank& rank, const AttemptOutcome& outcome);
  void add_lease(Worker& worker, const AttemptKey& key, const JobSpec& spec);
  void drop_lease(Worker& worker, const AttemptKey& key);
  void promote(Worker& worker);
  TimeMs backoff_ms(const ActiveRank& rank) const;
  void finish_restore(TimeMs at);

  // ---- invariants.cc ----
  std::string check_invariants() const;
  std::string check_job(const Job& job) const;
  std::string check_worker(const Worker& worker) const;
  std::string check_queues() const;

  // ---- views.cc ----
  JobView view(const Job& job) const;
  std::string missing(const Job& job) const;
  std::vector<WhyLine> why(const Job& job, TimeMs at) const;
};

inline uint32_t cpus_of(const JobSpec& spec) {
  return spec.resources.cpus_milli == 0 ? 1000 : spec.resources.cpus_milli;
}

JobState job_state(const Job& job);

// At most `max` bytes of what a peer said, never cut within a UTF-8 character.
std::string bounded(std::string text, size_t max = kMaxTextBytes);
void bound_outcome(AttemptOutcome& outcome);

}  // namespace pesc::coordinator
