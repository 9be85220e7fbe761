#include "runtime/cli/watcher.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <chrono>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>

#include "model/job_spec.h"
#include "runtime/cli/cli.h"

namespace pesc::cli {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kStalledMs = 3'000;
constexpr auto kSameInterrupt = std::chrono::milliseconds(5);

sigset_t watched_signals() {
  sigset_t set;
  sigemptyset(&set);
  for (int signal : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&set, signal);
  return set;
}

// PESC's callbacks, brought to the main thread. Shared: the last ones may come after the watcher.
class Inbox {
 public:
  Inbox() : event_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}
  ~Inbox() { close(event_); }
  int fd() const { return event_; }
  void post(std::function<void()> work) {
    std::lock_guard lock(mutex_);
    queue_.push_back(std::move(work));
    uint64_t one = 1;
    [[maybe_unused]] ssize_t n = write(event_, &one, sizeof one);
  }
  void run() {
    uint64_t count;
    [[maybe_unused]] ssize_t n = read(event_, &count, sizeof count);
    std::deque<std::function<void()>> work;
    {
      std::lock_guard lock(mutex_);
      work.swap(queue_);
    }
    for (auto& each : work) each();
  }

 private:
  int event_;
  std::mutex mutex_;
  std::deque<std::function<void()>> queue_;
};

class Display {
 public:
  explicit Display(bool quiet) : quiet_(quiet), terminal_(isatty(STDERR_FILENO) != 0) {}

  void show(const Progress& progress) {
    if (quiet_) return;
    const JobStatus& status = progress.status;
    uint32_t done = status.succeeded + status.failed + status.cancelled;
    if (!begun_) {
      begun_ = true;
      first_done_ = done;
      start_ = Clock::now();
    }
    double seconds = std::chrono::duration<double>(Clock::now() - start_).count();
    double rate = seconds > 0.5 ? (done - first_done_) / seconds : 0;
    std::string line = fmt::format("{}/{} ranks", done, status.repetitions);
    if (status.running > 0) line += fmt::format(", {} running", status.running);
    if (status.failed > 0) line += fmt::format(", {} failed", status.failed);
    if (status.cancelled > 0) line += fmt::format(", {} cancelled", status.cancelled);
    if (rate > 0) line += fmt::format(", {:.1f}/s", rate);
    double fraction = progress.fraction();
    if (rate > 0 && done < status.repetitions) {
      line += ", ETA " +
              format_duration_ms(static_cast<uint64_t>((status.repetitions - done) / rate * 1000));
    }
    if (terminal_) {
      draw(fraction, line);
    } else {
      quiet_line(done, status.repetitions, line);
    }
  }

  void end() {
    if (terminal_ && drawn_) fmt::print(stderr, "\n");
    drawn_ = false;
  }
  void lose_terminal() { quiet_ = true; }

 private:
  void draw(double fraction, const std::string& line) {
    winsize size{};
    size_t width =
        ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
    std::string text;
    if (width > line.size() + 14) {
      size_t room = std::min<size_t>(30, width - line.size() - 10);
      size_t full = static_cast<size_t>(fraction * static_cast<double>(room));
      text = fmt::format("[{}{}] {:3.0f}% ", std::string(full, '#'), std::string(room - full, '.'),
                         fraction * 100);
    }
    fmt::print(stderr, "\r{}\x1b[K", (text + line).substr(0, width - 1));
    fflush(stderr);
    drawn_ = true;
  }

  // A log file wants few lines: one per tenth of the job.
  void quiet_line(uint32_t done, uint32_t all, const std::string& line) {
    int tenth = all == 0 ? 0 : static_cast<int>(uint64_t{done} * 10 / all);
    if (tenth == last_tenth_) return;
    last_tenth_ = tenth;
    if (done > 0) say(line);
  }

  bool quiet_, terminal_, begun_ = false, drawn_ = false;
  Clock::time_point start_;
  uint32_t first_done_ = 0;
  int last_tenth_ = -1;
};

void leave_terminal() {
  int null = open("/dev/null", O_RDWR | O_CLOEXEC);
  if (null < 0) return;
  for (int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) dup2(null, fd);
  close(null);
}

// The signals that are kept for the watcher, one by one.
class Signals {
 public:
  Signals() {
    block_signals();
    sigset_t set = watched_signals();
    fd_ = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
  }
  ~Signals() { close(fd_); }
  int fd() const { return fd_; }
  // 0: none is pending.
  int next() {
    signalfd_siginfo info{};
    return read(fd_, &info, sizeof info) == sizeof info ? static_cast<int>(info.ssi_signo) : 0;
  }

 private:
  int fd_;
};

}  // namespace

void block_signals() {
  sigset_t set = watched_signals();
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
}

Submitted submit_watching(Client& client, const Job& job, const std::string& id) {
  Submitted out;
  Signals signals;
  Inbox inbox;
  bool over = false;
  std::thread submission([&] {
    absl::StatusOr<JobHandle> handle = client.submit(job, id);
    inbox.post([&, handle] {
      out.job = handle;
      over = true;
    });
  });
  while (!over) {
    pollfd fds[2] = {{signals.fd(), POLLIN, 0}, {inbox.fd(), POLLIN, 0}};
    poll(fds, 2, -1);
    while (int signal = signals.next()) {
      if (signal == SIGHUP) {
        leave_terminal();
      } else if (out.interrupted) {
        _exit(kInterrupted);
      } else {
        out.interrupted = true;
        say("interrupted: cancelling as soon as it is submitted (once more to leave at once)");
      }
    }
    inbox.run();
  }
  submission.join();
  return out;
}

Watched watch(JobHandle& job, bool embedded, const WatchOptions& options) {
  Signals signals;
  auto inbox = std::make_shared<Inbox>();
  auto executor = [inbox](std::function<void()> work) { inbox->post(std::move(work)); };
  auto display = std::make_shared<Display>(options.quiet);
  auto watched = std::make_shared<Watched>();
  auto over = std::make_shared<bool>(false);
  auto idle = std::make_shared<bool>(false);
  job.on_progress(
      [display, idle](const Progress& progress) {
        *idle = progress.status.running == 0 && progress.status.waiting > 0;
        display->show(progress);
      },
      executor);
  job.on_finished(
      [watched, over, display](const absl::StatusOr<JobResult>& result) {
        if (result.ok()) display->show({result->status(), {}});
        watched->result = result;
        *over = true;
      },
      executor);
  bool interrupted = false, left = false, stalled = !options.on_stalled || options.quiet;
  Clock::time_point interrupted_at;
  auto interrupt = [&] {
    interrupted = true;
    interrupted_at = Clock::now();
    display->end();
    if (!options.interrupted) say("cancelling (once more to leave at once)");
    // Not here: the coordinator may be away, and the second interrupt must still be heard.
    std::thread([job, inbox]() mutable {
      absl::Status status = job.cancel();
      if (!status.ok()) inbox->post([status] { fail(status); });
    }).detach();
  };
  if (options.interrupted) interrupt();
  while (!*over && !left) {
    pollfd fds[2] = {{signals.fd(), POLLIN, 0}, {inbox->fd(), POLLIN, 0}};
    if (poll(fds, 2, stalled ? -1 : kStalledMs) == 0 && *idle && !stalled) {
      stalled = true;
      display->end();
      options.on_stalled();
    }
    while (int signal = signals.next()) {
      if (signal == SIGHUP) {
        display->lose_terminal();
        leave_terminal();
        if (embedded) continue;  // its ranks are this process's: it goes on without a terminal
        watched->end = WatchEnd::detached;
        left = true;
      } else if (interrupted && Clock::now() - interrupted_at < kSameInterrupt) {
        continue;  // one key press, or `timeout`, may send two: to the process and to its group
      } else if (interrupted || !options.cancel_on_interrupt) {
        watched->end = WatchEnd::interrupted;
        left = true;
      } else {
        interrupt();
      }
    }
    inbox->run();
  }
  display->end();
  if (interrupted) watched->end = WatchEnd::interrupted;
  return *watched;
}

}  // namespace pesc::cli
