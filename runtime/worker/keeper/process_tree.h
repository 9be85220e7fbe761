// The processes below one process, and signals to all of them. Usable in a shim (raw_syscalls.h).
#pragma once

#include <sys/types.h>

namespace pesc::keeper {

// Enough for a pass over any tree that is not a fork bomb; a larger one is taken in several.
inline constexpr long kTreeCapacity = 8192;

// Writes the ids of all processes below `root` (without `root`), zombies included, parents before
// their children; returns how many, at most `capacity`. A process that is adopted by `root` (a
// subreaper) because its own parent has died is below it.
long collect_tree(pid_t root, pid_t* pids, long capacity);

// As collect_tree, but only the children of `parent` itself.
long collect_children(pid_t parent, pid_t* pids, long capacity);

// Stops every process below `root`, until a pass finds nothing that could still fork. Returns how
// many there are; their ids are in `pids`.
long stop_tree(pid_t root, pid_t* pids, long capacity);

// Sends a signal to each process that is below `root` now.
long signal_tree(pid_t root, int signal, pid_t* pids, long capacity);

}  // namespace pesc::keeper
