// A connection after its handshake: what connect(), adopt() and the listener share.
#pragma once

#include <kj/async-io.h>

#include <memory>
#include <string>

#include "rpc/connection.h"

namespace pesc::rpc {

// `allowance`: see make_rpc_stream().
std::unique_ptr<Connection> make_connection(Loop& loop, kj::Own<kj::AsyncIoStream> stream,
                                            std::string peer_address,
                                            capnp::Capability::Client bootstrap,
                                            std::shared_ptr<uint64_t> allowance = nullptr);

// Small messages leave at once; a peer that vanished without a word is noticed within a minute.
void set_tcp_options(int fd);
// "192.0.2.7", IPv4 also for a peer of a socket that serves both.
std::string address_of_peer(int fd);

}  // namespace pesc::rpc
