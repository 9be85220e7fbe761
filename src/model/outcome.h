// How an attempt ended, and what is known of a rank.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "model/ids.h"

namespace pesc {

// The failure classes of an attempt. Their names are part of the stable output (`reason` in
// ranks.csv and --json).
enum class EndReason : uint8_t {
  succeeded,     // exit code 0
  exit_code,     // the program's own
  signal,        // the program died by a signal
  cannot_start,  // missing, not executable, wrong architecture (126/127)
  time_limit,
  output_limit,  // standard output or error went past its bound
  out_of_memory,
  inputs_unavailable,  // a blob could not be fetched or did not hash right; an archive was refused
  disk_full,
  vacated,
  worker_lost,
  cancelled,         // by the user
  revoked,           // another attempt of the rank committed, or the lease was withdrawn
  port_taken,        // a gang's rank 0 found its master_port in use: the gang starts again for free
  worker_faulty,     // failed at once on a worker where ranks fail at once that succeed elsewhere
  bad_checkpoint,    // died at once from a checkpoint that had been restored
  outgrew_estimate,  // used more memory than PESC had learned that its program uses
  gpu_out_of_memory,  // CUDA had no memory left for it
  gpu_fault,          // its GPU failed
  build_failed,       // the job's build command did, on its worker
  gpu_memory_limit,   // took more GPU memory than it was given, on a GPU that others may share
  disk_limit,         // wrote more into its directories than the disk it had asked for
};
inline constexpr EndReason kLastEndReason = EndReason::disk_limit;
std::string_view to_string(EndReason reason);  // "exit_code"
absl::StatusOr<EndReason> parse_end_reason(std::string_view name);
// Whether a failure of this class uses up one of the job's retries. The other failures are not the
// program's and are tried again for free.
bool uses_up_a_retry(EndReason reason);

struct AttemptOutcome {
  EndReason reason = EndReason::succeeded;
  int32_t exit_code = 0;           // of the program; 126/127 for cannot_start; -1 when it has none
  int32_t signal = 0;              // 0: none
  bool refused_arguments = false;  // died at once, complaining about an argument that PESC added
  std::string detail;              // one line for `pesc why`, e.g. the last line of standard error
  int64_t started_unix_ms = 0;
  uint64_t duration_ms = 0;
  uint64_t saved_ms = 0;  // of these, what a checkpoint of the attempt has saved
  uint64_t cpu_ms = 0;
  uint64_t max_rss_bytes = 0;   // of the whole tree, where that can be seen
  uint64_t peak_gpu_bytes = 0;  // on the GPU where it used most; 0: not known
  uint64_t written_bytes = 0;   // to files on disks
  BlobRef output;               // tar + zstd of what the attempt left; empty: nothing came back
  std::vector<std::string> uncollected;  // at most 20 names left behind in app_dir
  bool operator==(const AttemptOutcome&) const = default;
};

enum class RankState : uint8_t { waiting, running, succeeded, failed, cancelled };
std::string_view to_string(RankState state);

enum class JobState : uint8_t { waiting, running, succeeded, failed, cancelled };
std::string_view to_string(JobState state);

struct JobCounts {
  uint32_t waiting = 0, running = 0, succeeded = 0, failed = 0, cancelled = 0;
  bool operator==(const JobCounts&) const = default;
};

}  // namespace pesc
