#include "runtime/worker/keeper_client/keeper_client.h"

#include <unistd.h>

#include <asio/buffer.hpp>
#include <asio/local/stream_protocol.hpp>
#include <asio/post.hpp>
#include <asio/write.hpp>
#include <map>
#include <utility>

#include "keeper.capnp.h"
#include "runtime/worker/keeper/framing.h"
#include "runtime/worker/keeper_client/decode.h"
#include "runtime/worker/keeper_client/launch_keeper.h"

namespace pesc::worker {
namespace {

using Socket = asio::local::stream_protocol::socket;
using protocol::keeper::FromKeeper;
using protocol::keeper::ToKeeper;

void fill_key(protocol::keeper::Key::Builder builder, const AttemptKey& key) {
  builder.setJob(key.job.value);
  builder.setRank(key.rank);
  builder.setAttempt(key.attempt);
}

// The connection; lives as long as an operation on it is under way.
class Link : public std::enable_shared_from_this<Link> {
 public:
  Link(asio::io_context& io, KeeperClient::Options options, KeeperEvents events)
      : io_(io), socket_(io), options_(std::move(options)), events_(std::move(events)) {}

  void adopt(int fd) {
    socket_ = Socket(io_, asio::local::stream_protocol(), fd);
    inbox_ = {};
    capnp::MallocMessageBuilder hello;
    auto greeting = hello.initRoot<ToKeeper>().initHello();
    greeting.setVersion(keeper::kProtocolVersion);
    greeting.setDetachedLimitMs(options_.detached_limit_ms);
    greeting.setContainment(static_cast<uint8_t>(options_.containment));
    greeting.setRelax(options_.moved_itself);
    keeper::Outbox first;
    first.add(hello);
    first.swap(in_flight_);
    write();
    read();
  }

  void send(capnp::MessageBuilder& message) {
    if (closed_) return;
    outbox_.add(message);
    post_flush();
  }

  void read_output(uint64_t ticket, capnp::MessageBuilder& message,
                   std::function<void(KeeperClient::Output)> done) {
    readers_.emplace(ticket, std::move(done));
    if (closed_) {
      asio::post(io_, [self = shared_from_this()] { self->fail_readers(); });
      return;
    }
    send(message);
  }

  uint32_t pid() const { return pid_; }
  bool holds_next() const { return holds_next_; }

  void close() {
    closed_ = true;
    events_ = {};
    readers_.clear();
    std::error_code ignored;
    socket_.close(ignored);
  }

 private:
  void post_flush() {
    if (!welcomed_ || writing_ || std::exchange(flush_posted_, true)) return;
    asio::post(io_, [self = shared_from_this()] {
      self->flush_posted_ = false;
      self->flush();
    });
  }

  void flush() {
    if (closed_ || writing_ || !welcomed_ || outbox_.empty()) return;
    in_flight_.clear();
    outbox_.swap(in_flight_);
    write();
  }

  void write() {
    writing_ = true;
    asio::async_write(socket_, asio::buffer(in_flight_),
                      [self = shared_from_this()](std::error_code error, size_t) {
                        self->writing_ = false;
                        // What was lost with the connection is told by the reading side.
                        if (!error) self->flush();
                      });
  }

  void read() {
    auto space = inbox_.space();
    socket_.async_read_some(asio::buffer(space.data(), space.size()),
                            [self = shared_from_this()](std::error_code error, size_t size) {
                              if (self->closed_) return;
                              if (error) return self->on_end(error);
                              self->inbox_.received(size);
                              self->take_messages();
                            });
  }

  void take_messages() {
    try {
      for (;;) {
        kj::ArrayPtr<const capnp::word> words;
        auto state = inbox_.take(words);
        if (state == keeper::Inbox::State::incomplete) return read();
        if (state == keeper::Inbox::State::invalid) {
          return lose(absl::DataLossError("the keeper sent what is not a message"));
        }
        capnp::FlatArrayMessageReader reader(words, keeper::reader_options());
        on_message(reader.getRoot<FromKeeper>());
        if (closed_) return;
      }
    } catch (const kj::Exception& error) {
      lose(absl::DataLossError(std::string("the keeper sent what is not a message: ") +
                               error.getDescription().cStr()));
    }
  }

  // A callback may drop the client: each is the last thing that its branch does.
  void on_message(FromKeeper::Reader message) {
    switch (message.which()) {
      case FromKeeper::WELCOME:
        return on_welcome(message.getWelcome());
      case FromKeeper::STARTED: {
        auto started = message.getStarted();
        auto event = events_.on_started;
        if (event) {
          event(to_key(started.getKey()), started.getPid(), started.getStartedUnixMs(),
                started.getBindsDone());
        }
        return;
      }
      case FromKeeper::EXITED: {
        auto event = events_.on_exited;
        if (event) event(to_kept_exit(message.getExited()));
        return;
      }
      case FromKeeper::OUTPUT:
        return on_output(message.getOutput());
    }
  }

  void on_welcome(FromKeeper::Welcome::Reader welcome) {
    if (welcome.getVersion() != keeper::kProtocolVersion) {
      return lose(absl::FailedPreconditionError(
          "the running keeper (process " + std::to_string(welcome.getKeeperPid()) +
          ") speaks version " + std::to_string(welcome.getVersion()) + ", this program version " +
          std::to_string(keeper::kProtocolVersion) +
          "; let its ranks finish under the version that started it, or end that process"));
    }
    welcomed_ = true;
    pid_ = welcome.getKeeperPid();
    holds_next_ = welcome.getHoldsNext();
    std::vector<KeptAttempt> attempts;
    attempts.reserve(welcome.getAttempts().size());
    for (auto attempt : welcome.getAttempts()) attempts.push_back(to_kept_attempt(attempt));
    post_flush();
    if (events_.on_containment) {
      events_.on_containment(welcome.getContainment().cStr(), welcome.getLacking().cStr());
    }
    auto event = events_.on_welcome;
    if (event) event(std::move(attempts));
  }

  void on_output(FromKeeper::Output::Reader output) {
    auto reader = readers_.find(output.getTicket());
    if (reader == readers_.end()) return;
    auto done = std::move(reader->second);
    readers_.erase(reader);
    done({keeper::as_string(output.getData()), output.getFound()});
  }

  // A keeper that was just ending of idleness takes a connection and drops it: another is started,
  // once.
  void on_end(std::error_code error) {
    if (!welcomed_ && !std::exchange(retried_, true)) {
      absl::StatusOr<int> fd = connect_to_keeper(options_);
      if (!fd.ok()) return lose(fd.status());
      std::error_code ignored;
      socket_.close(ignored);
      return adopt(*fd);
    }
    lose(absl::UnavailableError("the connection to the keeper was lost: " + error.message()));
  }

  void lose(absl::Status status) {
    auto event = std::move(events_.on_lost);
    closed_ = true;
    events_ = {};
    std::error_code ignored;
    socket_.close(ignored);
    fail_readers();
    if (event) event(std::move(status));
  }

  void fail_readers() {
    auto readers = std::exchange(readers_, {});
    for (auto& [ticket, done] : readers) done({});
  }

  asio::io_context& io_;
  Socket socket_;
  KeeperClient::Options options_;
  KeeperEvents events_;
  keeper::Inbox inbox_;
  keeper::Outbox outbox_;
  std::string in_flight_;
  std::map<uint64_t, std::function<void(KeeperClient::Output)>> readers_;
  uint32_t pid_ = 0;
  bool holds_next_ = false;
  bool writing_ = false, flush_posted_ = false, welcomed_ = false, retried_ = false,
       closed_ = false;
};

class Client final : public KeeperClient {
 public:
  explicit Client(std::shared_ptr<Link> link) : link_(std::move(link)) {}
  ~Client() override { link_->close(); }

  uint32_t pid() const override { return link_->pid(); }
  bool holds_next() const override { return link_->holds_next(); }

  void start(const LaunchRequest& request) override {
    capnp::MallocMessageBuilder message;
    encode(request, message.initRoot<ToKeeper>().initStart());
    link_->send(message);
  }

  void stop(const AttemptKey& key, EndReason reason, uint64_t grace_ms,
            bool unless_begun) override {
    capnp::MallocMessageBuilder message;
    auto stop = message.initRoot<ToKeeper>().initStop();
    fill_key(stop.initKey(), key);
    stop.setReason(static_cast<uint8_t>(reason));
    stop.setGraceMs(grace_ms);
    stop.setUnlessBegun(unless_begun);
    link_->send(message);
  }

  void freeze(const AttemptKey& key, bool frozen) override {
    capnp::MallocMessageBuilder message;
    auto freeze = message.initRoot<ToKeeper>().initFreeze();
    fill_key(freeze.initKey(), key);
    freeze.setFrozen(frozen);
    link_->send(message);
  }

  void throttle(const AttemptKey& key, uint32_t percent) override {
    capnp::MallocMessageBuilder message;
    auto throttle = message.initRoot<ToKeeper>().initThrottle();
    fill_key(throttle.initKey(), key);
    throttle.setPercent(percent);
    link_->send(message);
  }

  void forget(const AttemptKey& key) override {
    capnp::MallocMessageBuilder message;
    fill_key(message.initRoot<ToKeeper>().initForget(), key);
    link_->send(message);
  }

  void read_output(const AttemptKey& key, uint8_t stream, uint64_t offset, uint32_t max_bytes,
                   std::function<void(Output)> done) override {
    capnp::MallocMessageBuilder message;
    auto request = message.initRoot<ToKeeper>().initReadOutput();
    fill_key(request.initKey(), key);
    request.setStream(stream);
    request.setOffset(offset);
    request.setMaxBytes(max_bytes);
    request.setTicket(++last_ticket_);
    link_->read_output(last_ticket_, message, std::move(done));
  }

  void shutdown(uint64_t grace_ms) override {
    capnp::MallocMessageBuilder message;
    message.initRoot<ToKeeper>().initShutdown().setGraceMs(grace_ms);
    link_->send(message);
  }

 private:
  std::shared_ptr<Link> link_;
  uint64_t last_ticket_ = 0;
};

}  // namespace

absl::StatusOr<std::unique_ptr<KeeperClient>> KeeperClient::open(asio::io_context& io,
                                                                 Options options,
                                                                 KeeperEvents events) {
  try {
    absl::StatusOr<int> fd = connect_to_keeper(options);
    if (!fd.ok()) return fd.status();
    auto link = std::make_shared<Link>(io, std::move(options), std::move(events));
    link->adopt(*fd);
    return std::make_unique<Client>(std::move(link));
  } catch (const std::exception& error) {
    return absl::InternalError(std::string("cannot reach the keeper: ") + error.what());
  }
}

}  // namespace pesc::worker
