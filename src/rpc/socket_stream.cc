#include "rpc/socket_stream.h"

#include <errno.h>
#include <kj/debug.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <system_error>

namespace pesc::rpc {
namespace {

constexpr size_t kFirstBytes = 16;
constexpr size_t kPiecesPerCall = 64;

}  // namespace

kj::Exception disconnected(const char* call, int error) {
  return kj::Exception(kj::Exception::Type::DISCONNECTED, __FILE__, __LINE__,
                       kj::str(call, ": ", std::generic_category().message(error).c_str()));
}

class Readiness::Adapter {
 public:
  Adapter(kj::PromiseFulfiller<void>& fulfiller, Readiness& readiness)
      : fulfiller_(fulfiller), readiness_(kj::addRef(readiness)) {
    KJ_REQUIRE(readiness.waiter_ == nullptr, "two reads or two writes at once on one stream");
    readiness.waiter_ = &fulfiller;
  }
  ~Adapter() {
    if (readiness_->waiter_ == &fulfiller_) readiness_->waiter_ = nullptr;
  }

 private:
  kj::PromiseFulfiller<void>& fulfiller_;
  kj::Own<Readiness> readiness_;
};

kj::Promise<void> Readiness::wait(asio::posix::stream_descriptor& descriptor) {
  auto promise = kj::newAdaptedPromise<void, Adapter>(*this);
  if (!armed_) {
    armed_ = true;
    // The handler owns the state it touches: it may fire after the stream is gone.
    descriptor.async_wait(
        type_, [self = kj::addRef(*this)](asio::error_code e) mutable { self->arrived(e); });
  }
  return promise;
}

void Readiness::arrived(asio::error_code error) {
  armed_ = false;
  if (!waiter_) return;
  kj::PromiseFulfiller<void>* waiter = std::exchange(waiter_, nullptr);
  if (error) {
    waiter->reject(disconnected("the stream was closed", error.value()));
  } else {
    waiter->fulfill();
  }
}

SocketStream::SocketStream(Loop& loop, int fd)
    : descriptor_(loop.io(), fd),
      readable_(kj::refcounted<Readiness>(asio::posix::stream_descriptor::wait_read)),
      writable_(kj::refcounted<Readiness>(asio::posix::stream_descriptor::wait_write)),
      broken_(kj::refcounted<Readiness>(asio::posix::stream_descriptor::wait_error)) {}

kj::Promise<size_t> SocketStream::tryRead(void* buffer, size_t min_bytes, size_t max_bytes) {
  return read_more(static_cast<kj::byte*>(buffer), min_bytes, max_bytes, 0);
}

kj::Promise<size_t> SocketStream::read_more(kj::byte* to, size_t min_bytes, size_t max_bytes,
                                            size_t done) {
  while (true) {
    ssize_t n = recv(fd(), to + done, max_bytes - done, MSG_DONTWAIT);
    if (n > 0) {
      if (first_bytes_) note_first_bytes(to + done, static_cast<size_t>(n));
      done += static_cast<size_t>(n);
      if (done >= min_bytes) return done;
      continue;
    }
    if (n == 0) return done;
    if (errno == EINTR) continue;
    if (errno != EAGAIN && errno != EWOULDBLOCK) return disconnected("recv", errno);
    return when_readable().then([=, this] { return read_more(to, min_bytes, max_bytes, done); });
  }
}

void SocketStream::note_first_bytes(const kj::byte* data, size_t size) {
  size_t wanted = kFirstBytes - std::min(kFirstBytes, first_bytes_->size());
  first_bytes_->append(reinterpret_cast<const char*>(data), std::min(wanted, size));
  if (first_bytes_->size() >= kFirstBytes) first_bytes_ = nullptr;
}

kj::Promise<void> SocketStream::write(const void* buffer, size_t size) {
  return write_more(kj::arrayPtr(static_cast<const kj::byte*>(buffer), size), nullptr);
}

kj::Promise<void> SocketStream::write(kj::ArrayPtr<const kj::ArrayPtr<const kj::byte>> pieces) {
  if (pieces.size() == 0) return kj::READY_NOW;
  return write_more(pieces[0], pieces.slice(1, pieces.size()));
}

// MSG_NOSIGNAL: a peer that goes away must not end a host program by SIGPIPE.
kj::Promise<void> SocketStream::write_more(kj::ArrayPtr<const kj::byte> first,
                                           kj::ArrayPtr<const kj::ArrayPtr<const kj::byte>> rest) {
  while (true) {
    iovec parts[kPiecesPerCall];
    size_t count = 0;
    auto add = [&](kj::ArrayPtr<const kj::byte> piece) {
      if (piece.size() > 0) parts[count++] = {const_cast<kj::byte*>(piece.begin()), piece.size()};
    };
    add(first);
    for (size_t i = 0; i < rest.size() && count < kPiecesPerCall; ++i) add(rest[i]);
    if (count == 0) return kj::READY_NOW;

    msghdr message{};
    message.msg_iov = parts;
    message.msg_iovlen = count;
    ssize_t n = sendmsg(fd(), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0) {
      if (errno == EINTR) continue;
      if (errno != EAGAIN && errno != EWOULDBLOCK) return disconnected("sendmsg", errno);
      return when_writable().then([=, this] { return write_more(first, rest); });
    }
    size_t sent = static_cast<size_t>(n);
    while (sent >= first.size()) {
      sent -= first.size();
      if (rest.size() == 0) return kj::READY_NOW;
      first = rest[0];
      rest = rest.slice(1, rest.size());
    }
    first = first.slice(sent, first.size());
  }
}

kj::Promise<void> SocketStream::whenWriteDisconnected() {
  KJ_IF_MAYBE (promise, disconnected_) {
    return promise->addBranch();
  }
  auto fork = watch_disconnect().fork();
  auto branch = fork.addBranch();
  disconnected_ = kj::mv(fork);
  return branch;
}

kj::Promise<void> SocketStream::watch_disconnect() {
  pollfd status{fd(), 0, 0};  // POLLHUP and POLLERR are always reported
  if (poll(&status, 1, 0) > 0 && (status.revents & (POLLHUP | POLLERR))) return kj::READY_NOW;
  return broken_->wait(descriptor_).then([this] { return watch_disconnect(); });
}

// A peer that is gone already is no error here: the next read or write says so.
void SocketStream::shutdownWrite() { ::shutdown(fd(), SHUT_WR); }
void SocketStream::abortRead() { ::shutdown(fd(), SHUT_RD); }

void SocketStream::getsockopt(int level, int option, void* value, kj::uint* length) {
  socklen_t size = *length;
  KJ_SYSCALL(::getsockopt(fd(), level, option, value, &size));
  *length = size;
}

void SocketStream::setsockopt(int level, int option, const void* value, kj::uint length) {
  KJ_SYSCALL(::setsockopt(fd(), level, option, value, length));
}

void SocketStream::getsockname(struct sockaddr* address, kj::uint* length) {
  socklen_t size = *length;
  KJ_SYSCALL(::getsockname(fd(), address, &size));
  *length = size;
}

void SocketStream::getpeername(struct sockaddr* address, kj::uint* length) {
  socklen_t size = *length;
  KJ_SYSCALL(::getpeername(fd(), address, &size));
  *length = size;
}

kj::Maybe<int> SocketStream::getFd() const { return descriptor_.native_handle(); }

}  // namespace pesc::rpc
