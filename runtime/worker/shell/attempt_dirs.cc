#include "runtime/worker/shell/attempt_dirs.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <system_error>

#include "rpc/log.h"
#include "runtime/common/state_dir.h"

namespace pesc::worker {
namespace {

namespace fs = std::filesystem;

constexpr time_t kMarkSeconds = 1'000'000'000;  // in 2001

std::string name_of(const AttemptKey& key) {
  return to_string(key.job) + "-" + std::to_string(key.rank) + "-" + std::to_string(key.attempt);
}

}  // namespace

AttemptDirs::AttemptDirs(fs::path state_dir, std::optional<RankUser> user)
    : attempts_(state_dir / "attempts"), trash_(state_dir / "trash"), user_(std::move(user)) {}

absl::StatusOr<std::shared_ptr<AttemptDirs>> AttemptDirs::open(const fs::path& state_dir,
                                                               std::optional<RankUser> user) {
  std::shared_ptr<AttemptDirs> dirs(new AttemptDirs(state_dir, std::move(user)));
  for (const fs::path& path : {dirs->attempts_, dirs->trash_}) {
    const mode_t mode = dirs->user_ && path == dirs->attempts_ ? 0711 : 0700;
    if (::mkdir(path.c_str(), mode) != 0 && errno != EEXIST) {
      return common::errno_status(errno, "make the directory", path);
    }
    if (::chmod(path.c_str(), mode) != 0) return common::errno_status(errno, "set up", path);
  }
  dirs->empty_trash();  // what a crash left: its names would collide with the new ones
  return dirs;
}

AttemptPaths AttemptDirs::paths(const AttemptKey& key) const {
  AttemptPaths paths;
  paths.root = attempts_.string() + "/" + name_of(key);
  paths.app = paths.root + "/app";
  paths.checkpoint = paths.root + "/checkpoint";
  paths.output = paths.root + "/output";
  paths.temporary = paths.root + "/tmp";
  paths.events = paths.root + "/events";
  return paths;
}

absl::Status AttemptDirs::give(const std::string& path) const {
  if (user_ && ::lchown(path.c_str(), user_->uid, user_->gid) != 0) {
    return common::errno_status(errno, "give to the ranks' user", path);
  }
  return absl::OkStatus();
}

absl::Status AttemptDirs::give_tree(const std::string& directory) const {
  if (!user_) return absl::OkStatus();
  std::error_code error;
  fs::recursive_directory_iterator it(directory, error);
  for (; !error && it != fs::recursive_directory_iterator(); it.increment(error)) {
    absl::Status given = give(it->path().string());
    if (!given.ok()) return given;
  }
  if (error) return common::errno_status(error.value(), "read", directory);
  return absl::OkStatus();
}

absl::Status AttemptDirs::make_directory(const std::string& path, bool for_rank) const {
  if (::mkdir(path.c_str(), 0700) != 0) {
    return common::errno_status(errno, "make the directory", path);
  }
  return for_rank ? give(path) : absl::OkStatus();
}

absl::Status AttemptDirs::open_to_ranks(const AttemptPaths& paths) const {
  if (user_ && ::chmod(paths.root.c_str(), 0711) != 0) {
    return common::errno_status(errno, "set up", paths.root);
  }
  return absl::OkStatus();
}

void AttemptDirs::close_to_ranks(const AttemptPaths& paths) const {
  if (user_) ::chmod(paths.root.c_str(), 0700);
}

absl::Status AttemptDirs::make(const AttemptPaths& paths) const {
  absl::Status made = make_directory(paths.root, false);
  if (absl::IsAlreadyExists(made)) {
    discard(paths);
    made = make_directory(paths.root, false);
  }
  if (!made.ok()) return made;
  for (const std::string* path : {&paths.app, &paths.checkpoint, &paths.output, &paths.temporary}) {
    made = make_directory(*path, true);
    if (!made.ok()) return made;
  }
  common::UniqueFd events(
      ::open(paths.events.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!events.valid()) return common::errno_status(errno, "make", paths.events);
  if (user_ && ::fchown(events.get(), user_->uid, user_->gid) != 0) {
    return common::errno_status(errno, "give to the ranks' user", paths.events);
  }
  return absl::OkStatus();
}

void AttemptDirs::mark(const AttemptPaths& paths) const {
  const timespec times[2] = {{0, UTIME_OMIT}, {kMarkSeconds, 0}};
  for (const std::string* path :
       {&paths.root, &paths.app, &paths.checkpoint, &paths.output, &paths.temporary}) {
    ::utimensat(AT_FDCWD, path->c_str(), times, AT_SYMLINK_NOFOLLOW);  // else it looks touched
  }
}

bool AttemptDirs::is_untouched(const std::string& directory, uid_t owner) const {
  struct stat info {};
  if (::lstat(directory.c_str(), &info) != 0 || !S_ISDIR(info.st_mode)) return false;
  return info.st_mtim.tv_sec == kMarkSeconds && info.st_mtim.tv_nsec == 0 &&
         (info.st_mode & 07777) == 0700 && info.st_uid == owner;
}

uid_t AttemptDirs::owner() const { return user_ ? user_->uid : ::geteuid(); }

absl::Status AttemptDirs::move(const AttemptPaths& from, const AttemptPaths& to) const {
  int result = ::rename(from.root.c_str(), to.root.c_str());
  if (result != 0 && (errno == ENOTEMPTY || errno == EEXIST)) {
    discard(to);
    result = ::rename(from.root.c_str(), to.root.c_str());
  }
  return result == 0 ? absl::OkStatus() : common::errno_status(errno, "rename", from.root);
}

void AttemptDirs::discard(const AttemptPaths& paths) const {
  const std::string target = trash_.string() + "/" + std::to_string(discarded_++);
  if (::rename(paths.root.c_str(), target.c_str()) != 0 && errno != ENOENT) {
    rpc::log().warn("event=discard_failed path={} error=\"{}\"", paths.root,
                    std::generic_category().message(errno));
  }
}

size_t AttemptDirs::discard_others(const std::set<AttemptKey>& kept) const {
  std::set<std::string> names;
  for (const AttemptKey& key : kept) names.insert(name_of(key));
  size_t discarded = 0;
  std::error_code error;
  for (fs::directory_iterator it(attempts_, error), end; !error && it != end; it.increment(error)) {
    if (names.contains(it->path().filename().string())) continue;
    AttemptPaths paths;
    paths.root = it->path().string();
    discard(paths);
    ++discarded;
  }
  return discarded;
}

void AttemptDirs::empty_trash() const {
  const uint64_t discarded = discarded_;  // what is discarded meanwhile is for the next time
  std::error_code error;
  for (fs::directory_iterator it(trash_, error), end; !error && it != end; it.increment(error)) {
    absl::Status removed = remove_tree(it->path());
    if (!removed.ok()) {
      rpc::log().warn("event=delete_failed error=\"{}\"", std::string(removed.message()));
    }
  }
  emptied_ = discarded;
}

}  // namespace pesc::worker
