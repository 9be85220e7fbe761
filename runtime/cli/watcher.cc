#include "runtime/cli/watcher.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>

#include "client/session.h"
#include "runtime/cli/cli.h"
#include "runtime/cli/progress_line.h"

namespace pesc::cli {
namespace {

using Clock = std::chrono::steady_clock;

sigset_t watched_signals() {
  sigset_t set;
  sigemptyset(&set);
  for (int signal : {SIGINT, SIGTERM, SIGHUP}) {
    struct sigaction action {};
    // nohup: who started us wants us to outlive the terminal. (Blocked, it would be kept for us.)
    const bool ignored = sigaction(signal, nullptr, &action) == 0 && action.sa_handler == SIG_IGN;
    if (signal != SIGHUP || !ignored) sigaddset(&set, signal);
  }
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
    notes_.update(progress.status);
    say_notes();
    std::string line = line_.text(progress, Clock::now());
    if (terminal_) {
      draw(progress.fraction(), line);
    } else {
      quiet_line(done_of(progress.status), progress.status.repetitions, line);
    }
  }

  // What is tried again.
  void say_notes() {
    if (quiet_) return;
    if (std::optional<std::string> note = notes_.take(Clock::now())) {
      end();
      say(*note);
    }
  }
  std::optional<Clock::time_point> notes_due() const {
    return quiet_ ? std::nullopt : notes_.due();
  }

  // Before other lines are written.
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
    fmt::print(stderr, "\r{}\x1b[K", with_bar(fraction, line, width));
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

  ProgressLine line_;
  RetryNotes notes_;
  bool quiet_, terminal_, drawn_ = false;
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

// Tells, on the main thread, whether the coordinator answers; ends with this object.
class ContactWatch {
 public:
  ContactWatch(Client& client, const std::shared_ptr<Inbox>& inbox, std::function<void(bool)> tell)
      : session_(client.session()) {
    auto shared = std::make_shared<std::function<void(bool)>>(std::move(tell));
    session_->on_contact(
        [inbox, shared](bool answers) { inbox->post([shared, answers] { (*shared)(answers); }); });
  }
  ~ContactWatch() { session_->on_contact({}); }
  ContactWatch(const ContactWatch&) = delete;
  ContactWatch& operator=(const ContactWatch&) = delete;

 private:
  std::shared_ptr<client::Session> session_;
};

class Watch {
 public:
  Watch(Client& client, JobHandle& job, const WatchOptions& options)
      : client_(client), job_(job), options_(options), display_(options.quiet) {}

  Watched run() {
    subscribe();
    ContactWatch contact(client_, inbox_, [this](bool answers) { contact_changed(answers); });
    last_change_ = Clock::now();
    if (options_.interrupted) interrupt();
    if (options_.hung_up) on_signal(SIGHUP);
    while (!over_ && !left_) {
      pollfd fds[2] = {{signals_.fd(), POLLIN, 0}, {inbox_->fd(), POLLIN, 0}};
      poll(fds, 2, timeout_ms());
      check_times();
      while (int signal = signals_.next()) on_signal(signal);
      inbox_->run();
    }
    display_.end();
    if (interrupted_) watched_.end = WatchEnd::interrupted;
    return watched_;
  }

 private:
  void subscribe() {
    // What comes after the watch has ended is posted, and never run.
    auto executor = [inbox = inbox_](std::function<void()> work) { inbox->post(std::move(work)); };
    job_.on_progress(
        [this](const Progress& progress) {
          idle_ = progress.status.running == 0 && progress.status.waiting > 0;
          last_change_ = Clock::now();
          display_.show(progress);
        },
        executor);
    job_.on_finished(
        [this](const absl::StatusOr<JobResult>& result) {
          if (result.ok()) display_.show({result->status(), {}});
          watched_.result = result;
          over_ = true;
        },
        executor);
  }

  static int left_ms(Clock::time_point since, uint64_t limit_ms) {
    auto left = since + std::chrono::milliseconds(limit_ms) - Clock::now();
    return static_cast<int>(
        std::max<int64_t>(0, std::chrono::ceil<std::chrono::milliseconds>(left).count()));
  }

  bool may_stall() const { return idle_ && !stalled_ && options_.on_stalled && !options_.quiet; }

  int timeout_ms() const {
    int timeout = -1;
    if (may_stall()) timeout = left_ms(last_change_, options_.stalled_after_ms);
    if (cancelling_) {
      int limit = left_ms(interrupted_at_, options_.cancel_limit_ms);
      timeout = timeout < 0 ? limit : std::min(timeout, limit);
    }
    if (const auto due = display_.notes_due()) {
      int limit = left_ms(*due, 0);
      timeout = timeout < 0 ? limit : std::min(timeout, limit);
    }
    return timeout;
  }

  void check_times() {
    display_.say_notes();
    if (may_stall() && left_ms(last_change_, options_.stalled_after_ms) == 0) {
      stalled_ = true;
      display_.end();
      options_.on_stalled();
    }
    if (cancelling_ && left_ms(interrupted_at_, options_.cancel_limit_ms) == 0) leave_uncancelled();
  }

  void on_signal(int signal) {
    if (left_) return;
    if (signal == SIGHUP) {
      display_.lose_terminal();
      leave_terminal();
      // Embedded, its ranks are this process's: it goes on without a terminal. And a cancel is to
      // be delivered.
      if (client_.embedded() || cancelling_) return;
      watched_.end = WatchEnd::detached;
      left_ = true;
    } else if (interrupted_ && Clock::now() - interrupted_at_ <
                                   std::chrono::milliseconds(options_.same_interrupt_ms)) {
      return;
    } else if (interrupted_ || !options_.cancel_on_interrupt) {
      watched_.end = WatchEnd::interrupted;
      left_ = true;
    } else {
      interrupt();
    }
  }

  void interrupt() {
    interrupted_ = true;
    interrupted_at_ = Clock::now();
    display_.end();
    if (away_) return leave_uncancelled();
    if (!options_.interrupted) say("cancelling (once more to leave at once)");
    cancelling_ = !client_.embedded();
    // Not here: the coordinator may be away, and the second interrupt must still be heard.
    std::thread([this, job = job_, inbox = inbox_]() mutable {
      absl::Status status = job.cancel();
      inbox->post([this, status] { cancelled(status); });
    }).detach();
  }

  void cancelled(const absl::Status& status) {
    cancelling_ = false;
    if (status.ok()) return;
    if (absl::IsUnavailable(status)) return leave_uncancelled();
    display_.end();
    fail(status);
  }

  void leave_uncancelled() {
    if (left_) return;
    left_ = true;
    cancelling_ = false;
    display_.end();
    say(fmt::format(
        "the cancel could not be delivered: {} does not answer; job {} goes on without us, "
        "cancel it later by `pesc cancel {} --coordinator {}`",
        coordinator(), job_.id(), job_.id(), client_.session()->address()));
  }

  std::string coordinator() const { return "the coordinator at " + client_.session()->address(); }

  void contact_changed(bool answers) {
    if (left_ || over_ || away_ == !answers) return;
    away_ = !answers;
    if (away_ && cancelling_) return leave_uncancelled();
    display_.end();
    if (answers) {
      say(coordinator() + " answers again");
    } else if (interrupted_) {
      left_ = true;
      say(
          fmt::format("{} does not answer; job {} is cancelled there, and what it left can be had "
                      "later by `pesc fetch {}`",
                      coordinator(), job_.id(), job_.id()));
    } else {
      say(coordinator() + " does not answer; waiting for it (the job goes on without us). Ctrl-C " +
          (options_.cancel_on_interrupt ? "leaves without cancelling the job" : "stops watching"));
    }
  }

  Client& client_;
  JobHandle& job_;
  const WatchOptions& options_;
  Signals signals_;
  std::shared_ptr<Inbox> inbox_ = std::make_shared<Inbox>();
  Display display_;
  Watched watched_;
  bool over_ = false, left_ = false;
  bool idle_ = false, stalled_ = false;
  bool interrupted_ = false, cancelling_ = false, away_ = false;
  Clock::time_point interrupted_at_, last_change_;
};

}  // namespace

void block_signals() {
  sigset_t set = watched_signals();
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
}

Submitted submit_watching(Client& client, client::PreparedJob& job, const std::string& id) {
  Submitted out;
  Signals signals;
  auto inbox = std::make_shared<Inbox>();
  bool over = false, away = false;
  auto leave_if_away = [&] {
    if (!away || !out.interrupted) return;
    say("nothing is heard of it: if job " + id + " was submitted, `pesc cancel " + id +
        " --coordinator " + client.session()->address() + "` ends it");
    _exit(kInterrupted);
  };
  ContactWatch contact(client, inbox, [&](bool answers) {
    if (over) return;
    away = !answers;
    say("the coordinator at " + client.session()->address() +
        (answers ? " answers again" : " does not answer; trying again for a while. Ctrl-C leaves"));
    leave_if_away();
  });
  std::thread submission([&] {
    absl::StatusOr<JobHandle> handle = client::submit(client, job, id);
    inbox->post([&, handle] {
      out.job = handle;
      over = true;
    });
  });
  while (!over) {
    pollfd fds[2] = {{signals.fd(), POLLIN, 0}, {inbox->fd(), POLLIN, 0}};
    poll(fds, 2, -1);
    while (int signal = signals.next()) {
      if (signal == SIGHUP) {
        out.hung_up = true;
        leave_terminal();
      } else if (out.interrupted) {
        _exit(kInterrupted);
      } else {
        out.interrupted = true;
        say("interrupted: cancelling as soon as it is submitted (once more to leave at once)");
        leave_if_away();
      }
    }
    inbox->run();
  }
  submission.join();
  return out;
}

Watched watch(Client& client, JobHandle& job, const WatchOptions& options) {
  return Watch(client, job, options).run();
}

}  // namespace pesc::cli
