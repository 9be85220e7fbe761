// PESC in a program that has an event loop of its own, as a GUI has: nothing blocks. Callbacks are
// brought to the loop's thread by an Executor, here through a queue and an eventfd; with Qt it
// would be QMetaObject::invokeMethod, with GTK g_idle_add, with Asio asio::post.
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cstdio>
#include <deque>
#include <mutex>

#include "pesc/pesc.h"

namespace {

class EventLoop {
 public:
  void post(std::function<void()> work) {
    std::lock_guard lock(mutex_);
    queue_.push_back(std::move(work));
    eventfd_write(wake_, 1);
  }
  // Runs until quit(); `idle` stands for everything else such a program does.
  template <typename Idle>
  void run(Idle idle) {
    while (!quit_) {
      pollfd ready{wake_, POLLIN, 0};
      if (poll(&ready, 1, 50) == 0) idle();
      if ((ready.revents & POLLIN) == 0) continue;
      eventfd_t count;
      eventfd_read(wake_, &count);
      std::deque<std::function<void()>> work;
      {
        std::lock_guard lock(mutex_);
        work.swap(queue_);
      }
      for (auto& each : work) each();
    }
  }
  void quit() { quit_ = true; }

 private:
  int wake_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  std::mutex mutex_;
  std::deque<std::function<void()>> queue_;
  bool quit_ = false;
};

}  // namespace

int main(int argc, char** argv) {
  EventLoop loop;
  auto on_loop = [&loop](std::function<void()> work) { loop.post(std::move(work)); };
  absl::StatusOr<pesc::JobHandle> job =
      pesc::submit({.program = argc > 1 ? argv[1] : "./hello", .repetitions = 20});
  if (!job.ok()) {
    std::fprintf(stderr, "%s\n", std::string(job.status().message()).c_str());
    return 1;
  }
  int code = 1;
  job->on_progress(
      [](const pesc::Progress& progress) { std::printf("%3.0f %%\n", 100 * progress.fraction()); },
      on_loop);
  job->on_finished(
      [&](const absl::StatusOr<pesc::JobResult>& result) {
        code = result.ok() && result->succeeded() ? 0 : 1;
        std::printf("finished: %s\n", code == 0 ? "every rank succeeded" : "not all succeeded");
        loop.quit();
      },
      on_loop);
  loop.run([] { /* draw, read the mouse, … */ });
  return code;
}
