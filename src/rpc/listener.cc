#include <errno.h>
#include <fmt/core.h>
#include <kj/debug.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <asio/ip/tcp.hpp>
#include <asio/posix/stream_descriptor.hpp>
#include <map>
#include <system_error>
#include <unordered_map>
#include <utility>

#include "rpc/connection.h"
#include "rpc/handshake.h"
#include "rpc/log.h"
#include "rpc/rpc_connection.h"
#include "rpc/socket_stream.h"

namespace pesc::rpc {
namespace {

constexpr int kAcceptBatch = 64;
constexpr int kBacklog = 1024;
constexpr auto kHandshakeLimit = 10 * kj::SECONDS;
constexpr auto kPauseWhenExhausted = 100 * kj::MILLISECONDS;

// Of the open files that this process may have, these are left to files, keepers and the like.
constexpr rlim_t kKeptDescriptors = 128;
constexpr uint64_t kStrangersBytes = 64 << 10;  // enough for a login, and no message of any size

using MakeBootstrap = std::function<capnp::Capability::Client(const Peer&)>;
using Endpoint = asio::ip::tcp::endpoint;

class ListenerImpl final : public Listener, public kj::TaskSet::ErrorHandler {
 public:
  ListenerImpl(Loop& loop, int fd, Address local, std::unique_ptr<kj::TlsContext> tls,
               const ListenOptions& options, MakeBootstrap make_bootstrap)
      : loop_(loop),
        local_(std::move(local)),
        tls_(std::move(tls)),
        max_connections_(bounded_by_descriptors(options.max_connections)),
        admit_within_ms_(options.admit_within_ms),
        max_strangers_(std::max<uint32_t>(options.max_strangers, 1)),
        make_bootstrap_(std::move(make_bootstrap)),
        descriptor_(loop.io(), fd),
        readable_(kj::refcounted<Readiness>(asio::posix::stream_descriptor::wait_read)),
        tasks_(kj::heap<kj::TaskSet>(*this)) {
    tasks_->add(accept_loop());
  }

  // KJ's destructors may throw.
  ~ListenerImpl() noexcept override {
    *self_ = nullptr;
    auto failure = kj::runCatchingExceptions([this] { tasks_ = nullptr; });
    KJ_IF_MAYBE (e, failure) {
      log().warn("closing {}: {}", to_string(local_), e->getDescription().cStr());
    }
  }

  Address local_address() const override { return local_; }

 private:
  // Nothing that a peer does may end up here: each peer's task catches its own failures.
  void taskFailed(kj::Exception&& e) override {
    log().error("listening on {} failed: {}", to_string(local_), e.getDescription().cStr());
  }

  kj::Promise<void> accept_loop() {
    return readable_->wait(descriptor_).then([this] { return accept_some(); }).then([this] {
      return accept_loop();
    });
  }

  kj::Promise<void> accept_some() {
    for (int i = 0; i < kAcceptBatch; ++i) {
      int fd = accept4(descriptor_.native_handle(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
      if (fd >= 0) {
        take(fd);
        continue;
      }
      if (errno == EAGAIN || errno == EWOULDBLOCK) return kj::READY_NOW;
      if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
        return pause(errno);
      }
      // Everything else is about the one connection that was lost before it was taken.
    }
    return kj::READY_NOW;
  }

  // Descriptors come back when peers go; asking again at once would only burn the processor.
  kj::Promise<void> pause(int error) {
    if (!paused_) {
      log().warn("cannot take more connections on {} for now: {} (raise the limit on open files)",
                 to_string(local_), std::generic_category().message(error));
    }
    paused_ = true;
    return loop_.timer().afterDelay(kPauseWhenExhausted);
  }

  void take(int fd) {
    auto socket = kj::heap<SocketStream>(loop_, fd);
    if (connections_.size() + handshakes_ >= max_connections_) {
      if (!paused_) log().warn("{} connections are the limit: more are refused", max_connections_);
      paused_ = true;
      return;
    }
    paused_ = false;
    set_tcp_options(fd);
    std::string peer = address_of_peer(fd);
    const uint64_t id = ++last_id_;
    ++handshakes_;
    auto greeted = loop_.timer()
                       .timeoutAfter(kHandshakeLimit, server_handshake(kj::mv(socket), tls_.get()))
                       .then([this, peer, id](kj::Own<kj::AsyncIoStream> stream) {
                         serve(id, kj::mv(stream), peer);
                       })
                       .catch_([this, peer, id](kj::Exception&& e) {
                         strangers_.erase(id);
                         log().debug("{} was dropped: {}", peer, e.getDescription().cStr());
                       });
    if (admit_within_ms_ > 0) greeted = greeted.exclusiveJoin(take_in(id));
    tasks_->add(greeted.attach(kj::defer([this] { --handshakes_; })));
  }

  // A stranger, and the end of its handshake when it has to make room for another.
  kj::Promise<void> take_in(uint64_t id) {
    if (strangers_.size() >= max_strangers_) drop_stranger(strangers_.begin()->first);
    auto paf = kj::newPromiseAndFulfiller<void>();
    strangers_.emplace(id, kj::mv(paf.fulfiller));
    return kj::mv(paf.promise);
  }

  void drop_stranger(uint64_t id) {
    const auto found = strangers_.find(id);
    if (found == strangers_.end()) return;
    found->second->fulfill();
    strangers_.erase(found);
    connections_.erase(id);
  }

  void serve(uint64_t id, kj::Own<kj::AsyncIoStream> stream, const std::string& address) {
    Peer peer{address, [] {}};
    std::shared_ptr<uint64_t> allowance;
    if (admit_within_ms_ > 0) {
      allowance = std::make_shared<uint64_t>(kStrangersBytes);
      peer.admit = [self = self_, id, allowance] {
        *allowance = UINT64_MAX;
        if (*self != nullptr) (*self)->strangers_.erase(id);
      };
      tasks_->add(loop_.timer()
                      .afterDelay(static_cast<int64_t>(admit_within_ms_) * kj::MILLISECONDS)
                      .then([this, id] { drop_stranger(id); }));
    }
    auto connection =
        make_connection(loop_, kj::mv(stream), address, make_bootstrap_(peer), allowance);
    auto gone = connection->on_disconnect();
    connections_.emplace(id, std::move(connection));
    tasks_->add(gone.then([this, id] {
      strangers_.erase(id);
      connections_.erase(id);
    }));
  }

  static uint32_t bounded_by_descriptors(uint32_t max_connections) {
    rlimit limit{};
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur <= 2 * kKeptDescriptors) {
      return max_connections;
    }
    return static_cast<uint32_t>(
        std::min<rlim_t>(max_connections, limit.rlim_cur - kKeptDescriptors));
  }

  Loop& loop_;
  const Address local_;
  const std::unique_ptr<kj::TlsContext> tls_;
  const uint32_t max_connections_;
  const uint64_t admit_within_ms_;
  const uint32_t max_strangers_;
  const MakeBootstrap make_bootstrap_;
  asio::posix::stream_descriptor descriptor_;
  kj::Own<Readiness> readable_;
  uint64_t last_id_ = 0;
  size_t handshakes_ = 0;
  bool paused_ = false;  // said so already, in the log
  // Those that are not admitted, oldest first; fulfilled, a handshake ends.
  std::map<uint64_t, kj::Own<kj::PromiseFulfiller<void>>> strangers_;
  std::shared_ptr<ListenerImpl*> self_ = std::make_shared<ListenerImpl*>(this);
  std::unordered_map<uint64_t, std::unique_ptr<Connection>> connections_;
  kj::Own<kj::TaskSet> tasks_;  // goes first: its tasks refer to all of the above
};

absl::Status cannot_listen(const Address& address, int error) {
  std::string at = to_string(address);
  std::string why = std::generic_category().message(error);
  if (error == EADDRINUSE) {
    return absl::FailedPreconditionError(fmt::format(
        "cannot listen on {}: something else does already, perhaps another pesc-coordinator; stop "
        "it or choose another port",
        at));
  }
  if (error == EADDRNOTAVAIL) {
    return absl::InvalidArgumentError(fmt::format(
        "cannot listen on {}: this machine has no such address; :{} listens on all it has", at,
        address.port));
  }
  if (error == EACCES) {
    return absl::PermissionDeniedError(
        fmt::format("cannot listen on {}: {}; choose a port from 1024 up", at, why));
  }
  return absl::UnavailableError(fmt::format("cannot listen on {}: {}", at, why));
}

absl::StatusOr<int> open_socket(const Address& address, const Endpoint& endpoint) {
  int fd = socket(endpoint.protocol().family(), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return cannot_listen(address, errno);
  int one = 1, zero = 0;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (endpoint.protocol() == asio::ip::tcp::v6() && address.host.empty()) {
    setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof zero);
  }
  if (bind(fd, endpoint.data(), static_cast<socklen_t>(endpoint.size())) < 0 ||
      ::listen(fd, kBacklog) < 0) {
    int error = errno;
    close(fd);
    return cannot_listen(address, error);
  }
  return fd;
}

absl::StatusOr<int> bind_address(const Address& address) {
  if (address.host.empty()) {
    auto both = open_socket(address, Endpoint(asio::ip::tcp::v6(), address.port));
    if (both.ok() || both.status().code() == absl::StatusCode::kFailedPrecondition) return both;
    return open_socket(address, Endpoint(asio::ip::tcp::v4(), address.port));  // no IPv6 here
  }
  asio::error_code error;
  asio::ip::address ip = asio::ip::make_address(address.host, error);
  if (!error) return open_socket(address, Endpoint(ip, address.port));

  asio::io_context io;  // at start-up: nothing waits yet for a loop that is held up
  asio::ip::tcp::resolver resolver(io);
  auto results = resolver.resolve(address.host, std::to_string(address.port),
                                  asio::ip::tcp::resolver::numeric_service, error);
  if (error || results.empty()) {
    return absl::InvalidArgumentError(
        fmt::format("cannot listen on {}: the name {} is not known ({})", to_string(address),
                    address.host, error.message()));
  }
  // IPv4 first: "localhost" must be what 127.0.0.1 reaches.
  const Endpoint first = results.begin()->endpoint();
  for (const auto& entry : results) {
    if (entry.endpoint().protocol() == asio::ip::tcp::v4()) {
      return open_socket(address, entry.endpoint());
    }
  }
  return open_socket(address, first);
}

uint16_t bound_port(int fd, uint16_t asked) {
  Endpoint endpoint;
  socklen_t size = static_cast<socklen_t>(endpoint.capacity());
  return getsockname(fd, endpoint.data(), &size) == 0 ? endpoint.port() : asked;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Listener>> listen(Loop& loop, const ListenOptions& options,
                                                 MakeBootstrap make_bootstrap) {
  std::unique_ptr<kj::TlsContext> tls;
  if (options.identity) {
    auto made = make_server_tls(*options.identity);
    if (!made.ok()) return made.status();
    tls = *std::move(made);
  }
  absl::StatusOr<int> fd = bind_address(options.address);
  if (!fd.ok()) return fd.status();
  Address local{options.address.host, bound_port(*fd, options.address.port)};
  return std::make_unique<ListenerImpl>(loop, *fd, std::move(local), std::move(tls), options,
                                        std::move(make_bootstrap));
}

}  // namespace pesc::rpc
