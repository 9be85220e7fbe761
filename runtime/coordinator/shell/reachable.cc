#include "runtime/coordinator/shell/reachable.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <unistd.h>

#include <array>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>

namespace pesc::coordinator {
namespace {

bool is_wildcard(const std::string& host) {
  return host.empty() || host == "0.0.0.0" || host == "::" || host == "*";
}

std::string default_route_interface() {
  std::ifstream routes("/proc/net/route");
  std::string line;
  std::getline(routes, line);  // the heading
  while (std::getline(routes, line)) {
    std::istringstream columns(line);
    std::string interface, destination;
    if (columns >> interface >> destination && destination == "00000000") return interface;
  }
  return {};
}

std::string text_of(const sockaddr* address) {
  std::array<char, INET6_ADDRSTRLEN> text{};
  if (address->sa_family == AF_INET) {
    const auto* in = reinterpret_cast<const sockaddr_in*>(address);
    inet_ntop(AF_INET, &in->sin_addr, text.data(), text.size());
  } else {
    const auto* in = reinterpret_cast<const sockaddr_in6*>(address);
    if (IN6_IS_ADDR_LINKLOCAL(&in->sin6_addr)) return {};  // no use without a scope
    inet_ntop(AF_INET6, &in->sin6_addr, text.data(), text.size());
  }
  return text.data();
}

// Best first: IPv4 of the interface with the default route, any other IPv4, IPv6.
std::string outward_address() {
  ifaddrs* raw = nullptr;
  if (getifaddrs(&raw) != 0) return {};
  const std::unique_ptr<ifaddrs, decltype(&freeifaddrs)> all(raw, &freeifaddrs);
  const std::string preferred = default_route_interface();
  std::string best;
  int best_rank = 0;
  for (const ifaddrs* it = raw; it != nullptr; it = it->ifa_next) {
    if (it->ifa_addr == nullptr || (it->ifa_flags & IFF_UP) == 0 ||
        (it->ifa_flags & IFF_LOOPBACK) != 0) {
      continue;
    }
    const int family = it->ifa_addr->sa_family;
    if (family != AF_INET && family != AF_INET6) continue;
    const int rank = (family == AF_INET ? 2 : 1) + (preferred == it->ifa_name ? 2 : 0);
    if (rank <= best_rank) continue;
    if (std::string text = text_of(it->ifa_addr); !text.empty()) {
      best = std::move(text);
      best_rank = rank;
    }
  }
  return best;
}

}  // namespace

rpc::Address reachable_address(const rpc::Address& bound) {
  if (!is_wildcard(bound.host)) return bound;
  std::string host = outward_address();
  if (host.empty()) {
    // No network at present: the name may lead here once there is one, 127.0.0.1 never will.
    std::array<char, 256> name{};
    gethostname(name.data(), name.size() - 1);
    host = name.data();
  }
  return {std::move(host), bound.port};
}

rpc::Address local_address(const rpc::Address& bound) {
  return is_wildcard(bound.host) ? rpc::Address{"127.0.0.1", bound.port} : bound;
}

}  // namespace pesc::coordinator
