#include "runtime/worker/shell/network_interface.h"

#include <ifaddrs.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstring>
#include <memory>

namespace pesc::worker {
namespace {

bool same_address(const sockaddr* a, const sockaddr_storage& b) {
  if (a == nullptr || a->sa_family != b.ss_family) return false;
  if (a->sa_family == AF_INET) {
    return std::memcmp(&reinterpret_cast<const sockaddr_in*>(a)->sin_addr,
                       &reinterpret_cast<const sockaddr_in&>(b).sin_addr, sizeof(in_addr)) == 0;
  }
  return a->sa_family == AF_INET6 &&
         std::memcmp(&reinterpret_cast<const sockaddr_in6*>(a)->sin6_addr,
                     &reinterpret_cast<const sockaddr_in6&>(b).sin6_addr, sizeof(in6_addr)) == 0;
}

// The address this machine would send from: the kernel chooses it when a datagram socket is
// connected, without a packet.
bool local_address_towards(const addrinfo& there, sockaddr_storage& here) {
  const int fd = ::socket(there.ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return false;
  socklen_t size = sizeof here;
  const bool known = ::connect(fd, there.ai_addr, there.ai_addrlen) == 0 &&
                     ::getsockname(fd, reinterpret_cast<sockaddr*>(&here), &size) == 0;
  ::close(fd);
  return known;
}

}  // namespace

std::string network_interface_towards(const std::string& address) {
  addrinfo hints{};
  hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV;  // a name could take long to look up
  hints.ai_socktype = SOCK_DGRAM;
  addrinfo* found = nullptr;
  if (::getaddrinfo(address.c_str(), "9", &hints, &found) != 0) return "";
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> there(found, ::freeaddrinfo);
  sockaddr_storage here{};
  if (!local_address_towards(*there, here)) return "";
  ifaddrs* listed = nullptr;
  if (::getifaddrs(&listed) != 0) return "";
  const std::unique_ptr<ifaddrs, decltype(&::freeifaddrs)> interfaces(listed, ::freeifaddrs);
  for (const ifaddrs* each = listed; each != nullptr; each = each->ifa_next) {
    if (same_address(each->ifa_addr, here)) return each->ifa_name;
  }
  return "";
}

}  // namespace pesc::worker
