// Taking a token back.
#pragma once

#include <filesystem>
#include <string_view>

#include "absl/status/status.h"

namespace pesc::coordinator {

// Forgets all tokens of ROLE:NAME ("worker:pc-7"). No coordinator may run on the state directory:
// sessions that were opened with the token would go on.
absl::Status revoke_tokens(const std::filesystem::path& state_dir, std::string_view role_and_name);

}  // namespace pesc::coordinator
