#include "rpc/connection.h"

#include <capnp/message.h>
#include <errno.h>
#include <fmt/core.h>
#include <kj/debug.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <asio/ip/tcp.hpp>
#include <system_error>
#include <utility>
#include <vector>

#include "rpc/handshake.h"
#include "rpc/log.h"
#include "rpc/peer_user.h"
#include "rpc/rpc_connection.h"
#include "rpc/rpc_stream.h"
#include "rpc/socket_stream.h"
#include "rpc/vat_network.h"

namespace pesc::rpc {
namespace {

using Endpoint = asio::ip::tcp::endpoint;
using Endpoints = std::vector<Endpoint>;

constexpr uint64_t kMaxMessageWords = 8 << 20;  // 64 MiB
constexpr size_t kMaxCallWords = 8 << 20;       // of all calls that a peer has not yet had answered

capnp::ReaderOptions reader_options() {
  capnp::ReaderOptions options;
  options.traversalLimitInWords = kMaxMessageWords;
  return options;
}

// Both ends are "servers" to Cap'n Proto: that side reads from the start and offers a bootstrap,
// and may ask for the other's as well.
class RpcConnection final : public Connection {
 public:
  RpcConnection(Loop& loop, kj::Own<kj::AsyncIoStream> stream, std::string peer_address,
                capnp::Capability::Client bootstrap, std::shared_ptr<uint64_t> allowance)
      : rpc_(kj::heap<Rpc>(make_rpc_stream(loop, kj::mv(stream), std::move(allowance)),
                           kj::mv(bootstrap))),
        peer_address_(std::move(peer_address)) {}

  // KJ's destructors may throw.
  ~RpcConnection() noexcept override {
    auto failure = kj::runCatchingExceptions([this] { rpc_ = nullptr; });
    KJ_IF_MAYBE (e, failure) {
      log().warn("closing the connection to {}: {}", peer_address_, e->getDescription().cStr());
    }
  }

  capnp::Capability::Client bootstrap() override {
    capnp::MallocMessageBuilder message(16);
    auto peer = message.initRoot<capnp::rpc::twoparty::VatId>();
    peer.setSide(capnp::rpc::twoparty::Side::CLIENT);
    return rpc_->system.bootstrap(peer);
  }

  kj::Promise<void> on_disconnect() override {
    return rpc_->two_party.onDisconnect().catch_([](kj::Exception&&) {});
  }

  std::string peer_address() const override { return peer_address_; }

 private:
  struct Rpc {
    Rpc(kj::Own<kj::AsyncIoStream> s, capnp::Capability::Client bootstrap)
        : stream(kj::mv(s)),
          two_party(*stream, capnp::rpc::twoparty::Side::SERVER, reader_options()),
          network(two_party),
          system(capnp::makeRpcServer(network, kj::mv(bootstrap))) {
      system.setFlowLimit(kMaxCallWords);
    }
    kj::Own<kj::AsyncIoStream> stream;
    capnp::TwoPartyVatNetwork two_party;
    VatNetwork network;
    capnp::RpcSystem<capnp::rpc::twoparty::VatId> system;
  };

  kj::Own<Rpc> rpc_;
  std::string peer_address_;
};

// Asio resolves names on a thread of its own. The handler owns the link to the promise, which is
// cut when the promise is dropped.
class Resolution {
 public:
  Resolution(kj::PromiseFulfiller<Endpoints>& fulfiller, Loop& loop, const Address& address)
      : resolver_(loop.io()),
        link_(std::make_shared<kj::PromiseFulfiller<Endpoints>*>(&fulfiller)) {
    resolver_.async_resolve(
        address.host, std::to_string(address.port), asio::ip::tcp::resolver::numeric_service,
        [link = link_](asio::error_code e, asio::ip::tcp::resolver::results_type results) {
          if (!*link) return;
          auto* waiting = std::exchange(*link, nullptr);
          Endpoints endpoints;
          for (const auto& entry : results) endpoints.push_back(entry.endpoint());
          if (e) {
            waiting->reject(kj::Exception(kj::Exception::Type::FAILED, __FILE__, __LINE__,
                                          kj::str(e.message().c_str())));
          } else {
            waiting->fulfill(kj::mv(endpoints));
          }
        });
  }
  ~Resolution() { *link_ = nullptr; }

 private:
  asio::ip::tcp::resolver resolver_;
  std::shared_ptr<kj::PromiseFulfiller<Endpoints>*> link_;
};

struct Attempt {
  int error = 0;
  kj::Own<SocketStream> socket;
};

kj::Promise<Attempt> try_endpoint(Loop& loop, const Endpoint& endpoint) {
  int fd = socket(endpoint.protocol().family(), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return Attempt{errno, {}};
  int rc = ::connect(fd, endpoint.data(), static_cast<socklen_t>(endpoint.size()));
  int error = rc < 0 ? errno : 0;
  auto stream = kj::heap<SocketStream>(loop, fd);
  if (error != 0 && error != EINPROGRESS) return Attempt{error, {}};
  auto ready = stream->when_writable();
  return ready.then([stream = kj::mv(stream)]() mutable {
    int result = 0;
    socklen_t size = sizeof result;
    getsockopt(stream->fd(), SOL_SOCKET, SO_ERROR, &result, &size);
    return result == 0 ? Attempt{0, kj::mv(stream)} : Attempt{result, {}};
  });
}

bool is_this_machine(const Endpoint& endpoint) {
  const asio::ip::address ip = endpoint.address();
  if (ip.is_v6() && ip.to_v6().is_v4_mapped()) {
    return asio::ip::make_address_v4(asio::ip::v4_mapped, ip.to_v6()).is_loopback();
  }
  return ip.is_loopback();
}

// One connect(): knows how far it has come, so that a timeout can say what did not answer.
class Dialer {
 public:
  Dialer(Loop& loop, Address address, std::string certificate_pem, uint64_t timeout_ms,
         std::optional<uint32_t> coordinator_uid)
      : loop_(loop),
        address_(std::move(address)),
        certificate_pem_(std::move(certificate_pem)),
        timeout_ms_(timeout_ms),
        coordinator_uid_(coordinator_uid) {
    if (address_.host.empty()) address_.host = "localhost";
  }

  kj::Promise<std::unique_ptr<Connection>> run() {
    return resolve().then([this](Endpoints endpoints) {
      endpoints_ = std::move(endpoints);
      return dial(0);
    });
  }

  absl::Status timed_out() const {
    std::string at = to_string(address_);
    std::string seconds = fmt::format("{:g} s", static_cast<double>(timeout_ms_) / 1000);
    if (stage_ == Stage::resolving) {
      return absl::UnavailableError(
          fmt::format("the name {} could not be looked up within {}; is the network up?",
                      address_.host, seconds));
    }
    if (stage_ == Stage::dialing) {
      return absl::UnavailableError(fmt::format(
          "no coordinator answers at {} (nothing came back within {}); is that machine on, and "
          "does its firewall let port {} through?",
          at, seconds, address_.port));
    }
    return absl::FailedPreconditionError(
        fmt::format("{} takes connections, but said nothing as a PESC coordinator within {}: check "
                    "the address and the port",
                    at, seconds));
  }

 private:
  enum class Stage { resolving, dialing, greeting };

  kj::Promise<Endpoints> resolve() {
    asio::error_code not_numeric;
    auto ip = asio::ip::make_address(address_.host, not_numeric);
    if (!not_numeric) return Endpoints{Endpoint(ip, address_.port)};
    return kj::newAdaptedPromise<Endpoints, Resolution>(loop_, address_)
        .catch_([this](kj::Exception&& e) -> Endpoints {
          kj::throwFatalException(to_exception(absl::UnavailableError(
              fmt::format("the host name {} is not known ({}); check its spelling or give the "
                          "address in numbers",
                          address_.host, e.getDescription().cStr()))));
        });
  }

  // A name's addresses one after the other; one that swallows packets must not use up the time of
  // the next.
  kj::Promise<std::unique_ptr<Connection>> dial(size_t index) {
    stage_ = Stage::dialing;
    if (certificate_pem_.empty() && !is_this_machine(endpoints_[index])) {
      return to_exception(absl::FailedPreconditionError(fmt::format(
          "{} is on another machine, and no certificate is known for it here: without one the "
          "token would travel readable for all; use a join file that is made there (`pesc "
          "join-file`)",
          to_string(address_))));
    }
    auto attempt = try_endpoint(loop_, endpoints_[index]);
    bool last = index + 1 == endpoints_.size();
    if (!last) {
      auto share = timeout_ms_ / endpoints_.size() * kj::MILLISECONDS;
      attempt = attempt.exclusiveJoin(loop_.timer().afterDelay(share).then([] {
        return Attempt{ETIMEDOUT, {}};
      }));
    }
    return attempt.then([this, index, last](Attempt a) {
      if (a.error == 0) return greet(kj::mv(a.socket));
      if (!last) return dial(index + 1);
      return kj::Promise<std::unique_ptr<Connection>>(to_exception(no_answer(a.error)));
    });
  }

  absl::Status no_answer(int error) const {
    std::string why = std::generic_category().message(error);
    if (!why.empty()) why[0] = static_cast<char>(tolower(static_cast<unsigned char>(why[0])));
    std::string_view advice = error == ECONNREFUSED ? "is pesc-coordinator running there?"
                                                    : "is that machine on, and in this network?";
    return absl::UnavailableError(
        fmt::format("no coordinator answers at {} ({}); {}", to_string(address_), why, advice));
  }

  kj::Promise<std::unique_ptr<Connection>> greet(kj::Own<SocketStream> socket) {
    stage_ = Stage::greeting;
    set_tcp_options(socket->fd());
    std::string peer = address_of_peer(socket->fd());
    return client_handshake(kj::mv(socket), address_, certificate_pem_)
        .then([this, peer = std::move(peer)](kj::Own<kj::AsyncIoStream> stream) {
          // Now that it has spoken: before it has been accepted a socket is nobody's.
          if (certificate_pem_.empty()) throw_if_error(check_owner(*stream));
          return make_connection(loop_, kj::mv(stream), peer, nullptr);
        });
  }

  absl::Status check_owner(const kj::AsyncIoStream& stream) const {
    int fd = -1;
    KJ_IF_MAYBE (known, stream.getFd()) {
      fd = *known;
    }
    const std::optional<uint32_t> uid = user_of_local_peer(fd);
    if (!uid || *uid == 0 || *uid == geteuid() || uid == coordinator_uid_) return absl::OkStatus();
    return absl::UnavailableError(fmt::format(
        "a process of another user (uid {}) answers at {}, so the token was not sent; if that user "
        "runs the coordinator, use a join file that it made (`pesc join-file`)",
        *uid, to_string(address_)));
  }

  Loop& loop_;
  Address address_;
  std::string certificate_pem_;
  uint64_t timeout_ms_;
  std::optional<uint32_t> coordinator_uid_;
  Endpoints endpoints_;
  Stage stage_ = Stage::resolving;
};

}  // namespace

std::unique_ptr<Connection> make_connection(Loop& loop, kj::Own<kj::AsyncIoStream> stream,
                                            std::string peer_address,
                                            capnp::Capability::Client bootstrap,
                                            std::shared_ptr<uint64_t> allowance) {
  return std::make_unique<RpcConnection>(loop, kj::mv(stream), std::move(peer_address),
                                         kj::mv(bootstrap), std::move(allowance));
}

void set_tcp_options(int fd) {
  auto set = [fd](int level, int option, int value) {
    setsockopt(fd, level, option, &value, sizeof value);
  };
  set(IPPROTO_TCP, TCP_NODELAY, 1);
  set(SOL_SOCKET, SO_KEEPALIVE, 1);
  set(IPPROTO_TCP, TCP_KEEPIDLE, 20);
  set(IPPROTO_TCP, TCP_KEEPINTVL, 10);
  set(IPPROTO_TCP, TCP_KEEPCNT, 4);
  set(IPPROTO_TCP, TCP_USER_TIMEOUT, 60'000);
}

std::string address_of_peer(int fd) {
  Endpoint endpoint;
  socklen_t size = static_cast<socklen_t>(endpoint.capacity());
  if (getpeername(fd, endpoint.data(), &size) < 0) return "unknown";
  if (endpoint.data()->sa_family != AF_INET && endpoint.data()->sa_family != AF_INET6) {
    return "local";
  }
  asio::ip::address ip = endpoint.address();
  if (ip.is_v6() && ip.to_v6().is_v4_mapped()) {
    return asio::ip::make_address_v4(asio::ip::v4_mapped, ip.to_v6()).to_string();
  }
  return ip.to_string();
}

kj::Promise<std::unique_ptr<Connection>> connect(Loop& loop, Address address,
                                                 std::string certificate_pem, uint64_t timeout_ms,
                                                 std::optional<uint32_t> coordinator_uid) {
  auto dialer = kj::heap<Dialer>(loop, std::move(address), std::move(certificate_pem), timeout_ms,
                                 coordinator_uid);
  Dialer& d = *dialer;
  auto too_late = loop.timer()
                      .afterDelay(timeout_ms * kj::MILLISECONDS)
                      .then([&d]() -> kj::Promise<std::unique_ptr<Connection>> {
                        return to_exception(d.timed_out());
                      });
  return d.run().exclusiveJoin(kj::mv(too_late)).attach(kj::mv(dialer));
}

std::unique_ptr<Connection> adopt(Loop& loop, int fd, capnp::Capability::Client bootstrap) {
  std::string peer = address_of_peer(fd);
  return make_connection(loop, kj::heap<SocketStream>(loop, fd), std::move(peer),
                         kj::mv(bootstrap));
}

}  // namespace pesc::rpc
