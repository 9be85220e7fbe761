// The directories of attempts, below STATE:
//   attempts/JOB-RANK-ATTEMPT/{app,checkpoint,output,tmp}, and the file `events`
//   trash/N: what is being deleted
// When ranks run as another user, the four directories and the file are that user's and what holds
// them is the worker's: a rank cannot replace what the worker (root) reads or writes there.
//
// Thread-safe: the constructor apart, nothing is changed.
#pragma once

#include <atomic>
#include <filesystem>
#include <memory>
#include <optional>
#include <set>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/ids.h"
#include "runtime/worker/shell/run_as.h"

namespace pesc::worker {

struct AttemptPaths {
  std::string root, app, checkpoint, output, temporary, events;
};

class AttemptDirs {
 public:
  static absl::StatusOr<std::shared_ptr<AttemptDirs>> open(const std::filesystem::path& state_dir,
                                                           std::optional<RankUser> user);

  AttemptPaths paths(const AttemptKey& key) const;

  // Makes them, empty, closed to the ranks' user. What an earlier try of the same attempt left goes
  // to the trash.
  absl::Status make(const AttemptPaths& paths) const;
  // Gives one attempt's directories to another, as they are.
  absl::Status move(const AttemptPaths& from, const AttemptPaths& to) const;

  // While root writes there, or reads results, no process of the ranks' user may get in: it could
  // put a link where root expects a directory.
  absl::Status open_to_ranks(const AttemptPaths& paths) const;
  void close_to_ranks(const AttemptPaths& paths) const;

  // Gives its directories a time that none gets again from what is done in them. File systems'
  // times go in steps of milliseconds: a newer time would hide what comes within the step.
  void mark(const AttemptPaths& paths) const;
  // One of them, with its mode and its owner: nothing was made, renamed or deleted in it since.
  bool is_untouched(const std::string& directory, uid_t owner) const;

  // Gives a path to the ranks' user; links are not followed.
  absl::Status give(const std::string& path) const;
  absl::Status give_tree(const std::string& directory) const;

  // Renames the attempt's directory away; a missing one is fine.
  void discard(const AttemptPaths& paths) const;
  // The same for each attempt that is not kept. Returns how many there were.
  size_t discard_others(const std::set<AttemptKey>& kept) const;
  // Deletes what discard() renamed. Blocks.
  void empty_trash() const;
  bool has_trash() const { return discarded_ != emptied_; }

  const std::optional<RankUser>& user() const { return user_; }
  uid_t owner() const;  // of what is the ranks'

 private:
  AttemptDirs(std::filesystem::path state_dir, std::optional<RankUser> user);
  absl::Status make_directory(const std::string& path, bool for_rank) const;

  const std::filesystem::path attempts_, trash_;
  const std::optional<RankUser> user_;
  mutable std::atomic<uint64_t> discarded_{0}, emptied_{0};  // the first names what goes next
};

// Deletes a tree that a program left, whatever modes it gave to its directories and however deep
// they are. A missing one is fine.
absl::Status remove_tree(const std::filesystem::path& path);

}  // namespace pesc::worker
