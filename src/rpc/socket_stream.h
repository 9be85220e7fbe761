// A connected socket as a KJ stream on the loop: waits for readiness, then reads and writes without
// blocking. HTTP servers and anything else that wants a kj::AsyncIoStream take it from here too.
#pragma once

#include <kj/async-io.h>

#include <asio/posix/stream_descriptor.hpp>
#include <memory>
#include <string>

#include "rpc/loop.h"

namespace pesc::rpc {

// One direction of readiness. At most one promise waits on it; a dropped one leaves nothing behind
// but an armed wait, which the next one takes over.
class Readiness : public kj::Refcounted {
 public:
  explicit Readiness(asio::posix::stream_descriptor::wait_type type) : type_(type) {}
  kj::Promise<void> wait(asio::posix::stream_descriptor& descriptor);

 private:
  class Adapter;
  void arrived(asio::error_code error);

  const asio::posix::stream_descriptor::wait_type type_;
  bool armed_ = false;
  kj::PromiseFulfiller<void>* waiter_ = nullptr;
};

class SocketStream final : public kj::AsyncIoStream {
 public:
  SocketStream(Loop& loop, int fd);  // takes the descriptor

  kj::Promise<void> when_readable() { return readable_->wait(descriptor_); }
  kj::Promise<void> when_writable() { return writable_->wait(descriptor_); }
  int fd() { return descriptor_.native_handle(); }

  // Copies the first bytes that arrive: they tell who answers when it is not whom we expected.
  void keep_first_bytes(std::shared_ptr<std::string> into) { first_bytes_ = std::move(into); }

  kj::Promise<size_t> tryRead(void* buffer, size_t min_bytes, size_t max_bytes) override;
  kj::Promise<void> write(const void* buffer, size_t size) override;
  kj::Promise<void> write(kj::ArrayPtr<const kj::ArrayPtr<const kj::byte>> pieces) override;
  kj::Promise<void> whenWriteDisconnected() override;
  void shutdownWrite() override;
  void abortRead() override;
  void getsockopt(int level, int option, void* value, kj::uint* length) override;
  void setsockopt(int level, int option, const void* value, kj::uint length) override;
  void getsockname(struct sockaddr* address, kj::uint* length) override;
  void getpeername(struct sockaddr* address, kj::uint* length) override;
  kj::Maybe<int> getFd() const override;

 private:
  kj::Promise<size_t> read_more(kj::byte* to, size_t min_bytes, size_t max_bytes, size_t done);
  kj::Promise<void> write_more(kj::ArrayPtr<const kj::byte> first,
                               kj::ArrayPtr<const kj::ArrayPtr<const kj::byte>> rest);
  kj::Promise<void> watch_disconnect();
  void note_first_bytes(const kj::byte* data, size_t size);

  mutable asio::posix::stream_descriptor descriptor_;
  kj::Own<Readiness> readable_, writable_, broken_;
  kj::Maybe<kj::ForkedPromise<void>> disconnected_;
  std::shared_ptr<std::string> first_bytes_;
};

// A lost connection, as KJ knows it.
kj::Exception disconnected(const char* call, int error);

}  // namespace pesc::rpc
