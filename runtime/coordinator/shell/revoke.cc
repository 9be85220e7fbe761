#include "runtime/coordinator/shell/revoke.h"

#include <string>

#include "rpc/credentials.h"
#include "runtime/common/state_dir.h"

namespace pesc::coordinator {

absl::Status revoke_tokens(const std::filesystem::path& state_dir, std::string_view role_and_name) {
  const size_t colon = role_and_name.find(':');
  const std::string_view role_name = role_and_name.substr(0, colon);
  for (const rpc::Role role : {rpc::Role::user, rpc::Role::worker, rpc::Role::admin}) {
    if (colon == std::string_view::npos || rpc::to_string(role) != role_name) continue;
    std::error_code ignored;
    if (!std::filesystem::exists(state_dir / "tokens.json", ignored)) {
      return absl::NotFoundError("no coordinator has its state in " + state_dir.string() +
                                 ": name its directory with --state");
    }
    const absl::StatusOr<common::UniqueFd> lock =
        common::lock_state_dir(state_dir, "pesc-coordinator");
    if (!lock.ok()) return lock.status();
    absl::StatusOr<rpc::TokenStore> tokens = rpc::TokenStore::open(state_dir);
    if (!tokens.ok()) return tokens.status();
    return tokens->revoke(role, std::string(role_and_name.substr(colon + 1)));
  }
  return absl::InvalidArgumentError("--revoke takes user:NAME, worker:NAME or admin:NAME, not \"" +
                                    std::string(role_and_name) + "\"");
}

}  // namespace pesc::coordinator
