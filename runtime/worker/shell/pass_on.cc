#include "runtime/worker/shell/pass_on.h"

#include <arpa/inet.h>
#include <capnp/common.h>
#include <kj/async.h>

#include <algorithm>
#include <list>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "pesc.capnp.h"
#include "protocol/codec.h"
#include "rpc/connection.h"
#include "rpc/credentials.h"
#include "rpc/log.h"
#include "runtime/worker/shell/async.h"
#include "runtime/worker/shell/clock.h"

namespace pesc::worker {
namespace {

constexpr uint64_t kMaxReadBytes = 1 << 20;
constexpr uint32_t kMaxReads = 32;  // of one that reads, at a time
constexpr uint32_t kMaxConnections = 64;
constexpr uint64_t kOpenWithinMs = 10'000;
constexpr size_t kMaxTickets = 256;

bool is_numeric(const std::string& host) {
  in6_addr ip{};
  return ::inet_pton(AF_INET, host.c_str(), &ip) == 1 ||
         ::inet_pton(AF_INET6, host.c_str(), &ip) == 1;
}

// How far a blob has come.
struct Progress {
  explicit Progress(const BlobRef& b) : blob(b) {}

  struct Waiting {
    uint64_t until;
    kj::Own<kj::PromiseFulfiller<void>> fulfiller;
  };

  kj::Promise<void> until(uint64_t bytes) {
    if (bytes <= available || ended) return kj::READY_NOW;
    std::erase_if(waiting, [](Waiting& each) { return !each.fulfiller->isWaiting(); });
    auto paf = kj::newPromiseAndFulfiller<void>();
    waiting.push_back({bytes, kj::mv(paf.fulfiller)});
    return kj::mv(paf.promise);
  }

  void wake() {
    for (auto it = waiting.begin(); it != waiting.end();) {
      if (!ended && it->until > available) {
        ++it;
        continue;
      }
      it->fulfiller->fulfill();
      it = waiting.erase(it);
    }
  }

  const BlobRef blob;
  uint64_t available = 0;
  bool ended = false;  // it is in the store, or will never be
  std::shared_ptr<const blob::Store::Prefix> prefix;
  std::list<Waiting> waiting;
};

}  // namespace

struct PassOn::State : std::enable_shared_from_this<PassOn::State> {
  State(rpc::Loop& l, std::shared_ptr<Cache> c, Settings s)
      : loop(l), cache(std::move(c)), settings(s) {}

  struct Ticket {
    BlobRef blob;
    int64_t until_ms = 0;
  };
  struct Port {
    uint16_t number = 0;
    bool secret = false;
    std::unique_ptr<rpc::Listener> listener;
  };

  absl::StatusOr<const Port*> open(const std::string& address);
  absl::StatusOr<std::unique_ptr<rpc::Listener>> listen_at(const std::string& address, bool secret);
  std::optional<BlobRef> take(std::string_view ticket);
  std::shared_ptr<Progress> progress_of(const Digest& digest) const;
  void drop_expired();
  void arm();
  void expire();
  void close_when_idle();

  rpc::Loop& loop;
  const std::shared_ptr<Cache> cache;
  const Settings settings;
  std::map<Digest, std::weak_ptr<Progress>> arriving;
  std::map<Digest, Ticket> tickets;  // by their SHA-256: to compare them tells nobody anything
  uint32_t given = 0;                // blobs that somebody reads, or may
  rpc::Identity identity;
  std::map<std::string, Port> ports;  // by address
  kj::Promise<void> expiry = nullptr;
};

namespace {

using State = PassOn::State;

// What one ticket opens.
class PassedBlobServer final : public protocol::PassedBlob::Server {
 public:
  PassedBlobServer(std::shared_ptr<State> state, const BlobRef& blob,
                   std::shared_ptr<Progress> progress, std::shared_ptr<kj::Canceler> here)
      : state_(std::move(state)),
        blob_(blob),
        here_(std::move(here)),
        progress_(std::move(progress)),
        last_read_ms_(boot_ms()) {
    ++state_->given;
    idle_ = watch().eagerlyEvaluate([](kj::Exception&&) {});
  }
  ~PassedBlobServer() noexcept { give_no_more(); }

  kj::Promise<void> read(ReadContext context) override {
#if CAPNP_VERSION < 1'000'000  // from then on it is the schema that says so
    context.allowCancellation();
#endif
    if (over_) {
      rpc::throw_if_error(
          absl::DeadlineExceededError("nothing was read for too long; ask for a new ticket"));
    }
    const auto params = context.getParams();
    const uint64_t offset = std::min(params.getOffset(), blob_.size_bytes);
    const uint64_t bytes =
        std::min({uint64_t{params.getMaxBytes()}, kMaxReadBytes, blob_.size_bytes - offset});
    context.releaseParams();
    if (bytes == 0) return kj::READY_NOW;
    if (reads_ >= kMaxReads) {
      rpc::throw_if_error(absl::ResourceExhaustedError("too many reads are in flight"));
    }
    ++reads_;
    // Whoever is gone waits for nothing: canceled by hand, as not every version of Cap'n Proto
    // does.
    kj::Promise<void> there = progress_ ? here_->wrap(progress_->until(offset + bytes))
                                        : kj::Promise<void>(kj::READY_NOW);
    return there.then([this, offset, bytes] { return read_now(offset, bytes); })
        .then([context](absl::StatusOr<std::string> data) mutable {
          rpc::throw_if_error(data.status());
          context.getResults().setData(protocol::as_data(*data));
        })
        .attach(kj::defer([this] {
          --reads_;
          last_read_ms_ = boot_ms();
        }))
        .attach(thisCap());
  }

 private:
  // Of a blob that is on its way, as long as it is: what turned out to be wrong is given to nobody.
  kj::Promise<absl::StatusOr<std::string>> read_now(uint64_t offset, uint64_t bytes) {
    const bool coming = progress_ && !progress_->ended;
    return blocking(state_->loop, [cache = state_->cache, digest = blob_.digest, offset, bytes,
                                   prefix = coming ? progress_->prefix : nullptr] {
      return prefix ? prefix->read(offset, bytes) : cache->store().read(digest, offset, bytes);
    });
  }

  // A reader that has gone to sleep must not keep the port open.
  kj::Promise<void> watch() {
    const int64_t idle_ms = reads_ > 0 ? 0 : boot_ms() - last_read_ms_;
    const int64_t left_ms = static_cast<int64_t>(state_->settings.idle_ms) - idle_ms;
    if (left_ms <= 0) {
      give_no_more();
      return kj::READY_NOW;
    }
    return state_->loop.timer().afterDelay(left_ms * kj::MILLISECONDS).then([this] {
      return watch();
    });
  }

  void give_no_more() {
    if (std::exchange(over_, true)) return;
    progress_.reset();
    --state_->given;
    state_->close_when_idle();
  }

  const std::shared_ptr<State> state_;
  const BlobRef blob_;
  const std::shared_ptr<kj::Canceler> here_;  // while the connection is
  std::shared_ptr<Progress> progress_;        // null: it was all here
  int64_t last_read_ms_;
  uint32_t reads_ = 0;
  bool over_ = false;
  kj::Promise<void> idle_ = nullptr;
};

class PassedBlobsServer final : public protocol::PassedBlobs::Server {
 public:
  PassedBlobsServer(std::shared_ptr<State> state, rpc::Peer peer)
      : state_(std::move(state)), peer_(std::move(peer)) {}
  ~PassedBlobsServer() noexcept { here_->cancel("the reader is gone"); }

  kj::Promise<void> open(OpenContext context) override {
    const std::string_view ticket = protocol::as_view(context.getParams().getTicket());
    const std::optional<BlobRef> blob = state_->take(ticket);
    if (!blob) {
      rpc::log().warn("event=ticket_refused address={}", peer_.address);
      rpc::throw_if_error(absl::UnauthenticatedError("no such ticket"));
    }
    peer_.admit();
    std::shared_ptr<Progress> progress = state_->progress_of(blob->digest);
    if (!progress && !state_->cache->contains(blob->digest)) {
      rpc::throw_if_error(absl::NotFoundError("the blob is not here any more"));
    }
    rpc::log().info("event=passing_on blob={} bytes={} to={}", to_hex(blob->digest),
                    blob->size_bytes, peer_.address);
    context.getResults().setBlob(
        kj::heap<PassedBlobServer>(state_, *blob, std::move(progress), here_));
    return kj::READY_NOW;
  }

 private:
  const std::shared_ptr<State> state_;
  const rpc::Peer peer_;
  const std::shared_ptr<kj::Canceler> here_ = std::make_shared<kj::Canceler>();
};

}  // namespace

// ---- tickets, and the port
// ----------------------------------------------------------------------

std::optional<BlobRef> PassOn::State::take(std::string_view ticket) {
  const auto found = tickets.find(sha256(ticket));
  if (found == tickets.end() || found->second.until_ms <= boot_ms()) return std::nullopt;
  const BlobRef blob = found->second.blob;
  tickets.erase(found);
  return blob;
}

// Null: it is not on its way.
std::shared_ptr<Progress> PassOn::State::progress_of(const Digest& digest) const {
  const auto found = arriving.find(digest);
  std::shared_ptr<Progress> progress = found == arriving.end() ? nullptr : found->second.lock();
  return progress && !progress->ended ? progress : nullptr;
}

void PassOn::State::arm() {
  expiry = loop.timer()
               .afterDelay(static_cast<int64_t>(settings.ticket_ms + 1) * kj::MILLISECONDS)
               .then([this] { expire(); })
               .eagerlyEvaluate([](kj::Exception&&) {});
}

void PassOn::State::drop_expired() {
  const int64_t now = boot_ms();
  std::erase_if(tickets, [&](const auto& each) { return each.second.until_ms <= now; });
}

void PassOn::State::expire() {
  drop_expired();
  close_when_idle();
}

// Not from within: it may be a connection of the listener that ends.
void PassOn::State::close_when_idle() {
  if (given > 0 || !tickets.empty() || ports.empty()) return;
  loop.post([weak = weak_from_this()] {
    const auto self = weak.lock();
    if (!self || self->given > 0 || !self->tickets.empty()) return;
    // A connection that ends with its listener may be the last to hold this.
    auto closing = std::exchange(self->ports, {});
  });
}

absl::StatusOr<std::unique_ptr<rpc::Listener>> PassOn::State::listen_at(const std::string& address,
                                                                        bool secret) {
  rpc::ListenOptions options;
  options.address = {address, 0};
  options.identity = secret ? &identity : nullptr;
  options.max_connections = kMaxConnections;
  options.admit_within_ms = kOpenWithinMs;
  options.max_strangers = kMaxConnections / 2;
  return rpc::listen(loop, options, [weak = weak_from_this()](const rpc::Peer& peer) {
    return capnp::Capability::Client(
        kj::heap<PassedBlobsServer>(std::shared_ptr<State>(weak), peer));
  });
}

absl::StatusOr<const PassOn::State::Port*> PassOn::State::open(const std::string& address) {
  const auto found = ports.find(address);
  if (found != ports.end()) return &found->second;
  const bool secret = !rpc::is_loopback({address, 0});
  if (secret && identity.certificate_pem.empty()) {
    auto made = rpc::make_identity();
    if (!made.ok()) return made.status();
    identity = *std::move(made);
  }
  // A name, or an address that this machine does not have (it is a router's), is served on all.
  absl::StatusOr<std::unique_ptr<rpc::Listener>> listener =
      absl::InvalidArgumentError("not an address in numbers");
  if (!secret || is_numeric(address)) listener = listen_at(address, secret);
  if (secret && absl::IsInvalidArgument(listener.status())) listener = listen_at("", secret);
  if (!listener.ok()) return listener.status();
  Port port{(*listener)->local_address().port, secret, *std::move(listener)};
  return &ports.emplace(address, std::move(port)).first->second;
}

// ---- for the worker
// -----------------------------------------------------------------------------

PassOn::PassOn(rpc::Loop& loop, std::shared_ptr<Cache> cache)
    : PassOn(loop, std::move(cache), Settings{}) {}

PassOn::PassOn(rpc::Loop& loop, std::shared_ptr<Cache> cache, Settings settings)
    : state_(std::make_shared<State>(loop, std::move(cache), settings)) {}

PassOn::~PassOn() {
  state_->expiry = nullptr;
  state_->tickets.clear();
  auto closing = std::exchange(state_->ports, {});
}

bool PassOn::listening() const { return !state_->ports.empty(); }

namespace {

class ArrivalImpl final : public PassOn::Arrival {
 public:
  explicit ArrivalImpl(std::shared_ptr<Progress> progress) : progress_(std::move(progress)) {}
  ~ArrivalImpl() override {
    progress_->ended = true;
    progress_->prefix.reset();
    progress_->wake();
  }
  void arrived(uint64_t bytes, std::shared_ptr<const blob::Store::Prefix> prefix) override {
    if (!prefix) return;
    progress_->prefix = std::move(prefix);
    progress_->available = bytes;
    progress_->wake();
  }

 private:
  const std::shared_ptr<Progress> progress_;
};

}  // namespace

std::shared_ptr<PassOn::Arrival> PassOn::arriving(const BlobRef& blob) {
  std::erase_if(state_->arriving, [](const auto& each) { return each.second.expired(); });
  auto progress = std::make_shared<Progress>(blob);
  state_->arriving[blob.digest] = progress;
  return std::make_shared<ArrivalImpl>(std::move(progress));
}

absl::StatusOr<PassOn::Offer> PassOn::offer(const BlobRef& blob, std::string_view ticket,
                                            const std::string& address) {
  State& state = *state_;
  if (ticket.size() != kTicketBytes) return absl::InvalidArgumentError("that is no ticket");
  if (!state.progress_of(blob.digest) &&
      state.cache->store().size_bytes(blob.digest) != blob.size_bytes) {
    return absl::NotFoundError("no blob " + to_hex(blob.digest));
  }
  state.drop_expired();  // each offer puts the timer off
  if (state.tickets.size() >= kMaxTickets) {
    return absl::ResourceExhaustedError("too many tickets are announced");
  }
  auto port = state.open(address);
  if (!port.ok()) return port.status();
  state.tickets[sha256(ticket)] = {blob,
                                   boot_ms() + static_cast<int64_t>(state.settings.ticket_ms)};
  state.arm();
  return Offer{(*port)->number, (*port)->secret ? state.identity.certificate_pem : ""};
}

}  // namespace pesc::worker
