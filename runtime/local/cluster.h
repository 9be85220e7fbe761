// Coordinator and workers inside the calling process, on one loop.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>

#include "absl/status/statusor.h"
#include "pesc.capnp.h"
#include "rpc/loop.h"

namespace pesc::local {

struct Options {
  std::filesystem::path state_dir;  // empty: a temporary one, deleted at the end
  uint32_t workers = 1;
  uint32_t slots = 0;  // cpus of each worker; 0: the machine's, shared among the workers
  std::filesystem::path keeper_program;
  bool gpus = false;  // the first worker offers this machine's
};

// The cpus each worker of such a cluster has.
uint32_t slots_per_worker(const Options& options);

class Cluster {
 public:
  static absl::StatusOr<std::unique_ptr<Cluster>> start(rpc::Loop& loop, const Options& options);
  virtual ~Cluster() = default;
  virtual protocol::UserSession::Client session() = 0;
  virtual kj::Promise<void> shutdown() = 0;
};

}  // namespace pesc::local
