// A loop on a thread of its own, and blocking calls into it from any other thread.
#pragma once

#include <functional>
#include <future>
#include <memory>
#include <thread>

#include "absl/status/statusor.h"
#include "rpc/loop.h"

namespace pesc::client {

// The host program's signals stay the host's: every thread here blocks them all.
class LoopThread {
 public:
  LoopThread();
  ~LoopThread();  // not on the loop's own thread
  LoopThread(const LoopThread&) = delete;
  LoopThread& operator=(const LoopThread&) = delete;

  rpc::Loop& loop() { return *loop_; }
  bool on_loop() const { return std::this_thread::get_id() == thread_.get_id(); }

  // Runs `work` on the loop and waits for what its promise becomes. `work` may throw kj exceptions.
  template <typename T>
  absl::StatusOr<T> call(std::function<kj::Promise<T>()> work);
  absl::Status call_void(std::function<kj::Promise<void>()> work);

 private:
  rpc::Loop* loop_ = nullptr;  // lives on the thread's stack, between start and stop
  std::thread thread_;
};

absl::Status blocking_call_refused();

template <typename T>
absl::StatusOr<T> LoopThread::call(std::function<kj::Promise<T>()> work) {
  if (on_loop()) return blocking_call_refused();
  auto done = std::make_shared<std::promise<absl::StatusOr<T>>>();
  auto future = done->get_future();
  loop_->post([this, work = std::move(work), done] {
    loop_->detach(kj::evalNow(work).then(
        [done](T&& value) { done->set_value(std::move(value)); },
        [done](kj::Exception&& error) { done->set_value(rpc::to_status(error)); }));
  });
  return future.get();
}

}  // namespace pesc::client
