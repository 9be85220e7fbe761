// A driver's calls may hang for ever: they are made on a thread of their own, which nobody waits
// for.
#pragma once

#include <functional>
#include <memory>

#include "runtime/worker/gpu/gpu_table.h"
#include "runtime/worker/gpu/reading.h"

namespace pesc::worker {

class ProbeThread {
 public:
  // `done` is called on the thread; never after ~ProbeThread() has begun.
  using Done = std::function<void(absl::StatusOr<DriverReading>)>;

  explicit ProbeThread(std::unique_ptr<GpuProbe> probe);
  // Waits for a reading in progress, but only a moment: one that hangs is left behind.
  ~ProbeThread();
  ProbeThread(const ProbeThread&) = delete;
  ProbeThread& operator=(const ProbeThread&) = delete;

  void read(bool full, Done done);  // one at a time: not before the last one's `done`

 private:
  struct State;
  static void serve(const std::shared_ptr<State>& state);
  std::shared_ptr<State> state_;
};

// One full reading, for a command that asks once. DeadlineExceeded when the driver does not answer.
absl::StatusOr<DriverReading> read_once(std::unique_ptr<GpuProbe> probe, uint64_t limit_ms);

}  // namespace pesc::worker
