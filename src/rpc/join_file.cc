#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <nlohmann/json.hpp>

#include "rpc/connection.h"
#include "rpc/credentials.h"
#include "rpc/private_file.h"
#include "rpc/roles.h"

namespace pesc::rpc {
namespace {

using nlohmann::json;

constexpr int kFormat = 1;
constexpr std::array<const char*, 6> kTextKeys{"address", "role",        "name",
                                               "token",   "certificate", "coordinator_uid"};

absl::Status bad(std::string_view file, std::string_view why) {
  return absl::InvalidArgumentError(
      fmt::format("{} is no usable join file: {}; `pesc join-file` on the coordinator's machine "
                  "makes a new one",
                  file, why));
}

absl::Status check_keys(const json& document, std::string_view file) {
  if (!document.is_object()) return bad(file, "it is not JSON of one");
  if (!document.contains("pesc_join_file") || !document["pesc_join_file"].is_number_integer()) {
    return bad(file, "it does not say \"pesc_join_file\"");
  }
  if (document["pesc_join_file"] != kFormat) {
    return bad(file, fmt::format("its format is {}, this program knows {}",
                                 document["pesc_join_file"].dump(), kFormat));
  }
  for (const auto& [key, value] : document.items()) {
    if (key == "pesc_join_file") continue;
    bool known = std::find(kTextKeys.begin(), kTextKeys.end(), key) != kTextKeys.end();
    if (!known) return bad(file, fmt::format("its key \"{}\" is unknown", key));
    if (!value.is_string()) return bad(file, fmt::format("its \"{}\" is no text", key));
  }
  return absl::OkStatus();
}

bool is_token(const std::string& token) {
  return !token.empty() && std::all_of(token.begin(), token.end(),
                                       [](unsigned char c) { return c > ' ' && c < 0x7f; });
}

}  // namespace

std::string to_json(const JoinFile& join) {
  nlohmann::ordered_json document{{"pesc_join_file", kFormat},
                                  {"address", join.address},
                                  {"role", std::string(to_string(join.role))},
                                  {"name", join.name},
                                  {"token", join.token},
                                  {"certificate", join.certificate_pem}};
  if (join.coordinator_uid) document["coordinator_uid"] = std::to_string(*join.coordinator_uid);
  return document.dump(2, ' ', false, json::error_handler_t::replace) + "\n";
}

absl::StatusOr<JoinFile> parse_join_file(std::string_view text, std::string_view file) {
  json document = json::parse(text.begin(), text.end(), nullptr, false);
  if (document.is_discarded()) return bad(file, "it is not JSON");
  absl::Status keys = check_keys(document, file);
  if (!keys.ok()) return keys;

  JoinFile join;
  join.address = document.value("address", "");
  join.name = document.value("name", "");
  join.token = document.value("token", "");
  join.certificate_pem = document.value("certificate", "");
  if (document.contains("coordinator_uid")) {
    const std::string uid = document.value("coordinator_uid", "");
    uint32_t number = 0;
    auto [end, error] = std::from_chars(uid.data(), uid.data() + uid.size(), number);
    if (error != std::errc() || end != uid.data() + uid.size()) {
      return bad(file, "its \"coordinator_uid\" is no user's number");
    }
    join.coordinator_uid = number;
  }
  std::optional<Role> role = parse_role(document.value("role", ""));
  if (!role) return bad(file, "its \"role\" is neither user nor worker nor admin");
  join.role = *role;
  absl::StatusOr<Address> address = parse_address(join.address);
  if (!address.ok()) return bad(file, std::string(address.status().message()));
  if (!is_token(join.token)) return bad(file, "its \"token\" is missing or damaged");
  bool has_certificate = !join.certificate_pem.empty();
  if (has_certificate &&
      join.certificate_pem.find("-----BEGIN CERTIFICATE-----") == std::string::npos) {
    return bad(file, "its \"certificate\" is damaged");
  }
  if (!has_certificate && !is_loopback(*address)) {
    return bad(file, fmt::format("it has no certificate for {}, and without one the token would "
                                 "travel readable for all",
                                 join.address));
  }
  return join;
}

absl::StatusOr<JoinFile> read_join_file(const std::filesystem::path& path) {
  absl::StatusOr<std::string> text = read_private_file(path);
  if (!text.ok()) return text.status();
  return parse_join_file(*text, path.string());
}

absl::Status write_join_file(const std::filesystem::path& path, const JoinFile& join) {
  return write_private_file(path, to_json(join));
}

}  // namespace pesc::rpc
