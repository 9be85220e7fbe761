// What happens on a fresh connection before Cap'n Proto: TLS, then 8 bytes each way.
#pragma once

#include <kj/async-io.h>
#include <kj/compat/tls.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "rpc/connection.h"
#include "rpc/socket_stream.h"

namespace pesc::rpc {

inline constexpr char kCertificateName[] = "pesc-coordinator";

absl::StatusOr<std::unique_ptr<kj::TlsContext>> make_server_tls(const Identity& identity);

// As documented at connect(). `certificate_pem` empty: no TLS.
kj::Promise<kj::Own<kj::AsyncIoStream>> client_handshake(kj::Own<SocketStream> socket,
                                                         Address address,
                                                         const std::string& certificate_pem);

// `tls` null: none. A peer that talks the other way (plain or TLS) is told so, where it can be.
kj::Promise<kj::Own<kj::AsyncIoStream>> server_handshake(kj::Own<SocketStream> socket,
                                                         kj::TlsContext* tls);

}  // namespace pesc::rpc
