#include "tests/sim/network.h"

#include <algorithm>
#include <utility>

namespace pesc::sim {

TimeMs Connection::arrival(TimeMs& last) {
  last = std::max(last, world_.now() + world_.random.between(0, longest_delay_ms_));
  return last;
}

void Connection::send_to_server(Message message) {
  if (!client_open_ || broken_) return;
  world_.at(arrival(last_to_server_),
            [self = shared_from_this(), message = std::move(message)]() mutable {
              if (self->server_open_ && !self->drop_to_server_) self->on_server_message(message);
            });
}

void Connection::send_to_client(Message message) {
  if (!server_open_ || broken_) return;
  world_.at(arrival(last_to_client_),
            [self = shared_from_this(), message = std::move(message)]() mutable {
              if (self->client_open_ && !self->drop_to_client_) self->on_client_message(message);
            });
}

void Connection::cut(TimeMs notice_ms) {
  if (broken_) return;
  broken_ = true;
  drop_to_server_ = world_.random.chance(0.6);
  drop_to_client_ = world_.random.chance(0.6);
  // What was under way and is not lost arrives before the end is noticed.
  auto self = shared_from_this();
  world_.at(std::max(last_to_server_, world_.now() + world_.random.between(0, notice_ms)),
            [self] { self->end_server(); });
  world_.at(std::max(last_to_client_, world_.now() + world_.random.between(0, notice_ms)),
            [self] { self->end_client(); });
}

void Connection::close_from_client() {
  client_open_ = false;
  auto self = shared_from_this();
  world_.at(arrival(last_to_server_), [self] {
    if (!self->broken_) self->end_server();
  });
}

void Connection::close_from_server() {
  server_open_ = false;
  auto self = shared_from_this();
  world_.at(arrival(last_to_client_), [self] {
    if (!self->broken_) self->end_client();
  });
}

void Connection::end_server() {
  if (!server_open_) return;
  server_open_ = false;
  on_server_closed();
}

void Connection::end_client() {
  if (!client_open_) return;
  client_open_ = false;
  on_client_closed();
}

}  // namespace pesc::sim
