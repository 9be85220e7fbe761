#include "runtime/worker/gpu/gpu_monitor.h"

#include <algorithm>
#include <utility>

#include "model/text.h"
#include "rpc/log.h"
#include "runtime/worker/gpu/nvml_probe.h"

namespace pesc::worker {
namespace {

constexpr uint64_t kFirstBackoffMs = 1'000, kMostBackoffMs = 60'000;
constexpr uint64_t kNoDriverMs = 600'000;  // one may be installed while the worker runs
constexpr uint32_t kLingerReadings = 4;
constexpr uint64_t kNoiseBytes = 32ull << 20;

int64_t ms_of(kj::TimePoint at) { return (at - kj::origin<kj::TimePoint>()) / kj::MILLISECONDS; }

uint64_t distance(uint64_t a, uint64_t b) { return a > b ? a - b : b - a; }

// Others' memory changes a little all the time: that is not worth a message to the coordinator. Nor
// is what our ranks have: it goes with the next one.
bool differ(const std::vector<Gpu>& told, const std::vector<Gpu>& now) {
  if (told.size() != now.size()) return true;
  for (size_t i = 0; i < told.size(); ++i) {
    if (distance(told[i].taken_bytes, now[i].taken_bytes) > kNoiseBytes) return true;
    Gpu same = now[i];
    same.taken_bytes = told[i].taken_bytes;
    same.ranks_bytes = told[i].ranks_bytes;
    if (!(told[i] == same)) return true;
  }
  return false;
}

bool ranks_differ(const std::vector<Gpu>& told, const std::vector<Gpu>& now) {
  for (size_t i = 0; i < told.size() && i < now.size(); ++i) {
    if (distance(told[i].ranks_bytes, now[i].ranks_bytes) > kNoiseBytes) return true;
  }
  return false;
}

void fulfil(std::vector<kj::Own<kj::PromiseFulfiller<void>>>& waiting) {
  for (auto& one : std::exchange(waiting, {})) one->fulfill();
}

}  // namespace

absl::StatusOr<GpuSettings> parse_gpu_settings(const std::vector<std::string>& words) {
  GpuSettings settings;
  if (words.size() == 1 && words[0] == "auto") return settings;
  if (words.size() == 1 && words[0] == "none") {
    settings.none = true;
    return settings;
  }
  for (const std::string& word : words) {
    if (!is_gpu_uuid(word)) {
      return absl::InvalidArgumentError(
          in_quotes(word) +
          " is no GPU: say auto, none, or UUIDs (GPU-… or MIG-…) as `nvidia-smi -L` lists them");
    }
    if (std::find(settings.only.begin(), settings.only.end(), word) != settings.only.end()) {
      return absl::InvalidArgumentError("the GPU " + word + " is named twice");
    }
    settings.only.push_back(word);
  }
  if (words.empty()) {
    return absl::InvalidArgumentError("no GPU is named: say auto, none, or UUIDs");
  }
  return settings;
}

GpuMonitor::GpuMonitor(rpc::Loop& loop, GpuSettings settings)
    : GpuMonitor(loop, settings, std::make_unique<NvmlProbe>(settings.nvml_library),
                 [](uint32_t pid) { return parent_of(pid); }) {}

GpuMonitor::GpuMonitor(rpc::Loop& loop, GpuSettings settings, std::unique_ptr<GpuProbe> probe,
                       ParentOf parent_of)
    : loop_(loop),
      settings_(std::move(settings)),
      parent_of_(std::move(parent_of)),
      thread_(std::make_unique<ProbeThread>(std::move(probe))),
      table_({settings_.only, settings_.sees_all_processes}) {}

GpuMonitor::~GpuMonitor() {
  *alive_ = false;
  timer_ = nullptr;
  limit_ = nullptr;
  thread_.reset();
}

kj::Promise<void> GpuMonitor::start() {
  if (settings_.none) known_ = true;
  if (known_) return kj::READY_NOW;
  auto paf = kj::newPromiseAndFulfiller<void>();
  waiting_known_.push_back(kj::mv(paf.fulfiller));
  if (!std::exchange(started_, true)) ask();
  return kj::mv(paf.promise);
}

kj::Promise<void> GpuMonitor::read_now() {
  if (settings_.none) return kj::READY_NOW;
  auto paf = kj::newPromiseAndFulfiller<void>();
  // One that is under way may have begun before what the caller wants to see.
  waiting_next_.push_back(kj::mv(paf.fulfiller));
  started_ = true;
  if (asking_) {
    again_ = true;
  } else {
    ask();
  }
  return kj::mv(paf.promise);
}

void GpuMonitor::ask() {
  asking_ = true;
  again_ = false;
  timer_ = nullptr;
  for (auto& waiting : std::exchange(waiting_next_, {})) waiting_now_.push_back(kj::mv(waiting));
  const uint64_t number = ++asked_;
  const int64_t now_ms = ms_of(loop_.timer().now());
  const bool full = last_full_ms_ == INT64_MIN ||
                    now_ms - last_full_ms_ >= static_cast<int64_t>(settings_.full_interval_ms);
  if (full) last_full_ms_ = now_ms;
  limit_ = loop_.timer()
               .afterDelay(static_cast<int64_t>(settings_.answer_limit_ms) * kj::MILLISECONDS)
               .then([this] {
                 take(table_.lost(absl::DeadlineExceededError(
                     "the NVIDIA driver has not answered for " +
                     std::to_string(settings_.answer_limit_ms / 1000) +
                     " s; `nvidia-smi` will hang too: reboot the machine")));
               })
               .eagerlyEvaluate(nullptr);
  thread_->read(
      full, [this, alive = alive_, &loop = loop_, number](absl::StatusOr<DriverReading> reading) {
        loop.post([this, alive, number, reading = std::move(reading)]() mutable {
          if (*alive) answered(number, std::move(reading));
        });
      });
}

void GpuMonitor::answered(uint64_t number, absl::StatusOr<DriverReading> reading) {
  if (number != asked_) return;
  asking_ = false;
  limit_ = nullptr;
  uint64_t delay_ms = 0;
  if (reading.ok()) {
    failures_ = 0;
    take(table_.update(*reading, attempts_, parent_of_));
    delay_ms = interval_ms();
    if (attempts_.empty() && linger_ > 0) --linger_;
  } else {
    last_full_ms_ = INT64_MIN;
    delay_ms = std::min(kMostBackoffMs, kFirstBackoffMs << std::min(failures_++, 6u));
    if (absl::IsNotFound(reading.status())) delay_ms = kNoDriverMs;
    take(table_.lost(reading.status()));
  }
  // What was called meanwhile may have asked already.
  if (asking_) return;
  if (again_) {
    ask();
  } else {
    schedule(delay_ms);
  }
}

void GpuMonitor::take(GpuSnapshot snapshot) {
  snapshot_ = std::move(snapshot);
  usage_.sample(snapshot_);
  if (snapshot_.notes != logged_notes_) {
    for (const std::string& note : snapshot_.notes) {
      rpc::log().warn("event=gpu_note text=\"{}\"", note);
    }
    logged_notes_ = snapshot_.notes;
  }
  for (const GpuState& state : snapshot_.gpus) {
    const auto before = std::find_if(told_.begin(), told_.end(),
                                     [&](const Gpu& gpu) { return gpu.uuid == state.gpu.uuid; });
    const std::string trouble_before = before == told_.end() ? "" : before->trouble;
    if (state.gpu.trouble == trouble_before) continue;
    if (state.gpu.trouble.empty()) {
      rpc::log().info("event=gpu_well gpu={}", state.gpu.uuid);
    } else {
      rpc::log().warn("event=gpu_trouble gpu={} text=\"{}\"", state.gpu.uuid, state.gpu.trouble);
    }
  }
  // A machine without a driver is an ordinary machine.
  if (snapshot_.trouble != std::exchange(logged_trouble_, snapshot_.trouble) &&
      !snapshot_.trouble.empty()) {
    rpc::log().info("event=gpus_not_read text=\"{}\"", snapshot_.trouble);
  }
  const bool changed = differ(told_, snapshot_.list()) || !known_;
  known_ = true;
  if (changed || ranks_differ(told_, snapshot_.list())) told_ = snapshot_.list();
  fulfil(waiting_known_);
  fulfil(waiting_now_);
  if (on_sample_) on_sample_();
  if (changed && on_change_) on_change_();
}

uint64_t GpuMonitor::interval_ms() const {
  return !attempts_.empty() || linger_ > 0 ? settings_.busy_interval_ms
                                           : settings_.idle_interval_ms;
}

void GpuMonitor::schedule(uint64_t delay_ms) {
  timer_ = loop_.timer()
               .afterDelay(static_cast<int64_t>(delay_ms) * kj::MILLISECONDS)
               .then([this] {
                 // Not from within the promise that it replaces.
                 loop_.post([this, alive = alive_] {
                   if (*alive && !asking_) ask();
                 });
               })
               .eagerlyEvaluate(nullptr);
}

void GpuMonitor::attempt_started(const AttemptKey& key, uint32_t pid,
                                 std::vector<std::string> gpus) {
  std::erase_if(attempts_, [&](const AttemptOnGpus& attempt) { return attempt.key == key; });
  attempts_.push_back({key, pid, std::move(gpus)});
  usage_.begin(key);
  // From idle to busy at once, unless the driver gave nothing and is left alone for a while.
  if (started_ && known_ && !asking_ && failures_ == 0 && attempts_.size() == 1 && linger_ == 0) {
    schedule(settings_.busy_interval_ms);
  }
}

uint64_t GpuMonitor::attempt_ended(const AttemptKey& key) {
  std::erase_if(attempts_, [&](const AttemptOnGpus& attempt) { return attempt.key == key; });
  if (attempts_.empty()) linger_ = kLingerReadings;
  return usage_.end(key);
}

}  // namespace pesc::worker
