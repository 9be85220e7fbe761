#include "rpc/handshake.h"

#include <errno.h>
#include <fmt/core.h>
#include <kj/debug.h>
#include <sys/socket.h>

#include <array>
#include <string_view>

#include "pesc.capnp.h"

namespace pesc::rpc {
namespace {

using Preamble = std::array<kj::byte, 8>;

constexpr uint32_t kVersion = protocol::PROTOCOL_VERSION;
constexpr uint32_t kUseTls = 0xffffffff;  // in a version's place: this port speaks TLS only
constexpr kj::byte kTlsHandshake = 0x16;
constexpr kj::byte kTlsAlert = 0x15;
constexpr size_t kDrainLimit = 64 << 10;

Preamble make_preamble(uint32_t version) {
  return {'P',
          'E',
          'S',
          'C',
          static_cast<kj::byte>(version >> 24),
          static_cast<kj::byte>(version >> 16),
          static_cast<kj::byte>(version >> 8),
          static_cast<kj::byte>(version)};
}

bool is_pesc(const Preamble& p) { return p[0] == 'P' && p[1] == 'E' && p[2] == 'S' && p[3] == 'C'; }

uint32_t version_of(const Preamble& p) {
  return static_cast<uint32_t>(p[4]) << 24 | static_cast<uint32_t>(p[5]) << 16 |
         static_cast<uint32_t>(p[6]) << 8 | p[7];
}

struct Exchange {
  explicit Exchange(kj::Own<kj::AsyncIoStream> s) : stream(kj::mv(s)) {}
  kj::Own<kj::AsyncIoStream> stream;
  Preamble mine = make_preamble(kVersion);
  Preamble theirs{};
  size_t received = 0;
};

// Says ours, reads theirs; a peer that hangs up leaves `received` short.
kj::Promise<kj::Own<Exchange>> exchange_preambles(kj::Own<kj::AsyncIoStream> stream) {
  auto exchange = kj::heap<Exchange>(kj::mv(stream));
  Exchange& e = *exchange;
  return e.stream->write(e.mine.data(), e.mine.size())
      .catch_([](kj::Exception&&) {})  // what it said before it hung up tells more
      .then([&e] { return e.stream->tryRead(e.theirs.data(), e.theirs.size(), e.theirs.size()); })
      .catch_([](kj::Exception&&) -> size_t { return 0; })
      .then([exchange = kj::mv(exchange)](size_t n) mutable {
        exchange->received = n;
        return kj::mv(exchange);
      });
}

absl::Status hung_up(const std::string& at) {
  return absl::UnavailableError(
      fmt::format("{} closed the connection before it said anything: it is stopping, has too many "
                  "connections, or is no PESC coordinator",
                  at));
}

absl::Status not_pesc(const std::string& at) {
  return absl::FailedPreconditionError(
      fmt::format("{} answers, but not as a PESC coordinator: check the address and the port", at));
}

absl::Status wants_tls(const std::string& at) {
  return absl::FailedPreconditionError(
      fmt::format("{} speaks TLS only, and no certificate is known for it here: use a join file "
                  "(`pesc join-file user NAME` on the coordinator's machine makes one)",
                  at));
}

absl::Status check_preamble(const Exchange& e, const std::string& at) {
  if (e.received > 0 && e.theirs[0] == kTlsAlert) return wants_tls(at);
  if (e.received == 0) return hung_up(at);
  if (e.received < e.theirs.size() || !is_pesc(e.theirs)) return not_pesc(at);
  uint32_t version = version_of(e.theirs);
  if (version == kUseTls) return wants_tls(at);
  if (version != kVersion) {
    return absl::FailedPreconditionError(
        fmt::format("{} speaks protocol {}, this program {}: install the same version of PESC on "
                    "both",
                    at, version, kVersion));
  }
  return absl::OkStatus();
}

absl::Status explain_tls_failure(const std::string& at, std::string_view first_bytes,
                                 std::string_view what) {
  if (first_bytes.empty()) return hung_up(at);
  if (first_bytes.substr(0, 4) == "PESC") {
    return absl::FailedPreconditionError(
        fmt::format("{} answers without TLS, but the join file has a certificate for it: it is not "
                    "the coordinator that made the join file; ask for a new one",
                    at));
  }
  auto first = static_cast<kj::byte>(first_bytes[0]);
  if (first != kTlsHandshake && first != kTlsAlert) return not_pesc(at);
  if (what.find("certificate") != std::string_view::npos) {
    return absl::FailedPreconditionError(fmt::format(
        "{} has another certificate than the join file says: ask for a new join file", at));
  }
  return absl::FailedPreconditionError(
      fmt::format("{} and this program cannot agree on TLS ({})", at, what));
}

kj::Promise<kj::Own<kj::AsyncIoStream>> client_tls(kj::Own<SocketStream> socket,
                                                   const std::string& at,
                                                   const std::string& certificate_pem) {
  kj::Own<kj::TlsContext> context;
  try {
    kj::TlsCertificate trusted{kj::StringPtr(certificate_pem.c_str(), certificate_pem.size())};
    kj::TlsContext::Options options;
    options.useSystemTrustStore = false;
    options.trustedCertificates = kj::arrayPtr(&trusted, 1);
    context = kj::heap<kj::TlsContext>(kj::mv(options));
  } catch (const kj::Exception&) {
    return to_exception(absl::FailedPreconditionError(
        fmt::format("the certificate for {} is damaged: ask for a new join file", at)));
  }
  auto seen = std::make_shared<std::string>();
  socket->keep_first_bytes(seen);
  auto wrapped = context->wrapClient(kj::mv(socket), kCertificateName);
  return wrapped
      .catch_([at, seen](kj::Exception&& e) -> kj::Own<kj::AsyncIoStream> {
        kj::throwFatalException(to_exception(explain_tls_failure(
            at, *seen, {e.getDescription().begin(), e.getDescription().size()})));
      })
      .attach(kj::mv(context));
}

// Reads what the peer still sends: closing over unread bytes would reset the connection, and our
// answer with it.
kj::Promise<void> hang_up_politely(kj::Own<kj::AsyncIoStream> stream) {
  stream->shutdownWrite();
  auto buffer = kj::heapArray<kj::byte>(kDrainLimit);
  auto promise = stream->tryRead(buffer.begin(), buffer.size(), buffer.size()).ignoreResult();
  return promise.attach(kj::mv(stream), kj::mv(buffer));
}

kj::Promise<kj::Own<kj::AsyncIoStream>> refuse_plain(kj::Own<SocketStream> socket) {
  auto answer = kj::heap<Preamble>(make_preamble(kUseTls));
  auto written = socket->write(answer->data(), answer->size()).attach(kj::mv(answer));
  return written
      .then([socket = kj::mv(socket)]() mutable { return hang_up_politely(kj::mv(socket)); })
      .then([]() -> kj::Own<kj::AsyncIoStream> {
        KJ_FAIL_REQUIRE("a peer without TLS on a TLS port");
      });
}

}  // namespace

absl::StatusOr<std::unique_ptr<kj::TlsContext>> make_server_tls(const Identity& identity) try {
  kj::TlsKeypair pair{
      kj::TlsPrivateKey(kj::StringPtr(identity.key_pem.c_str(), identity.key_pem.size())),
      kj::TlsCertificate(
          kj::StringPtr(identity.certificate_pem.c_str(), identity.certificate_pem.size()))};
  kj::TlsContext::Options options;
  options.useSystemTrustStore = false;
  options.defaultKeypair = pair;
  return std::make_unique<kj::TlsContext>(kj::mv(options));
} catch (const kj::Exception& e) {
  return absl::FailedPreconditionError(
      fmt::format("the coordinator's identity is damaged ({}): restore identity.pem from a backup, "
                  "or remove it and make new join files",
                  e.getDescription().cStr()));
}

kj::Promise<kj::Own<kj::AsyncIoStream>> client_handshake(kj::Own<SocketStream> socket,
                                                         Address address,
                                                         const std::string& certificate_pem) {
  std::string at = to_string(address);
  kj::Promise<kj::Own<kj::AsyncIoStream>> secured =
      certificate_pem.empty() ? kj::Own<kj::AsyncIoStream>(kj::mv(socket))
                              : client_tls(kj::mv(socket), at, certificate_pem);
  return secured
      .then([](kj::Own<kj::AsyncIoStream> stream) { return exchange_preambles(kj::mv(stream)); })
      .then([at](kj::Own<Exchange> e) {
        throw_if_error(check_preamble(*e, at));
        return kj::mv(e->stream);
      });
}

kj::Promise<kj::Own<kj::AsyncIoStream>> server_handshake(kj::Own<SocketStream> socket,
                                                         kj::TlsContext* tls) {
  kj::Promise<kj::Own<kj::AsyncIoStream>> secured = nullptr;
  if (tls) {
    // A look at the first byte, which a client must send first, tells a peer without TLS apart.
    auto readable = socket->when_readable();
    secured = readable.then(
        [socket = kj::mv(socket), tls]() mutable -> kj::Promise<kj::Own<kj::AsyncIoStream>> {
          char first = 0;
          ssize_t n = recv(socket->fd(), &first, 1, MSG_PEEK | MSG_DONTWAIT);
          if (n == 1 && first == 'P') return refuse_plain(kj::mv(socket));
          return tls->wrapServer(kj::mv(socket));
        });
  } else {
    secured = kj::Own<kj::AsyncIoStream>(kj::mv(socket));
  }
  return secured
      .then([](kj::Own<kj::AsyncIoStream> stream) { return exchange_preambles(kj::mv(stream)); })
      .then([](kj::Own<Exchange> e) -> kj::Promise<kj::Own<kj::AsyncIoStream>> {
        if (e->received == e->theirs.size() && is_pesc(e->theirs) &&
            version_of(e->theirs) == kVersion) {
          return kj::mv(e->stream);
        }
        bool spoke = e->received > 0;
        return hang_up_politely(kj::mv(e->stream)).then([spoke]() -> kj::Own<kj::AsyncIoStream> {
          KJ_FAIL_REQUIRE("a peer that is not PESC, or of another version", spoke);
        });
      });
}

}  // namespace pesc::rpc
