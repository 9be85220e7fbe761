#include "rpc/rpc_stream.h"

#include <kj/debug.h>

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

namespace pesc::rpc {
namespace {

constexpr size_t kReadAhead = 8 << 10;
constexpr size_t kCopyLimit = 64 << 10;    // larger writes are not copied
constexpr size_t kQueueLimit = 256 << 10;  // the writer waits when more than this is queued
constexpr auto kLastWords = 2 * kj::SECONDS;

kj::Exception as_disconnect(kj::Exception&& e) {
  if (e.getType() == kj::Exception::Type::DISCONNECTED) return kj::mv(e);
  return kj::Exception(kj::Exception::Type::DISCONNECTED, e.getFile(), e.getLine(),
                       kj::str(e.getDescription()));
}

// The writing side; it outlives the stream for as long as something is left to send.
class Writer final : public kj::Refcounted {
 public:
  explicit Writer(kj::Own<kj::AsyncIoStream> inner) : stream(kj::mv(inner)) {}

  bool idle() const { return !flushing; }

  void append(kj::ArrayPtr<const kj::byte> piece) {
    queue.insert(queue.end(), piece.begin(), piece.end());
  }

  // Sends until the queue is empty. It is idle again in that very moment: what is written before
  // the promise is seen to be done starts a flush of its own.
  kj::Promise<void> drain() {
    if (queue.empty()) {
      flushing = false;
      if (end_wanted) end();
      return kj::READY_NOW;
    }
    in_flight.clear();
    in_flight.swap(queue);
    return stream->write(in_flight.data(), in_flight.size()).then([this] { return drain(); });
  }

  void failed(kj::Exception&& e) {
    error = as_disconnect(kj::mv(e));
    queue.clear();
    flushing = false;
    stream->abortRead();  // Cap'n Proto notices a dead connection when it reads
  }

  void end() {
    if (ended || error != nullptr) return;
    ended = true;
    // TLS says goodbye here, and would complain to the log about a peer that has gone.
    if (!peer_gone) stream->shutdownWrite();
  }

  kj::Own<kj::AsyncIoStream> stream;
  std::vector<kj::byte> queue, in_flight;
  kj::Maybe<kj::Exception> error;
  bool flushing = false, end_wanted = false, ended = false, peer_gone = false;
};

class RpcStream final : public kj::AsyncIoStream {
 public:
  RpcStream(Loop& loop, kj::Own<kj::AsyncIoStream> inner, std::shared_ptr<uint64_t> allowance)
      : loop_(loop),
        writer_(kj::refcounted<Writer>(kj::mv(inner))),
        allowance_(std::move(allowance)) {}

  ~RpcStream() noexcept(false) {
    if (writer_->idle() || writer_->peer_gone || writer_->error != nullptr) return;
    auto rest = flush_.addBranch().attach(kj::addRef(*writer_));
    loop_.detach(loop_.timer().timeoutAfter(kLastWords, kj::mv(rest)), [](absl::Status) {});
  }

  kj::Promise<size_t> tryRead(void* buffer, size_t min_bytes, size_t max_bytes) override {
    auto* to = static_cast<kj::byte*>(buffer);
    size_t had = take(to, max_bytes);
    if (had >= min_bytes) return had;
    // Before it is read: a message of a stranger may be announced with any size.
    if (!allows(min_bytes - had)) {
      writer_->peer_gone = true;
      return KJ_EXCEPTION(DISCONNECTED, "a stranger sent too much");
    }
    kj::Promise<size_t> more = max_bytes - had >= kReadAhead
                                   ? inner().tryRead(to + had, min_bytes - had, max_bytes - had)
                                   : read_ahead(to + had, min_bytes - had, max_bytes - had);
    return more.then(
        [this, had, min_bytes](size_t n) {
          if (had + n < min_bytes) writer_->peer_gone = true;
          spend(n);
          return had + n;
        },
        [this](kj::Exception&& e) -> size_t {
          writer_->peer_gone = true;
          kj::throwFatalException(as_disconnect(kj::mv(e)));
        });
  }

  kj::Promise<void> write(const void* buffer, size_t size) override {
    auto piece = kj::arrayPtr(static_cast<const kj::byte*>(buffer), size);
    return write_pieces(kj::arrayPtr(&piece, 1),
                        [this, buffer, size] { return inner().write(buffer, size); });
  }

  kj::Promise<void> write(kj::ArrayPtr<const kj::ArrayPtr<const kj::byte>> pieces) override {
    return write_pieces(pieces, [this, pieces] { return inner().write(pieces); });
  }

  kj::Promise<void> whenWriteDisconnected() override { return inner().whenWriteDisconnected(); }

  void shutdownWrite() override {
    if (writer_->idle()) {
      writer_->end();
    } else {
      writer_->end_wanted = true;
    }
  }

  void abortRead() override { inner().abortRead(); }
  void getsockopt(int level, int option, void* value, kj::uint* length) override {
    inner().getsockopt(level, option, value, length);
  }
  void setsockopt(int level, int option, const void* value, kj::uint length) override {
    inner().setsockopt(level, option, value, length);
  }
  void getsockname(struct sockaddr* address, kj::uint* length) override {
    inner().getsockname(address, length);
  }
  void getpeername(struct sockaddr* address, kj::uint* length) override {
    inner().getpeername(address, length);
  }

 private:
  kj::AsyncIoStream& inner() { return *writer_->stream; }

  bool allows(size_t bytes) const { return !allowance_ || *allowance_ >= bytes; }
  void spend(size_t bytes) {
    if (!allowance_ || *allowance_ == UINT64_MAX) return;
    *allowance_ -= std::min<uint64_t>(*allowance_, bytes);
  }

  size_t take(kj::byte* to, size_t max_bytes) {
    size_t n = std::min(max_bytes, end_ - begin_);
    if (n > 0) memcpy(to, ahead_.begin() + begin_, n);
    begin_ += n;
    if (begin_ == end_) begin_ = end_ = 0;
    return n;
  }

  kj::Promise<size_t> read_ahead(kj::byte* to, size_t min_bytes, size_t max_bytes) {
    if (ahead_.size() == 0) ahead_ = kj::heapArray<kj::byte>(kReadAhead);
    return inner().tryRead(ahead_.begin(), min_bytes, ahead_.size()).then([=, this](size_t n) {
      begin_ = 0;
      end_ = n;
      return take(to, max_bytes);
    });
  }

  template <typename Direct>
  kj::Promise<void> write_pieces(kj::ArrayPtr<const kj::ArrayPtr<const kj::byte>> pieces,
                                 Direct&& direct) {
    KJ_IF_MAYBE (e, writer_->error) {
      return kj::cp(*e);
    }
    size_t size = 0;
    for (auto piece : pieces) size += piece.size();
    if (size >= kCopyLimit) {
      auto before = writer_->idle() ? kj::Promise<void>(kj::READY_NOW) : flush_.addBranch();
      return before
          .then([this, direct = kj::fwd<Direct>(direct)]() -> kj::Promise<void> {
            KJ_IF_MAYBE (e, writer_->error) {
              return kj::cp(*e);
            }
            return direct();
          })
          .catch_([this](kj::Exception&& e) {
            if (writer_->error == nullptr) writer_->failed(kj::cp(e));
            kj::throwFatalException(as_disconnect(kj::mv(e)));
          });
    }
    for (auto piece : pieces) writer_->append(piece);
    if (writer_->idle()) start_flush();
    if (writer_->queue.size() < kQueueLimit) return kj::READY_NOW;
    return flush_.addBranch();
  }

  // When the loop has nothing else to do: what else is written until then goes with it.
  void start_flush() {
    writer_->flushing = true;
    Writer* writer = writer_.get();
    flush_ = loop_.when_quiet()
                 .then([writer] { return writer->drain(); })
                 .catch_([writer](kj::Exception&& e) { writer->failed(kj::mv(e)); })
                 .attach(kj::addRef(*writer))
                 .fork();
    flush_task_ = flush_.addBranch().eagerlyEvaluate(nullptr);
  }

  Loop& loop_;
  kj::Own<Writer> writer_;
  const std::shared_ptr<uint64_t> allowance_;
  kj::Array<kj::byte> ahead_;
  size_t begin_ = 0, end_ = 0;
  kj::ForkedPromise<void> flush_ = nullptr;
  kj::Promise<void> flush_task_ = nullptr;
};

}  // namespace

kj::Own<kj::AsyncIoStream> make_rpc_stream(Loop& loop, kj::Own<kj::AsyncIoStream> inner,
                                           std::shared_ptr<uint64_t> allowance) {
  return kj::heap<RpcStream>(loop, kj::mv(inner), std::move(allowance));
}

}  // namespace pesc::rpc
