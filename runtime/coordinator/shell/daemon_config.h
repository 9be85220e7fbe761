// The daemon's settings: command line over configuration file over defaults.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "rpc/connection.h"
#include "runtime/coordinator/shell/coordinator.h"

namespace pesc::coordinator {

// As given, before it is understood. Empty: not given.
struct DaemonSettings {
  std::string listen, state, lease, retention_days, retention_bytes, log_level;
  bool drop_damaged = false;
};

struct DaemonConfig {
  rpc::Address listen;
  Options options;
  std::string log_level = "info";
};

// Keys: listen, state, lease, retention_days, retention_bytes, log_level. InvalidArgument names an
// unknown key and lists the known ones.
absl::StatusOr<DaemonSettings> read_settings(const std::filesystem::path& toml_file);
// `over` wins where it says something.
DaemonSettings merge(DaemonSettings under, const DaemonSettings& over);
absl::StatusOr<DaemonConfig> understand(const DaemonSettings& settings);

}  // namespace pesc::coordinator
