// Runs the user's callbacks, one at a time, on a thread that may block: so that a callback can call
// back into PESC without a deadlock.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

namespace pesc::client {

class Dispatcher {
 public:
  Dispatcher() = default;
  ~Dispatcher();  // drops what has not begun; not on the dispatcher's own thread
  void post(std::function<void()> callback);
  bool on_thread() const { return std::this_thread::get_id() == thread_.get_id(); }

 private:
  void run();
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::function<void()>> queue_;
  bool stopping_ = false;
  std::thread thread_;  // started with the first callback
};

}  // namespace pesc::client
