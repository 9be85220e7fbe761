// The worker core's state and its functions, one per event. Internal to this folder.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "runtime/worker/core/core.h"

namespace pesc::worker {

// What is known of an attempt's checkpoints.
struct Saves {
  bool marked = false;       // the program has said `checkpoint` at least once
  bool pending = false;      // there is something to save
  bool under_way = false;    // a SaveCheckpoint was not answered yet
  bool pending_was = false;  // `pending` when that one began
  bool last = false;         // the attempt has ended: what is pending is its last
  uint32_t failures = 0;     // of the last one, while the coordinator was there
  TimeMs began = 0;
  TimeMs not_before = 0;
  std::optional<TimeMs> next_interval;  // programs that never say `checkpoint`
  std::optional<TimeMs> wake;           // its entry in save_at
};

struct Attempt {
  AttemptState state = AttemptState::leased;
  uint64_t order = 0;  // of its lease: attempts are prepared and started in this order
  std::shared_ptr<const JobSpec> spec;
  CheckpointRef checkpoint;  // it begins from
  Saves saves;
  bool hold = false;        // of a gang
  bool gang_ready = false;  // held, and rank 0 has its port: said in every report
  uint16_t master_port = 0;
  uint32_t local_rank = 0, local_world_size = 1;
  Grant grant;
  uint32_t prepare_tries = 0;
  std::optional<EndReason> stop;  // asked for while it was starting, running, saving or packing
  std::string stop_detail;
  AttemptOutcome outcome;               // once it has ended
  uint64_t report = 0;                  // the report in flight that carries its end; 0: none
  Progressed progress{{}, -1, {}, {}};  // the newest
  bool progress_fresh = false;          // not sent yet
};

// What the keeper has of a job.
struct KeeperSlots {
  uint32_t running = 0;                 // starting ones too
  std::map<uint64_t, AttemptKey> next;  // by lease order
};

// A SendReport that carries ended attempts and was not answered yet.
struct InFlight {
  std::vector<AttemptKey> keys;
  TimeMs sent = 0;
  bool large = false;
};

struct Core::State {
  explicit State(CoreConfig c) : config(c) {}

  CoreConfig config;
  PlantedBug bug = PlantedBug::none;
  std::map<AttemptKey, Attempt> attempts;
  uint64_t next_order = 1;

  // By lease order. An attempt is in the set of its state, or in retry_at.
  std::map<uint64_t, AttemptKey> leased;
  // Gangs first: their cpus were counted as free, while other leases may be ahead of their time.
  std::map<std::pair<bool, uint64_t>, AttemptKey> ready;
  std::set<std::pair<TimeMs, AttemptKey>> retry_at;
  uint32_t preparing = 0;
  uint32_t cpus_used_milli = 0;
  bool keeper_holds_next = false;
  std::map<JobId, KeeperSlots> slots;
  uint32_t next_count = 0;  // of all jobs
  // What adoption alone put above the limit (a worker restarted with fewer cpus) is no fault.
  uint32_t adopted_excess_milli = 0;
  bool draining = false, drained = false;
  std::string busy;                                 // empty: ranks may be started
  bool say_busy = false;                            // that has changed, or what the shell adds
  std::set<std::pair<TimeMs, AttemptKey>> save_at;  // when a save may be due
  bool say_ready = false;                           // a held attempt has become ready
  bool say_progress = false;                        // what programs say is to be told

  bool connected = false;
  std::optional<TimeMs> away_since;  // of the coordinator; nothing: connected, or given up
  bool gave_up = false;              // away for longer than the limit: what ran was stopped
  uint64_t heartbeat_ms = 5'000;
  // Each message that leaves at once is a heartbeat. One with ends may be refused, as a heartbeat
  // too: `heard` is when one was sent that was not, or had no ends.
  TimeMs next_heartbeat = 0, heard = 0;
  TimeMs next_upkeep = 0;
  TimeMs next_small_report = 0;  // of ends that nobody waits for
  uint64_t most_waiting = 0;     // for a cpu, since leases came or small ends were told
  uint64_t last_update = 0;
  uint64_t next_report = 1;
  std::map<uint64_t, InFlight> in_flight;
  // Ended attempts that no report in flight carries. Large outputs travel one per report, so that
  // an upload of minutes never delays the end of a short rank.
  std::map<uint64_t, AttemptKey> unreported_small, unreported_large;
  // Ended ones of an answered report that the answer did not name: with the next heartbeat.
  std::vector<AttemptKey> unanswered;

  Step out;

  void on(const Connected& e, TimeMs now);
  void on(const Disconnected& e, TimeMs now);
  void on(const UpdateReceived& e, TimeMs now);
  void on(const Prepared& e, TimeMs now);
  void on(const PrepareFailed& e, TimeMs now);
  void on(const BuildAwaited& e, TimeMs now);
  void on(const BuildDone& e, TimeMs now);
  void on(const Started& e, TimeMs now);
  void on(const Exited& e, TimeMs now);
  void on(const Packed& e, TimeMs now);
  void on(const PackFailed& e, TimeMs now);
  void on(const CheckpointMarked& e, TimeMs now);
  void on(const WasAbsent& e, TimeMs now);
  void on(const CheckpointSaved& e, TimeMs now);
  void on(const PortChosen& e, TimeMs now);
  void on(const Progressed& e, TimeMs now);
  void on(const Acknowledged& e, TimeMs now);
  void on(const ReportFailed& e, TimeMs now);
  void on(const Adopted& e, TimeMs now);
  void on(const KeeperLost& e, TimeMs now);
  void on(const KeeperFound& e, TimeMs now);
  void on(const BusyChanged& e, TimeMs now);
  void on(const ReportWanted& e, TimeMs now);
  void on(const DrainRequested& e, TimeMs now);
  void on(const TimerFired& e, TimeMs now);
  // After each event: starts, prepares and reports whatever it made possible.
  void advance(TimeMs now);

  void add_lease(const UpdateReceived::Lease& lease);
  void stop_attempt(const UpdateReceived::Stop& stop, const std::string& detail = {});
  void end_before_start(const AttemptKey& key, Attempt& attempt, EndReason reason,
                        std::string detail);
  void give_back_unstarted(const std::string& why);
  void say_trouble(Attempt& attempt, std::string text);
  void leave_state(const AttemptKey& key, Attempt& attempt);
  void finish(const AttemptKey& key, Attempt& attempt);
  void pack_or_finish(const AttemptKey& key, Attempt& attempt);
  void start_ready();
  bool has_enough_ready(const Attempt& next) const;
  void prepare_leased();

  // slots.cc
  void enter_slot(const AttemptKey& key, Attempt& attempt);
  void leave_slot(const AttemptKey& key, Attempt& attempt);
  void leave_next(const AttemptKey& key, Attempt& attempt);
  void begin_next(const JobId& job);
  void give_next();
  void take_back_next(const AttemptKey& key, Attempt& attempt, const std::string& why);
  void never_begun(const AttemptKey& key, Attempt& attempt, const AttemptOutcome& outcome);
  std::string check_slots() const;

  // checkpoints.cc
  void begin_saves(Attempt& attempt, TimeMs now);
  void consider_save(const AttemptKey& key, Attempt& attempt, TimeMs now);
  void save(const AttemptKey& key, Attempt& attempt, TimeMs now);
  void wake_at(const AttemptKey& key, Attempt& attempt, std::optional<TimeMs> when);
  void tell_trouble(const AttemptKey& key, Attempt& attempt, const CheckpointSaved& e);
  void save_due(TimeMs now);
  void save_all_waiting(TimeMs now);
  void end_saves(const AttemptKey& key, Attempt& attempt);
  // True: the attempt is `saving` now, and goes on when that ends.
  bool save_last(const AttemptKey& key, Attempt& attempt, TimeMs now);
  void saved_last(const AttemptKey& key, Attempt& attempt);
  void stop_saving(const AttemptKey& key, Attempt& attempt, EndReason reason);

  // gangs.cc
  void hold(const AttemptKey& key, Attempt& attempt);
  void now_ready(Attempt& attempt);
  void start_held(const StartOrder& order);
  void begin_start(const AttemptKey& key, Attempt& attempt, const std::string& master_addr,
                   uint16_t master_port);

  void stop_detached(TimeMs now);

  void requeue(const AttemptKey& key, Attempt& attempt);
  size_t small_in_flight() const;
  uint64_t waiting() const { return leased.size() + preparing + ready.size() + next_count; }
  bool collects_ends() const;
  void send_reports(TimeMs now);
  void send_report(std::vector<AttemptKey> keys, bool large, TimeMs now);
  void tell(SendReport report, TimeMs now);
  void upkeep(TimeMs now);
  bool heartbeat_due(TimeMs now) const;
  SendReport make_report(const std::vector<AttemptKey>& keys);
  std::vector<AttemptKey> holding() const;
  std::optional<TimeMs> next_deadline() const;
  std::string check_invariants() const;

  Attempt* find(const AttemptKey& key) {
    auto it = attempts.find(key);
    return it == attempts.end() ? nullptr : &it->second;
  }
};

// What a rank takes of the worker. Nothing stated is one cpu.
inline uint32_t cpus_of(const std::shared_ptr<const JobSpec>& spec) {
  return spec == nullptr || spec->resources.cpus_milli == 0 ? 1'000 : spec->resources.cpus_milli;
}

// A rank of a gang that was killed, or ran out of something, keeps its reason though it is told to
// stop with the others: it may be what the gang broke of. What ended by itself with an exit code
// was rather told by the other's end.
inline bool keeps_reason(const Attempt& attempt) {
  const EndReason reason = attempt.outcome.reason;
  return attempt.spec != nullptr && attempt.spec->parallel && uses_up_a_retry(reason) &&
         reason != EndReason::exit_code;
}

// Nobody wants what such an attempt left. (What a cancelled one had written its user may want.)
inline bool unwanted(EndReason reason) { return reason == EndReason::revoked; }

}  // namespace pesc::worker
