// The worker's side of its keeper: starts it or finds the one that is running, speaks
// keeper.capnp with it. On the loop's thread.
#pragma once

#include <asio/io_context.hpp>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "model/ids.h"
#include "model/outcome.h"
#include "rpc/loop.h"
#include "runtime/worker/containment/mode.h"

namespace pesc::worker {

struct LaunchRequest {
  AttemptKey key;
  std::vector<std::string> argv, environment;
  std::string working_directory, search_path, spill_directory, lease;
  bool run_as = false;
  uint32_t uid = 0, gid = 0;
  uint64_t time_limit_ms = 0, grace_ms = 0, output_limit_bytes = 0;
  std::vector<std::pair<std::string, std::string>> read_only_binds;  // source, target
  bool idle_priority = false;
  // Of the attempt's whole tree. 0: no bound.
  uint64_t memory_limit_bytes = 0;
  uint32_t cpus_milli = 0;
  uint32_t process_limit = 0;
  // It begins when fewer of its job run there than these; 0: at once. Only with holds_next().
  uint32_t most_of_job = 0;
};

struct KeptExit {
  AttemptKey key;
  AttemptOutcome outcome;                       // without output
  std::string standard_output, standard_error;  // whole, unless spilled
  bool output_spilled = false, error_spilled = false;
};

struct KeptAttempt {
  AttemptKey key;
  std::string lease;  // as given at the start
  bool running = false;
  int64_t started_unix_ms = 0;
  uint32_t pid = 0;  // of the program, when it runs
  KeptExit exit;     // when not running
};

struct KeeperEvents {
  std::function<void(std::vector<KeptAttempt>)> on_welcome;  // first, once per connection
  // Before on_welcome: what holds the limits here, as in containment/containment.h, and why not
  // more.
  std::function<void(std::string description, std::string lacking)> on_containment;
  std::function<void(AttemptKey, uint32_t pid, int64_t unix_ms, bool binds_done)> on_started;
  std::function<void(KeptExit)> on_exited;    // also when it could not be started
  std::function<void(absl::Status)> on_lost;  // the keeper is gone
};

class KeeperClient {
 public:
  struct Options {
    std::filesystem::path socket;   // in the state directory; paths over 100 bytes are handled
    std::filesystem::path program;  // empty: found beside the library, or carried inside it
    bool die_with_parent = false;   // embedded: the keeper ends all when this process is gone
    // Without a worker for this long the keeper ends what runs (vacated). 0: never.
    uint64_t detached_limit_ms = 0;
    containment::Mode containment = containment::Mode::automatic;
    // This process has moved itself into a cgroup below the one that it was started in.
    bool moved_itself = false;
  };
  // Connects to a keeper that listens at `socket`, else starts one. Never forks this process
  // (vfork-like); touches none of its signals or children.
  // Events come from the loop, never from within a call. What is asked before on_welcome is sent
  // after it; what is asked after on_lost is dropped. Dropping the client closes the connection:
  // the keeper goes on (or, with die_with_parent, ends everything).
  static absl::StatusOr<std::unique_ptr<KeeperClient>> open(asio::io_context& io, Options options,
                                                            KeeperEvents events);
  static absl::StatusOr<std::unique_ptr<KeeperClient>> open(rpc::Loop& loop, Options options,
                                                            KeeperEvents events) {
    return open(loop.io(), std::move(options), std::move(events));
  }
  virtual ~KeeperClient() = default;
  virtual uint32_t pid() const = 0;  // of the keeper; 0: not known before on_welcome
  // It knows most_of_job and unless_begun: one that an older worker started may not. From
  // on_welcome on.
  virtual bool holds_next() const = 0;
  virtual void start(const LaunchRequest& request) = 0;
  // unless_begun: what runs by now runs on.
  virtual void stop(const AttemptKey& key, EndReason reason, uint64_t grace_ms,
                    bool unless_begun = false) = 0;
  // Frozen time counts towards no limit. A stop thaws.
  virtual void freeze(const AttemptKey& key, bool frozen) = 0;
  // To a part of its cpus, 1 to 99; 100: no longer. Time counts as much less meanwhile.
  virtual void throttle(const AttemptKey& key, uint32_t percent) = 0;
  virtual void forget(const AttemptKey& key) = 0;
  struct Output {
    std::string data;
    bool found = false;  // false: the keeper does not have that attempt
  };
  // stream 1: standard output, 2: standard error
  virtual void read_output(const AttemptKey& key, uint8_t stream, uint64_t offset,
                           uint32_t max_bytes, std::function<void(Output)> done) = 0;
  virtual void shutdown(uint64_t grace_ms) = 0;  // ends every attempt, then itself; on_lost follows
};

}  // namespace pesc::worker
