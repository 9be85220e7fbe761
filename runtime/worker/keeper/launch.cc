#include "runtime/worker/keeper/launch.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>

#include "runtime/worker/keeper/raw_syscalls.h"
#include "runtime/worker/keeper/shim.h"

namespace pesc::keeper {
namespace {

// Everything here runs with the keeper's memory shared: raw system calls only.

constexpr int kIdlePolicy = 5;                  // SCHED_IDLE
constexpr long kIdleIo = 3L << 13;              // IOPRIO_CLASS_IDLE
constexpr const char* kOomScoreAdjust = "500";  // when memory runs out, ranks go before daemons
constexpr int kBusyTextTries = 40;

long write_file(const char* path, const char* text) {
  long file = raw::call(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CLOEXEC, 0);
  if (file < 0) return file;
  long result = raw::call(SYS_write, file, text, raw::length(text));
  raw::call(SYS_close, file);
  return result < 0 ? result : 0;
}

// A mount namespace of its own: as root at once, else inside a user namespace that maps this user
// to itself.
bool enter_mount_namespace(const LaunchPlan& plan) {
  if (raw::call(SYS_unshare, static_cast<long>(CLONE_NEWNS)) < 0) {
    if (plan.uid_map == nullptr) return false;
    if (raw::call(SYS_unshare, static_cast<long>(CLONE_NEWUSER | CLONE_NEWNS)) < 0) return false;
    write_file("/proc/self/setgroups", "deny");
    if (write_file("/proc/self/uid_map", plan.uid_map) < 0) return false;
    if (write_file("/proc/self/gid_map", plan.gid_map) < 0) return false;
  }
  // Nothing that is mounted here is seen outside; what is mounted outside (a lab's automounter) is
  // still seen here.
  return raw::call(SYS_mount, "none", "/", nullptr, static_cast<long>(MS_REC | MS_SLAVE),
                   nullptr) >= 0;
}

void make_target(const BindMount& bind) {
  if (bind.directory) {
    raw::call(SYS_mkdirat, AT_FDCWD, bind.target, 0755);
    return;
  }
  long file =
      raw::call(SYS_openat, AT_FDCWD, bind.target, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (file >= 0) raw::call(SYS_close, file);
}

bool bind_read_only(const BindMount& bind) {
  long flags = MS_BIND | MS_REC;
  long result = raw::call(SYS_mount, bind.source, bind.target, nullptr, flags, nullptr);
  if (result == -ENOENT) {
    make_target(bind);
    result = raw::call(SYS_mount, bind.source, bind.target, nullptr, flags, nullptr);
  }
  if (result < 0) return false;
  // In a user namespace the flags the mount has already are locked and must be given again.
  struct statfs info {};
  if (raw::call(SYS_statfs, bind.target, &info) < 0) return false;
  constexpr long kKept = MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_NOATIME | MS_NODIRATIME;
  constexpr long kRelativeTimes = 4096;  // ST_RELATIME; the other ST_ flags are equal to MS_ ones
  flags = MS_BIND | MS_REMOUNT | MS_RDONLY | (static_cast<long>(info.f_flags) & kKept);
  if ((info.f_flags & kRelativeTimes) != 0) flags |= MS_RELATIME;
  return raw::call(SYS_mount, "none", bind.target, nullptr, flags, nullptr) >= 0;
}

bool bind_all(const LaunchPlan& plan) {
  if (!enter_mount_namespace(plan)) return false;
  bool done = true;
  for (long i = 0; i < plan.bind_count; ++i) done = bind_read_only(plan.binds[i]) && done;
  return done;
}

// Each is tried, and what fails is told: the keeper watches over what no cgroup holds.
bool enter_cgroups(const Slot& slot) {
  const LaunchPlan& plan = *slot.plan;
  bool entered = true;
  if (slot.enters_by_hand != 0) entered = write_file(plan.cgroup_procs, "0") >= 0;
  for (const char* const* tasks = plan.tasks; tasks != nullptr && *tasks != nullptr; ++tasks) {
    entered = write_file(*tasks, "0") >= 0 && entered;
  }
  return entered;
}

void bind_and_bound(const LaunchPlan& plan) {
  if (plan.cores != nullptr) {
    raw::call(SYS_sched_setaffinity, 0L, plan.cores_bytes, plan.cores);
  }
  if (plan.process_limit == 0) return;
  const rlimit processes{plan.process_limit, plan.process_limit};
  raw::call(SYS_prlimit64, 0L, static_cast<long>(RLIMIT_NPROC), &processes, nullptr);
}

void lower_priority() {
  const int parameter = 0;  // sched_param
  raw::call(SYS_sched_setscheduler, 0L, static_cast<long>(kIdlePolicy), &parameter);
  raw::call(SYS_ioprio_set, 1L, 0L, kIdleIo);  // 1: IOPRIO_WHO_PROCESS
}

long become(const LaunchPlan& plan) {
  if (!plan.run_as) return 0;
  long result = raw::call(SYS_setgroups, 0L, nullptr);
  if (result >= 0) {
    result = raw::call(SYS_setresgid, static_cast<long>(plan.gid), static_cast<long>(plan.gid),
                       static_cast<long>(plan.gid));
  }
  if (result >= 0) {
    result = raw::call(SYS_setresuid, static_cast<long>(plan.uid), static_cast<long>(plan.uid),
                       static_cast<long>(plan.uid));
  }
  if (result >= 0) result = raw::call(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1L, 0L, 0L, 0L);
  return result;
}

// A file that was just written may still be open for writing in a process that is being forked
// elsewhere; that passes in moments.
long exec_patiently(const char* path, const LaunchPlan& plan) {
  long result = 0;
  for (int i = 0; i < kBusyTextTries; ++i) {
    result = raw::call(SYS_execve, path, plan.argv, plan.environment);
    if (result != -ETXTBSY) break;
    timespec pause{0, 5'000'000};
    raw::call(SYS_nanosleep, &pause, nullptr);
  }
  return result;
}

// As execvp searches, but never falls back to a shell. A candidate that may not be executed is
// remembered: it says more than that the last one does not exist.
long exec_first(const LaunchPlan& plan) {
  long result = -ENOENT;
  for (const char* const* path = plan.candidates; *path != nullptr; ++path) {
    long error = exec_patiently(*path, plan);
    bool absent = error == -ENOENT || error == -ENOTDIR;
    if (!absent && error != -EACCES) return error;
    if (!absent) result = error;
  }
  return result;
}

int fail(Report& report, Stage stage, long result) {
  report.stage = stage;
  report.error = static_cast<int32_t>(-result);
  return 127;
}

}  // namespace

int run_program(void* argument) {
  auto& slot = *static_cast<Slot*>(argument);
  const LaunchPlan& plan = *slot.plan;
  Report& report = slot.report;
  raw::call(SYS_setsid);
  if (plan.idle_priority) lower_priority();
  write_file("/proc/self/oom_score_adj", kOomScoreAdjust);
  report.contained = enter_cgroups(slot) ? 1 : 0;
  bind_and_bound(plan);
  if (plan.bind_count > 0) report.binds_done = bind_all(plan) ? 1 : 0;
  long result = become(plan);
  if (result < 0) return fail(report, Stage::user, result);
  result = raw::call(SYS_chdir, plan.working_directory);
  if (result < 0) return fail(report, Stage::directory, result);
  raw::call(SYS_prctl, PR_SET_PDEATHSIG, static_cast<long>(SIGKILL), 0L, 0L, 0L);
  if (plan.restore_limit) {
    raw::call(SYS_prlimit64, 0L, static_cast<long>(RLIMIT_NOFILE), &plan.open_files, nullptr);
  }
  const uint64_t none = 0;
  raw::call(SYS_rt_sigprocmask, static_cast<long>(SIG_SETMASK), &none, nullptr,
            static_cast<long>(sizeof(none)));
  return fail(report, Stage::exec, exec_first(plan));
}

}  // namespace pesc::keeper
