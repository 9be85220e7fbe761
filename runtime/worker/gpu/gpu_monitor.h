// A worker's GPUs as they are now: read on a thread of its own, told on the loop.
#pragma once

#include <kj/async.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "rpc/loop.h"
#include "runtime/worker/gpu/gpu_settings.h"
#include "runtime/worker/gpu/gpu_table.h"
#include "runtime/worker/gpu/gpu_usage.h"
#include "runtime/worker/gpu/probe_thread.h"
#include "runtime/worker/gpu/process_tree.h"

namespace pesc::worker {

class GpuMonitor {
 public:
  GpuMonitor(rpc::Loop& loop, GpuSettings settings);  // NVIDIA's library
  GpuMonitor(rpc::Loop& loop, GpuSettings settings, std::unique_ptr<GpuProbe> probe,
             ParentOf parent_of);
  ~GpuMonitor();

  // Begins to read. Done when it is known which GPUs there are, or that the driver hangs.
  kj::Promise<void> start();

  const GpuSnapshot& snapshot() const { return snapshot_; }
  std::vector<Gpu> gpus() const { return snapshot_.list(); }
  // As on_change() told them last, but for what ranks have of their memory, which changes without a
  // word. For messages: others' memory changes a little with each reading.
  const std::vector<Gpu>& told() const { return told_; }
  const GpuUsage& usage() const { return usage_; }

  // When what gpus() says has changed by more than noise; never from within a call.
  void on_change(std::function<void()> callback) { on_change_ = std::move(callback); }
  // After each reading: usage() is new.
  void on_sample(std::function<void()> callback) { on_sample_ = std::move(callback); }

  // `pid`: its reaper's, or another process above all of its own.
  void attempt_started(const AttemptKey& key, uint32_t pid, std::vector<std::string> gpus);
  uint64_t attempt_ended(const AttemptKey& key);  // its peak on one GPU; 0: not seen

  // A reading of its own, soon; done when it was taken in.
  kj::Promise<void> read_now();

 private:
  void ask();
  void answered(uint64_t number, absl::StatusOr<DriverReading> reading);
  void take(GpuSnapshot snapshot);
  void schedule(uint64_t delay_ms);
  uint64_t interval_ms() const;

  rpc::Loop& loop_;
  const GpuSettings settings_;
  const ParentOf parent_of_;
  std::unique_ptr<ProbeThread> thread_;
  GpuTable table_;
  GpuUsage usage_;
  GpuSnapshot snapshot_;
  std::vector<Gpu> told_;
  std::vector<std::string> logged_notes_;
  std::string logged_trouble_;
  std::vector<AttemptOnGpus> attempts_;
  std::function<void()> on_change_, on_sample_;

  bool started_ = false, known_ = false;
  bool asking_ = false, again_ = false;
  uint64_t asked_ = 0;     // readings so far
  uint32_t failures_ = 0;  // in a row
  uint32_t linger_ = 0;    // busy readings after the last attempt's end
  int64_t last_full_ms_ = INT64_MIN;
  std::vector<kj::Own<kj::PromiseFulfiller<void>>> waiting_known_, waiting_now_, waiting_next_;
  kj::Promise<void> timer_ = nullptr, limit_ = nullptr;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace pesc::worker
