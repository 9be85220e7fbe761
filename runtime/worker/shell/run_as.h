// The user that ranks run as, when it is not the worker's own.
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <optional>
#include <string>

#include "absl/status/statusor.h"

namespace pesc::worker {

struct RankUser {
  std::string name, home;
  uid_t uid = 0;
  gid_t gid = 0;
};

// Nothing for an empty name. FailedPrecondition: only root can run ranks as somebody else.
// NotFound: no such user.
absl::StatusOr<std::optional<RankUser>> resolve_rank_user(const std::string& name);

// For a daemon that root started without a choice: "pesc" where it exists, else "nobody".
std::string default_rank_user();

// FailedPrecondition, naming the first directory above `path` that the user cannot enter.
absl::Status check_reachable(const RankUser& user, const std::filesystem::path& path);

}  // namespace pesc::worker
