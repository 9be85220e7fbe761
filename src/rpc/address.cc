#include <fmt/core.h>

#include <charconv>

#include "rpc/connection.h"

namespace pesc::rpc {
namespace {

absl::Status bad_address(std::string_view text, std::string_view why) {
  return absl::InvalidArgumentError(
      fmt::format("\"{}\" is no address: {}; write HOST:PORT, [IPV6]:PORT or :PORT", text, why));
}

bool has_odd_character(std::string_view host) {
  for (unsigned char c : host) {
    if (c <= ' ' || c == 0x7f || c == '/' || c == '[' || c == ']' || c == '@') return true;
  }
  return false;
}

}  // namespace

absl::StatusOr<Address> parse_address(std::string_view text) {
  std::string_view host, port;
  bool has_port = false;
  if (!text.empty() && text.front() == '[') {
    size_t close = text.find(']');
    if (close == std::string_view::npos) return bad_address(text, "the ] is missing");
    host = text.substr(1, close - 1);
    std::string_view rest = text.substr(close + 1);
    if (!rest.empty() && rest.front() != ':') return bad_address(text, "a : must follow the ]");
    has_port = !rest.empty();
    if (has_port) port = rest.substr(1);
    if (host.empty()) return bad_address(text, "there is nothing between the brackets");
  } else {
    size_t colon = text.find(':');
    has_port = colon != std::string_view::npos;
    host = text.substr(0, colon);
    if (has_port) port = text.substr(colon + 1);
    if (port.find(':') != std::string_view::npos) {
      return bad_address(text, "an IPv6 address needs brackets, [::1]:7341");
    }
    if (!has_port && host.empty()) return bad_address(text, "it is empty");
    if (!has_port && host.find_first_not_of("0123456789") == std::string_view::npos) {
      return bad_address(text, fmt::format("a port alone is written :{}", host));
    }
  }
  if (has_odd_character(host)) return bad_address(text, "the host name has odd characters");

  Address address{std::string(host), kDefaultPort};
  if (!has_port) return address;
  auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), address.port);
  if (port.empty() || error != std::errc() || end != port.data() + port.size()) {
    return bad_address(text, fmt::format("\"{}\" is no port from 0 to 65535", port));
  }
  return address;
}

std::string to_string(const Address& address) {
  bool ipv6 = address.host.find(':') != std::string::npos;
  return ipv6 ? fmt::format("[{}]:{}", address.host, address.port)
              : fmt::format("{}:{}", address.host, address.port);
}

bool is_loopback(const Address& address) {
  return address.host == "localhost" || address.host == "::1" ||
         (address.host.rfind("127.", 0) == 0 &&
          address.host.find_first_not_of("0123456789.") == std::string::npos);
}

}  // namespace pesc::rpc
