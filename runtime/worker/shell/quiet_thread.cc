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
    ending_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
  queue_.clear();  // here, not there: promises belong to the loop's thread
}

void QuietThread::add(std::function<bool()> slice, std::function<void()> done) {
  std::lock_guard lock(mutex_);
  queue_.push_back({std::move(slice), std::move(done)});
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
    changed_.wait(lock, [this] { return ending_ || !queue_.empty(); });
    if (ending_) return;
    Task task = std::move(queue_.front());
    queue_.pop_front();
    lock.unlock();
    bool done = true;
    try {
      done = task.slice();
    } catch (const std::exception& e) {
      rpc::log().error("event=quiet_work_failed error=\"{}\"", e.what());
    }
    if (done) {
      task.slice = nullptr;  // what it holds goes before `done` may say that it is over
      loop_.post(std::move(task.done));
    }
    lock.lock();
    if (!done) queue_.push_back(std::move(task));
  }
}

}  // namespace pesc::worker
