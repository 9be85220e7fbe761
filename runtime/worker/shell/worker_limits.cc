// What ranks take, measured: told to the coordinator, and held against what they were given where
// neither the keeper nor the kernel can: memory of GPUs, and disk.
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <set>
#include <system_error>
#include <utility>

#include "rpc/log.h"
#include "runtime/worker/owner/probes.h"
#include "runtime/worker/shell/async.h"
#include "runtime/worker/shell/clock.h"
#include "runtime/worker/shell/worker_impl.h"

namespace pesc::worker {
namespace {

namespace fs = std::filesystem;

// A look costs some 20 µs for each process.
constexpr int64_t kMeasureEveryMs = 4'000;
constexpr int64_t kLookAtDiskMs = 1'000;
// After a look that took t, none for this many t.
constexpr int64_t kDiskRest = 20;
constexpr size_t kMostEntries = 5'000'000;

// Of files that have several names each one once.
class DiskUse {
 public:
  void add(const std::string& path) {
    struct stat info {};
    if (::lstat(path.c_str(), &info) != 0) return;
    count(info);
    if (!S_ISDIR(info.st_mode)) return;
    std::error_code error;
    const auto options = fs::directory_options::skip_permission_denied;
    fs::recursive_directory_iterator it(path, options, error);
    for (; !error && it != fs::recursive_directory_iterator(); it.increment(error)) {
      if (++entries_ > kMostEntries) return;
      if (::lstat(it->path().c_str(), &info) == 0) count(info);
    }
  }
  uint64_t bytes() const { return bytes_; }

 private:
  void count(const struct stat& info) {
    const bool several = info.st_nlink > 1 && !S_ISDIR(info.st_mode);
    if (several && !seen_.insert({info.st_dev, info.st_ino}).second) return;
    bytes_ += static_cast<uint64_t>(info.st_blocks) * 512;
  }
  uint64_t bytes_ = 0;
  size_t entries_ = 0;
  std::set<std::pair<dev_t, ino_t>> seen_;
};

// The worker's own files beside them (snapshots of checkpoints) are not the rank's.
uint64_t disk_use(const AttemptPaths& paths) {
  DiskUse use;
  for (const std::string& path : {paths.app, paths.checkpoint, paths.output, paths.temporary,
                                  paths.root + "/stdout", paths.root + "/stderr"}) {
    use.add(path);
  }
  return use.bytes();
}

}  // namespace

// Asked with every report, and looked at seldom.
Measured WorkerShell::measured() {
  const int64_t now_ms = boot_ms();
  const uint32_t keeper = keeper_ == nullptr ? 0 : keeper_->pid();
  if (keeper == 0 || core_->cpus_used_milli() == 0) {
    measured_boot_ms_ = INT64_MIN;
    return measured_ = {};
  }
  const bool first = measured_boot_ms_ == INT64_MIN;
  if (!first && now_ms - measured_boot_ms_ < kMeasureEveryMs) return measured_;
  static const auto kTicks = static_cast<uint64_t>(::sysconf(_SC_CLK_TCK));
  const owner::TreeUse use = owner::tree_use(static_cast<pid_t>(keeper));
  measured_.memory_bytes = use.own_bytes;
  measured_.cpus_milli = 0;
  if (!first && use.cpu_ticks > measured_cpu_ticks_) {
    const uint64_t cpu_ms = (use.cpu_ticks - measured_cpu_ticks_) * 1'000 / kTicks;
    measured_.cpus_milli =
        static_cast<uint32_t>(cpu_ms * 1'000 / static_cast<uint64_t>(now_ms - measured_boot_ms_));
  }
  measured_cpu_ticks_ = use.cpu_ticks;
  measured_boot_ms_ = now_ms;
  return measured_;
}

void WorkerShell::end_for(ShellAttempt& attempt, EndReason reason, std::string detail) {
  attempt.over_limit = true;
  rpc::log().info("event=over_limit attempt=\"{}\" reason={} text=\"{}\"", to_string(attempt.key),
                  to_string(reason), detail);
  UpdateReceived update;
  update.stop.push_back({attempt.key, reason, std::move(detail)});
  push(std::move(update));
}

// ---- GPUs ---------------------------------------------------------------------------------------

// Who stated how much is held to it. Who was given what its program had taken before is ended only
// where another rank would have to go without: it runs again with more.
void WorkerShell::look_at_gpus() {
  for (const auto& [key, attempt] : attempts_) {
    if (!attempt->running || attempt->over_limit || attempt->gpu_limit_bytes == 0) continue;
    const GpuUse* use = gpus_->usage().find(key);
    if (use == nullptr) continue;
    const bool stated = attempt->spec->resources.gpu_memory_bytes > 0;
    for (const auto& [uuid, bytes] : use->now_bytes) {
      const GpuState* state = gpus_->snapshot().find(uuid);
      if (bytes <= attempt->gpu_limit_bytes || state == nullptr) continue;
      const bool others = state->attempt_bytes.size() > 1;
      if (!state->gpu.reports_memory || !(stated || others)) continue;
      end_for(*attempt, EndReason::gpu_memory_limit,
              "it took " + format_bytes(bytes) + " of " + uuid + ", with what CUDA itself takes; " +
                  (stated ? "--gpu-memory is " : "it was given ") +
                  format_bytes(attempt->gpu_limit_bytes));
      break;
    }
  }
}

// ---- disk ---------------------------------------------------------------------------------------

void WorkerShell::watch_disk(const AttemptPtr& attempt) {
  if (attempt->spec == nullptr || attempt->spec->resources.disk_bytes == 0) return;
  const int64_t delay_ms = std::max(kLookAtDiskMs, kDiskRest * attempt->disk_look_ms);
  attempt->disk_watch = loop_.timer()
                            .afterDelay(delay_ms * kj::MILLISECONDS)
                            .then([this, alive = alive_, key = attempt->key] {
                              // Not from within the promise that it replaces.
                              loop_.post([this, alive, key] {
                                const AttemptPtr found = *alive ? find(key) : nullptr;
                                if (found != nullptr && found->running) look_at_disk(found);
                              });
                            })
                            .eagerlyEvaluate(nullptr);
}

void WorkerShell::look_at_disk(const AttemptPtr& attempt) {
  struct Look {
    uint64_t bytes = 0;
    int64_t ms = 0;
  };
  ++attempt->pool_jobs;
  const auto work = [paths = attempt->paths] {
    const int64_t began_ms = boot_ms();
    const uint64_t bytes = disk_use(paths);
    return Look{bytes, boot_ms() - began_ms};
  };
  tasks_->add(blocking(loop_, work)
                  .then(
                      [this, attempt](Look look) {
                        pool_job_done(attempt);
                        attempt->disk_look_ms = look.ms;
                        if (!attempt->running || attempt->over_limit) return;
                        const uint64_t limit = attempt->spec->resources.disk_bytes;
                        if (look.bytes <= limit) return watch_disk(attempt);
                        end_for(*attempt, EndReason::disk_limit,
                                "its directories take " + format_bytes(look.bytes) +
                                    ", inputs included; --disk is " + format_bytes(limit));
                      },
                      [this, attempt](kj::Exception&&) { pool_job_done(attempt); }));
}

}  // namespace pesc::worker
