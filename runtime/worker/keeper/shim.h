// The shim: one tiny process per attempt, between the keeper and the rank's program. It is the
// subreaper of everything the program starts, so nothing escapes it by forking twice or by setsid;
// when the program ends, it ends what is left, and when the keeper dies, it ends everything.
#pragma once

#include <sys/resource.h>
#include <sys/types.h>

#include <atomic>
#include <cstdint>

#include "runtime/worker/keeper/process_tree.h"

namespace pesc::keeper {

// Asks a shim to end its tree at once.
inline constexpr int kEndTreeSignal = 10;  // SIGUSR1

enum class Phase : uint32_t { starting, running, failed, ended };

enum class Stage : int32_t { none, fork, user, directory, exec };

struct BindMount {
  const char* source;
  const char* target;
  bool directory;
};

// What to start. Read by the shim and by its child, in the keeper's own memory: it stays as it is
// until the shim has been reaped.
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

// The memory of one shim, mapped shared; used again for another attempt afterwards.
struct Slot {
  Report report;
  const LaunchPlan* plan;
  uint32_t ending;          // the shim is ending the tree
  uint32_t enters_by_hand;  // the program's process goes into its version 2 cgroup by itself
  uint32_t program_ended;
  pid_t pids[kTreeCapacity];
  alignas(16) char shim_stack[96 << 10];
  alignas(16) char child_stack[64 << 10];
};

// Starts a shim; its process id, or -errno. `plan` and `slot` must outlive it.
long start_shim(const LaunchPlan& plan, Slot& slot);

}  // namespace pesc::keeper
