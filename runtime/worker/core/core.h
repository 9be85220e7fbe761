// The worker's decisions, as a deterministic machine: which attempts to prepare, start, stop, pack,
// report and forget. No clock, thread, I/O or randomness. Not thread-safe.
//
// Life of an attempt: leased -> preparing (inputs fetched, directories made) -> ready (waits for
// cpus) -> (of a gang: held, until all of the gang are) -> running (with the keeper) -> (saving its
// last checkpoint) -> packing -> reporting -> acknowledged, then its directory is deleted. A stop
// ends it from any state. Nothing is deleted before it is acknowledged.
//
// While all cpus are taken, the keeper is given what begins next of a job that it runs (next): it
// begins one of them as soon as one of that job ends, before the worker hears of it.
//
// Of a job whose program is built here, a rank whose build is not there yet leaves the preparation
// (building), so that other jobs' ranks are prepared meanwhile, and begins it again afterwards.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "model/checkpoint.h"
#include "model/job_spec.h"
#include "model/outcome.h"

namespace pesc::worker {

using TimeMs = int64_t;

// What an attempt was given beside its cpus.
struct Grant {
  uint64_t memory_limit_bytes = 0;      // it is ended beyond; 0: none
  std::vector<std::string> gpus;        // uuids: those and no others
  uint64_t gpu_memory_limit_bytes = 0;  // on each of them: it is ended beyond; 0: none
};

// The whole gang is ready.
struct StartOrder {
  AttemptKey key;
  std::string master_addr;
  uint16_t master_port = 0;
};

struct CoreConfig {
  uint32_t cpus_milli = 1000;
  uint32_t max_preparing = 8;         // attempts prepared at once
  uint64_t prepare_retry_ms = 2'000;  // after a failure that may pass (connection lost)
  uint32_t max_prepare_tries = 5;
  // Out of contact for this long, it stops what runs. 0: never.
  uint64_t detached_limit_ms = 7ull * 24 * 3'600'000;
  // After a save that took t, the next begins no sooner than this many times t later: checkpoints
  // never cost a rank more than a few percent.
  uint32_t checkpoint_rest_factor = 20;
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
    CheckpointRef checkpoint;  // to begin from
    bool hold = false;         // of a gang: started by a StartOrder
    uint32_t local_rank = 0, local_world_size = 1;
    Grant grant;
  };
  std::vector<Lease> leases;
  struct Stop {
    AttemptKey key;
    EndReason reason = EndReason::revoked;
    std::string detail = {};  // why, where the reason alone does not say it
  };
  std::vector<Stop> stop;
  std::vector<StartOrder> start;
};
struct Prepared {
  AttemptKey key;
};
struct PrepareFailed {
  AttemptKey key;
  EndReason reason = EndReason::inputs_unavailable;
  std::string detail;
  bool may_pass = false;
  // Of build_failed.
  int32_t exit_code = -1;
  BlobRef output = {};  // its log
};
// What the preparation lacks is being built.
struct BuildAwaited {
  AttemptKey key;
  std::string what;  // for people
};
// It is there: the preparation begins again.
struct BuildDone {
  AttemptKey key;
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
// The program says that its checkpoint_dir is complete now.
struct CheckpointMarked {
  AttemptKey key;
};
// The answer to SaveCheckpoint: durable at the coordinator, found unchanged, or not to be had now
// (`detail` says why: away, the directory changed while it was read…).
struct CheckpointSaved {
  AttemptKey key;
  bool saved = false;
  std::string detail;
};
// The machine slept, or this process was paused: for so long nothing was done, nor cost anything.
struct WasAbsent {
  TimeMs ms = 0;
};
// The answer to ChoosePort.
struct PortChosen {
  AttemptKey key;
  uint16_t port = 0;
};
struct Progressed {
  AttemptKey key;
  double fraction = 0;
  std::string text;
  // In a report: what is wrong although it runs. There a fraction below 0 says that the program has
  // said nothing new.
  std::string trouble = {};
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
  // Its program has said `checkpoint`; nobody knows whether that one was saved.
  bool marked = false;
};
// The keeper died with all it had: every running attempt is lost.
struct KeeperLost {};
// The keeper is there; whether it knows how to begin what comes next by itself (one that was
// started by an older worker may not).
struct KeeperFound {
  bool holds_next = false;
};
// Why no rank may be started now (the machine's owner has it…); empty: ranks may. What runs runs
// on: whether it is slowed down, frozen or stopped is the shell's. What had not begun is given
// back.
struct BusyChanged {
  std::string busy;
};
// What goes with every report has changed: the next one is sent at once.
struct ReportWanted {};
struct DrainRequested {};  // no new starts; ends when nothing is left (SIGTERM to the worker)
struct TimerFired {};

using Event =
    std::variant<Connected, Disconnected, UpdateReceived, Prepared, PrepareFailed, BuildAwaited,
                 BuildDone, Started, Exited, Packed, PackFailed, CheckpointMarked, CheckpointSaved,
                 WasAbsent, PortChosen, Progressed, Acknowledged, ReportFailed, Adopted, KeeperLost,
                 KeeperFound, BusyChanged, ReportWanted, DrainRequested, TimerFired>;

// ---- actions
// --------------------------------------------------------------------------------------

struct Prepare {
  AttemptKey key;
  std::shared_ptr<const JobSpec> spec;
  CheckpointRef checkpoint;
  std::vector<std::string> gpus = {};  // uuids that it will have
};
struct CancelPrepare {
  AttemptKey key;
};
struct Start {
  AttemptKey key;
  std::shared_ptr<const JobSpec> spec;
  // Of a gang; else master_port is 0.
  std::string master_addr;
  uint16_t master_port = 0;
  uint32_t local_rank = 0, local_world_size = 1;
  Grant grant;
  // It begins when fewer of its job run there than these: those that do are told with Exited, in
  // the order in which they were given. 0: at once.
  uint32_t most_of_job = 0;
};
// Rank 0 of a gang is prepared: find a port for it.
struct ChoosePort {
  AttemptKey key;
};
// Snapshot checkpoint_dir now, then upload what the coordinator lacks, then offer it. At most one
// at a time of an attempt.
struct SaveCheckpoint {
  AttemptKey key;
};
struct Stop {
  AttemptKey key;
  EndReason reason = EndReason::revoked;
  uint64_t grace_ms = 0;
  bool unless_begun = false;  // what the keeper has begun meanwhile runs on
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
  struct Ready {
    AttemptKey key;
    uint16_t master_port = 0;
  };
  std::vector<Ready> ready;  // every held attempt that is prepared, until it is started
};
// Delete its directory, forget it at the keeper, drop its packed output.
struct Forget {
  AttemptKey key;
};
struct Drained {};  // after DrainRequested: nothing is left

using Action = std::variant<Prepare, CancelPrepare, Start, ChoosePort, SaveCheckpoint, Stop, Pack,
                            SendReport, Forget, Drained>;

struct Step {
  std::vector<Action> actions;
};

enum class AttemptState : uint8_t {
  leased,
  preparing,
  building,
  ready,
  held,  // of a gang: its cpus are taken, it waits for the others
  next,  // with the keeper, which begins it when one of its job ends
  starting,
  running,
  saving,  // has ended, and its last checkpoint is on its way
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
  uint32_t cpus_used_milli() const;  // by held, starting and running attempts
  // As BusyChanged said it last: goes with every report.
  const std::string& busy() const;
#ifdef PESC_PLANTED_BUGS
  void plant(PlantedBug bug);
#endif

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace pesc::worker
