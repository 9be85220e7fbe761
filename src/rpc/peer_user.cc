#include "rpc/peer_user.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/core.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>

namespace pesc::rpc {
namespace {

constexpr int kTries = 3;  // a table that changes while it is read may leave a line out

// The two ways an endpoint may be written: a server on IPv6 has IPv4 peers in mapped addresses.
struct Written {
  std::string v4, v6;
};

std::string words(const unsigned char* bytes, size_t size) {
  std::string text;
  for (size_t at = 0; at < size; at += 4) {
    uint32_t word = 0;
    memcpy(&word, bytes + at, sizeof word);  // as it lies in memory, like the kernel
    text += fmt::format("{:08X}", word);
  }
  return text;
}

Written written(const sockaddr_storage& address) {
  if (address.ss_family == AF_INET) {
    sockaddr_in in{};
    memcpy(&in, &address, sizeof in);
    const std::string port = fmt::format(":{:04X}", ntohs(in.sin_port));
    unsigned char bytes[16] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    memcpy(bytes + 12, &in.sin_addr, 4);
    return {words(bytes + 12, 4) + port, words(bytes, 16) + port};
  }
  sockaddr_in6 in{};
  memcpy(&in, &address, sizeof in);
  const std::string port = fmt::format(":{:04X}", ntohs(in.sin6_port));
  const auto* bytes = reinterpret_cast<const unsigned char*>(&in.sin6_addr);
  Written both{"", words(bytes, 16) + port};
  if (IN6_IS_ADDR_V4MAPPED(&in.sin6_addr)) both.v4 = words(bytes + 12, 4) + port;
  return both;
}

std::optional<std::string> read_table(const char* path) {
  const int fd = ::open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return std::nullopt;
  std::string table;
  char buffer[64 * 1024];
  ssize_t n = 0;
  while ((n = ::read(fd, buffer, sizeof buffer)) > 0) table.append(buffer, static_cast<size_t>(n));
  ::close(fd);
  return table;
}

std::string_view next_word(std::string_view& line) {
  const size_t begin = std::min(line.find_first_not_of(' '), line.size());
  const size_t end = std::min(line.find(' ', begin), line.size());
  const std::string_view word = line.substr(begin, end - begin);
  line.remove_prefix(end);
  return word;
}

}  // namespace

std::optional<uint32_t> find_socket_owner(std::string_view table, std::string_view local,
                                          std::string_view remote) {
  while (!table.empty()) {
    const size_t end = std::min(table.find('\n'), table.size());
    std::string_view line = table.substr(0, end);
    table.remove_prefix(std::min(end + 1, table.size()));
    next_word(line);  // its number
    if (next_word(line) != local || next_word(line) != remote) continue;
    for (int skipped = 0; skipped < 4; ++skipped) next_word(line);  // state, queues, timers
    const std::string uid(next_word(line));
    next_word(line);
    if (next_word(line) == "0") return kNobody;  // no inode: no process has it
    return static_cast<uint32_t>(strtoul(uid.c_str(), nullptr, 10));
  }
  return std::nullopt;
}

std::optional<uint32_t> user_of_local_peer(int fd) {
  sockaddr_storage ours{}, theirs{};
  socklen_t size = sizeof ours;
  if (::getsockname(fd, reinterpret_cast<sockaddr*>(&ours), &size) != 0) return std::nullopt;
  size = sizeof theirs;
  if (::getpeername(fd, reinterpret_cast<sockaddr*>(&theirs), &size) != 0) return std::nullopt;
  if (ours.ss_family != theirs.ss_family) return std::nullopt;
  if (ours.ss_family != AF_INET && ours.ss_family != AF_INET6) return std::nullopt;
  const Written local = written(theirs), remote = written(ours);
  for (int i = 0; i < kTries; ++i) {
    for (const bool v6 : {false, true}) {
      const std::string& near = v6 ? local.v6 : local.v4;
      const auto table = read_table(v6 ? "/proc/self/net/tcp6" : "/proc/self/net/tcp");
      if (!table || near.empty()) continue;
      if (auto uid = find_socket_owner(*table, near, v6 ? remote.v6 : remote.v4)) return uid;
    }
  }
  return std::nullopt;
}

}  // namespace pesc::rpc
