#include "runtime/worker/shell/spare_dirs.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <string_view>
#include <utility>

#include "runtime/common/state_dir.h"

namespace pesc::worker {
namespace {

// More than this takes too long for the loop's thread.
constexpr int kMostLeftovers = 8;
constexpr off_t kLargeLeftover = 1 << 20;

// Deletes the files in `path` that are not `kept`.
bool empty_directory(const std::string& path, uid_t owner,
                     const std::function<bool(std::string_view)>& kept) {
  common::UniqueFd fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  struct stat info {};
  if (!fd.valid() || ::fstat(fd.get(), &info) != 0) return false;
  if (info.st_uid != owner || (info.st_mode & 07777) != 0700) return false;
  const int at = fd.get();
  std::unique_ptr<DIR, int (*)(DIR*)> entries(::fdopendir(at), ::closedir);
  if (entries == nullptr) return false;
  (void)fd.release();
  int left = 0;
  while (const dirent* entry = ::readdir(entries.get())) {
    const std::string_view name = entry->d_name;
    if (name == "." || name == ".." || kept(name)) continue;
    if (++left > kMostLeftovers || ::fstatat(at, entry->d_name, &info, AT_SYMLINK_NOFOLLOW) != 0 ||
        info.st_size > kLargeLeftover || ::unlinkat(at, entry->d_name, 0) != 0) {
      return false;
    }
  }
  return true;
}

bool clear_events(const std::string& path, uid_t owner) {
  struct stat info {};
  if (::lstat(path.c_str(), &info) != 0 || !S_ISREG(info.st_mode) || info.st_nlink != 1 ||
      (info.st_mode & 07777) != 0600 || info.st_uid != owner) {
    return false;
  }
  return info.st_size == 0 || ::truncate(path.c_str(), 0) == 0;  // its directory is closed
}

bool inputs_are_as_placed(const SpareDir& dir) {
  return std::all_of(dir.placed.inputs.begin(), dir.placed.inputs.end(),
                     [&](const InputPrint& input) {
                       const std::string target = dir.paths.app + "/" + input.path;
                       struct stat info {};
                       return ::lstat(target.c_str(), &info) == 0 && info.st_mode == input.mode &&
                              is_as_placed(input, target);
                     });
}

}  // namespace

bool tidy(const SpareDir& dir, const AttemptDirs& dirs, bool thorough) {
  if (!dir.placed.flat || !inputs_are_as_placed(dir)) return false;
  const auto is_input = [&](std::string_view name) {
    return std::any_of(dir.placed.inputs.begin(), dir.placed.inputs.end(),
                       [&](const InputPrint& input) { return input.path == name; });
  };
  const auto nothing = [](std::string_view) { return false; };
  const auto is_own = [](std::string_view name) {
    return name == "app" || name == "output" || name == "checkpoint" || name == "tmp" ||
           name == "events";
  };
  bool touched = false;
  const auto emptied = [&](const std::string& path, uid_t owner, const auto& kept) {
    if (!thorough && dirs.is_untouched(path, owner)) return true;
    touched = true;
    return empty_directory(path, owner, kept);
  };
  const uid_t owner = dirs.owner();
  const bool tidied =
      emptied(dir.paths.app, owner, is_input) && emptied(dir.paths.output, owner, nothing) &&
      emptied(dir.paths.checkpoint, owner, nothing) &&
      emptied(dir.paths.temporary, owner, nothing) && clear_events(dir.paths.events, owner) &&
      emptied(dir.paths.root, ::geteuid(), is_own);
  if (tidied && touched) dirs.mark(dir.paths);
  return tidied;
}

std::optional<SpareDir> SpareDirs::take(JobId job) {
  const auto found = dirs_.find(job);
  if (found == dirs_.end()) return std::nullopt;
  SpareDir dir = std::move(found->second.back());
  found->second.pop_back();
  if (found->second.empty()) dirs_.erase(found);
  --size_;
  return dir;
}

std::vector<SpareDir> SpareDirs::keep(JobId job, SpareDir dir) {
  dirs_[job].push_back(std::move(dir));
  if (++size_ <= limit_) return {};
  // Of the oldest job: the others are more likely to go on.
  return drop(dirs_.begin()->first);
}

std::vector<SpareDir> SpareDirs::drop(JobId job) {
  const auto found = dirs_.find(job);
  if (found == dirs_.end()) return {};
  std::vector<SpareDir> dropped = std::move(found->second);
  dirs_.erase(found);
  size_ -= dropped.size();
  return dropped;
}

}  // namespace pesc::worker
