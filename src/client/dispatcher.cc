#include "client/dispatcher.h"

#include <signal.h>

namespace pesc::client {

Dispatcher::~Dispatcher() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void Dispatcher::post(std::function<void()> callback) {
  std::lock_guard lock(mutex_);
  if (stopping_) return;
  queue_.push_back(std::move(callback));
  if (!thread_.joinable()) {
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    thread_ = std::thread([this] { run(); });
    pthread_sigmask(SIG_SETMASK, &old, nullptr);
  }
  wake_.notify_one();
}

void Dispatcher::run() {
  for (;;) {
    std::function<void()> callback;
    {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
      if (stopping_) return;
      callback = std::move(queue_.front());
      queue_.pop_front();
    }
    callback();
  }
}

}  // namespace pesc::client
