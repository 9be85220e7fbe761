#include "runtime/worker/shell/ports.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>

#include "model/contract.h"
#include "runtime/common/state_dir.h"

namespace pesc::worker {
namespace {

constexpr uint32_t kLowest = 20'000;  // below are the ports of well-known services
constexpr uint32_t kFewest = 1'000;
constexpr size_t kJobsRemembered = 1'000;

uint32_t take_number(std::string_view& text) {
  while (!text.empty() && (text.front() < '0' || text.front() > '9')) text.remove_prefix(1);
  uint32_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  text.remove_prefix(static_cast<size_t>(end - text.data()));
  return error == std::errc() ? std::min<uint32_t>(value, 65'535) : 0;
}

bool can_bind(int family, const sockaddr* address, socklen_t size) {
  common::UniqueFd fd(::socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd.valid()) return true;  // a family that the machine does not have is in nobody's way
  const int only = 1;
  if (family == AF_INET6) {
    ::setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &only, sizeof only);
  }
  // Without SO_REUSEADDR: a program that does not set it must be able to listen as well.
  return ::bind(fd.get(), address, size) == 0 || errno == EADDRNOTAVAIL;
}

}  // namespace

PortRange gang_ports(std::string_view ephemeral) {
  const uint32_t low = take_number(ephemeral), high = take_number(ephemeral);
  if (low == 0 || high < low) return {20'000, 32'767};
  if (low >= kLowest + kFewest) return {kLowest, static_cast<uint16_t>(low - 1)};
  if (high + kFewest <= 65'535) return {static_cast<uint16_t>(high + 1), 65'535};
  if (low >= 1'024 + 100) return {1'024, static_cast<uint16_t>(low - 1)};
  return {20'000, 32'767};  // the kernel gives out all: any may be taken meanwhile
}

PortRange gang_ports() {
  auto text = common::read_small_file("/proc/sys/net/ipv4/ip_local_port_range", 256);
  return gang_ports(text.ok() ? std::string_view(*text) : std::string_view());
}

bool port_is_free(uint16_t port) {
  sockaddr_in four{};
  four.sin_family = AF_INET;
  four.sin_port = htons(port);
  sockaddr_in6 six{};
  six.sin6_family = AF_INET6;
  six.sin6_port = htons(port);
  return can_bind(AF_INET, reinterpret_cast<const sockaddr*>(&four), sizeof four) &&
         can_bind(AF_INET6, reinterpret_cast<const sockaddr*>(&six), sizeof six);
}

uint16_t PortChooser::choose(const AttemptKey& key) {
  std::set<uint16_t> used;
  for (const auto& [attempt, port] : given_) used.insert(port);
  if (auto last = last_.find(key.job); last != last_.end()) used.insert(last->second);
  const uint32_t count = uint32_t{range_.last} - range_.first + 1;
  // Spread by job and generation, so that workers which share a machine seldom meet.
  const uint64_t start = rank_seed(key.job.value, key.attempt);
  for (uint32_t i = 0; i < count; ++i) {
    const auto port = static_cast<uint16_t>(range_.first + (start + i) % count);
    if (used.contains(port) || !port_is_free(port)) continue;
    given_[key] = port;
    if (last_.size() >= kJobsRemembered) last_.erase(last_.begin());  // the oldest: ids are times
    last_[key.job] = port;
    return port;
  }
  return 0;
}

void PortChooser::release(const AttemptKey& key) { given_.erase(key); }

}  // namespace pesc::worker
