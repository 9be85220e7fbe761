#include <fmt/core.h>
#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <openssl/sha.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "rpc/credentials.h"
#include "rpc/private_file.h"
#include "rpc/roles.h"

namespace pesc::rpc {
namespace {

using nlohmann::json;

constexpr size_t kTokenBytes = 32;
constexpr size_t kMaxName = 64;
constexpr size_t kMaxToken = 256;  // a stranger's token is hashed: not one of any length

std::string base64url(const unsigned char* data, size_t size) {
  constexpr char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
  std::string text;
  uint32_t bits = 0;
  int have = 0;
  for (size_t i = 0; i < size; ++i) {
    bits = bits << 8 | data[i];
    for (have += 8; have >= 6; have -= 6) text += digits[bits >> (have - 6) & 63];
  }
  if (have > 0) text += digits[bits << (6 - have) & 63];
  return text;
}

std::string sha256_hex(std::string_view text) {
  std::array<unsigned char, SHA256_DIGEST_LENGTH> digest;
  SHA256(reinterpret_cast<const unsigned char*>(text.data()), text.size(), digest.data());
  std::string hex;
  for (unsigned char byte : digest) hex += fmt::format("{:02x}", byte);
  return hex;
}

bool is_digest(const std::string& text) {
  return text.size() == 2 * SHA256_DIGEST_LENGTH &&
         text.find_first_not_of("0123456789abcdef") == std::string::npos;
}

absl::Status damaged(const std::filesystem::path& file, std::string_view why) {
  return absl::DataLossError(
      fmt::format("{} is damaged ({}): restore it from a backup, or remove it and make new join "
                  "files for all workers and users",
                  file.string(), why));
}

absl::Status check_name(const std::string& name) {
  bool odd = std::any_of(name.begin(), name.end(), [](unsigned char c) {
    return c < ' ' || c == 0x7f || c == '/' || c == '"' || c == '\\';
  });
  if (!name.empty() && name.size() <= kMaxName && !odd && name.front() != '.') {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(fmt::format(
      "a name must have 1 to {} characters, begin with no dot, and hold no slash, quote or control "
      "character",
      kMaxName));
}

}  // namespace

std::string_view to_string(Role role) {
  switch (role) {
    case Role::user:
      return "user";
    case Role::worker:
      return "worker";
    case Role::admin:
      return "admin";
  }
  return "user";
}

std::optional<Role> parse_role(std::string_view text) {
  for (Role role : {Role::user, Role::worker, Role::admin}) {
    if (text == to_string(role)) return role;
  }
  return std::nullopt;
}

absl::StatusOr<TokenStore> TokenStore::open(const std::filesystem::path& state_dir) {
  TokenStore store;
  store.file_ = state_dir / "tokens.json";
  absl::StatusOr<std::string> text = read_private_file(store.file_);
  if (text.status().code() == absl::StatusCode::kNotFound) return store;
  if (!text.ok()) return text.status();

  json document = json::parse(*text, nullptr, false);
  if (!document.is_object() || !document.contains("tokens") || !document["tokens"].is_array()) {
    return damaged(store.file_, "it is no list of tokens");
  }
  for (const json& item : document["tokens"]) {
    auto text_of = [&item](const char* key) {
      return item.is_object() && item.contains(key) && item[key].is_string()
                 ? item[key].get<std::string>()
                 : std::string();
    };
    std::optional<Role> role = parse_role(text_of("role"));
    Entry entry{text_of("sha256"), {role.value_or(Role::user), text_of("name")}};
    if (!role || !is_digest(entry.token_sha256_hex) || entry.principal.name.empty()) {
      return damaged(store.file_, fmt::format("token {}", store.entries_.size() + 1));
    }
    store.entries_.push_back(std::move(entry));
  }
  return store;
}

absl::StatusOr<std::string> TokenStore::issue(Role role, const std::string& name) {
  absl::Status named = check_name(name);
  if (!named.ok()) return named;
  std::array<unsigned char, kTokenBytes> bytes;
  if (RAND_bytes(bytes.data(), bytes.size()) != 1) {
    return absl::InternalError("cannot make a token: no random numbers");
  }
  std::string token = base64url(bytes.data(), bytes.size());
  OPENSSL_cleanse(bytes.data(), bytes.size());

  std::vector<Entry> next = entries_;
  next.push_back({sha256_hex(token), {role, name}});
  absl::Status saved = save(next);
  if (!saved.ok()) return saved;
  entries_ = std::move(next);
  return token;
}

// All entries are compared, whatever matches: the time tells nothing.
std::optional<Principal> TokenStore::find(std::string_view token) const {
  if (token.empty() || token.size() > kMaxToken) return std::nullopt;
  std::string digest = sha256_hex(token);
  const Entry* found = nullptr;
  for (const Entry& entry : entries_) {
    if (CRYPTO_memcmp(entry.token_sha256_hex.data(), digest.data(), digest.size()) == 0) {
      found = &entry;
    }
  }
  if (!found) return std::nullopt;
  return found->principal;
}

absl::Status TokenStore::revoke(Role role, const std::string& name) {
  std::vector<Entry> next;
  std::copy_if(entries_.begin(), entries_.end(), std::back_inserter(next), [&](const Entry& e) {
    return e.principal.role != role || e.principal.name != name;
  });
  if (next.size() == entries_.size()) {
    return absl::NotFoundError(fmt::format("there is no {} named {}", to_string(role), name));
  }
  absl::Status saved = save(next);
  if (saved.ok()) entries_ = std::move(next);
  return saved;
}

absl::Status TokenStore::save(const std::vector<Entry>& entries) const {
  json tokens = json::array();
  for (const Entry& entry : entries) {
    tokens.push_back({{"sha256", entry.token_sha256_hex},
                      {"role", std::string(to_string(entry.principal.role))},
                      {"name", entry.principal.name}});
  }
  json document{{"tokens", std::move(tokens)}};
  return write_private_file(file_,
                            document.dump(2, ' ', false, json::error_handler_t::replace) + "\n");
}

}  // namespace pesc::rpc
