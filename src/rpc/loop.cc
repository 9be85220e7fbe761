#include "rpc/loop.h"

#include <kj/debug.h>
#include <sys/timerfd.h>
#include <time.h>

#include <asio/executor_work_guard.hpp>
#include <asio/posix/stream_descriptor.hpp>
#include <asio/post.hpp>
#include <atomic>
#include <exception>
#include <optional>
#include <utility>

#include "rpc/log.h"
#include "rpc/thread_pool.h"

namespace pesc::rpc {
namespace {

// KJ runs this many events in a row before it lets Asio's handlers in, and Asio this many handlers
// before KJ is let in: neither can starve the other.
constexpr uint32_t kEventsBetweenPolls = 128;
constexpr int kHandlersPerPoll = 64;
// A loop that is never quiet behaves so often as if it were.
constexpr auto kQuietWithin = 1 * kj::MILLISECONDS;

kj::TimePoint boot_time() {
  timespec ts{};
  clock_gettime(CLOCK_BOOTTIME, &ts);
  return kj::origin<kj::TimePoint>() + static_cast<int64_t>(ts.tv_sec) * kj::SECONDS +
         static_cast<int64_t>(ts.tv_nsec) * kj::NANOSECONDS;
}

void log_exception(const char* where) {
  try {
    throw;
  } catch (const kj::Exception& e) {
    log().error("{}: {}", where, e.getDescription().cStr());
  } catch (const std::exception& e) {
    log().error("{}: {}", where, e.what());
  } catch (...) {
    log().error("{}: an unknown exception", where);
  }
}

// KJ writes what it has to say (a TLS peer that hung up, say) to standard error, which is the host
// program's. Lives on the stack, as KJ demands.
class KjLog final : public kj::ExceptionCallback {
 public:
  void logMessage(kj::LogSeverity severity, const char* file, int line, int,
                  kj::String&& text) override {
    bool serious = severity == kj::LogSeverity::FATAL;
    log().log(serious ? spdlog::level::err : spdlog::level::debug, "kj {}:{}: {}", file, line,
              text.cStr());
  }
};

// shutdown() destroys the handlers that still wait, while KJ's event loop, to which they may refer,
// is alive; the reactor itself outlives the loop, as promises own streams.
class IoContext : public asio::io_context {
 public:
  IoContext() : asio::io_context(1) {}
  using asio::execution_context::shutdown;
};

// KJ's timer on CLOCK_BOOTTIME, which goes on while a PC sleeps: leases that ran out meanwhile are
// seen at once.
class BootTimer {
 public:
  explicit BootTimer(asio::io_context& io) : timer_(boot_time()), descriptor_(io) {
    int fd = timerfd_create(CLOCK_BOOTTIME, TFD_NONBLOCK | TFD_CLOEXEC);
    KJ_REQUIRE(fd >= 0, "timerfd_create failed", errno);
    descriptor_.assign(fd);
    listen();
  }

  kj::TimerImpl& timer() { return timer_; }
  void advance() { timer_.advanceTo(boot_time()); }

  // A timer that fires too early costs one wake-up, one that is set for each new promise costs a
  // call each: it is set only when the next event comes before what is set already.
  void arm() {
    KJ_IF_MAYBE (next, timer_.nextEvent()) {
      if (armed_ && *armed_ <= *next) return;
      int64_t ns = (*next - kj::origin<kj::TimePoint>()) / kj::NANOSECONDS;
      if (ns < 1) ns = 1;  // zero would disarm it
      itimerspec spec{};
      spec.it_value.tv_sec = ns / 1'000'000'000;
      spec.it_value.tv_nsec = ns % 1'000'000'000;
      timerfd_settime(descriptor_.native_handle(), TFD_TIMER_ABSTIME, &spec, nullptr);
      armed_ = *next;
    }
  }

 private:
  void listen() {
    descriptor_.async_wait(asio::posix::stream_descriptor::wait_read, [this](asio::error_code ec) {
      if (ec) return;
      uint64_t expirations;
      if (read(descriptor_.native_handle(), &expirations, sizeof expirations) > 0) armed_.reset();
      listen();
    });
  }

  kj::TimerImpl timer_;
  asio::posix::stream_descriptor descriptor_;
  std::optional<kj::TimePoint> armed_;
};

class AsioEventPort final : public kj::EventPort {
 public:
  AsioEventPort() : guard_(asio::make_work_guard(io)) { timer.emplace(io); }

  bool wait() override {
    if (quiet_) {
      now_quiet();
      return woken_.exchange(false, std::memory_order_acquire);
    }
    timer->arm();
    turn([this] { io.run_one(); });
    timer->advance();
    return woken_.exchange(false, std::memory_order_acquire);
  }

  bool poll() override {
    timer->advance();
    if (quiet_ && timer->timer().now() - quiet_since_ >= kQuietWithin) now_quiet();
    for (int i = 0; i < kHandlersPerPoll; ++i) {
      size_t done = 0;
      turn([&] { done = io.poll_one(); });
      if (done == 0) break;
    }
    return woken_.exchange(false, std::memory_order_acquire);
  }

  kj::Promise<void> when_quiet() {
    if (ended_) return kj::READY_NOW;
    if (!quiet_) {
      auto paf = kj::newPromiseAndFulfiller<void>();
      quiet_ = kj::mv(paf.fulfiller);
      when_quiet_ = paf.promise.fork();
      quiet_since_ = timer->timer().now();
    }
    return when_quiet_.addBranch();
  }

  // While KJ's loop is there.
  void end() {
    ended_ = true;
    quiet_ = nullptr;
    when_quiet_ = nullptr;
  }

  void wake() const override {
    woken_.store(true, std::memory_order_release);
    asio::post(io, [] {});
  }

  mutable IoContext io;
  std::optional<BootTimer> timer;

 private:
  // A handler that throws must not end a program that embeds PESC.
  template <typename F>
  void turn(F&& f) {
    if (io.stopped()) io.restart();
    try {
      f();
    } catch (...) {
      log_exception("a handler failed");
    }
  }

  void now_quiet() {
    auto fulfiller = kj::mv(quiet_);
    quiet_ = nullptr;
    fulfiller->fulfill();
  }

  asio::executor_work_guard<asio::io_context::executor_type> guard_;
  kj::Own<kj::PromiseFulfiller<void>> quiet_;  // somebody waits
  kj::ForkedPromise<void> when_quiet_ = nullptr;
  kj::TimePoint quiet_since_ = kj::origin<kj::TimePoint>();
  bool ended_ = false;
  mutable std::atomic<bool> woken_{false};
};

}  // namespace

struct Loop::Impl final : kj::TaskSet::ErrorHandler {
  Impl() : loop(port), scope(std::in_place, loop) {
    scope->setBusyPollInterval(kEventsBetweenPolls);
    tasks.emplace(*this);
  }

  // The order matters: whatever refers to KJ's loop goes before it, and what owns sockets before
  // the io_context.
  ~Impl() {
    closing = true;
    pool.stop();
    tasks.reset();
    port.end();
    port.io.shutdown();
    stop_fulfiller = nullptr;
    scope->cancelAllDetached();
  }

  void taskFailed(kj::Exception&& exception) override {
    log().warn("background work failed: {}", exception.getDescription().cStr());
  }

  AsioEventPort port;
  kj::EventLoop loop;
  std::optional<kj::WaitScope> scope;
  std::optional<kj::TaskSet> tasks;
  kj::Own<kj::PromiseFulfiller<void>> stop_fulfiller;
  bool stop_requested = false;
  bool closing = false;
  ThreadPool pool{2};
};

Loop::Loop() : impl_(std::make_unique<Impl>()) {}
Loop::~Loop() = default;

asio::io_context& Loop::io() { return impl_->port.io; }
kj::Timer& Loop::timer() {
  impl_->port.timer->advance();  // the time has stood still since the loop last waited
  return impl_->port.timer->timer();
}
kj::WaitScope& Loop::wait_scope() { return *impl_->scope; }

kj::Promise<void> Loop::when_quiet() { return impl_->port.when_quiet(); }

void Loop::run() {
  KjLog log;
  if (!impl_->stop_requested) {
    auto paf = kj::newPromiseAndFulfiller<void>();
    impl_->stop_fulfiller = kj::mv(paf.fulfiller);
    paf.promise.wait(*impl_->scope);
    impl_->stop_fulfiller = nullptr;
  }
  impl_->stop_requested = false;
}

void Loop::stop() {
  asio::post(impl_->port.io, [impl = impl_.get()] {
    impl->stop_requested = true;
    if (impl->stop_fulfiller) impl->stop_fulfiller->fulfill();
  });
}

void Loop::post(std::function<void()> work) {
  asio::post(impl_->port.io, [work = std::move(work)] { work(); });
}

void Loop::detach(kj::Promise<void> promise, std::function<void(absl::Status)> on_error) {
  if (impl_->closing) return;
  if (on_error) {
    promise = promise.catch_(
        [on_error = std::move(on_error)](kj::Exception&& e) { on_error(to_status(e)); });
  }
  impl_->tasks->add(kj::mv(promise));
}

void Loop::run_blocking(std::function<void()> work, std::function<void()> done) {
  impl_->pool.add([impl = impl_.get(), work = std::move(work), done = std::move(done)]() mutable {
    try {
      work();
    } catch (...) {
      log_exception("blocking work failed");
    }
    work = nullptr;  // what it holds goes before `done` may say that it is over
    asio::post(impl->port.io, [done = std::move(done)] {
      if (done) done();
    });
  });
}

}  // namespace pesc::rpc
