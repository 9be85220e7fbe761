// A thread for work that must not slow the ranks: hashing checkpoints while they run.
#pragma once

#include <kj/async.h>
#include <kj/debug.h>

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <type_traits>
#include <utility>

#include "rpc/loop.h"

namespace pesc::worker {

// Of the lowest priority that still makes progress on a busy machine; begins with the first work.
// Takes turns between what it was given, so that no work waits for the end of another.
class QuietThread {
 public:
  explicit QuietThread(rpc::Loop& loop) : loop_(loop) {}
  ~QuietThread();  // waits for the slice in progress, and drops the rest

  // `slice` does a part of the work, short enough for others to wait for, and returns nothing until
  // it has the result (an std::optional).
  template <typename F, typename T = typename std::invoke_result_t<F>::value_type>
  kj::Promise<T> run(F slice) {
    struct Call {
      explicit Call(F&& f) : slice(std::move(f)) {}
      std::optional<F> slice;
      std::optional<T> result;
      kj::Own<kj::PromiseFulfiller<T>> fulfiller;
    };
    auto paf = kj::newPromiseAndFulfiller<T>();
    auto call = std::make_shared<Call>(std::move(slice));
    call->fulfiller = kj::mv(paf.fulfiller);
    add(
        [call] {
          call->result = (*call->slice)();
          return call->result.has_value();
        },
        [call] {
          call->slice.reset();
          if (call->result) {
            call->fulfiller->fulfill(std::move(*call->result));
          } else {
            call->fulfiller->reject(KJ_EXCEPTION(FAILED, "quiet work threw an exception"));
          }
        });
    return kj::mv(paf.promise);
  }

 private:
  struct Task {
    std::function<bool()> slice;  // true: it is done
    std::function<void()> done;   // on the loop's thread
  };
  void add(std::function<bool()> slice, std::function<void()> done);
  void serve();

  rpc::Loop& loop_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool ending_ = false;
  std::deque<Task> queue_;
  std::thread thread_;
};

}  // namespace pesc::worker
