#include "runtime/worker/shell/quiet_thread.h"

#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "rpc/log.h"

namespace pesc::worker {
namespace {

constexpr int kNice = 10;
// ioprio_set: this thread, best effort, the lowest of its levels.
constexpr int kWhoProcess = 1;
constexpr int kLowestBestEffort = (2 << 13) | 7;

}  // namespace

QuietThread::~QuietThread() {
  {
    std::lock_guard lock(mutex_);
    cancelled_->store(true);
    queue_.clear();
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void QuietThread::add(std::function<void()> work, std::function<void()> done) {
  std::lock_guard lock(mutex_);
  queue_.emplace_back(std::move(work), std::move(done));
  changed_.notify_one();
  if (thread_.joinable()) return;
  // An embedding program's signals are not for this thread.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  thread_ = std::thread([this] { serve(); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

void QuietThread::serve() {
  const auto self = static_cast<id_t>(::syscall(SYS_gettid));
  ::setpriority(PRIO_PROCESS, self, kNice);
  ::syscall(SYS_ioprio_set, kWhoProcess, static_cast<int>(self), kLowestBestEffort);
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return cancelled_->load() || !queue_.empty(); });
    if (cancelled_->load()) return;
    auto [work, done] = std::move(queue_.front());
    queue_.pop_front();
    lock.unlock();
    try {
      work();
    } catch (const std::exception& e) {
      rpc::log().error("event=quiet_work_failed error=\"{}\"", e.what());
    }
    work = nullptr;  // what it holds goes before `done` may say that it is over
    loop_.post(std::move(done));
    lock.lock();
  }
}

}  // namespace pesc::worker
