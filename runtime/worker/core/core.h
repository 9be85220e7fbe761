// The worker's decisions, as a deterministic machine: which attempts to prepare, start, stop, pack,
// report and forget. No clock, thread, I/O or randomness. Not thread-safe.
//
// Life of an attempt: leased -> preparing (inputs fetched, directories made) -> ready (waits for
// cpus) -> running (with the keeper) -> packing -> reporting -> acknowledged, then its directory is
// deleted. A stop ends it from any state. Nothing is deleted before it is acknowledged.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "model/job_spec.h"
#include "model/outcome.h"

namespace pesc::worker {

using TimeMs = int64_t;

struct CoreConfig {
  uint32_t cpus_milli = 1000;
  uint32_t max_preparing = 8;         // attempts prepared at once
  uint64_t prepare_retry_ms = 2'000;  // after a failure that may pass (connection lost)
  uint32_t max_prepare_tries = 5;
};

// ---- events -------------------------------------------------------------------------------------

struct Connected {
  uint64_t heartbeat_ms = 5'000;
};
struct Disconnected {};
// Also for the stops that come with the answers to attach and report: those have no number (0).
struct UpdateReceived {
  uint64_t number = 0;
  struct Lease {
    AttemptKey key;
    std::shared_ptr<const JobSpec> spec;
  };
  std::vector<Lease> leases;
  struct Stop {
    AttemptKey key;
    EndReason reason = EndReason::revoked;
  };
  std::vector<Stop> stop;
};
struct Prepared {
  AttemptKey key;
};
struct PrepareFailed {
  AttemptKey key;
  EndReason reason = EndReason::inputs_unavailable;
  std::string detail;
  bool may_pass = false;
};
// What the keeper says. `outcome.output` is still empty.
struct Started {
  AttemptKey key;
  int64_t unix_ms = 0;
};
struct Exited {
  AttemptKey key;
  AttemptOutcome outcome;
};
struct Packed {
  AttemptKey key;
  BlobRef output;
  std::vector<std::string> uncollected;
};
struct PackFailed {
  AttemptKey key;
  EndReason reason = EndReason::disk_full;
  std::string detail;
};
struct Progressed {
  AttemptKey key;
  double fraction = 0;
  std::string text;
};
// An answer to SendReport: what the coordinator has made durable or does not want. Attempts of the
// report that it does not name are sent again with the next heartbeat. Answers of an ended session
// are not to be stepped.
struct Acknowledged {
  std::vector<AttemptKey> keys;
};
// The report was refused, or could not be sent (an upload failed): its attempts are sent again with
// the next heartbeat. Also for an answer that acknowledges none of them.
struct ReportFailed {
  std::vector<AttemptKey> keys;
  std::string detail;
};
// At start: what the keeper still has. Running attempts stay, finished ones are packed.
struct Adopted {
  AttemptKey key;
  std::shared_ptr<const JobSpec> spec;
  bool running = false;
  AttemptOutcome outcome;
};
// The keeper died with all it had: every running attempt is lost.
struct KeeperLost {};
struct DrainRequested {};  // no new starts; ends when nothing is left (SIGTERM to the worker)
struct TimerFired {};

using Event = std::variant<Connected, Disconnected, UpdateReceived, Prepared, PrepareFailed,
                           Started, Exited, Packed, PackFailed, Progressed, Acknowledged,
                           ReportFailed, Adopted, KeeperLost, DrainRequested, TimerFired>;

// ---- actions
// --------------------------------------------------------------------------------------

struct Prepare {
  AttemptKey key;
  std::shared_ptr<const JobSpec> spec;
};
struct CancelPrepare {
  AttemptKey key;
};
struct Start {
  AttemptKey key;
  std::shared_ptr<const JobSpec> spec;
};
struct Stop {
  AttemptKey key;
  EndReason reason = EndReason::revoked;
  uint64_t grace_ms = 0;
};
struct Pack {
  AttemptKey key;
  std::shared_ptr<const JobSpec> spec;
  AttemptOutcome outcome;
};
// Upload outputs too large to travel inline (over 64 KiB; such an attempt has a report to itself),
// then report with what holding() says by then: a list that is older than a report before it could
// bring back an attempt which has ended. Also the heartbeat (may be empty). What was not answered
// when the connection ends is dropped: the core sends it again in the next session.
struct SendReport {
  std::vector<AttemptKey> holding;
  uint64_t last_update = 0;
  struct Finished {
    AttemptKey key;
    AttemptOutcome outcome;
  };
  std::vector<Finished> finished;
  std::vector<Progressed> progress;
};
// Delete its directory, forget it at the keeper, drop its packed output.
struct Forget {
  AttemptKey key;
};
struct Drained {};  // after DrainRequested: nothing is left

using Action = std::variant<Prepare, CancelPrepare, Start, Stop, Pack, SendReport, Forget, Drained>;

struct Step {
  std::vector<Action> actions;
};

enum class AttemptState : uint8_t {
  leased,
  preparing,
  ready,
  starting,
  running,
  packing,
  finished
};

struct AttemptView {
  AttemptKey key;
  AttemptState state = AttemptState::leased;
  std::shared_ptr<const JobSpec> spec;
};

// Planted bugs, for the simulator only.
enum class PlantedBug : uint8_t {
  none,
  forget_before_acknowledged,
  start_beyond_cpus,
  ignore_stop
};

class Core {
 public:
  explicit Core(CoreConfig config);
  ~Core();
  Core(const Core&) = delete;
  Core& operator=(const Core&) = delete;

  Step step(const Event& event, TimeMs now);
  std::optional<TimeMs> next_deadline() const;
  std::string check_invariants() const;

  std::vector<AttemptKey> holding() const;  // every attempt not yet acknowledged
  std::vector<AttemptView> attempts() const;
  uint32_t cpus_used_milli() const;  // by starting and running attempts
#ifdef PESC_PLANTED_BUGS
  void plant(PlantedBug bug);
#endif

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace pesc::worker
