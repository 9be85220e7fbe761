#include "runtime/worker/gpu/probe_thread.h"

#include <pthread.h>
#include <signal.h>

#include <chrono>
#include <condition_variable>
#include <future>
#include <mutex>
#include <thread>
#include <utility>

namespace pesc::worker {
namespace {

constexpr std::chrono::milliseconds kPatience(500);

}  // namespace

struct ProbeThread::State {
  std::mutex mutex;
  std::condition_variable changed;
  bool ending = false, ended = false;
  bool asked = false, full = false;
  Done done;
  std::unique_ptr<GpuProbe> probe;
  std::thread thread;
};

ProbeThread::ProbeThread(std::unique_ptr<GpuProbe> probe) : state_(std::make_shared<State>()) {
  state_->probe = std::move(probe);
}

ProbeThread::~ProbeThread() {
  std::unique_lock lock(state_->mutex);
  state_->ending = true;
  state_->done = nullptr;
  state_->changed.notify_all();
  if (!state_->thread.joinable()) return;
  const bool ended = state_->changed.wait_for(lock, kPatience, [this] { return state_->ended; });
  lock.unlock();
  if (ended) {
    state_->thread.join();
  } else {
    state_->thread.detach();  // it has the state, and the probe, for itself now
  }
}

void ProbeThread::read(bool full, Done done) {
  std::lock_guard lock(state_->mutex);
  state_->asked = true;
  state_->full = full;
  state_->done = std::move(done);
  state_->changed.notify_all();
  if (state_->thread.joinable()) return;
  // An embedding program's signals are not for this thread.
  sigset_t all, before;
  sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  state_->thread = std::thread([state = state_] { serve(state); });
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

void ProbeThread::serve(const std::shared_ptr<State>& state) {
  std::unique_lock lock(state->mutex);
  for (;;) {
    state->changed.wait(lock, [&] { return state->ending || state->asked; });
    if (state->ending) break;
    state->asked = false;
    const bool full = state->full;
    lock.unlock();
    absl::StatusOr<DriverReading> reading = absl::InternalError("the driver was not asked");
    try {
      reading = state->probe->read(full);
    } catch (const std::exception& e) {
      reading = absl::UnavailableError(std::string("the GPUs could not be read: ") + e.what());
    }
    lock.lock();
    // With the lock: the destructor is either before this, and there is no `done`, or waits.
    if (state->done) std::exchange(state->done, nullptr)(std::move(reading));
  }
  lock.unlock();
  state->probe.reset();  // unloads the library
  lock.lock();
  state->ended = true;
  state->changed.notify_all();
}

absl::StatusOr<DriverReading> read_once(std::unique_ptr<GpuProbe> probe, uint64_t limit_ms) {
  auto promise = std::make_shared<std::promise<absl::StatusOr<DriverReading>>>();
  auto future = promise->get_future();
  ProbeThread thread(std::move(probe));
  thread.read(true, [promise](absl::StatusOr<DriverReading> reading) {
    promise->set_value(std::move(reading));
  });
  if (future.wait_for(std::chrono::milliseconds(limit_ms)) != std::future_status::ready) {
    return absl::DeadlineExceededError("the NVIDIA driver has not answered for " +
                                       std::to_string(limit_ms / 1000) +
                                       " s: `nvidia-smi` will hang too; reboot the machine");
  }
  return future.get();
}

}  // namespace pesc::worker
