// What builds have left, below STATE/builds: KEY, the tree of a build, its contents being blobs of
// the cache; KEY.log, what its command wrote. A tree of which the cache has lost a blob is built
// again.
//
// Thread-safe: nothing is changed but files, which are replaced whole.
#pragma once

#include <atomic>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/job_spec.h"
#include "runtime/worker/keeper_client/keeper_client.h"
#include "runtime/worker/shell/attempt_dirs.h"
#include "runtime/worker/shell/cache.h"

namespace pesc::worker {

struct BuiltTree {
  std::vector<FileRef> files;                              // and directories
  std::vector<std::pair<std::string, std::string>> links;  // path, target
  bool operator==(const BuiltTree&) const = default;
};

class BuildIndex {
 public:
  static constexpr size_t kMaxBuilds = 200;  // the others go, the least recently used first

  static absl::StatusOr<std::shared_ptr<BuildIndex>> open(const std::filesystem::path& state_dir);

  std::optional<BuiltTree> load(const Digest& key) const;
  // The blobs of the tree are in the cache.
  absl::Status save(const Digest& key, const BuiltTree& tree) const;
  void drop(const Digest& key) const;

  // The end of what the command wrote, with its directory left out; kept, and returned.
  std::string keep_log(const Digest& key, const KeptExit& exit, const AttemptPaths& paths) const;
  std::filesystem::path log_path(const Digest& key) const;

 private:
  explicit BuildIndex(std::filesystem::path directory) : directory_(std::move(directory)) {}
  void trim() const;
  const std::filesystem::path directory_;
};

// What is below `app` after a build: regular files of `owner`, put into the store, directories, and
// symbolic links as such. The job's shared files stay what they are.
absl::StatusOr<BuiltTree> take_tree(const std::string& app, uint32_t owner, const JobSpec& spec,
                                    blob::Store& store, uint64_t max_bytes,
                                    const std::atomic<bool>& cancelled);

// The job with what was built in the place of its files.
JobSpec with_built(const JobSpec& spec, const BuiltTree& tree);

}  // namespace pesc::worker
