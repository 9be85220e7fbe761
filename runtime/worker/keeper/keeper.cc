#include "runtime/worker/keeper/keeper.h"

#include <sched.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "runtime/worker/keeper/messages.h"

namespace pesc::keeper {
namespace {

using std::chrono::milliseconds;
using Steady = std::chrono::steady_clock;

// Short ranks end before their output is looked at: a pipe holds it, and is read once at the end,
// without a turn through the poller. A program that fills the pipe earlier waits this long, once.
constexpr milliseconds kWatchAfter{5};
constexpr milliseconds kLookForStarted{20};
constexpr milliseconds kGraceAfterParent{1'000};
constexpr milliseconds kGraceAtSigterm{10'000};
constexpr milliseconds kFirstConnectionWithin{10'000};
// For a worker that does not take the last messages.
constexpr milliseconds kFarewell{5'000};

bool may_command(int socket) {
  ucred peer{};
  socklen_t size = sizeof(peer);
  if (::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) return false;
  return peer.uid == ::geteuid() || peer.uid == 0;
}

std::vector<int> own_cores() {
  // More than any machine has; the kernel refuses a mask that is shorter than its own.
  constexpr int kMostCores = 8192;
  std::vector<unsigned long> mask(kMostCores / (8 * sizeof(unsigned long)));
  const size_t bytes = mask.size() * sizeof(unsigned long);
  std::vector<int> cores;
  if (::sched_getaffinity(0, bytes, reinterpret_cast<cpu_set_t*>(mask.data())) != 0) return {0};
  for (int core = 0; core < kMostCores; ++core) {
    if (CPU_ISSET_S(core, bytes, reinterpret_cast<cpu_set_t*>(mask.data()))) cores.push_back(core);
  }
  return cores;
}

}  // namespace

Keeper::Keeper(asio::io_context& io, KeeperOptions options)
    : io_(io),
      options_(options),
      around_{io, {}, {}, false, {}, OomWatch(), nullptr, containment::CpuSets(own_cores()), 0},
      acceptor_(io),
      signals_(io, options.signal_fd),
      started_timer_(io),
      linger_(io),
      watch_timer_(io),
      detached_timer_(io),
      oom_timer_(io),
      limits_timer_(io) {
  around_.cpus_milli = static_cast<uint32_t>(1000 * own_cores().size());
  acceptor_.assign(asio::local::stream_protocol(), options.listen_fd);
  // Up to six descriptors serve a rank; the usual 1,024 would bound a large machine.
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
    around_.open_files = limit;
    limit.rlim_cur = limit.rlim_max;
    around_.restore_limit = ::setrlimit(RLIMIT_NOFILE, &limit) == 0;
  }
}

void Keeper::run() {
  accept();
  await_signals();
  if (options_.die_with_parent) options_.linger = kFirstConnectionWithin;
  consider_ending();
  io_.run();
  around_.containment.reset();  // what is left of its cgroups is empty
}

void Keeper::accept() {
  acceptor_.async_accept([this](std::error_code error, Connection::Socket socket) {
    if (error == asio::error::operation_aborted) return;
    if (!error && may_command(socket.native_handle())) adopt(std::move(socket));
    accept();
  });
}

// A new connection replaces the old one: the worker was restarted.
void Keeper::adopt(Connection::Socket socket) {
  if (connection_) connection_->close();
  forget_waiting();
  connection_ = std::make_shared<Connection>(
      std::move(socket),
      [this](protocol::keeper::ToKeeper::Reader message) { on_message(message); },
      [this](Connection& lost) { on_connection_lost(lost); });
  linger_.cancel();
  detached_timer_.cancel();
  connection_->start();
}

void Keeper::on_connection_lost(Connection& connection) {
  if (connection_.get() != &connection) return;
  connection_.reset();
  forget_waiting();
  if (options_.die_with_parent) end_everything(kGraceAfterParent);
  if (relax_) around_.containment->relax();
  watch_limits();
  count_detached();
  consider_ending();
}

// Nothing runs unowned for ever: a worker that has gone for good cannot end what it left.
void Keeper::count_detached() {
  if (options_.detached_limit.count() == 0 || ending_) return;
  detached_timer_.expires_after(options_.detached_limit);
  detached_timer_.async_wait([this](std::error_code error) {
    if (error || connection_ || ending_) return;
    for (const auto& [key, attempt] : attempts_) {
      attempt->stop(EndReason::vacated,
                    "stopped: no worker has asked for it for longer than its "
                    "limit (--detached-limit)",
                    kGraceAtSigterm);
    }
    // What came of them is kept as long again.
    detached_timer_.expires_after(std::max(options_.detached_limit, 2 * kGraceAtSigterm));
    detached_timer_.async_wait([this](std::error_code again) {
      if (!again && !connection_) end_everything(milliseconds(0));
    });
  });
}

// Only while something runs: an idle keeper sleeps.
void Keeper::look_for_oom() {
  if (looking_for_oom_ || running_ == 0) return;
  looking_for_oom_ = true;
  oom_timer_.expires_after(OomWatch::kEvery);
  oom_timer_.async_wait([this](std::error_code error) {
    looking_for_oom_ = false;
    if (error) return;
    around_.oom.look(Steady::now());
    look_for_oom();
  });
}

void Keeper::on_message(protocol::keeper::ToKeeper::Reader message) {
  using Message = protocol::keeper::ToKeeper;
  switch (message.which()) {
    case Message::HELLO:
      return on_hello(message.getHello());
    case Message::START:
      return on_start(message.getStart());
    case Message::STOP:
      return on_stop(message.getStop());
    case Message::FREEZE:
      if (Attempt* attempt = find(message.getFreeze().getKey())) {
        attempt->freeze(message.getFreeze().getFrozen());
      }
      return;
    case Message::THROTTLE:
      if (Attempt* attempt = find(message.getThrottle().getKey())) {
        attempt->throttle(message.getThrottle().getPercent());
      }
      return;
    case Message::FORGET:
      return on_forget(message.getForget());
    case Message::READ_OUTPUT:
      return on_read_output(message.getReadOutput());
    case Message::SHUTDOWN:
      return end_everything(milliseconds(message.getShutdown().getGraceMs()));
  }
}

void Keeper::on_hello(protocol::keeper::ToKeeper::Hello::Reader hello) {
  options_.detached_limit = milliseconds(hello.getDetachedLimitMs());
  open_containment(hello);
  capnp::MallocMessageBuilder message;
  auto welcome = message.initRoot<protocol::keeper::FromKeeper>().initWelcome();
  welcome.setVersion(kProtocolVersion);
  welcome.setKeeperPid(static_cast<uint32_t>(::getpid()));
  welcome.setContainment(around_.containment->description().c_str());
  welcome.setLacking(around_.containment->lacking().c_str());
  welcome.setHoldsNext(true);
  auto list = welcome.initAttempts(static_cast<unsigned>(attempts_.size()));
  unsigned index = 0;
  for (const auto& [key, attempt] : attempts_) fill_attempt(list[index++], *attempt);
  connection_->send(message);
}

// A start that is sent again, after a reconnection, is answered again and not done twice.
void Keeper::on_start(protocol::keeper::Start::Reader start) {
  if (Attempt* known = find(start.getKey())) {
    if (known->finished()) return send_exited(*known);
    if (known->announced) send_started(*known);
    return;
  }
  auto attempt =
      std::make_shared<Attempt>(around_, start, [this](Attempt& ended) { on_finished(ended); });
  attempts_.emplace(attempt->key(), attempt);
  ++running_;
  look_for_oom();
  if (ending_) return attempt->refuse(EndReason::vacated, "the keeper is being ended");
  if (!must_wait(attempt)) begin(attempt);
}

void Keeper::begin(const std::shared_ptr<Attempt>& attempt) {
  ++jobs_[attempt->key().job].running;
  pid_t shim = attempt->launch();
  if (shim == 0) return;
  shims_.emplace(shim, attempt);
  starting_.push_back(attempt);
  look_for_started();
}

void Keeper::on_stop(protocol::keeper::ToKeeper::Stop::Reader stop) {
  Attempt* attempt = find(stop.getKey());
  if (attempt == nullptr) return;
  const auto reason = static_cast<EndReason>(stop.getReason());
  if (is_waiting(*attempt)) return take_back(*attempt, reason);
  if (stop.getUnlessBegun()) return;
  attempt->stop(reason, {}, milliseconds(stop.getGraceMs()));
}

void Keeper::on_forget(protocol::keeper::Key::Reader key) {
  auto found = attempts_.find(to_key(key));
  if (found == attempts_.end() || !found->second->finished()) return;
  attempts_.erase(found);
  consider_ending();
}

void Keeper::on_read_output(protocol::keeper::ToKeeper::ReadOutput::Reader request) {
  capnp::MallocMessageBuilder message;
  auto output = message.initRoot<protocol::keeper::FromKeeper>().initOutput();
  output.setTicket(request.getTicket());
  if (Attempt* attempt = find(request.getKey())) {
    // What is still in the pipe counts as written.
    attempt->take_output_now();
    const OutputStream& stream =
        request.getStream() == 2 ? attempt->standard_error() : attempt->standard_output();
    bool end = false;
    size_t bound = std::min<size_t>(request.getMaxBytes(), 1 << 20);
    std::string data = stream.read(request.getOffset(), bound, end);
    output.setFound(true);
    output.setData(as_data(data));
    output.setEnd(end);
  }
  connection_->send(message);
}

void Keeper::await_signals() {
  signals_.async_wait(asio::posix::descriptor_base::wait_read, [this](std::error_code error) {
    if (error) return;
    signalfd_siginfo info[16];
    ssize_t size;
    while ((size = ::read(signals_.native_handle(), info, sizeof(info))) > 0) {
      for (size_t i = 0; i < static_cast<size_t>(size) / sizeof(info[0]); ++i) {
        if (info[i].ssi_signo == SIGTERM) end_everything(kGraceAtSigterm);
      }
    }
    reap();
    await_signals();
  });
}

// Shims do not say that their program runs: waking this process for it costs a short rank as much
// as its start does. What has ended by then was noted at its end.
void Keeper::look_for_started() {
  if (starting_.empty() || std::exchange(looking_for_started_, true)) return;
  started_timer_.expires_after(kLookForStarted);
  started_timer_.async_wait([this](std::error_code error) {
    if (error) return;
    looking_for_started_ = false;
    note_started();
    look_for_started();
  });
}

void Keeper::note_started() {
  auto up = [this](const std::shared_ptr<Attempt>& attempt) {
    announce(attempt);
    return attempt->announced || attempt->finished();
  };
  std::erase_if(starting_, up);
}

void Keeper::announce(const std::shared_ptr<Attempt>& attempt) {
  if (attempt->announced || !attempt->is_up()) return;
  attempt->note_started();
  attempt->announced = true;
  send_started(*attempt);
  if (!attempt->finished()) watch_later(attempt);
  if (attempt->watch_needed() != Attempt::Watch::not_needed) watch_limits();
}

void Keeper::watch_later(std::shared_ptr<Attempt> attempt) {
  unwatched_.emplace_back(Steady::now() + kWatchAfter, std::move(attempt));
  if (unwatched_.size() == 1) arm_watch();
}

void Keeper::arm_watch() {
  watch_timer_.expires_at(unwatched_.front().first);
  watch_timer_.async_wait([this](std::error_code error) {
    if (error) return;
    // Some are taken a little early rather than each with a timer of its own.
    Steady::time_point due = Steady::now() + kWatchAfter / 2;
    while (!unwatched_.empty() && unwatched_.front().first <= due) {
      unwatched_.front().second->note_lasting();
      unwatched_.pop_front();
    }
    if (!unwatched_.empty()) arm_watch();
  });
}

// Only those that have ended are announced: that others run by now is told when it is looked at, or
// with their own end.
void Keeper::reap() {
  bool orphans = false;
  for (;;) {
    int status = 0;
    pid_t pid = ::waitpid(-1, &status, WNOHANG | __WALL);
    if (pid <= 0) break;
    auto found = shims_.find(pid);
    if (found == shims_.end()) {
      orphans = true;  // it may have left others behind
      continue;
    }
    std::shared_ptr<Attempt> attempt = std::move(found->second);
    shims_.erase(found);
    const bool was_starting = !attempt->announced;
    announce(attempt);
    bool clean = WIFEXITED(status);
    orphans = orphans || !clean;
    attempt->on_shim_gone(clean);
    if (was_starting) std::erase(starting_, attempt);
  }
  if (orphans) end_orphans();
}

// A shim that was killed leaves its tree to the keeper, which is a subreaper as well.
void Keeper::end_orphans() {
  static pid_t children[kTreeCapacity];
  static pid_t below[kTreeCapacity];
  long count = collect_children(::getpid(), children, kTreeCapacity);
  for (long i = 0; i < count; ++i) {
    if (shims_.contains(children[i])) continue;
    ::kill(children[i], SIGSTOP);
    stop_tree(children[i], below, kTreeCapacity);
    signal_tree(children[i], SIGKILL, below, kTreeCapacity);
    ::kill(children[i], SIGKILL);
  }
}

void Keeper::send_started(Attempt& attempt) {
  if (!connection_) return;
  capnp::MallocMessageBuilder message;
  auto started = message.initRoot<protocol::keeper::FromKeeper>().initStarted();
  fill_key(started.initKey(), attempt.key());
  started.setPid(static_cast<uint32_t>(attempt.program_pid()));
  started.setStartedUnixMs(attempt.started_unix_ms());
  started.setBindsDone(attempt.binds_done());
  connection_->send(message);
}

void Keeper::send_exited(Attempt& attempt) {
  if (!connection_) return;
  capnp::MallocMessageBuilder message;
  fill_exit(message.initRoot<protocol::keeper::FromKeeper>().initExited(), attempt);
  connection_->send(message);
}

void Keeper::on_finished(Attempt& attempt) {
  --running_;
  send_exited(attempt);
  const JobId job = attempt.key().job;
  if (attempt.begun()) {
    const auto of_job = jobs_.find(job);
    --of_job->second.running;
    begin_next(job);
  }
  if (const auto of_job = jobs_.find(job);
      of_job != jobs_.end() && of_job->second.running == 0 && of_job->second.next.empty()) {
    jobs_.erase(of_job);
  }
  consider_ending();
}

void Keeper::end_everything(milliseconds grace) {
  ending_ = true;
  refuse_waiting(EndReason::vacated, "the worker is being shut down");
  for (const auto& [key, attempt] : attempts_) {
    attempt->stop(EndReason::vacated, "the worker is being shut down", grace);
  }
  consider_ending();
}

void Keeper::consider_ending() {
  if (ending_) {
    if (running_ > 0) return;
    if (!connection_) return io_.stop();
    // The last messages leave first.
    linger_.expires_after(kFarewell);
    linger_.async_wait([this](std::error_code error) {
      if (!error) io_.stop();
    });
    return connection_->when_sent([this] { io_.stop(); });
  }
  if (connection_ || !attempts_.empty()) return;
  linger_.expires_after(options_.linger);
  linger_.async_wait([this](std::error_code error) {
    if (error || connection_ || !attempts_.empty()) return;
    io_.stop();
  });
}

Attempt* Keeper::find(protocol::keeper::Key::Reader key) {
  auto found = attempts_.find(to_key(key));
  return found == attempts_.end() ? nullptr : found->second.get();
}

}  // namespace pesc::keeper
