// Whose a process is.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>

namespace pesc::worker {

// The parent of a process; nothing when there is no such process (or it may not be seen).
using ParentOf = std::function<std::optional<uint32_t>(uint32_t pid)>;

// By /proc, as it is mounted here.
std::optional<uint32_t> parent_of(uint32_t pid);

// Whether this process sees all of the machine's processes under the numbers that a driver knows
// them by: not from within a container.
bool sees_the_machines_processes();

}  // namespace pesc::worker
