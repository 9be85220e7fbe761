// The coordinator as an object on a loop: core, journal, blobs, RPC front. The daemon adds a
// listener, an embedding process uses its sessions directly.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "pesc.capnp.h"
#include "rpc/connection.h"
#include "rpc/credentials.h"
#include "rpc/loop.h"
#include "runtime/coordinator/core/core.h"

namespace pesc::coordinator {

struct Options {
  std::filesystem::path state_dir;
  CoreConfig core;
  bool durable = true;  // false: no fsync (an embedded job in a temporary directory)
  uint64_t retention_ms = 30ull * 24 * 3600 * 1000;  // finished jobs older than this are removed…
  uint64_t retention_bytes = 0;  // …and the oldest beyond this much output; 0: no bound
  bool drop_damaged = false;     // remove what is damaged of the journal, at the start
  // Blobs of dropped checkpoints, and leftovers, are collected at this pace at most, and so that it
  // takes no more than a fiftieth of the time.
  uint64_t collect_pause_ms = 60'000;
};

class Coordinator {
 public:
  // Opens or makes the state directory (one coordinator at a time: a lock), restores the journal.
  static absl::StatusOr<std::unique_ptr<Coordinator>> open(rpc::Loop& loop, Options options);
  virtual ~Coordinator() = default;

  // Sessions within this process: trusted, no token.
  virtual protocol::UserSession::Client user_session(const rpc::Principal& owner) = 0;
  virtual protocol::WorkerSession::Client worker_session(const std::string& peer_address) = 0;

  // Serves others: TLS unless the address is a loopback one. Leaves pointers for the same user's
  // tools. Returns the address really bound.
  virtual absl::StatusOr<rpc::Address> listen(const rpc::Address& address) = 0;

  // Stops accepting, commits what is pending; running ranks go on at their workers.
  virtual kj::Promise<void> shutdown() = 0;
};

}  // namespace pesc::coordinator
