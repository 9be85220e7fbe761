#include "rpc/thread_pool.h"

#include <signal.h>

#include <utility>

namespace pesc::rpc {

void ThreadPool::add(std::function<void()> work) {
  std::lock_guard lock(mutex_);
  if (stopped_) return;
  queue_.push_back(std::move(work));
  if (queue_.size() > idle_ && threads_.size() < limit_) start_thread();
  changed_.notify_one();
}

// The host program's signals are its own: these threads take none.
void ThreadPool::start_thread() {
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  threads_.emplace_back([this] { work_loop(); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

void ThreadPool::work_loop() {
  std::unique_lock lock(mutex_);
  while (true) {
    ++idle_;
    changed_.wait(lock, [this] { return stopped_ || !queue_.empty(); });
    --idle_;
    if (stopped_) return;
    {
      auto work = std::move(queue_.front());
      queue_.pop_front();
      lock.unlock();
      work();
    }
    lock.lock();
  }
}

void ThreadPool::stop() {
  std::deque<std::function<void()>> dropped;  // destroyed without the lock, on this thread
  {
    std::lock_guard lock(mutex_);
    stopped_ = true;
    dropped.swap(queue_);
  }
  changed_.notify_all();
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

}  // namespace pesc::rpc
