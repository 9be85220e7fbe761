// The shim: a tiny process between the keeper and the program of each rank. It is the subreaper of
// everything the program starts, so nothing escapes it by forking twice or by setsid; when the
// program ends, it ends what is left, and when the keeper dies, it ends everything. It has one
// attempt at a time, and takes another only when no process of the one before is left.
#pragma once

#include <sys/resource.h>
#include <sys/types.h>

#include <atomic>
#include <cstdint>

#include "runtime/worker/keeper/process_tree.h"

namespace pesc::keeper {

// Makes a shim look whether its attempt is to be ended at once. That is said in the attempt's
// report: the signal alone, which may come when the attempt has ended by itself, does nothing.
inline constexpr int kEndTreeSignal = 10;  // SIGUSR1

// handed: to a shim that has not taken it yet; should it be killed, another one can.
enum class Phase : uint32_t { handed, starting, running, failed, ended };

enum class Stage : int32_t { none, fork, user, directory, exec };

struct BindMount {
  const char* source;
  const char* target;
  bool directory;
};

// What to start. Read by the shim and by its child, in the keeper's own memory: it stays as it is
// until the shim has told the end or has been reaped.
struct LaunchPlan {
  const char* const* candidates = nullptr;  // paths to try in order; ends with a null
  char* const* argv = nullptr;
  char* const* environment = nullptr;
  const char* working_directory = nullptr;
  const char* cgroup = nullptr;          // directory of a version 2 cgroup to be made in, or null
  const char* cgroup_procs = nullptr;    // its cgroup.procs
  const char* const* tasks = nullptr;    // of version 1 cgroups to go into; ends with a null
  const char* cgroup_kill = nullptr;     // version 2
  const char* cgroup_freeze = nullptr;   // version 2
  const char* freezer_state = nullptr;   // version 1
  const unsigned long* cores = nullptr;  // a mask to be bound to, or null
  long cores_bytes = 0;
  rlim_t process_limit = 0;  // of its user's processes; 0: none
  const BindMount* binds = nullptr;
  long bind_count = 0;
  const char* uid_map = nullptr;  // for a user namespace; null: none may be tried
  const char* gid_map = nullptr;
  bool run_as = false;
  uid_t uid = 0;
  gid_t gid = 0;
  bool idle_priority = false;
  bool restore_limit = false;
  rlimit open_files{};
  int stdout_fd = -1;
  int stderr_fd = -1;
  pid_t keeper = 0;
};

// What the shim and its child tell the keeper, in memory that all three see.
struct Report {
  std::atomic<Phase> phase{Phase::starting};
  std::atomic<uint32_t> stopping{0};  // set by the keeper: the tree may use its grace to end
  std::atomic<uint32_t> end_now{0};   // set by the keeper, before kEndTreeSignal
  Stage stage = Stage::none;          // where the start failed
  int32_t error = 0;
  int32_t program = 0;  // process id
  int32_t wait_status = 0;
  int32_t binds_done = 0;
  uint32_t contained = 0;  // it is in each cgroup that the plan names
  uint32_t survivors = 0;
  uint32_t stuck = 0;  // processes that could not be ended
  uint64_t cpu_us = 0;
  uint64_t max_rss_bytes = 0;  // of its largest process
  uint64_t written_bytes = 0;
};

struct Slot;
// Of shims that can take another attempt: each puts itself in front, the keeper takes all.
using EndedList = std::atomic<Slot*>;

// How a shim is given further attempts, and tells their ends.
struct ShimChannel {
  int control_fd =
      -1;  // a socket, closed at the other end when there will be none; -1: there is none
  int ended_fd = -1;  // of an eventfd, raised when the list was empty
  EndedList* list = nullptr;
};

// A file of a cgroup that the shim keeps open, as the next attempt mostly has the same. Another one
// takes its place; a longer path is opened each time.
struct KeptFile {
  int fd = -1;
  char path[256];
};

inline constexpr long kKeptTasks = 4;

// The memory of one shim, mapped shared; used again for another one afterwards.
struct Slot {
  Report report;
  const LaunchPlan* plan;
  ShimChannel channel;
  Slot* next_ended;
  pid_t pid;                // of the shim; the keeper's
  uint32_t ending;          // the shim is ending the tree
  uint32_t enters_by_hand;  // the program's process goes into its version 2 cgroup by itself
  uint32_t program_ended;
  uint32_t last;  // it ends after this attempt
  KeptFile group;
  KeptFile tasks[kKeptTasks];
  pid_t pids[kTreeCapacity];
  alignas(16) char shim_stack[96 << 10];
  alignas(16) char child_stack[64 << 10];
};

// Starts a shim; its process id, or -errno. `plan` and `slot` must outlive it.
long start_shim(const LaunchPlan& plan, Slot& slot, const ShimChannel& channel);

// Gives a shim that waits, in its own slot, another attempt. False: it has ended.
bool hand_over(const LaunchPlan& plan, Slot& slot, int control);

}  // namespace pesc::keeper
