// The keeper: holds the attempts, serves one worker at a time, and ends when nothing needs it.
#pragma once

#include <asio/io_context.hpp>
#include <asio/local/stream_protocol.hpp>
#include <asio/posix/stream_descriptor.hpp>
#include <asio/steady_timer.hpp>
#include <chrono>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "keeper.capnp.h"
#include "model/ids.h"
#include "runtime/worker/keeper/attempt.h"
#include "runtime/worker/keeper/framing.h"

namespace pesc::keeper {

struct KeeperOptions {
  int listen_fd = -1;
  int signal_fd = -1;                        // SIGCHLD and SIGTERM, which are blocked
  bool die_with_parent = false;              // end everything when the first connection is lost
  std::chrono::milliseconds linger{60'000};  // without attempts and connection
  // Without a worker for so long it ends what runs, and after as long again itself. The worker says
  // it in its hello. 0: never.
  std::chrono::milliseconds detached_limit{0};
};

// One connection; the keeper has at most one.
class Connection : public std::enable_shared_from_this<Connection> {
 public:
  using Socket = asio::local::stream_protocol::socket;
  using OnMessage = std::function<void(protocol::keeper::ToKeeper::Reader)>;
  using OnLost = std::function<void(Connection&)>;

  Connection(Socket socket, OnMessage on_message, OnLost on_lost);
  void start() { read(); }
  // What is sent within one turn of the loop leaves in one write.
  void send(capnp::MessageBuilder& message);
  // Calls `done` when all that was sent has left; at once when it has.
  void when_sent(std::function<void()> done);
  void close();

 private:
  void read();
  bool take_messages();
  void flush();
  void lose();

  Socket socket_;
  OnMessage on_message_;
  OnLost on_lost_;
  std::function<void()> when_sent_;
  Inbox inbox_;
  Outbox outbox_;
  std::string in_flight_;
  bool writing_ = false, flush_posted_ = false, closed_ = false;
};

class Keeper {
 public:
  Keeper(asio::io_context& io, KeeperOptions options);
  void run();

 private:
  void accept();
  void adopt(Connection::Socket socket);
  void on_connection_lost(Connection& connection);
  void on_message(protocol::keeper::ToKeeper::Reader message);
  void on_hello(protocol::keeper::ToKeeper::Hello::Reader hello);
  void on_start(protocol::keeper::Start::Reader start);
  void begin(const std::shared_ptr<Attempt>& attempt);
  void on_stop(protocol::keeper::ToKeeper::Stop::Reader stop);
  void on_forget(protocol::keeper::Key::Reader key);
  void on_read_output(protocol::keeper::ToKeeper::ReadOutput::Reader request);
  void await_signals();
  void look_for_started();
  void note_started();
  void announce(const std::shared_ptr<Attempt>& attempt);
  void reap();
  void end_orphans();
  void watch_later(std::shared_ptr<Attempt> attempt);
  void arm_watch();
  void send_started(Attempt& attempt);
  void send_exited(Attempt& attempt);
  void on_finished(Attempt& attempt);
  void end_everything(std::chrono::milliseconds grace);
  void count_detached();
  void look_for_oom();
  void open_containment(protocol::keeper::ToKeeper::Hello::Reader hello);
  void watch_limits();
  void look_at_limits();
  void consider_ending();
  Attempt* find(protocol::keeper::Key::Reader key);

  // ---- next.cc
  bool must_wait(const std::shared_ptr<Attempt>& attempt);
  void begin_next(JobId job);
  bool is_waiting(const Attempt& attempt) const;
  void take_back(Attempt& attempt, EndReason reason);
  std::vector<std::shared_ptr<Attempt>> take_all_waiting();
  void forget_waiting();
  void refuse_waiting(EndReason reason, const std::string& detail);

  asio::io_context& io_;
  KeeperOptions options_;
  Surroundings around_;
  asio::local::stream_protocol::acceptor acceptor_;
  asio::posix::stream_descriptor signals_;
  asio::steady_timer started_timer_, linger_, watch_timer_, detached_timer_, oom_timer_,
      limits_timer_;
  bool looking_for_started_ = false, looking_for_oom_ = false, watching_limits_ = false;
  bool relax_ = false;  // the limits of its cgroups, while there is no worker
  uint64_t looks_ = 0, tasks_ = 0;
  std::shared_ptr<Connection> connection_;
  std::map<AttemptKey, std::shared_ptr<Attempt>> attempts_;
  std::unordered_map<pid_t, std::shared_ptr<Attempt>> shims_;
  std::vector<std::shared_ptr<Attempt>> starting_;
  // What it begins by itself when one of the same job ends.
  struct OfJob {
    uint32_t running = 0;
    std::deque<std::shared_ptr<Attempt>> next;
  };
  std::map<JobId, OfJob> jobs_;
  std::deque<std::pair<std::chrono::steady_clock::time_point, std::shared_ptr<Attempt>>> unwatched_;
  size_t running_ = 0;  // or about to
  bool ending_ = false;
};

}  // namespace pesc::keeper
