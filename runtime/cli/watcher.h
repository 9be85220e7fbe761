// Follows a job on the terminal: a progress bar there, quiet lines elsewhere; Ctrl-C cancels, a lost
// terminal detaches.
#pragma once

#include <string>

#include "pesc/client.h"

namespace pesc::cli {

// Signals come to the watcher only, so they are blocked before any thread starts.
void block_signals();

struct WatchOptions {
  bool cancel_on_interrupt = true;  // `run`; false: `watch` only stops watching
  bool quiet = false;               // --json: nothing but the result
};

enum class WatchEnd { finished, interrupted, detached };

struct Watched {
  WatchEnd end = WatchEnd::finished;
  absl::StatusOr<JobResult> result = absl::CancelledError("still running");
};

// Blocks until the job is over. After an interrupt the job is cancelled and still waited for; a
// second interrupt leaves at once.
Watched watch(JobHandle& job, bool embedded, const WatchOptions& options);

}  // namespace pesc::cli
