// The packaged library is built with exceptions, and we want none: header-only, whatever the build
// says.
#undef TOML_HEADER_ONLY
#undef TOML_SHARED_LIB
#define TOML_HEADER_ONLY 1
#define TOML_EXCEPTIONS 0

#include <fmt/core.h>
#include <pwd.h>
#include <stdlib.h>
#include <toml++/toml.h>
#include <unistd.h>

#include <array>

#include "rpc/connection.h"
#include "rpc/credentials.h"
#include "rpc/private_file.h"

namespace pesc::rpc {
namespace {

namespace fs = std::filesystem;

std::string environment(const char* name) {
  const char* value = getenv(name);
  return value ? value : "";
}

fs::path home() {
  std::string home = environment("HOME");
  if (!home.empty() && home.front() == '/') return home;
  std::array<char, 16384> buffer;
  passwd entry{}, *found = nullptr;
  if (getpwuid_r(geteuid(), &entry, buffer.data(), buffer.size(), &found) == 0 && found &&
      found->pw_dir && found->pw_dir[0] == '/') {
    return found->pw_dir;
  }
  return "/nonexistent";  // what the system itself gives to users without a home
}

fs::path xdg_dir(const char* variable, const char* below_home) {
  std::string dir = environment(variable);
  // The XDG specification: relative ones are to be ignored.
  fs::path base = !dir.empty() && dir.front() == '/' ? fs::path(dir) : home() / below_home;
  return base / "pesc";
}

struct Configuration {
  fs::path file;
  std::string coordinator;
  std::string join_file;
};

absl::Status bad_configuration(const fs::path& file, std::string_view why) {
  return absl::InvalidArgumentError(fmt::format("{}: {}", file.string(), why));
}

fs::path expand(const std::string& path, const fs::path& relative_to) {
  if (path.rfind("~/", 0) == 0) return home() / path.substr(2);
  return relative_to / path;  // an absolute one stays as it is
}

absl::StatusOr<Configuration> read_configuration() {
  Configuration configuration;
  configuration.file = user_config_dir() / "config.toml";
  absl::StatusOr<std::string> text = read_small_file(configuration.file);
  if (text.status().code() == absl::StatusCode::kNotFound) return configuration;
  if (!text.ok()) return text.status();

  toml::parse_result parsed = toml::parse(std::string_view(*text));
  if (!parsed) {
    return bad_configuration(configuration.file,
                             fmt::format("line {}: {}", parsed.error().source().begin.line,
                                         parsed.error().description()));
  }
  for (auto&& [key, value] : parsed.table()) {
    std::string* place = key.str() == "coordinator" ? &configuration.coordinator
                         : key.str() == "join_file" ? &configuration.join_file
                                                    : nullptr;
    if (!place) {
      return bad_configuration(
          configuration.file,
          fmt::format("unknown key \"{}\"; known are: coordinator, join_file", key.str()));
    }
    if (!value.is_string()) {
      return bad_configuration(configuration.file,
                               fmt::format("\"{}\" must be a text in quotes", key.str()));
    }
    *place = value.as_string()->get();
  }
  if (!configuration.join_file.empty()) {
    configuration.join_file =
        expand(configuration.join_file, configuration.file.parent_path()).string();
  }
  return configuration;
}

bool is_path(const std::string& name) {
  auto ends_with = [&name](std::string_view end) {
    return name.size() > end.size() && name.compare(name.size() - end.size(), end.size(), end) == 0;
  };
  return name.find('/') != std::string::npos || ends_with(".join") || ends_with(".json");
}

// A user's token is no worker's; an admin is a user too.
absl::Status check_role(const JoinFile& join, Role wanted, const fs::path& path) {
  if (join.role == wanted || (wanted == Role::user && join.role == Role::admin)) {
    return absl::OkStatus();
  }
  return absl::PermissionDeniedError(fmt::format(
      "{} is a join file for the role {}, and this needs one for {}: `pesc join-file {} "
      "NAME` on the coordinator's machine makes it",
      path.string(), to_string(join.role), to_string(wanted), to_string(wanted)));
}

absl::StatusOr<JoinFile> read_for_role(const fs::path& path, Role role) {
  absl::StatusOr<JoinFile> join = read_join_file(path);
  if (!join.ok()) return join;
  absl::Status fits = check_role(*join, role, path);
  if (!fits.ok()) return fits;
  return join;
}

bool same_place(const Address& named, const JoinFile& join) {
  absl::StatusOr<Address> other = parse_address(join.address);
  if (!other.ok() || other->port != named.port) return false;
  return other->host == named.host || (is_loopback(*other) && is_loopback(named));
}

bool is_this_machine(const Address& address) {
  char name[256] = "";
  return is_loopback(address) || (gethostname(name, sizeof name - 1) == 0 && address.host == name);
}

// Looks for the credentials of one address, and remembers where, for the message.
class Search {
 public:
  Search(Address address, Role role) : address_(std::move(address)), role_(role) {}

  // A file that the user named. For another address it serves only when its certificate proves that
  // the same coordinator answers: a token never goes to a machine that it was not made for.
  absl::Status try_named(const std::string& source, const fs::path& path) {
    if (path.empty()) {
      looked_.push_back(source + " (not set)");
      return absl::OkStatus();
    }
    absl::StatusOr<JoinFile> join = read_for_role(path, role_);
    if (!join.ok()) {
      return absl::Status(join.status().code(),
                          fmt::format("{}: {}", source, std::string(join.status().message())));
    }
    if (same_place(address_, *join)) {
      if (!found_) found_ = *join;
    } else if (!join->certificate_pem.empty()) {
      if (!alias_) alias_ = *join;
    } else {
      looked_.push_back(fmt::format("{} ({} is for {})", source, path.string(), join->address));
    }
    return absl::OkStatus();
  }

  // A file that may be there.
  absl::Status try_place(const fs::path& path) {
    if (found_) return absl::OkStatus();
    absl::StatusOr<JoinFile> join = read_for_role(path, role_);
    if (join.status().code() == absl::StatusCode::kNotFound) {
      looked_.push_back(path.string() + " (no such file)");
      return absl::OkStatus();
    }
    if (!join.ok()) return join.status();
    if (join->certificate_pem.empty() && !is_loopback(address_)) {
      looked_.push_back(path.string() + " (has no certificate, serves on its own machine only)");
      return absl::OkStatus();
    }
    found_ = *std::move(join);
    return absl::OkStatus();
  }

  // What a coordinator of this user left on this machine. It says where it serves, which may be one
  // address of the machine only: whoever asks for the machine itself is led there.
  absl::Status try_pointer(const fs::path& path) {
    if (found_) return absl::OkStatus();
    absl::StatusOr<JoinFile> join = read_for_role(path, role_);
    if (join.status().code() == absl::StatusCode::kNotFound) {
      if (is_this_machine(address_)) looked_.push_back(path.string() + " (no such file)");
      return absl::OkStatus();
    }
    if (!is_this_machine(address_) && (!join.ok() || !same_place(address_, *join))) {
      return absl::OkStatus();  // another machine is meant
    }
    if (!join.ok()) return join.status();
    const absl::StatusOr<Address> serves = parse_address(join->address);
    if (!serves.ok()) return serves.status();
    if (!is_loopback(*serves)) address_ = *serves;
    found_ = *std::move(join);
    return absl::OkStatus();
  }

  absl::StatusOr<std::optional<JoinFile>> result() const {
    std::optional<JoinFile> join = found_ ? found_ : alias_;
    if (join) {
      join->address = to_string(address_);
      return join;
    }
    std::string places;
    for (const std::string& place : looked_) places += (places.empty() ? "" : ", ") + place;
    return absl::FailedPreconditionError(fmt::format(
        "no token for the coordinator {} was found; looked at {}. `pesc join-file {} NAME` on the "
        "coordinator's machine makes a join file: copy it here and name it by PESC_JOIN_FILE, or "
        "instead of the address",
        to_string(address_), places, to_string(role_)));
  }

 private:
  Address address_;
  Role role_;
  std::optional<JoinFile> found_, alias_;
  std::vector<std::string> looked_;
};

absl::StatusOr<std::optional<JoinFile>> find_for_address(const std::string& name, Role role,
                                                         const Configuration& configuration) {
  absl::StatusOr<Address> address = parse_address(name);
  if (!address.ok()) return address.status();
  if (address->host.empty()) address->host = "localhost";
  if (address->port == 0) {
    return absl::InvalidArgumentError(
        fmt::format("\"{}\" is no coordinator's address: port 0 is no port", name));
  }

  Search search(*address, role);
  absl::Status status = search.try_named("$PESC_JOIN_FILE", environment("PESC_JOIN_FILE"));
  if (!status.ok()) return status;
  status = search.try_named("join_file in " + configuration.file.string(), configuration.join_file);
  if (!status.ok()) return status;
  status =
      search.try_place(user_config_dir() / fmt::format("{}_{}.join", address->host, address->port));
  if (status.ok()) status = search.try_pointer(pointer_path(address->port, role));
  if (status.ok() && role == Role::user) {
    status = search.try_pointer(pointer_path(address->port, Role::admin));
  }
  if (!status.ok()) return status;
  return search.result();
}

absl::StatusOr<std::optional<JoinFile>> read_named_file(const fs::path& path, Role role) {
  absl::StatusOr<JoinFile> join = read_for_role(path, role);
  if (!join.ok()) return join.status();
  return std::optional<JoinFile>(*std::move(join));
}

}  // namespace

fs::path user_state_dir() { return xdg_dir("XDG_STATE_HOME", ".local/state"); }
fs::path user_config_dir() { return xdg_dir("XDG_CONFIG_HOME", ".config"); }

fs::path pointer_path(uint16_t port, Role role) {
  return user_state_dir() / "coordinators" / fmt::format("{}.{}.join", port, to_string(role));
}

absl::StatusOr<std::optional<JoinFile>> find_coordinator(const std::string& named, Role role) {
  absl::StatusOr<Configuration> configuration = read_configuration();
  if (!configuration.ok()) return configuration.status();

  std::string name = named.empty() ? environment("PESC_COORDINATOR") : named;
  if (name.empty()) {
    std::string file = environment("PESC_JOIN_FILE");
    if (!file.empty()) return read_named_file(file, role);
    name = configuration->coordinator;
    if (is_path(name)) name = expand(name, configuration->file.parent_path()).string();
  }
  if (name.empty()) {
    if (configuration->join_file.empty()) return std::optional<JoinFile>();
    return read_named_file(configuration->join_file, role);
  }
  if (is_path(name)) return read_named_file(name, role);
  return find_for_address(name, role, *configuration);
}

}  // namespace pesc::rpc
