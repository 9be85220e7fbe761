// The state monitor: looks at the machine as often as it must, and tells what the worker may do.
//
// While ranks run, twice a second, and at once when a file tells that somebody came; else every
// five seconds. On the loop's thread; a look costs well below a millisecond.
#pragma once

#include <sys/types.h>

#include <asio/steady_timer.hpp>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "rpc/loop.h"
#include "runtime/worker/owner/command.h"
#include "runtime/worker/owner/policy.h"
#include "runtime/worker/owner/probes.h"
#include "runtime/worker/owner/settings.h"
#include "runtime/worker/owner/watch.h"

namespace pesc::worker::owner {

class Monitor {
 public:
  // `changed`: never from within a call.
  Monitor(rpc::Loop& loop, Settings settings, std::function<void(const Verdict&)> changed);
  ~Monitor();
  Monitor(const Monitor&) = delete;
  Monitor& operator=(const Monitor&) = delete;

  // The first look; what it finds is in verdict(), not told.
  void start();
  const Verdict& verdict() const { return policy_.verdict(); }

  void set_ranks_run(bool run);
  // The process above all ranks, 0: none: what its tree uses is not others'.
  void set_keeper(pid_t pid) { keeper_ = pid; }
  void set_gpus(std::function<std::vector<GpuUse>()> gpus) { gpus_ = std::move(gpus); }
  void order_pause(bool paused);  // by an administrator

 private:
  void look_soon();
  void look();
  Sample sample();
  void read_load(Sample& sample);
  void ask_command();
  void schedule();
  bool needs_looks() const;

  rpc::Loop& loop_;
  const Settings settings_;
  const std::function<void(const Verdict&)> changed_;
  Policy policy_;
  Watch watch_;
  CpuProbe cpu_;
  std::optional<PresenceCommand> command_;
  std::function<std::vector<GpuUse>()> gpus_;
  asio::steady_timer timer_, command_timer_;
  pid_t keeper_ = 0;
  bool ranks_run_ = false, paused_ = false, soon_ = false;
  int64_t looked_ms_ = 0;
  int64_t next_load_ms_ = 0;
  CommandVerdict said_ = CommandVerdict::none;
  std::string command_error_, command_logged_;
  std::string logged_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

// Monday 00:00 is 0; local time.
uint32_t local_minute_of_week(int64_t unix_ms);

}  // namespace pesc::worker::owner
