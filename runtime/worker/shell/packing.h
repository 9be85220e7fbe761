// What an attempt left, as one blob; and the line that says why it failed.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "blob/pack.h"
#include "model/job_spec.h"
#include "model/outcome.h"
#include "runtime/worker/keeper_client/keeper_client.h"
#include "runtime/worker/shell/attempt_dirs.h"
#include "runtime/worker/shell/cache.h"
#include "runtime/worker/shell/inputs.h"

namespace pesc::worker {

inline constexpr uint64_t kInlineOutputBytes = 64 * 1024;

struct PackOrder {
  std::shared_ptr<const JobSpec> spec;
  AttemptPaths paths;
  PlacedInputs placed;
  bool adopted = false;  // `placed` is not known: an earlier worker placed them
  KeptExit exit;
  bool output_untouched = false, app_untouched = false;  // these need no look
  std::string outbox_file;  // where an output goes that is too large for memory
  // Of the ranks, when it is not the worker's own: only what that user may read comes back.
  std::optional<std::pair<uint32_t, uint32_t>> ranks_user = {};
  std::string build_log = {};  // a file that comes back too, when it is there
};

struct PackedOutput {
  BlobRef blob;
  std::string bytes;  // the blob, when it is small
  std::string file;   // else where it is; neither: the coordinator has it
  std::vector<std::string> uncollected;
};

// Whether packing it takes no longer than handing it to another thread would: what it printed, and
// a few small files.
bool is_light(const PackOrder& order);

// Whether it is worth a thread of its own that sends it while it is packed. Blocks.
bool is_large(const PackOrder& order);
// Packs it into `sink`, once: what cannot be read fails.
absl::StatusOr<blob::PackReport> pack_attempt_into(const PackOrder& order,
                                                   const blob::ByteSink& sink);

// Blocks; memory bounded by the packer's window. ResourceExhausted: the disk is full.
absl::StatusOr<PackedOutput> pack_attempt(const PackOrder& order);

// The last line of standard error that says something, at most 300 bytes of it.
std::string last_line(std::string_view text);

// The end of it.
std::string standard_error_of(const KeptExit& exit, const AttemptPaths& paths);

// The attempt's own directory says nothing to a user, and would make every rank's reason another.
std::string without_directory(std::string text, const std::string& directory);

// What the keeper says of the end, with what only the worker knows: the refused argument, the last
// words of standard error.
AttemptOutcome complete_outcome(const KeptExit& exit, const AttemptPaths& paths, Inject inject);

// Whether a program that failed says that there was no room for what it wrote: its worker's fault.
bool died_of_a_full_disk(const KeptExit& exit, const AttemptPaths& paths);

// Of a gang's rank 0: whether it ended within seconds because its port was in use.
bool died_of_a_taken_port(const KeptExit& exit, const AttemptPaths& paths);

// No space, no quota, or a read-only file system. Other limits (open files) are none of the disk's.
bool is_disk_full(const absl::Status& status);

}  // namespace pesc::worker
