#pragma once

#include <optional>
#include <string_view>

#include "rpc/credentials.h"

namespace pesc::rpc {

std::optional<Role> parse_role(std::string_view text);

}  // namespace pesc::rpc
