#include "rpc/peer_user.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/core.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
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

// One socket, asked for by its endpoints: the whole table takes the kernel milliseconds to print.
// Nothing where it cannot be asked, or does not know.
std::optional<uint32_t> ask_kernel(const sockaddr_storage& near, const sockaddr_storage& far) {
  struct {
    nlmsghdr header;
    inet_diag_req_v2 body;
  } request{};
  request.header.nlmsg_len = sizeof request;
  request.header.nlmsg_type = SOCK_DIAG_BY_FAMILY;
  request.header.nlmsg_flags = NLM_F_REQUEST;
  request.body.sdiag_family = static_cast<uint8_t>(near.ss_family);
  request.body.sdiag_protocol = IPPROTO_TCP;
  request.body.idiag_states = UINT32_MAX;
  inet_diag_sockid& id = request.body.id;
  id.idiag_cookie[0] = id.idiag_cookie[1] = INET_DIAG_NOCOOKIE;
  const auto put = [](const sockaddr_storage& address, __be16& port, __be32* words) {
    if (address.ss_family == AF_INET) {
      sockaddr_in in{};
      memcpy(&in, &address, sizeof in);
      port = in.sin_port;
      memcpy(words, &in.sin_addr, 4);
    } else {
      sockaddr_in6 in{};
      memcpy(&in, &address, sizeof in);
      port = in.sin6_port;
      memcpy(words, &in.sin6_addr, 16);
    }
  };
  put(near, id.idiag_sport, id.idiag_src);
  put(far, id.idiag_dport, id.idiag_dst);

  const int fd = ::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
  if (fd < 0) return std::nullopt;
  alignas(nlmsghdr) char answer[4096];
  ssize_t size = ::send(fd, &request, sizeof request, 0);
  if (size > 0) size = ::recv(fd, answer, sizeof answer, MSG_DONTWAIT);  // it is there by now
  ::close(fd);
  nlmsghdr header{};
  inet_diag_msg found{};
  if (size < static_cast<ssize_t>(NLMSG_LENGTH(sizeof found))) return std::nullopt;
  memcpy(&header, answer, sizeof header);
  if (header.nlmsg_type != SOCK_DIAG_BY_FAMILY) return std::nullopt;
  memcpy(&found, answer + NLMSG_HDRLEN, sizeof found);
  if (found.id.idiag_sport != id.idiag_sport || found.id.idiag_dport != id.idiag_dport) {
    return std::nullopt;
  }
  return found.idiag_inode == 0 ? kNobody : found.idiag_uid;
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
  if (auto uid = ask_kernel(theirs, ours)) return uid;
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
