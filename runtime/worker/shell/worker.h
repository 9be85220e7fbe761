// A worker as an object on a loop: core, keeper, cache, attempts' directories, the session with its
// coordinator. The daemon gives it a connection, an embedding process a session of its own.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "model/resources.h"
#include "pesc.capnp.h"
#include "rpc/loop.h"
#include "runtime/worker/containment/mode.h"
#include "runtime/worker/gpu/gpu_settings.h"
#include "runtime/worker/owner/settings.h"

namespace pesc::worker {

struct Options {
  std::filesystem::path state_dir;
  std::string name;  // default: the host's name
  std::string room;
  std::string advertise;      // address other workers reach this one at; default: found out
  uint32_t cpus_milli = 0;    // 0: all of the machine's (affinity respected)
  uint64_t memory_bytes = 0;  // 0: all of the machine's
  uint64_t disk_bytes = 0;    // for attempts; 0: what is free where the state is
  NamedResources named;       // what else ranks may ask for
  std::string run_as;         // user the ranks run as; needs root
  uint64_t cache_limit_bytes = 20ull << 30;
  // Large blobs are fetched from other workers that have them, and given on to others, on a port
  // that is open while somebody may come.
  bool pass_on = false;
  bool end_keeper_on_shutdown = false;  // embedded: nothing may outlive the process
  // Everything else on the machine goes before its ranks.
  bool idle_priority = false;
  // Nothing: the machine is the worker's alone, and it cannot be paused (embedded).
  std::optional<owner::Settings> owner;
  // Nothing: no driver is asked, and ranks see what there is (embedded).
  std::optional<GpuSettings> gpus;
  containment::Mode containment = containment::Mode::automatic;
  // This process has moved itself into a cgroup below the one that it was started in
  // (containment::enter_supervisor).
  bool moved_itself = false;
  // Out of contact with the coordinator for this long, it stops what runs; so does the keeper that
  // no worker has asked for this long. 0: never.
  uint64_t detached_limit_ms = 7ull * 24 * 3'600'000;
  // The worker's `now`; empty: CLOCK_BOOTTIME. For who tests what a sleep of the machine does.
  std::function<int64_t()> now_ms;
  std::filesystem::path keeper_program;  // empty: beside the library, or the one carried inside it
};

// Called for each new connection; the promise fails (Unavailable) when there is none to be had.
using SessionSource = std::function<kj::Promise<protocol::WorkerSession::Client>()>;

class Worker {
 public:
  static absl::StatusOr<std::unique_ptr<Worker>> open(rpc::Loop& loop, Options options,
                                                      SessionSource sessions);
  virtual ~Worker() = default;
  virtual std::string id() const = 0;
  // No new ranks; done when the last result was acknowledged.
  virtual kj::Promise<void> drain() = 0;
  // No new ranks; running ones are ended (SIGTERM, their grace, SIGKILL) and given back as vacated.
  // Done when all of that was acknowledged, or when `limit_ms` is over.
  virtual kj::Promise<void> vacate(uint64_t limit_ms) = 0;
  // Ends the session; ranks stay with the keeper, or are ended (end_keeper_on_shutdown). A keeper
  // that has nothing left ends as well.
  virtual kj::Promise<void> shutdown() = 0;
};

}  // namespace pesc::worker
