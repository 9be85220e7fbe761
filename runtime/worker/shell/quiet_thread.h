// A thread for work that must not slow the ranks: hashing checkpoints while they run.
#pragma once

#include <kj/async.h>

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>

#include "rpc/loop.h"
#include "runtime/worker/shell/async.h"

namespace pesc::worker {

// Of the lowest priority that still makes progress on a busy machine; begins with the first work.
class QuietThread {
 public:
  explicit QuietThread(rpc::Loop& loop) : loop_(loop) {}
  ~QuietThread();  // waits for the work in progress, which should look at cancelled()

  // As blocking() does.
  template <typename F, typename T = std::invoke_result_t<F>>
  kj::Promise<T> run(F work) {
    return promise_of([this](auto task, auto done) { add(std::move(task), std::move(done)); },
                      std::move(work));
  }
  const std::shared_ptr<std::atomic<bool>>& cancelled() const { return cancelled_; }

 private:
  void add(std::function<void()> work, std::function<void()> done);
  void serve();

  rpc::Loop& loop_;
  std::shared_ptr<std::atomic<bool>> cancelled_ = std::make_shared<std::atomic<bool>>(false);
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::pair<std::function<void()>, std::function<void()>>> queue_;
  std::thread thread_;
};

}  // namespace pesc::worker
