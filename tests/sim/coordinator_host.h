// The coordinator's process: the real core behind the shell's real turn, and the real journal on a
// simulated disk. It is killed, loses its power, its disk fills up, and its clock jumps.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <vector>

#include "runtime/coordinator/core/core.h"
#include "runtime/coordinator/shell/journal.h"
#include "runtime/coordinator/shell/turn.h"
#include "tests/sim/blobs.h"
#include "tests/sim/disk/sqlite_vfs.h"
#include "tests/sim/network.h"
#include "tests/sim/play.h"

namespace pesc::sim {

class CoordinatorHost : private coordinator::TurnHost {
 public:
  explicit CoordinatorHost(Play& play);
  ~CoordinatorHost() override;

  void start();
  // With everything that runs: the transaction under way is on the disk, in part, or not.
  void crash(bool power);
  // It dies in the middle of its next transaction, or between that and its answers.
  void crash_in_next_commit(bool power, TimeMs down_ms);
  void fill_disk(TimeMs for_ms);
  void fail_syncs() { disk_.fail_syncs(1); }
  void damage_at_next_start() { damage_ = true; }
  void jump_clock(TimeMs by_ms);  // the machine slept
  void jump_wall_clock(TimeMs by_ms) { wall_offset_ += by_ms; }
  void heal();
  bool up() const { return turn_ != nullptr; }

  void accept(const std::shared_ptr<Connection>& connection);
  using Answered = std::function<void(const absl::Status& status, uint32_t count)>;
  // `event` with `request` filled in; `answered` is not called when it crashes before.
  uint64_t next_request() { return ++last_request_; }
  void call(uint64_t request, coordinator::Event event, Answered answered);
  // Its store of blobs, as long as it is up.
  Blobs* blobs() { return up() ? &blobs_ : nullptr; }

  // Nothing waits to be committed: the core and the disk must agree.
  bool quiet() const { return up() && !committing_ && turn_->health().ok(); }
  void check_agreement();
  void check_replay();  // what is on the disk makes the same core again
  std::string why(JobId id) const;

 private:
  struct Call {
    std::shared_ptr<Connection> connection;
    uint64_t number = 0;
    std::set<AttemptKey> succeeded;
    AttemptKey key;  // of an offered checkpoint
    BlobRef manifest;
  };
  using Records = std::vector<coordinator::Record>;
  using MaybeCore = absl::StatusOr<std::unique_ptr<coordinator::Core>>;

  // coordinator::TurnHost
  TimeMs now() override { return play_.world.now() + boot_offset_; }
  int64_t wall_ms() override { return play_.world.unix_ms() + wall_offset_; }
  void schedule() override;
  void commit(const coordinator::Batch& batch) override;
  void restore(uint64_t delay_ms) override;
  void perform(coordinator::Action action) override;
  void released(const coordinator::Batch& batch) override;
  void refuse(uint64_t request, const absl::Status& status) override;
  void state_lost(const absl::Status& reason) override;
  void arm(TimeMs deadline) override;

  void post(coordinator::Event event);
  void plan_timer();
  bool open_journal();
  MaybeCore restore_core();
  void settle_unknown(const Records& rows);
  void write_batch(Records records);
  void committed(const Records& records);
  void collect(const coordinator::Record& record);
  void count(const coordinator::Record& record);
  void check_core();
  void end_process(bool power);
  // Changes a byte of a row of some job; returns the job, if there was one.
  std::optional<JobId> flip_a_byte();

  void on_message(const std::shared_ptr<Connection>& connection, const Message& message);
  void on_attach(const std::shared_ptr<Connection>& connection, const Message& message);
  void on_report(const std::shared_ptr<Connection>& connection, const Message& message);
  void on_checkpoint(const std::shared_ptr<Connection>& connection, const Message& message);
  std::optional<Call> take_call(uint64_t request);

  void release_one(const coordinator::Answer& action);
  void release_one(const coordinator::AnswerAttach& action);
  void release_one(const coordinator::AnswerReport& action);
  void release_one(const coordinator::AnswerCheckpoint& action);
  void release_one(const coordinator::AnswerDrain& action);
  void release_one(coordinator::SendUpdate action);
  void release_one(const coordinator::CloseSession& action);
  void release_one(const coordinator::JobChanged&) {}

  Play& play_;
  SimDisk disk_;
  SqliteVfs vfs_{disk_};
  std::unique_ptr<coordinator::Journal> journal_;
  std::unique_ptr<coordinator::Turn> turn_;
  Blobs blobs_;        // durable as soon as they are put
  uint64_t life_ = 0;  // grows with each crash: what was planned before it does not happen
  bool scheduled_ = false, committing_ = false;
  Records in_commit_;
  Records unknown_;                    // of a transaction that may have become durable
  std::optional<bool> die_in_commit_;  // by a power failure
  TimeMs down_after_commit_ms_ = 0;
  bool damage_ = false, dropping_ = false;
  std::optional<TimeMs> armed_;
  uint64_t timer_ = 0, filled_ = 0;
  TimeMs boot_offset_ = 0, wall_offset_ = 0;
  TimeMs last_turn_ = -1;
  uint32_t turns_at_once_ = 0;
  uint64_t batches_ = 0;

  uint64_t last_request_ = 0, last_session_ = 0;  // never reused, over crashes too
  std::map<uint64_t, Answered> answers_;
  std::map<uint64_t, Call> calls_;
  std::map<uint64_t, std::shared_ptr<Connection>> sessions_;
  std::map<uint64_t, WorkerId> session_workers_;
  std::set<std::shared_ptr<Connection>, ByNumber> connections_;  // also those not attached yet
};

}  // namespace pesc::sim
