#include "runtime/worker/keeper/shim.h"

#include <fcntl.h>
#include <linux/close_range.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>

#include "runtime/worker/keeper/launch.h"
#include "runtime/worker/keeper/raw_syscalls.h"

namespace pesc::keeper {
namespace {

// Everything here runs with the keeper's memory shared: raw system calls only, state in the slot.

constexpr uint64_t bit(int signal) { return uint64_t{1} << (signal - 1); }
constexpr uint64_t kAwaited = bit(SIGCHLD) | bit(SIGTERM) | bit(kEndTreeSignal);

// A process in an uninterruptible wait, or of another user, cannot be ended: after this many
// rounds without progress the attempt is reported all the same, with their number.
constexpr int kMaxIdleRounds = 500;
constexpr long kRoundNs = 20'000'000;

void close_from(long first) {
  if (raw::call(SYS_close_range, first, ~0u, 0) != -ENOSYS) return;
  for (long fd = first; fd < 4096; ++fd) raw::call(SYS_close, fd);
}

// The signal that came, or a negative number after `timeout_ns` (0: none).
long await_signal(long timeout_ns) {
  timespec timeout{0, timeout_ns};
  return raw::call(SYS_rt_sigtimedwait, &kAwaited, nullptr, timeout_ns > 0 ? &timeout : nullptr,
                   static_cast<long>(sizeof(kAwaited)));
}

// Collects every process that has ended. True when none is left.
bool reap(Slot& slot, bool& progress) {
  for (;;) {
    int status = 0;
    long pid = raw::call(SYS_wait4, -1, &status, static_cast<long>(WNOHANG | __WALL), nullptr);
    if (pid == -EINTR) continue;
    if (pid == -ECHILD) return true;
    if (pid <= 0) return false;
    progress = true;
    if (pid == slot.report.program) {
      slot.report.wait_status = status;
      slot.program_ended = 1;
    } else if (slot.ending != 0) {
      ++slot.report.survivors;
    }
  }
}

bool write_file(const char* path, const char* text) {
  if (path == nullptr) return false;
  long file = raw::call(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CLOEXEC, 0);
  if (file < 0) return false;
  long written = raw::call(SYS_write, file, text, raw::length(text));
  raw::call(SYS_close, file);
  return written > 0;
}

// Ends all processes below this one. Stopped first, then killed: a fork bomb would otherwise make
// them as fast as they are ended.
void end_tree(Slot& slot, pid_t self) {
  bool progress = false;
  int idle_rounds = 0;
  slot.ending = slot.program_ended;
  while (!reap(slot, progress)) {
    slot.ending = 1;
    idle_rounds = progress ? 0 : idle_rounds + 1;
    progress = false;
    long count = 0;
    // What is not gone by that has left its cgroup, which root can.
    if (idle_rounds > 0 || !write_file(slot.plan->cgroup_kill, "1")) {
      count = stop_tree(self, slot.pids, kTreeCapacity);
      for (long i = 0; i < count; ++i) {
        raw::call(SYS_kill, static_cast<long>(slot.pids[i]), static_cast<long>(SIGKILL));
      }
    }
    // A frozen version 1 cgroup does not even die by SIGKILL.
    write_file(slot.plan->freezer_state, "THAWED");
    write_file(slot.plan->cgroup_freeze, "0");
    if (idle_rounds > kMaxIdleRounds) {
      slot.report.stuck = static_cast<uint32_t>(count);
      return;
    }
    if (reap(slot, progress)) return;
    await_signal(kRoundNs);
  }
}

void supervise(Slot& slot, pid_t self) {
  for (;;) {
    long signal = await_signal(0);
    if (signal == SIGTERM || signal == kEndTreeSignal) return end_tree(slot, self);
    bool progress = false;
    bool none_left = reap(slot, progress);
    if (none_left) return;
    if (slot.program_ended == 0) continue;
    // During a stop the others have what is left of the grace as well: the program may be a shell
    // that died of SIGTERM while its child is still saving a checkpoint.
    if (slot.report.stopping.load() == 0) return end_tree(slot, self);
  }
}

void record_usage(Report& report) {
  rusage usage{};
  raw::call(SYS_getrusage, static_cast<long>(RUSAGE_CHILDREN), &usage);
  report.cpu_us = static_cast<uint64_t>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000 +
                  static_cast<uint64_t>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
  report.max_rss_bytes = static_cast<uint64_t>(usage.ru_maxrss) * 1024;
  report.written_bytes = static_cast<uint64_t>(usage.ru_oublock) * 512;
}

// Made in its cgroup rather than moved there: that costs next to nothing. Before Linux 5.7, and
// where a container's filter refuses the call, it moves itself.
long spawn_program(Slot& slot) {
  char* stack_top = slot.child_stack + sizeof(slot.child_stack);
  slot.enters_by_hand = slot.plan->cgroup != nullptr ? 1 : 0;
  if (slot.plan->cgroup != nullptr) {
    long group =
        raw::call(SYS_openat, AT_FDCWD, slot.plan->cgroup, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    if (group >= 0) {
      slot.enters_by_hand = 0;
      long pid = raw::spawn_into(group, slot.child_stack, stack_top, run_program, &slot);
      raw::call(SYS_close, group);
      if (pid >= 0) return pid;
      slot.enters_by_hand = 1;
    }
  }
  return raw::spawn(CLONE_VFORK | SIGCHLD, stack_top, run_program, &slot);
}

bool start_program(Slot& slot) {
  Report& report = slot.report;
  long pid = spawn_program(slot);
  if (pid < 0) {
    report.stage = Stage::fork;
    report.error = static_cast<int32_t>(-pid);
    return false;
  }
  if (report.error == 0) {
    report.program = static_cast<int32_t>(pid);
    return true;
  }
  raw::call(SYS_wait4, pid, nullptr, static_cast<long>(__WALL), nullptr);
  return false;
}

int run_shim(void* argument) {
  auto& slot = *static_cast<Slot*>(argument);
  const LaunchPlan& plan = *slot.plan;
  raw::call(SYS_setsid);
  raw::call(SYS_prctl, PR_SET_CHILD_SUBREAPER, 1L, 0L, 0L, 0L);
  raw::call(SYS_prctl, PR_SET_PDEATHSIG, static_cast<long>(SIGTERM), 0L, 0L, 0L);
  raw::call(SYS_prctl, PR_SET_NAME, "pesc-shim", 0L, 0L, 0L);
  if (raw::call(SYS_getppid) != plan.keeper) return 1;  // died before the signal was asked for
  raw::call(SYS_dup3, plan.stdout_fd, 1, 0);
  raw::call(SYS_dup3, plan.stderr_fd, 2, 0);
  close_from(3);
  if (!start_program(slot)) {
    slot.report.phase.store(Phase::failed);
    return 0;
  }
  // The pipes must reach their end when the program's tree has ended, not when the shim has.
  raw::call(SYS_close, 1);
  raw::call(SYS_close, 2);
  slot.report.phase.store(Phase::running);
  supervise(slot, static_cast<pid_t>(raw::call(SYS_getpid)));
  record_usage(slot.report);
  slot.report.phase.store(Phase::ended);
  return 0;
}

}  // namespace

long start_shim(const LaunchPlan& plan, Slot& slot) {
  slot.report.phase.store(Phase::starting);
  slot.report.stopping.store(0);
  slot.report.stage = Stage::none;
  slot.report.error = slot.report.program = slot.report.wait_status = 0;
  slot.report.binds_done = 0;
  slot.report.contained = 0;
  slot.report.survivors = slot.report.stuck = 0;
  slot.report.cpu_us = slot.report.max_rss_bytes = slot.report.written_bytes = 0;
  slot.ending = slot.program_ended = 0;
  slot.plan = &plan;
  return raw::spawn(SIGCHLD, slot.shim_stack + sizeof(slot.shim_stack), run_shim, &slot);
}

}  // namespace pesc::keeper
