// The table [owner] of a worker's configuration.
#pragma once

#include <toml++/toml.h>

#include <string>

#include "absl/status/status.h"
#include "runtime/worker/owner/settings.h"

namespace pesc::worker::owner {

// Reads the table over `settings`; `where` begins the messages. An unknown key is refused by name.
absl::Status read_owner_table(const toml::table& table, const std::string& where,
                              Settings& settings);

}  // namespace pesc::worker::owner
