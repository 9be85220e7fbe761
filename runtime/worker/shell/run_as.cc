#include "runtime/worker/shell/run_as.h"

#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <vector>

#include "runtime/common/state_dir.h"

namespace pesc::worker {
namespace {

std::optional<RankUser> find_user(const std::string& name) {
  std::vector<char> buffer(16 * 1024);
  passwd entry{};
  passwd* found = nullptr;
  while (::getpwnam_r(name.c_str(), &entry, buffer.data(), buffer.size(), &found) == ERANGE) {
    buffer.resize(buffer.size() * 2);
  }
  if (found == nullptr) return std::nullopt;
  return RankUser{name, entry.pw_dir != nullptr ? entry.pw_dir : "/", entry.pw_uid, entry.pw_gid};
}

}  // namespace

absl::StatusOr<std::optional<RankUser>> resolve_rank_user(const std::string& name) {
  if (name.empty()) return std::optional<RankUser>();
  std::optional<RankUser> user = find_user(name);
  if (!user) {
    return absl::NotFoundError("there is no user \"" + name +
                               "\" on this machine for the ranks to run as: make it, or name "
                               "another with --run-as");
  }
  if (user->uid == ::geteuid()) return std::optional<RankUser>();
  if (::geteuid() != 0) {
    return absl::FailedPreconditionError(
        "only root can run ranks as another user: start the "
        "worker as root, or leave --run-as out");
  }
  return user;
}

std::string default_rank_user() { return find_user("pesc") ? "pesc" : "nobody"; }

absl::Status check_reachable(const RankUser& user, const std::filesystem::path& path) {
  for (std::filesystem::path at = path.parent_path();; at = at.parent_path()) {
    struct stat info {};
    if (::stat(at.c_str(), &info) != 0) return common::errno_status(errno, "read", at);
    const mode_t needed =
        info.st_uid == user.uid ? S_IXUSR : (info.st_gid == user.gid ? S_IXGRP : S_IXOTH);
    if ((info.st_mode & needed) == 0) {
      return absl::FailedPreconditionError("the user " + user.name + " cannot enter " +
                                           at.string() + ", so no rank could run below " +
                                           path.string() +
                                           ": choose another --state, e.g. /var/lib/pesc/worker");
    }
    if (at == at.root_path() || at.empty()) return absl::OkStatus();
  }
}

}  // namespace pesc::worker
