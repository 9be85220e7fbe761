#include <asio/buffer.hpp>
#include <asio/post.hpp>
#include <asio/write.hpp>
#include <utility>

#include "runtime/worker/keeper/keeper.h"

namespace pesc::keeper {

Connection::Connection(Socket socket, OnMessage on_message, OnLost on_lost)
    : socket_(std::move(socket)),
      on_message_(std::move(on_message)),
      on_lost_(std::move(on_lost)) {}

void Connection::read() {
  auto space = inbox_.space();
  socket_.async_read_some(asio::buffer(space.data(), space.size()),
                          [self = shared_from_this()](std::error_code error, size_t size) {
                            if (self->closed_) return;
                            if (error) return self->lose();
                            self->inbox_.received(size);
                            if (self->take_messages() && !self->closed_) self->read();
                          });
}

// A peer that sends what is no message is dropped; what it asked for before stands.
bool Connection::take_messages() {
  try {
    for (;;) {
      kj::ArrayPtr<const capnp::word> words;
      switch (inbox_.take(words)) {
        case Inbox::State::incomplete:
          return true;
        case Inbox::State::invalid:
          lose();
          return false;
        case Inbox::State::message:
          break;
      }
      capnp::FlatArrayMessageReader reader(words, reader_options());
      on_message_(reader.getRoot<protocol::keeper::ToKeeper>());
      if (closed_) return false;
    }
  } catch (const kj::Exception&) {
    lose();
    return false;
  }
}

void Connection::send(capnp::MessageBuilder& message) {
  if (closed_) return;
  outbox_.add(message);
  if (writing_ || std::exchange(flush_posted_, true)) return;
  asio::post(socket_.get_executor(), [self = shared_from_this()] {
    self->flush_posted_ = false;
    self->flush();
  });
}

void Connection::when_sent(std::function<void()> done) {
  if (outbox_.empty() && !writing_) return done();
  when_sent_ = std::move(done);
}

void Connection::flush() {
  if (closed_ || writing_) return;
  if (outbox_.empty()) {
    if (when_sent_) std::exchange(when_sent_, nullptr)();
    return;
  }
  in_flight_.clear();
  outbox_.swap(in_flight_);
  writing_ = true;
  asio::async_write(socket_, asio::buffer(in_flight_),
                    [self = shared_from_this()](std::error_code error, size_t) {
                      self->writing_ = false;
                      if (self->closed_) return;
                      if (error) return self->lose();
                      self->flush();
                    });
}

void Connection::lose() {
  if (closed_) return;
  close();
  on_lost_(*this);
}

void Connection::close() {
  closed_ = true;
  std::error_code ignored;
  socket_.close(ignored);
}

}  // namespace pesc::keeper
