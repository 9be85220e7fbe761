// One attempt as the keeper holds it: its shim, its output, its deadline, its end. attempt.cc has
// its life, attempt_limits.cc what it may use, attempt_pace.cc how fast it may run.
#pragma once

#include <asio/io_context.hpp>
#include <asio/steady_timer.hpp>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "keeper.capnp.h"
#include "model/ids.h"
#include "model/outcome.h"
#include "runtime/worker/containment/containment.h"
#include "runtime/worker/containment/cpu_sets.h"
#include "runtime/worker/keeper/oom_watch.h"
#include "runtime/worker/keeper/output_stream.h"
#include "runtime/worker/keeper/plan.h"

namespace pesc::keeper {

// Memory of shims, kept for use by later ones.
class SlotPool {
 public:
  ~SlotPool();
  Slot* take();  // null: no memory
  void give_back(Slot* slot);

 private:
  std::vector<Slot*> free_;
};

// What an attempt needs of the process it lives in.
struct Surroundings {
  asio::io_context& io;
  SpillThread spill;
  SlotPool slots;
  bool restore_limit = false;  // the keeper has raised its own limit of open files
  rlimit open_files{};
  OomWatch oom;
  std::unique_ptr<containment::Containment> containment;  // from the worker's first hello on
  containment::CpuSets cores;
  uint32_t cpus_milli = 0;  // of the machine
};

struct AttemptEnd {
  EndReason reason = EndReason::succeeded;
  int32_t exit_code = 0;
  int32_t signal = 0;
  std::string detail;
  uint64_t duration_ms = 0, cpu_ms = 0, max_rss_bytes = 0, written_bytes = 0;
  uint32_t survivors = 0;
};

class Attempt : public std::enable_shared_from_this<Attempt> {
 public:
  using Finished = std::function<void(Attempt&)>;

  Attempt(Surroundings& around, protocol::keeper::Start::Reader start, Finished finished);
  ~Attempt();

  // Makes the shim; its process id, or 0 when that failed (then `finished` has been called).
  pid_t launch();
  // True once the program runs (or has run).
  bool is_up() const;
  // It runs on: not every program does.
  void note_lasting();
  void take_output_now();
  void stop(EndReason reason, std::string detail, std::chrono::milliseconds grace);
  // The shim has ended, and with it everything below it, unless it was killed (`clean` false).
  void on_shim_gone(bool clean);
  // Ends an attempt that was never started.
  void refuse(EndReason reason, std::string detail);

  // What no cgroup bounds is looked at now and then.
  enum class Watch { not_needed, now_and_then, often };
  Watch watch_needed() const;
  bool may_multiply() const;  // nothing bounds the number of its processes
  void look_at_usage();

  void freeze(bool frozen);
  // It gets `percent` of its cpus; 100 again: all of them.
  void throttle(uint32_t percent);

  const AttemptKey& key() const { return key_; }
  const std::string& lease() const { return lease_; }
  uint32_t most_of_job() const { return most_of_job_; }
  bool begun() const { return started_unix_ms_ != 0; }
  bool finished() const { return state_ == State::finished; }
  pid_t program_pid() const { return program_pid_; }
  bool binds_done() const { return binds_done_; }
  void note_started();
  bool announced = false;  // `started` was sent
  // 0: it has not begun.
  int64_t started_unix_ms() const { return started_unix_ms_; }
  const AttemptEnd& end() const { return end_; }
  const OutputStream& standard_output() const { return *output_; }
  const OutputStream& standard_error() const { return *error_; }

 private:
  using Clock = std::chrono::steady_clock;
  enum class State { fresh, running, draining, finished };

  bool open_pipes();
  void arm_limit();
  void arm(std::chrono::milliseconds after, void (Attempt::*action)());
  void on_time_limit();
  void end_tree();
  void tell_to_end();
  void conclude(bool clean);
  void conclude_wait_status(int status);
  void release_slot();

  // ---- attempt_limits.cc
  void enter_containment();
  void enter_late();
  void leave_containment(bool clean);
  void measure();
  void blame_memory(bool killed);
  bool contained() const;
  bool memory_is_held() const;

  // ---- attempt_pace.cc
  std::chrono::milliseconds elapsed() const;  // as it counts: at half the pace half of it
  void set_pace(uint32_t percent);
  void apply_pace();
  void on_duty();
  void suspend(bool suspended);
  void full_pace();

  Surroundings& around_;
  Finished finished_;
  AttemptKey key_;
  std::string lease_, working_directory_, problem_;
  containment::Limits limits_;
  std::chrono::milliseconds time_limit_, grace_;
  uint64_t output_limit_;
  uint32_t most_of_job_;
  std::unique_ptr<OwnedPlan> plan_;
  Slot* slot_ = nullptr;
  pid_t shim_ = 0, program_pid_ = 0;
  bool binds_done_ = false, told_to_end_ = false;
  State state_ = State::fresh;
  std::shared_ptr<OutputStream> output_, error_;
  int64_t started_unix_ms_ = 0;
  std::optional<asio::steady_timer> timer_;
  std::optional<EndReason> stop_reason_;
  std::string stop_detail_;
  AttemptEnd end_;

  containment::Group* group_ = nullptr;
  std::vector<int> cores_;
  bool entered_late_ = false;
  uint64_t sampled_peak_bytes_ = 0, oom_kills_ = 0;

  // Its time, counted up to `since_` and at `pace_` percent from then on.
  Clock::duration counted_{};
  Clock::time_point since_;
  uint32_t pace_ = 100, throttle_ = 100;
  bool frozen_ = false, suspended_ = false;
  std::optional<asio::steady_timer> duty_;
};

}  // namespace pesc::keeper
