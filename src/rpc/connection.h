// Connections: TCP streams on the loop, TLS with a pinned certificate, PESC's preamble, Cap'n Proto
// RPC with bounded memory. All of it on the loop's thread.
#pragma once

#include <capnp/capability.h>
#include <capnp/rpc-twoparty.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "rpc/credentials.h"
#include "rpc/loop.h"

namespace pesc::rpc {

// "HOST:PORT", "[::1]:PORT", ":PORT" (all interfaces). InvalidArgument says what is wrong.
struct Address {
  std::string host;
  uint16_t port = 0;
};
absl::StatusOr<Address> parse_address(std::string_view text);
std::string to_string(const Address& address);
bool is_loopback(const Address& address);
inline constexpr uint16_t kDefaultPort = 7341;

// An open, verified connection to a peer, with its RPC system.
class Connection {
 public:
  virtual ~Connection() = default;
  virtual capnp::Capability::Client bootstrap() = 0;
  virtual kj::Promise<void> on_disconnect() = 0;  // done when the peer is gone, for any reason
  virtual std::string peer_address() const = 0;   // "192.0.2.7" without the port
};

// Connects, makes TLS when `certificate_pem` is not empty (the peer must prove to own exactly that
// certificate), exchanges the preamble. Without a certificate only this machine is connected to,
// and only a process of root, of this user or of `coordinator_uid`: whoever else took the port
// while the coordinator was away would be given the token. Fails (to_status of the exception) with
//   Unavailable        nobody answers, refused, timed out, or another user's process answers; the
//                      message names the address
//   FailedPrecondition it answers but is not PESC, or speaks another version, or has another
//                      certificate, or is on another machine and no certificate is known; the
//                      message says which
kj::Promise<std::unique_ptr<Connection>> connect(Loop& loop, Address address,
                                                 std::string certificate_pem,
                                                 uint64_t timeout_ms = 10'000,
                                                 std::optional<uint32_t> coordinator_uid = {});

// Over a socket that is already there (socketpair in tests).
std::unique_ptr<Connection> adopt(Loop& loop, int fd, capnp::Capability::Client bootstrap);

class Listener {
 public:
  virtual ~Listener() = default;              // closes it and all its connections
  virtual Address local_address() const = 0;  // with the port that was really bound
};

// Who has connected.
struct Peer {
  std::string address;          // as Connection::peer_address()
  std::function<void()> admit;  // it has shown who it is: no stranger any more
  operator const std::string&() const { return address; }
};

// Accepts connections; each gets a bootstrap capability of its own, made by `make_bootstrap`. At
// most `max_connections`, and never more than leave this process descriptors for its files; a peer
// that does not finish TLS and preamble in 10 s is dropped.
struct ListenOptions {
  Address address;
  const Identity* identity = nullptr;  // TLS when set; must outlive the listener
  uint32_t max_connections = 20'000;
  // When not 0, strangers cannot use up the connections or the memory: one that is not admitted
  // within this time is dropped, so is one that sends more than 64 KiB before, and the oldest of
  // them when there are more than `max_strangers`.
  uint64_t admit_within_ms = 0;
  uint32_t max_strangers = 256;
};
absl::StatusOr<std::unique_ptr<Listener>> listen(
    Loop& loop, const ListenOptions& options,
    std::function<capnp::Capability::Client(const Peer& peer)> make_bootstrap);

}  // namespace pesc::rpc
