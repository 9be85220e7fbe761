// A worker's connection to the coordinator: messages in order, with a delay; it can be cut, which
// loses what is under way, and each end learns of it at a time of its own.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <set>
#include <utility>

#include "tests/sim/wire.h"
#include "tests/sim/world.h"

namespace pesc::sim {

enum class MessageKind : uint8_t {
  attach,
  attach_answer,
  report,
  report_answer,
  checkpoint,
  checkpoint_answer,  // `call` is answered with `number`
  update,
  error
};

struct Message {
  MessageKind kind = MessageKind::error;
  uint64_t call = 0;  // the report or the offer that an answer is for
  Bytes bytes;
  uint32_t number = 0;
};

class Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(World& world, uint64_t number, size_t worker, TimeMs longest_delay_ms)
      : number(number), worker(worker), world_(world), longest_delay_ms_(longest_delay_ms) {}

  void send_to_server(Message message);
  void send_to_client(Message message);
  // The link breaks: nothing sent from now on arrives, what is under way is lost or not, and each
  // end is told some time within `notice_ms`.
  void cut(TimeMs notice_ms);
  // One end closes: the other is told, after what was sent before, or finds a broken link.
  void close_from_client();
  void close_from_server();
  bool client_open() const { return client_open_; }
  bool server_open() const { return server_open_; }

  const uint64_t number;
  const size_t worker;
  std::function<void(const Message&)> on_server_message, on_client_message;
  std::function<void()> on_server_closed, on_client_closed;

  // What each end remembers with its session.
  uint64_t session = 0;
  std::set<JobId> specs_sent;
  KnownSpecs specs_known;

 private:
  TimeMs arrival(TimeMs& last);
  void end_server();
  void end_client();

  World& world_;
  TimeMs longest_delay_ms_;
  TimeMs last_to_server_ = 0, last_to_client_ = 0;
  bool client_open_ = true, server_open_ = true;
  bool broken_ = false, drop_to_server_ = false, drop_to_client_ = false;
};

// The order in which things happen never depends on addresses.
struct ByNumber {
  bool operator()(const std::shared_ptr<Connection>& a,
                  const std::shared_ptr<Connection>& b) const {
    return std::pair(a->worker, a->number) < std::pair(b->worker, b->number);
  }
};

}  // namespace pesc::sim
