// The shims of a keeper: those that run an attempt, and those that wait for one.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <unordered_map>
#include <vector>

#include "runtime/worker/keeper/shim.h"

namespace pesc::keeper {

class ShimPool {
 public:
  // Making a process and ending it costs a short rank a tenth of what it costs itself, so that a
  // shim is kept for the next attempt. `most_idle`: not more than these.
  explicit ShimPool(size_t most_idle);
  ~ShimPool();
  ShimPool(const ShimPool&) = delete;
  ShimPool& operator=(const ShimPool&) = delete;

  // Has the plan carried out by a shim that waits, or by a new one: its process id, or -errno.
  // `slot` is the attempt's until the shim is kept or gone.
  long start(const LaunchPlan& plan, Slot*& slot);
  // Becomes readable when an attempt has ended whose shim can take another; -1: none ever does.
  // Closed by who reads it.
  int ended_fd() const { return channel_.ended_fd; }
  // The shims of those that have ended since it was asked last, in their order.
  std::vector<pid_t> take_ended();
  // Nobody needs its slot any more: it waits for another attempt.
  void keep(pid_t shim);
  // It has been waited for. False: it was none of these.
  bool gone(pid_t shim);
  bool contains(pid_t shim) const { return shims_.contains(shim); }
  // Those that wait end.
  void end_idle();

 private:
  struct Shim {
    Slot* slot = nullptr;
    int control = -1;
  };

  long hand_over_to_idle(const LaunchPlan& plan, Slot*& slot);
  Slot* take_slot();
  void give_back(Slot* slot);
  void dismiss(Shim& shim);

  size_t most_idle_;
  ShimChannel channel_;
  EndedList ended_;
  std::unordered_map<pid_t, Shim> shims_;
  std::vector<pid_t> idle_;  // the one that waits since shortest last
  std::vector<Slot*> free_;
};

}  // namespace pesc::keeper
