#include "runtime/worker/keeper/shim_pool.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <new>
#include <utility>

#include "runtime/worker/keeper/raw_syscalls.h"

namespace pesc::keeper {
namespace {

constexpr size_t kSlotsKept = 128;

}  // namespace

ShimPool::ShimPool(size_t most_idle) : most_idle_(most_idle) {
  channel_.list = &ended_;
  // Where the plan cannot be seen by a shim that is there already, each has one attempt.
  if (PESC_SHARES_MEMORY) channel_.ended_fd = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
}

ShimPool::~ShimPool() {
  for (auto& [pid, shim] : shims_) dismiss(shim);
  for (Slot* slot : free_) ::munmap(slot, sizeof(Slot));
}

Slot* ShimPool::take_slot() {
  if (!free_.empty()) {
    Slot* slot = free_.back();
    free_.pop_back();
    return slot;
  }
  void* memory = ::mmap(nullptr, sizeof(Slot), PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return memory == MAP_FAILED ? nullptr : new (memory) Slot;
}

void ShimPool::give_back(Slot* slot) {
  if (free_.size() < kSlotsKept) {
    free_.push_back(slot);
  } else {
    ::munmap(slot, sizeof(Slot));
  }
}

// One that was killed meanwhile does not take it: then the next is asked.
long ShimPool::hand_over_to_idle(const LaunchPlan& plan, Slot*& slot) {
  while (!idle_.empty()) {
    const pid_t pid = idle_.back();
    idle_.pop_back();
    Shim& shim = shims_.at(pid);
    if (hand_over(plan, *shim.slot, shim.control)) {
      slot = shim.slot;
      return pid;
    }
    dismiss(shim);
  }
  return 0;
}

long ShimPool::start(const LaunchPlan& plan, Slot*& slot) {
  long pid = hand_over_to_idle(plan, slot);
  if (pid > 0) return pid;
  Slot* fresh = take_slot();
  if (fresh == nullptr) return -ENOMEM;
  int ends[2] = {-1, -1};
  ShimChannel channel = channel_;
  // Without it the shim has this attempt alone.
  if (channel.ended_fd >= 0 && ::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0) {
    channel.control_fd = ends[1];
  }
  pid = start_shim(plan, *fresh, channel);
  if (ends[1] >= 0) ::close(ends[1]);
  if (pid < 0) {
    if (ends[0] >= 0) ::close(ends[0]);
    give_back(fresh);
    return pid;
  }
  fresh->pid = static_cast<pid_t>(pid);
  shims_[fresh->pid] = {fresh, ends[0]};
  slot = fresh;
  return pid;
}

std::vector<pid_t> ShimPool::take_ended() {
  std::vector<pid_t> result;
  for (Slot* slot = ended_.exchange(nullptr); slot != nullptr; slot = slot->next_ended) {
    result.push_back(slot->pid);
  }
  std::reverse(result.begin(), result.end());
  return result;
}

void ShimPool::keep(pid_t shim) {
  auto found = shims_.find(shim);
  if (found == shims_.end()) return;
  if (idle_.size() >= most_idle_) return dismiss(found->second);
  idle_.push_back(shim);
}

bool ShimPool::gone(pid_t shim) {
  auto found = shims_.find(shim);
  if (found == shims_.end()) return false;
  dismiss(found->second);
  give_back(found->second.slot);
  shims_.erase(found);
  std::erase(idle_, shim);
  return true;
}

void ShimPool::end_idle() {
  for (const pid_t pid : std::exchange(idle_, {})) dismiss(shims_.at(pid));
}

// It ends when it waits and this is closed. Its memory is its own until it has been waited for.
void ShimPool::dismiss(Shim& shim) {
  if (shim.control >= 0) ::close(std::exchange(shim.control, -1));
}

}  // namespace pesc::keeper
