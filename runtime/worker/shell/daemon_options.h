// What pesc-worker is told: its command line over its configuration file.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/worker/shell/worker.h"

namespace pesc::worker {

struct DaemonOptions {
  Options worker;
  std::string coordinator;  // as named; empty: looked for in the environment and the configuration
  std::string join_file;    // wins over `coordinator` for address and credentials
  std::string log_level = "info";
  // Not a worker to run: freeze the ranks of the one that has this state directory, or let them go
  // on.
  std::optional<bool> set_pause;
  std::optional<bool> idle_priority;  // nothing: when the owner is watched for
  int exit_code = -1;  // ≥ 0: nothing to run (--help, --version); `text` is for standard output
  std::string text;
};

// InvalidArgument says which flag or key is wrong and what to do.
absl::StatusOr<DaemonOptions> parse_daemon_options(const std::vector<std::string>& arguments);

// Keys: coordinator, state, cpus, memory, room, name, advertise, run_as, join_file, cache,
// containment, detached_limit, log_level, idle_priority, gpus, nvml_library (docs/gpus.md),
// pass_on, and the table [owner] (docs/owner.md). An unknown one is refused by name.
absl::Status read_config(const std::string& path, DaemonOptions& options);

}  // namespace pesc::worker
