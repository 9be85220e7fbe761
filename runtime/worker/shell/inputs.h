// An attempt's inputs: placed in its app_dir from the cache, and told apart from results later.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "model/job_spec.h"
#include "runtime/worker/shell/attempt_dirs.h"
#include "runtime/worker/shell/cache.h"

namespace pesc::worker {

// How a shared file appears in app_dir so that no rank can change it for others.
enum class SharedMode : uint8_t {
  root_link,  // a hard link to root's copy of mode 0444; ranks run as another user
  bind,       // a read-only mount that the keeper makes over an empty file
  checked,    // a symbolic link; the copy is checked after each attempt
  copied,     // a copy for each: ranks run as root, which no mode keeps from writing
};

struct InputPrint {
  std::string path;  // below app_dir
  FilePrint print;   // as it was placed
  Digest digest;     // zero: one of an archive's
  uint64_t size_bytes = 0;
  uint32_t mode = 0;       // as stat says it, with its type; zero: one of an archive's
  bool roots_own = false;  // a link to root's copy: a rank can replace the link, never the bytes
};

// Whether it is still what was placed. No bytes are read.
bool is_as_placed(const InputPrint& input, const std::string& target);

struct SharedUse {
  std::string path;  // of the single copy
  Digest digest;
  FilePrint print;
};

struct PlacedInputs {
  std::vector<InputPrint> inputs;
  std::vector<std::pair<std::string, std::string>> binds;  // source, target
  std::vector<SharedUse> checks;                           // mode `checked` only
  bool flat = true;  // files of app_dir itself only: no directories, nothing unpacked
};

// Every blob of the spec, each once.
std::vector<BlobRef> input_blobs(const JobSpec& spec);

// Whether placing them is too much for the loop's thread.
bool is_heavy(const JobSpec& spec);

// The blobs are in the cache, the directories made. An InvalidArgument is the job's fault (an
// archive that is refused), a ResourceExhausted is a full disk. Blocks.
absl::StatusOr<PlacedInputs> place_inputs(const JobSpec& spec, const AttemptPaths& paths,
                                          const AttemptDirs& dirs, Cache& cache, SharedMode mode);

// Symbolic links that a build left, after its files. They are inputs too.
absl::Status place_links(const std::vector<std::pair<std::string, std::string>>& links,
                         const AttemptPaths& paths, const AttemptDirs& dirs, PlacedInputs& placed);

}  // namespace pesc::worker
