// The configuration's own way to find out whether somebody is here.
#pragma once

#include <sys/types.h>

#include <asio/io_context.hpp>
#include <asio/posix/stream_descriptor.hpp>
#include <asio/steady_timer.hpp>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "runtime/worker/owner/policy.h"

namespace pesc::worker::owner {

// Runs a program, one at a time, for so long at most. On the loop's thread.
class PresenceCommand {
 public:
  static constexpr uint64_t kLimitMs = 5'000;
  // The second: what is wrong, when it failed.
  using Done = std::function<void(CommandVerdict, std::string)>;

  PresenceCommand(asio::io_context& io, std::vector<std::string> argv,
                  uint64_t limit_ms = kLimitMs);
  ~PresenceCommand();  // ends what runs
  PresenceCommand(const PresenceCommand&) = delete;
  PresenceCommand& operator=(const PresenceCommand&) = delete;

  bool running() const { return pid_ != 0; }
  void run(Done done);

 private:
  std::string start();
  void ended();
  void finish(CommandVerdict verdict, std::string error);

  asio::io_context& io_;
  const std::vector<std::string> argv_;
  const uint64_t limit_ms_;
  pid_t pid_ = 0;
  bool over_time_ = false;
  Done done_;
  asio::posix::stream_descriptor pidfd_;
  asio::steady_timer limit_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace pesc::worker::owner
