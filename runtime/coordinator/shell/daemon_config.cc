#include "runtime/coordinator/shell/daemon_config.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <sstream>
#include <utility>

#include "rpc/credentials.h"

// Errors come back as values: no exception may leave.
#define TOML_EXCEPTIONS 1
#include <toml++/toml.h>

namespace pesc::coordinator {
namespace {

constexpr uint64_t kDayMs = 24ull * 3600 * 1000;
constexpr uint64_t kMinLeaseMs = 1'000;
constexpr uint64_t kMaxLeaseMs = kDayMs;
// Of a lease, for one heartbeat: one or two that are late or lost cost nothing.
constexpr uint64_t kHeartbeatsPerLease = 4;
constexpr std::array<std::string_view, 6> kKeys = {
    "listen", "state", "lease", "retention_days", "retention_bytes", "log_level"};
constexpr std::array<std::string_view, 6> kLevels = {"trace", "debug", "info",
                                                     "warn",  "error", "off"};

template <size_t N>
std::string list(const std::array<std::string_view, N>& names) {
  std::string text;
  for (const std::string_view name : names) text += (text.empty() ? "" : ", ") + std::string(name);
  return text;
}

template <size_t N>
bool contains(const std::array<std::string_view, N>& names, std::string_view name) {
  for (const std::string_view each : names) {
    if (each == name) return true;
  }
  return false;
}

std::string& setting(DaemonSettings& settings, std::string_view key) {
  if (key == "listen") return settings.listen;
  if (key == "state") return settings.state;
  if (key == "lease") return settings.lease;
  if (key == "retention_days") return settings.retention_days;
  if (key == "retention_bytes") return settings.retention_bytes;
  return settings.log_level;
}

absl::StatusOr<std::string> value_text(const toml::node& node, std::string_view where) {
  if (const auto* text = node.as_string()) return text->get();
  if (const auto* number = node.as_integer()) return std::to_string(number->get());
  if (const auto* number = node.as_floating_point()) return std::to_string(number->get());
  return absl::InvalidArgumentError(std::string(where) + " must be a text or a number");
}

absl::StatusOr<DaemonSettings> read_table(const toml::table& table, const std::string& file) {
  DaemonSettings settings;
  for (const auto& [key, node] : table) {
    const std::string_view name = key.str();
    if (!contains(kKeys, name)) {
      return absl::InvalidArgumentError(file + ": unknown key \"" + std::string(name) +
                                        "\"; known are " + list(kKeys));
    }
    absl::StatusOr<std::string> text = value_text(node, file + ": " + std::string(name));
    if (!text.ok()) return text.status();
    setting(settings, name) = std::move(*text);
  }
  return settings;
}

absl::Status understand_lease(const std::string& text, CoreConfig& core) {
  const absl::StatusOr<uint64_t> lease_ms = parse_duration_ms(text);
  if (!lease_ms.ok()) return lease_ms.status();
  if (*lease_ms < kMinLeaseMs || *lease_ms > kMaxLeaseMs) {
    return absl::InvalidArgumentError("lease is a time from 1s to 24h, not \"" + text + "\"");
  }
  core.lease_ms = *lease_ms;
  core.heartbeat_ms = std::min(core.heartbeat_ms, *lease_ms / kHeartbeatsPerLease);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<DaemonSettings> read_settings(const std::filesystem::path& toml_file) {
  try {
    return read_table(toml::parse_file(toml_file.string()), toml_file.string());
  } catch (const toml::parse_error& error) {
    std::ostringstream place;
    place << error.source().begin;
    return absl::InvalidArgumentError(toml_file.string() + ": " + std::string(error.description()) +
                                      " (" + place.str() + ")");
  } catch (const std::exception& error) {
    return absl::InvalidArgumentError(toml_file.string() + ": " + error.what());
  }
}

DaemonSettings merge(DaemonSettings under, const DaemonSettings& over) {
  for (const std::string_view key : kKeys) {
    const std::string& value = setting(const_cast<DaemonSettings&>(over), key);
    if (!value.empty()) setting(under, key) = value;
  }
  under.drop_damaged = under.drop_damaged || over.drop_damaged;
  return under;
}

absl::StatusOr<DaemonConfig> understand(const DaemonSettings& settings) {
  DaemonConfig config;
  const std::string listen =
      settings.listen.empty() ? "127.0.0.1:" + std::to_string(rpc::kDefaultPort) : settings.listen;
  absl::StatusOr<rpc::Address> address = rpc::parse_address(listen);
  if (!address.ok()) return address.status();
  config.listen = std::move(*address);
  config.options.state_dir = settings.state.empty() ? rpc::user_state_dir() / "coordinator"
                                                    : std::filesystem::path(settings.state);
  if (!settings.lease.empty()) {
    absl::Status status = understand_lease(settings.lease, config.options.core);
    if (!status.ok()) return status;
  }
  if (!settings.retention_days.empty()) {
    const std::string& text = settings.retention_days;
    uint64_t days = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), days);
    if (error != std::errc() || end != text.data() + text.size() || days == 0 || days > 100'000) {
      return absl::InvalidArgumentError("retention_days is a number from 1 to 100000, not \"" +
                                        text + "\"");
    }
    config.options.retention_ms = days * kDayMs;
  }
  if (!settings.retention_bytes.empty()) {
    absl::StatusOr<uint64_t> bytes = parse_bytes(settings.retention_bytes);
    if (!bytes.ok()) return bytes.status();
    config.options.retention_bytes = *bytes;
  }
  if (!settings.log_level.empty()) {
    if (!contains(kLevels, settings.log_level)) {
      return absl::InvalidArgumentError("no log level \"" + settings.log_level + "\"; there are " +
                                        list(kLevels));
    }
    config.log_level = settings.log_level;
  }
  config.options.drop_damaged = settings.drop_damaged;
  return config;
}

}  // namespace pesc::coordinator
