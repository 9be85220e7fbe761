#include "runtime/local/cluster.h"

#include <sched.h>
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

#include "runtime/coordinator/shell/coordinator.h"
#include "runtime/worker/shell/worker.h"

namespace pesc::local {
namespace {

namespace fs = std::filesystem;

uint32_t machine_cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
  return static_cast<uint32_t>(std::max(1, CPU_COUNT(&set)));
}

absl::StatusOr<fs::path> make_temporary_directory() {
  std::error_code error;
  fs::path base = fs::temp_directory_path(error);
  if (error) base = "/tmp";
  std::string pattern = (base / "pesc-XXXXXX").string();
  if (mkdtemp(pattern.data()) == nullptr) {
    return absl::FailedPreconditionError("no temporary directory can be made in " + base.string() +
                                         ": " + strerror(errno) + "; set TMPDIR to one that can");
  }
  return fs::path(pattern);
}

class ClusterImpl : public Cluster {
 public:
  ClusterImpl(fs::path state_dir, bool temporary)
      : state_dir_(std::move(state_dir)), temporary_(temporary) {}

  ~ClusterImpl() override {
    workers_.clear();
    coordinator_.reset();
    std::error_code ignored;
    if (temporary_) fs::remove_all(state_dir_, ignored);
  }

  absl::Status start(rpc::Loop& loop, const Options& options) {
    coordinator::Options coordinator;
    coordinator.state_dir = state_dir_ / "coordinator";
    // A temporary state is nobody's after a power loss; one that is kept must survive it.
    coordinator.durable = !temporary_;
    // Progress is shown live, and a heartbeat within one process costs next to nothing.
    coordinator.core.heartbeat_ms = 1'000;
    auto opened = coordinator::Coordinator::open(loop, coordinator);
    if (!opened.ok()) return opened.status();
    coordinator_ = *std::move(opened);
    uint32_t workers = std::max<uint32_t>(1, options.workers);
    uint32_t slots = slots_per_worker(options);
    for (uint32_t i = 0; i < workers; ++i) {
      absl::Status status = add_worker(loop, options, i, slots);
      if (!status.ok()) return status;
    }
    return absl::OkStatus();
  }

  protocol::UserSession::Client session() override {
    return coordinator_->user_session({rpc::Role::admin, "local"});
  }

  kj::Promise<void> shutdown() override {
    auto ends = kj::heapArrayBuilder<kj::Promise<void>>(workers_.size());
    for (auto& worker : workers_) ends.add(worker->shutdown());
    return kj::joinPromises(ends.finish()).then([this] { return coordinator_->shutdown(); });
  }

 private:
  absl::Status add_worker(rpc::Loop& loop, const Options& options, uint32_t number,
                          uint32_t slots) {
    worker::Options worker;
    worker.state_dir = state_dir_ / ("worker-" + std::to_string(number));
    worker.name = options.workers > 1 ? "local-" + std::to_string(number) : "local";
    worker.cpus_milli = slots * 1000;
    worker.end_keeper_on_shutdown = true;
    worker.keeper_program = options.keeper_program;
    if (options.gpus && number == 0) worker.gpus.emplace();
    auto opened = worker::Worker::open(loop, worker, [this]() {
      return kj::Promise<protocol::WorkerSession::Client>(
          coordinator_->worker_session("127.0.0.1"));
    });
    if (!opened.ok()) return opened.status();
    workers_.push_back(*std::move(opened));
    return absl::OkStatus();
  }

  fs::path state_dir_;
  bool temporary_;
  std::unique_ptr<coordinator::Coordinator> coordinator_;
  std::vector<std::unique_ptr<worker::Worker>> workers_;
};

}  // namespace

uint32_t slots_per_worker(const Options& options) {
  if (options.slots != 0) return options.slots;
  return std::max<uint32_t>(1, machine_cpus() / std::max<uint32_t>(1, options.workers));
}

absl::StatusOr<std::unique_ptr<Cluster>> Cluster::start(rpc::Loop& loop, const Options& options) {
  if (options.workers > 1'000 || options.slots > 100'000) {
    return absl::InvalidArgumentError("at most 1000 workers and 100000 slots can be embedded");
  }
  bool temporary = options.state_dir.empty();
  absl::StatusOr<fs::path> state_dir =
      temporary ? make_temporary_directory() : absl::StatusOr<fs::path>(options.state_dir);
  if (!state_dir.ok()) return state_dir.status();
  auto cluster = std::make_unique<ClusterImpl>(*std::move(state_dir), temporary);
  absl::Status status = cluster->start(loop, options);
  if (!status.ok()) return status;
  return cluster;
}

}  // namespace pesc::local
