// What the worker does for whoever owns its machine: the state monitor's verdict, carried out.
#include <sys/stat.h>

#include <utility>

#include "rpc/log.h"
#include "runtime/worker/shell/worker_impl.h"

namespace pesc::worker {
namespace {

// Kept, so that a worker that starts while its coordinator is away lets nothing run on.
constexpr const char* kOrderFile = "pause-ordered";

}  // namespace

void WorkerShell::open_monitor() {
  if (!options_.owner) return;
  owner::Settings settings = *options_.owner;
  if (settings.pause_file.empty()) settings.pause_file = state_dir_ / "pause";
  monitor_ = std::make_unique<owner::Monitor>(
      loop_, std::move(settings), [this](const owner::Verdict& verdict) { on_verdict(verdict); });
  monitor_->set_gpus([this] {
    std::vector<owner::GpuUse> uses;
    if (!gpus_) return uses;
    for (const Gpu& gpu : gpus_->gpus()) {
      if (gpu.memory_bytes == 0) continue;
      uses.push_back({gpu.uuid, 100.0 * static_cast<double>(gpu.taken_bytes) /
                                    static_cast<double>(gpu.memory_bytes)});
    }
    return uses;
  });
  struct stat info {};
  monitor_->order_pause(::lstat((state_dir_ / kOrderFile).c_str(), &info) == 0);
  monitor_->start();
  on_verdict(monitor_->verdict());
}

void WorkerShell::on_verdict(const owner::Verdict& verdict) {
  say_busy();
  if (std::exchange(full_gpus_, verdict.full_gpus) != verdict.full_gpus) push(ReportWanted{});
  for (const auto& [key, attempt] : attempts_) {
    if (attempt->running) pace(key);
  }
}

// Frozen and throttled time counts towards no limit: the keeper sees to that. A rank that is to go
// elsewhere saves its checkpoint at full speed.
void WorkerShell::pace(const AttemptKey& key) {
  if (keeper_ == nullptr) return;
  const owner::Verdict verdict = monitor_ ? monitor_->verdict() : owner::Verdict();
  keeper_->throttle(key, verdict.throttle_percent);
  keeper_->freeze(key, verdict.mode == owner::Mode::freeze);
  if (verdict.mode != owner::Mode::vacate) return;
  UpdateReceived update;
  update.stop.push_back({key, EndReason::vacated});
  push(std::move(update));
}

// What the coordinator may lease: one that others fill takes no new ranks.
std::vector<Gpu> WorkerShell::offered_gpus() const {
  std::vector<Gpu> gpus = gpus_ ? gpus_->told() : std::vector<Gpu>();
  if (!monitor_) return gpus;
  for (const std::string& full : monitor_->verdict().full_gpus) {
    for (Gpu& gpu : gpus) {
      if (gpu.uuid != full || !gpu.trouble.empty()) continue;
      gpu.trouble = "others use more than " +
                    std::to_string(options_.owner->policy.gpu_memory_limit) + " % of its memory";
    }
  }
  return gpus;
}

void WorkerShell::on_pause(bool paused) {
  if (!monitor_) return;
  monitor_->order_pause(paused);
  absl::Status kept = owner::set_pause_file(state_dir_ / kOrderFile, paused);
  if (!kept.ok()) {
    rpc::log().warn("event=pause_not_kept error=\"{}\"", std::string(kept.message()));
  }
}

}  // namespace pesc::worker
