// Follows a job on the terminal: a progress bar there, quiet lines elsewhere; Ctrl-C cancels, a
// lost terminal detaches.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/statusor.h"
#include "client/prepare.h"
#include "pesc/client.h"

namespace pesc::cli {

// From here on SIGINT, SIGTERM and SIGHUP are kept for the watcher. (PESC's own threads block every
// signal anyway.)
void block_signals();

// Submits, and notices an interrupt meanwhile: an upload may be long. The first interrupt lets it
// end, so that the job can be cancelled then; the second, or the first while the coordinator does
// not answer, leaves the process at once.
struct Submitted {
  absl::StatusOr<JobHandle> job = absl::CancelledError("interrupted");
  bool interrupted = false;
  bool hung_up = false;  // the terminal was lost
};
Submitted submit_watching(Client& client, client::PreparedJob& job, const std::string& id);

struct WatchOptions {
  bool cancel_on_interrupt = true;  // `run`; false: `watch` only stops watching
  bool quiet = false;               // --json: nothing but the result, and what goes wrong
  bool interrupted = false;         // already, while it was submitted
  bool hung_up = false;             // the same
  // Called once, when nothing has run or changed for some seconds: must not block.
  std::function<void()> on_stalled;
  uint64_t stalled_after_ms = 3'000;
  // A key press, or `timeout`, may send two signals, to the process and to its group: they are one
  // interrupt.
  uint64_t same_interrupt_ms = 5;
  uint64_t cancel_limit_ms = 10'000;  // how long a cancel waits for its acknowledgement
};

enum class WatchEnd { finished, interrupted, detached };

struct Watched {
  WatchEnd end = WatchEnd::finished;
  absl::StatusOr<JobResult> result = absl::CancelledError("still running");
};

// Blocks until the job is over. After an interrupt the job is cancelled and still waited for; a
// second interrupt leaves at once, and so does the first when the cancel cannot be delivered. A
// coordinator that does not answer is waited for, and that is said.
Watched watch(Client& client, JobHandle& job, const WatchOptions& options);

}  // namespace pesc::cli
