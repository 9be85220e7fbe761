// A worker's machine: the daemon with the real core, its keeper, its link to the coordinator.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "runtime/worker/core/core.h"
#include "tests/sim/coordinator_host.h"
#include "tests/sim/keeper.h"
#include "tests/sim/network.h"
#include "tests/sim/play.h"

namespace pesc::sim {

class WorkerHost {
 public:
  WorkerHost(Play& play, CoordinatorHost& coordinator, const WorkerPlan& plan, size_t index);

  void start_daemon();
  // Faults. The machine comes back by itself, but for vanish().
  void crash_daemon(TimeMs down_ms);
  void reboot(TimeMs down_ms);
  void lose_keeper();
  // Nothing new meanwhile; what runs runs on, or goes elsewhere.
  void owner_comes(TimeMs stay_ms, bool vacates);
  void drain();  // an orderly stop; the daemon starts again when it is done
  void cut_link();
  void go_away(TimeMs away_ms);
  void jump_clock(TimeMs by_ms);  // the machine slept
  void jump_wall_clock(TimeMs by_ms) { wall_offset_ += by_ms; }
  void fill_disk(TimeMs for_ms);
  // One of its GPUs falls ill, or others use a part of it; for a while.
  void trouble_gpu(Random& random);
  void take_gpu(Random& random);
  void vanish();
  void heal();

  bool gone() const { return gone_; }
  // What it still has that nobody wants any more shows here.
  std::string leftovers() const;
  const WorkerPlan& plan() const { return plan_; }
  // Its daemon lives, and the keeper really runs this.
  bool runs(const AttemptKey& key) const;
  std::vector<AttemptKey> running() const;  // by its keeper
  // That it holds, while it could be reached; and since when.
  size_t held() const { return core_ == nullptr ? 0 : core_->holding().size(); }
  TimeMs reached_since() const { return reached_since_; }

 private:
  void step(const worker::Event& event);
  // Like step(), unless the daemon has ended since.
  void step_later(TimeMs delay_ms, worker::Event event);
  void arm_timer();
  void try_connect();
  void plan_connect();
  void on_message(const Message& message);
  void on_attach_answer(const Message& message);
  void on_report_answer(const Message& message);
  void on_checkpoint_answer(const Message& message);
  void on_error(const Message& message);
  TimeMs now() const { return play_.world.now() + boot_offset_; }
  // What the attempt begins from, or why it cannot.
  absl::StatusOr<std::optional<Save>> restore_save(const worker::Prepare& action);
  void offer(const AttemptKey& key, const SaveBlobs& blobs, uint64_t saved_ms);
  void not_saved(const AttemptKey& key, std::string why);
  void drop_connection();
  void stop_daemon();

  void perform(const worker::Prepare& action);
  void perform(const worker::CancelPrepare&) {}
  void perform(const worker::Start& action);
  void perform(const worker::ChoosePort& action);
  void perform(const worker::SaveCheckpoint& action);
  void perform(const worker::Stop& action);
  void perform(const worker::Pack& action);
  void perform(const worker::SendReport& action);
  void perform(const worker::Forget& action);
  void perform(const worker::Drained& action);
  void send_report(const worker::SendReport& action);
  Gpu* any_gpu(Random& random);
  void change_gpu_back(TimeMs after_ms, const std::string& uuid, std::function<void(Gpu&)> change);

  Play& play_;
  CoordinatorHost& coordinator_;
  const WorkerPlan& plan_;
  const size_t index_;
  Keeper keeper_;
  std::unique_ptr<worker::Core> core_;
  uint64_t life_ = 0;
  uint64_t timer_ = 0;
  bool gone_ = false;
  bool unreachable_ = false;
  uint64_t away_ = 0;

  std::shared_ptr<Connection> connection_;
  bool attached_ = false;
  uint64_t connections_ = 0;
  uint64_t last_call_ = 0;
  struct Call {
    std::vector<AttemptKey> sent;
    std::optional<std::vector<Gpu>> gpus;  // told with it
  };
  std::map<uint64_t, Call> calls_;
  std::vector<Gpu> told_gpus_;                // in this session
  std::map<AttemptKey, Save> restored_;       // of attempts that are not started yet
  std::map<AttemptKey, BlobRef> last_saved_;  // as the coordinator has it
  std::map<uint64_t, std::pair<AttemptKey, BlobRef>> offers_;
  TimeMs boot_offset_ = 0, wall_offset_ = 0;
  TimeMs reached_since_ = 0;
  bool disk_full_ = false;
  TimeMs last_timer_ = -1;
  uint32_t timers_at_once_ = 0;
};

}  // namespace pesc::sim
