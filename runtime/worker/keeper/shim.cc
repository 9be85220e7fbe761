#include "runtime/worker/keeper/shim.h"

#include <fcntl.h>
#include <linux/close_range.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
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

// A shim's descriptors: nothing at 0, the attempt's pipes at 1 and 2 until its program has them,
// and these. What is received gets the lowest numbers that are free.
constexpr long kControl = 3;
constexpr long kEnded = 4;
constexpr int kPipes = 2;

void close_all(long first, long last) {
  if (raw::call(SYS_close_range, first, last, 0L) != -ENOSYS) return;
  for (long fd = first; fd <= last && fd < 4096; ++fd) raw::call(SYS_close, fd);
}

// The signal that came, or a negative number after `timeout_ns` (0: none).
long await_signal(long timeout_ns) {
  timespec timeout{0, timeout_ns};
  return raw::call(SYS_rt_sigtimedwait, &kAwaited, nullptr, timeout_ns > 0 ? &timeout : nullptr,
                   static_cast<long>(sizeof(kAwaited)));
}

uint64_t in_us(const timeval& time) {
  return static_cast<uint64_t>(time.tv_sec) * 1000000 + static_cast<uint64_t>(time.tv_usec);
}

// What a process used itself, and those that it had waited for.
void add_usage(Report& report, const rusage& usage) {
  report.cpu_us += in_us(usage.ru_utime) + in_us(usage.ru_stime);
  const uint64_t rss_bytes = static_cast<uint64_t>(usage.ru_maxrss) * 1024;
  if (rss_bytes > report.max_rss_bytes) report.max_rss_bytes = rss_bytes;
  report.written_bytes += static_cast<uint64_t>(usage.ru_oublock) * 512;
}

// Collects every process that has ended. True when none is left.
bool reap(Slot& slot, bool& progress) {
  for (;;) {
    int status = 0;
    rusage usage;
    long pid = raw::call(SYS_wait4, -1, &status, static_cast<long>(WNOHANG | __WALL), &usage);
    if (pid == -EINTR) continue;
    if (pid == -ECHILD) return true;
    if (pid <= 0) return false;
    progress = true;
    add_usage(slot.report, usage);
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
      slot.last = 1;
      return;
    }
    if (reap(slot, progress)) return;
    await_signal(kRoundNs);
  }
}

void supervise(Slot& slot, pid_t self) {
  for (;;) {
    long signal = await_signal(0);
    if (signal == SIGTERM) {
      slot.last = 1;
      return end_tree(slot, self);
    }
    if (signal == kEndTreeSignal) {
      if (slot.report.end_now.load() != 0) return end_tree(slot, self);
      continue;  // it was meant for the attempt before
    }
    bool progress = false;
    bool none_left = reap(slot, progress);
    if (none_left) return;
    if (slot.program_ended == 0) continue;
    // During a stop the others have what is left of the grace as well: the program may be a shell
    // that died of SIGTERM while its child is still saving a checkpoint.
    if (slot.report.stopping.load() == 0) return end_tree(slot, self);
  }
}

// The descriptor of the file, which stays open; or -errno.
long open_kept(KeptFile& kept, const char* path, long flags) {
  if (kept.fd >= 0 && raw::equal(kept.path, path)) return kept.fd;
  if (kept.fd >= 0) raw::call(SYS_close, static_cast<long>(kept.fd));
  kept.fd = -1;
  if (raw::length(path) >= static_cast<long>(sizeof(kept.path))) return -ENAMETOOLONG;
  const long fd = raw::call(SYS_openat, AT_FDCWD, path, flags | O_CLOEXEC, 0);
  if (fd < 0) return fd;
  kept.fd = static_cast<int>(fd);
  *raw::print_text(kept.path, path) = '\0';
  return fd;
}

// For the program's process, which writes itself into them. What is not open it opens.
void open_tasks(Slot& slot) {
  if (slot.plan->tasks == nullptr) return;
  for (long i = 0; i < kKeptTasks && slot.plan->tasks[i] != nullptr; ++i) {
    open_kept(slot.tasks[i], slot.plan->tasks[i], O_WRONLY);
  }
}

// Made in its cgroup rather than moved there: that costs next to nothing. Before Linux 5.7, and
// where a container's filter refuses the call, it moves itself.
long spawn_program(Slot& slot) {
  char* stack_top = slot.child_stack + sizeof(slot.child_stack);
  slot.enters_by_hand = slot.plan->cgroup != nullptr ? 1 : 0;
  open_tasks(slot);
  if (slot.plan->cgroup != nullptr) {
    const long group = open_kept(slot.group, slot.plan->cgroup, O_RDONLY | O_DIRECTORY);
    if (group >= 0) {
      slot.enters_by_hand = 0;
      const long pid = raw::spawn_into(group, slot.child_stack, stack_top, run_program, &slot);
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

void run_attempt(Slot& slot, pid_t self) {
  const bool started = start_program(slot);
  // The pipes must reach their end when the program's tree has ended, not when the shim has.
  close_all(1, kPipes);
  if (!started) return slot.report.phase.store(Phase::failed);
  slot.report.phase.store(Phase::running);
  supervise(slot, self);
  slot.report.phase.store(Phase::ended);
}

// From the exchange on the slot may be given another attempt at any moment.
void tell_ended(Slot& slot) {
  EndedList& list = *slot.channel.list;
  Slot* first = list.load();
  do {
    slot.next_ended = first;
  } while (!list.compare_exchange_weak(first, &slot));
  if (first != nullptr) return;  // the keeper has been told and has not looked yet
  const uint64_t one = 1;
  raw::call(SYS_write, kEnded, &one, static_cast<long>(sizeof(one)));
}

// Somebody has sent it a SIGTERM while it had nothing to do: then it ends rather than the attempt.
bool told_to_end() {
  constexpr uint64_t kTerm = bit(SIGTERM);
  const timespec at_once{};
  return raw::call(SYS_rt_sigtimedwait, &kTerm, nullptr, &at_once,
                   static_cast<long>(sizeof(kTerm))) == SIGTERM;
}

// The message that carries an attempt's pipes.
struct Descriptors {
  Descriptors() {
    message.msg_iov = &data;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof(control);
  }
  Descriptors(const Descriptors&) = delete;
  cmsghdr& header() { return *reinterpret_cast<cmsghdr*>(control); }
  int* fds() { return reinterpret_cast<int*>(CMSG_DATA(&header())); }

  static constexpr size_t kBytes = CMSG_LEN(kPipes * sizeof(int));
  char byte = 0;
  iovec data{&byte, 1};
  msghdr message{};
  alignas(cmsghdr) char control[CMSG_SPACE(kPipes * sizeof(int))]{};
};

// Receives the pipes of the next attempt. False: there will be none.
bool await_next(Slot& slot) {
  Descriptors pipes;
  long size = 0;
  do {
    size = raw::call(SYS_recvmsg, kControl, &pipes.message, 0L);
  } while (size == -EINTR);
  if (size != 1 || pipes.header().cmsg_len != Descriptors::kBytes) return false;
  if (pipes.fds()[0] != 1 || pipes.fds()[1] != 2 || told_to_end()) return false;
  slot.report.phase.store(Phase::starting);
  return true;
}

int run_shim(void* argument) {
  auto& slot = *static_cast<Slot*>(argument);
  const LaunchPlan& plan = *slot.plan;
  raw::call(SYS_setsid);
  raw::call(SYS_prctl, PR_SET_CHILD_SUBREAPER, 1L, 0L, 0L, 0L);
  raw::call(SYS_prctl, PR_SET_PDEATHSIG, static_cast<long>(SIGTERM), 0L, 0L, 0L);
  raw::call(SYS_prctl, PR_SET_NAME, "pesc-shim", 0L, 0L, 0L);
  if (raw::call(SYS_getppid) != plan.keeper) return 1;  // died before the signal was asked for
  const bool waits = slot.channel.control_fd >= 0;
  raw::call(SYS_dup3, plan.stdout_fd, 1, 0);
  raw::call(SYS_dup3, plan.stderr_fd, 2, 0);
  if (waits) {
    raw::call(SYS_dup3, slot.channel.control_fd, kControl, O_CLOEXEC);
    raw::call(SYS_dup3, slot.channel.ended_fd, kEnded, O_CLOEXEC);
  }
  close_all(waits ? kEnded + 1 : kControl, static_cast<long>(~0u));
  const auto self = static_cast<pid_t>(raw::call(SYS_getpid));
  do {
    run_attempt(slot, self);
    if (!waits || slot.last != 0) return 0;
    tell_ended(slot);
  } while (await_next(slot));
  return 0;
}

void begin(const LaunchPlan& plan, Slot& slot, Phase phase) {
  slot.report.phase.store(phase);
  slot.report.stopping.store(0);
  slot.report.end_now.store(0);
  slot.report.stage = Stage::none;
  slot.report.error = slot.report.program = slot.report.wait_status = 0;
  slot.report.binds_done = 0;
  slot.report.contained = 0;
  slot.report.survivors = slot.report.stuck = 0;
  slot.report.cpu_us = slot.report.max_rss_bytes = slot.report.written_bytes = 0;
  slot.ending = slot.program_ended = slot.last = 0;
  slot.plan = &plan;
}

}  // namespace

long start_shim(const LaunchPlan& plan, Slot& slot, const ShimChannel& channel) {
  begin(plan, slot, Phase::starting);
  slot.channel = channel;
  slot.group.fd = -1;
  for (KeptFile& kept : slot.tasks) kept.fd = -1;
  return raw::spawn(SIGCHLD, slot.shim_stack + sizeof(slot.shim_stack), run_shim, &slot);
}

bool hand_over(const LaunchPlan& plan, Slot& slot, int control) {
  begin(plan, slot, Phase::handed);
  Descriptors pipes;
  pipes.header().cmsg_level = SOL_SOCKET;
  pipes.header().cmsg_type = SCM_RIGHTS;
  pipes.header().cmsg_len = Descriptors::kBytes;
  pipes.fds()[0] = plan.stdout_fd;
  pipes.fds()[1] = plan.stderr_fd;
  return ::sendmsg(control, &pipes.message, MSG_NOSIGNAL | MSG_DONTWAIT) == 1;
}

}  // namespace pesc::keeper
