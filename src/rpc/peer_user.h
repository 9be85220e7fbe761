// Whose process is at the other end of a connection within this machine. Without it, whoever takes
// a coordinator's port while it is away (a rank, say) would be told the tokens of all who
// reconnect.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace pesc::rpc {

// Nothing where it cannot be told: the kernel's table of sockets cannot be read.
std::optional<uint32_t> user_of_local_peer(int fd);

// The owner of the socket between the two endpoints in a table as /proc/net/tcp has it, with the
// endpoints as they are written there ("0100007F:1CAD"). A socket without a process is nobody's.
inline constexpr uint32_t kNobody = UINT32_MAX;
std::optional<uint32_t> find_socket_owner(std::string_view table, std::string_view local,
                                          std::string_view remote);

}  // namespace pesc::rpc
