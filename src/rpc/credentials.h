// Who may talk to a coordinator: tokens, the coordinator's own certificate, join files, and where
// the same user's tools find them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace pesc::rpc {

// A self-signed certificate (P-256, CN pesc-coordinator) and its key.
struct Identity {
  std::string certificate_pem;
  std::string key_pem;
};
// Reads DIR/identity.pem (mode 0600), or makes it.
absl::StatusOr<Identity> load_or_create_identity(const std::filesystem::path& state_dir);
// One that is kept nowhere: of a port whose certificate is told to each who may come.
absl::StatusOr<Identity> make_identity();

enum class Role : uint8_t { user, worker, admin };  // admin: a user who may also make tokens
std::string_view to_string(Role role);

struct Principal {
  Role role = Role::user;
  std::string name;  // owns jobs
};

// The coordinator's list of tokens: DIR/tokens.json (0600) holds their SHA-256 only. Comparison
// takes constant time. Not thread-safe.
class TokenStore {
 public:
  static absl::StatusOr<TokenStore> open(const std::filesystem::path& state_dir);
  // Adds a principal and returns its token (256 random bits, base64url); durable when it returns.
  absl::StatusOr<std::string> issue(Role role, const std::string& name);
  std::optional<Principal> find(std::string_view token) const;
  absl::Status revoke(Role role, const std::string& name);

 private:
  struct Entry {
    std::string token_sha256_hex;
    Principal principal;
  };
  absl::Status save(const std::vector<Entry>& entries) const;

  std::filesystem::path file_;
  std::vector<Entry> entries_;
};

// What a machine needs to reach a coordinator: one JSON file, mode 0600.
struct JoinFile {
  std::string address;  // "host:port"
  Role role = Role::user;
  std::string name;
  std::string token;
  std::string certificate_pem;  // empty: loopback, no TLS
  // Without a certificate: the user that the coordinator runs as, on the same machine. A process of
  // somebody else at its address is not given the token.
  std::optional<uint32_t> coordinator_uid = {};
};
std::string to_json(const JoinFile& join);
absl::StatusOr<JoinFile> parse_join_file(std::string_view json, std::string_view name_for_errors);
// Refuses (FailedPrecondition) a file that others can read, saying `chmod 600 FILE`.
absl::StatusOr<JoinFile> read_join_file(const std::filesystem::path& path);
absl::Status write_join_file(const std::filesystem::path& path,
                             const JoinFile& join);  // 0600, atomic

// The same user's tools find a coordinator on this machine by a join file it leaves at
// $XDG_STATE_HOME/pesc/coordinators/PORT.USERROLE.join (default ~/.local/state).
std::filesystem::path user_state_dir();   // $XDG_STATE_HOME/pesc or ~/.local/state/pesc
std::filesystem::path user_config_dir();  // $XDG_CONFIG_HOME/pesc or ~/.config/pesc
std::filesystem::path pointer_path(uint16_t port, Role role);

// Finds address and credentials. `named` is what the user gave (--coordinator), empty: look at
// $PESC_COORDINATOR, $PESC_JOIN_FILE, then at `coordinator` and `join_file` in
// user_config_dir()/config.toml. A name is "host:port", "host", or the path of a join file (it has
// a slash, or ends in .join or .json); for "host:port" the token comes from $PESC_JOIN_FILE,
// `join_file` in the configuration, user_config_dir()/HOST_PORT.join, or the pointer above (whose
// own address is used: a coordinator may serve on one address of this machine only). A join file
// that names another address serves only when it has a certificate to prove who answers.
// Nothing: no coordinator is named anywhere. An error: one is named but cannot be used.
absl::StatusOr<std::optional<JoinFile>> find_coordinator(const std::string& named, Role role);

}  // namespace pesc::rpc
