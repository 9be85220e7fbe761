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

struct Attempt {
  AttemptState state = AttemptState::leased;
  uint64_t order = 0;  // of its lease: attempts are prepared and started in this order
  std::shared_ptr<const JobSpec> spec;
  uint32_t prepare_tries = 0;
  std::optional<EndReason> stop;  // asked for while it was starting, running or packing
  AttemptOutcome outcome;         // once it has ended
  uint64_t report = 0;            // the report in flight that carries its end; 0: none
  Progressed progress;            // the newest
  bool progress_fresh = false;    // not sent yet
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
  std::map<uint64_t, AttemptKey> leased, ready;
  std::set<std::pair<TimeMs, AttemptKey>> retry_at;
  uint32_t preparing = 0;
  uint32_t cpus_used_milli = 0;
  // What adoption alone put above the limit (a worker restarted with fewer cpus) is no fault.
  uint32_t adopted_excess_milli = 0;
  bool draining = false, drained = false;

  bool connected = false;
  uint64_t heartbeat_ms = 5'000;
  TimeMs next_heartbeat = 0;
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
  void on(const Started& e, TimeMs now);
  void on(const Exited& e, TimeMs now);
  void on(const Packed& e, TimeMs now);
  void on(const PackFailed& e, TimeMs now);
  void on(const CheckpointMarked& e, TimeMs now);
  void on(const CheckpointSaved& e, TimeMs now);
  void on(const PortChosen& e, TimeMs now);
  void on(const Progressed& e, TimeMs now);
  void on(const Acknowledged& e, TimeMs now);
  void on(const ReportFailed& e, TimeMs now);
  void on(const Adopted& e, TimeMs now);
  void on(const KeeperLost& e, TimeMs now);
  void on(const DrainRequested& e, TimeMs now);
  void on(const TimerFired& e, TimeMs now);
  // After each event: starts, prepares and reports whatever it made possible.
  void advance(TimeMs now);

  void add_lease(const UpdateReceived::Lease& lease);
  void stop_attempt(const UpdateReceived::Stop& stop);
  void end_before_start(const AttemptKey& key, Attempt& attempt, EndReason reason,
                        std::string detail);
  void leave_state(const AttemptKey& key, Attempt& attempt);
  void finish(const AttemptKey& key, Attempt& attempt);
  void pack_or_finish(const AttemptKey& key, Attempt& attempt);
  void start_ready();
  void prepare_leased();

  void requeue(const AttemptKey& key, Attempt& attempt);
  void send_reports(TimeMs now);
  void send_report(std::vector<AttemptKey> keys, bool large, TimeMs now);
  void heartbeat(TimeMs now);
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

// Nobody wants what such an attempt left.
inline bool unwanted(EndReason reason) {
  return reason == EndReason::cancelled || reason == EndReason::revoked;
}

}  // namespace pesc::worker
