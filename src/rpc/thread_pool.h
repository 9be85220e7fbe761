// A few threads for work that blocks. Started with the first piece of work: most processes that
// embed PESC need none.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace pesc::rpc {

class ThreadPool {
 public:
  explicit ThreadPool(size_t threads) : limit_(threads) {}
  ~ThreadPool() { stop(); }
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  void add(std::function<void()> work);  // thread-safe; after stop() the work is dropped
  void stop();                           // finishes what has begun, drops the rest, joins

 private:
  void start_thread();
  void work_loop();

  const size_t limit_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> queue_;
  std::vector<std::thread> threads_;
  size_t idle_ = 0;
  bool stopped_ = false;
};

}  // namespace pesc::rpc
