#include "runtime/worker/shell/worker.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <set>

#include "asio/post.hpp"
#include "protocol/codec.h"
#include "rpc/log.h"
#include "runtime/worker/containment/containment.h"
#include "runtime/worker/shell/async.h"
#include "runtime/worker/shell/clock.h"
#include "runtime/worker/shell/worker_impl.h"

namespace pesc::worker {
namespace {

constexpr uint64_t kKeeperBackoffMs = 1'000;
constexpr uint64_t kShutdownGraceMs = 2'000;
constexpr size_t kEventsPerTurn = 256;

std::string environment_or(const char* name, const char* otherwise) {
  const char* value = std::getenv(name);
  return value != nullptr && *value != '\0' ? value : otherwise;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Worker>> Worker::open(rpc::Loop& loop, Options options,
                                                     SessionSource sessions) {
  try {
    auto worker = std::make_unique<WorkerShell>(loop, std::move(options), std::move(sessions));
    absl::Status started = worker->start();
    if (!started.ok()) return started;
    return std::unique_ptr<Worker>(std::move(worker));
  } catch (const kj::Exception& e) {
    return rpc::to_status(e);
  } catch (const std::exception& e) {
    return absl::InternalError(e.what());
  }
}

WorkerShell::WorkerShell(rpc::Loop& loop, Options options, SessionSource sessions)
    : loop_(loop), options_(std::move(options)), source_(std::move(sessions)) {
  tasks_.emplace(*this);
}

WorkerShell::~WorkerShell() noexcept {
  *alive_ = false;
  monitor_.reset();
  gpus_.reset();
  session_.reset();
  tasks_.reset();
  timer_ = nullptr;
  disk_timer_ = nullptr;
  idle_timer_ = nullptr;
  quiet_.reset();
  keeper_.reset();
  watch_.reset();
}

void WorkerShell::taskFailed(kj::Exception&& exception) {
  rpc::log().error("event=task_failed error=\"{}\"", exception.getDescription().cStr());
}

absl::Status WorkerShell::open_state() {
  auto user = resolve_rank_user(options_.run_as);
  if (!user.ok()) return user.status();
  user_ = *std::move(user);
  auto directory = common::make_state_dir(options_.state_dir, user_ ? 0711 : 0700);
  if (!directory.ok()) return directory.status();
  state_dir_ = *std::move(directory);
  if (user_) {
    absl::Status reachable = check_reachable(*user_, state_dir_);
    if (!reachable.ok()) return reachable;
  }
  auto lock = common::lock_state_dir(state_dir_, "pesc-worker");
  if (!lock.ok()) return lock.status();
  lock_ = *std::move(lock);

  machine_ = this_machine();
  auto identity = load_or_create_worker_identity(state_dir_, machine_);
  if (!identity.ok()) return identity.status();
  identity_ = *std::move(identity);

  auto dirs = AttemptDirs::open(state_dir_, user_);
  if (!dirs.ok()) return dirs.status();
  dirs_ = *std::move(dirs);
  // What is in the outbox was packed by an earlier worker; it is packed again.
  const std::filesystem::path outbox = state_dir_ / "outbox";
  absl::Status removed = remove_tree(outbox);
  if (!removed.ok()) return removed;
  if (::mkdir(outbox.c_str(), 0700) != 0) {
    return common::errno_status(errno, "make the directory", outbox);
  }
  auto cache = Cache::open(state_dir_, options_.cache_limit_bytes);
  if (!cache.ok()) return cache.status();
  cache_ = *std::move(cache);
  auto builds = BuildIndex::open(state_dir_);
  if (!builds.ok()) return builds.status();
  build_index_ = *std::move(builds);
  // No number comes again while the keeper has that of an earlier worker.
  next_build_ = static_cast<uint32_t>(boot_ms()) & 0x7fffffff;
  return absl::OkStatus();
}

namespace {

// 0 asks for all that there is; of what is not known as much as was said.
uint64_t at_most(uint64_t wanted, uint64_t has) {
  return wanted == 0 || (has != 0 && has < wanted) ? has : wanted;
}

}  // namespace

void WorkerShell::set_up_core() {
  if (options_.cpus_milli == 0) options_.cpus_milli = available_cpus_milli();
  too_much_ = promised_too_much(options_.cpus_milli, options_.memory_bytes, options_.disk_bytes,
                                state_dir_);
  options_.memory_bytes = at_most(options_.memory_bytes, available_memory_bytes());
  options_.disk_bytes = at_most(options_.disk_bytes, free_disk_bytes(state_dir_));
  if (options_.name.empty()) options_.name = machine_.hostname;
  CoreConfig config;
  config.cpus_milli = options_.cpus_milli;
  config.detached_limit_ms = options_.detached_limit_ms;
  // Enough that the slots of a large machine never wait for a preparation.
  config.max_preparing = std::max<uint32_t>(config.max_preparing, options_.cpus_milli / 500);
  core_ = std::make_unique<Core>(config);
  base_.path = environment_or("PATH", "/usr/local/bin:/usr/bin:/bin");
  base_.home = user_ ? user_->home : environment_or("HOME", "/");
  base_.lang = environment_or("LANG", "C.UTF-8");
}

std::vector<std::string> WorkerShell::warnings() const {
  std::vector<std::string> warnings;
  if (user_) {
    warnings.push_back("all ranks run as the user " + user_->name +
                       ": while they run, those of different jobs are not kept from each other");
  } else {
    warnings.emplace_back("ranks run as the worker's own user");
  }
  if (!identity_.clone_warning.empty()) warnings.push_back(identity_.clone_warning);
  warnings.insert(warnings.end(), too_much_.begin(), too_much_.end());
  return warnings;
}

// What is asked for by name must be there; "auto" takes what there is.
absl::Status WorkerShell::check_containment() const {
  using containment::Mode;
  if (options_.containment != Mode::cgroup1 && options_.containment != Mode::cgroup2) {
    return absl::OkStatus();
  }
  const containment::Containment trial(options_.containment);
  if (trial.features().any()) return absl::OkStatus();
  return absl::FailedPreconditionError(
      "containment \"" + std::string(containment::to_string(options_.containment)) +
      "\" cannot be had here: " + trial.lacking() +
      "; give the worker a cgroup of its own (systemd: Delegate=yes), or choose \"auto\"");
}

absl::Status WorkerShell::start() {
  absl::Status opened = open_state();
  if (opened.ok()) opened = check_containment();
  if (!opened.ok()) return opened;
  set_up_core();
  for (const std::string& warning : warnings())
    rpc::log().warn("event=warning text=\"{}\"", warning);
  auto watch = EventsWatch::open(
      loop_, {},
      [this](const AttemptKey& key, double fraction, const std::string& text) {
        push(Progressed{key, fraction, text});
      },
      [this](const AttemptKey& key) { on_checkpoint_marked(key); });
  if (!watch.ok()) return watch.status();
  watch_ = *std::move(watch);
  fetcher_ = std::make_unique<Fetcher>(loop_, cache_);
  quiet_ = std::make_unique<QuietThread>(loop_);
  // Where ranks are another user's, root's file is read-only to them. Else it is found out when the
  // first job has a shared file.
  if (user_) shared_mode_ = SharedMode::root_link;

  SelfDescription self{identity_.id,
                       options_.name,
                       options_.room,
                       options_.advertise,
                       machine_.id + "/" + machine_.boot_id,
                       options_.cpus_milli,
                       options_.memory_bytes,
                       warnings(),
                       options_.disk_bytes,
                       options_.named,
                       options_.pass_on};
  session_ = std::make_unique<Session>(loop_, source_, std::move(self), *this);
  if (options_.pass_on) {
    pass_on_ = std::make_unique<PassOn>(loop_, cache_);
    fetcher_->set_passing(session_.get(), pass_on_.get());
  }
  open_monitor();
  open_gpus();
  return open_keeper();
}

absl::Status WorkerShell::open_keeper() {
  KeeperEvents events;
  events.on_welcome = [this](std::vector<KeptAttempt> kept) { on_welcome(std::move(kept)); };
  events.on_containment = [](const std::string& description, const std::string& lacking) {
    rpc::log().info("event=containment {} lacking=\"{}\"", description, lacking);
  };
  events.on_started = [this](AttemptKey key, uint32_t pid, int64_t unix_ms, bool binds_done) {
    on_started(key, pid, unix_ms, binds_done);
  };
  events.on_exited = [this](KeptExit exit) { on_exited(std::move(exit)); };
  events.on_lost = [this, alive = alive_](absl::Status why) {
    // Not from within the client: it is replaced.
    asio::post(loop_.io(), [this, alive, why] {
      if (*alive) on_keeper_lost(why);
    });
  };
  KeeperClient::Options options;
  options.socket = state_dir_ / "keeper.sock";
  options.program = options_.keeper_program;
  options.die_with_parent = options_.end_keeper_on_shutdown;
  options.detached_limit_ms = options_.detached_limit_ms;
  options.containment = options_.containment;
  options.moved_itself = options_.moved_itself;
  auto keeper = KeeperClient::open(loop_, std::move(options), std::move(events));
  if (!keeper.ok()) return keeper.status();
  keeper_ = *std::move(keeper);
  return absl::OkStatus();
}

void WorkerShell::on_welcome(std::vector<KeptAttempt> kept) {
  keeper_failures_ = 0;
  if (monitor_) monitor_->set_keeper(static_cast<pid_t>(keeper_->pid()));
  push(KeeperFound{keeper_->holds_next()});
  if (std::exchange(welcomed_, true)) return;  // a new keeper, after one was lost: it has nothing
  std::set<AttemptKey> keys;
  for (KeptAttempt& attempt : kept) {
    if (is_build(attempt.key)) {  // whoever still waits for it builds anew: nobody saw it whole
      keeper_->stop(attempt.key, EndReason::revoked, 0);
      keeper_->forget(attempt.key);
      continue;
    }
    keys.insert(attempt.key);
    adopt(std::move(attempt));
  }
  const size_t left = dirs_->discard_others(keys);
  if (left > 0) rpc::log().info("event=leftovers_deleted attempts={}", left);
  empty_trash();
  rpc::log().info("event=worker_started id={} name=\"{}\" cpus={} adopted={}", id(), options_.name,
                  options_.cpus_milli / 1000.0, keys.size());
  start_session();
}

void WorkerShell::adopt(KeptAttempt kept) {
  absl::StatusOr<JobSpec> spec = absl::NotFoundError("it is no job's");
  if (kept.key != kProbe) spec = protocol::parse_spec(kept.lease);
  auto attempt = std::make_shared<ShellAttempt>();
  attempt->key = kept.key;
  attempt->paths = dirs_->paths(kept.key);
  attempt->has_directories = attempt->adopted = attempt->with_keeper = true;
  attempt->running = kept.running;
  attempt->exit = std::move(kept.exit);
  attempt->exit.key = kept.key;
  if (!spec.ok()) {
    rpc::log().warn("event=adoption_failed attempt=\"{}\" error=\"{}\"", to_string(kept.key),
                    std::string(spec.status().message()));
    keeper_->stop(kept.key, EndReason::revoked, 0);
    keeper_->forget(kept.key);
    return;
  }
  attempt->spec = std::make_shared<const JobSpec>(*std::move(spec));
  attempt->pinned = input_blobs(*attempt->spec);
  cache_->pin(attempt->pinned);
  attempts_[kept.key] = attempt;
  attempt->was_started = true;
  const auto unix_ms = std::chrono::duration_cast<std::chrono::milliseconds>(
      std::chrono::system_clock::now().time_since_epoch());
  attempt->started_boot_ms =
      now_ms() - std::max<int64_t>(0, unix_ms.count() - kept.started_unix_ms);
  const bool marked = has_checkpoint_event(attempt->paths.events);
  adopt_gpus(*attempt, kept.pid);
  if (kept.running) watch_disk(attempt);
  if (kept.running) watch_->add(kept.key, attempt->paths.events);
  AttemptOutcome outcome;
  outcome.started_unix_ms = kept.started_unix_ms;
  if (!kept.running) {
    outcome = outcome_of(*attempt);
    attempt->ran_ms = outcome.duration_ms;
  }
  push(Adopted{kept.key, attempt->spec, kept.running, std::move(outcome), marked});
  if (kept.running) pace(kept.key);  // whatever the worker before has left it at
}

void WorkerShell::on_keeper_lost(const absl::Status& why) {
  keeper_.reset();
  if (keeper_ended_) {
    keeper_ended_->fulfill();
    keeper_ended_ = nullptr;
  }
  if (stopping_) return;
  rpc::log().error("event=keeper_lost error=\"{}\"", std::string(why.message()));
  for (auto& [key, attempt] : attempts_) {
    attempt->with_keeper = false;
    if (std::exchange(attempt->running, false)) watch_->remove(key);
  }
  if (probing_) {
    probing_ = false;
    for (auto& waiting : std::exchange(waiting_for_mode_, {})) {
      waiting->reject(rpc::to_exception(absl::UnavailableError("the keeper ended")));
    }
  }
  push(KeeperLost{});
  lose_builds("the worker's keeper ended");
  reopen_keeper();
}

void WorkerShell::reopen_keeper() {
  const uint64_t delay_ms = keeper_failures_++ == 0 ? 0 : kKeeperBackoffMs;
  tasks_->add(
      loop_.timer().afterDelay(static_cast<int64_t>(delay_ms) * kj::MILLISECONDS).then([this] {
        if (stopping_) return;
        absl::Status opened = open_keeper();
        if (opened.ok()) return;
        rpc::log().error("event=keeper_failed error=\"{}\"", std::string(opened.message()));
        reopen_keeper();
      }));
}

// ---- the turn: events, the core's steps, its actions
// ----------------------------------------------

// Never from within: an event comes from promises and callbacks that the actions may destroy.
void WorkerShell::push(Event event) {
  events_.push_back(std::move(event));
  if (std::exchange(drain_planned_, true)) return;
  asio::post(loop_.io(), [this, alive = alive_] {
    if (*alive) drain_events();
  });
}

void WorkerShell::drain_events() {
  // Bounded, so that a flood of them leaves the loop its other work.
  for (size_t i = 0; i < kEventsPerTurn && !events_.empty(); ++i) {
    Event event = std::move(events_.front());
    events_.pop_front();
    Step step = core_->step(event, now_ms());
    for (Action& action : step.actions) {
      if (std::holds_alternative<Start>(action) || std::holds_alternative<Stop>(action)) {
        perform(action);
      } else {
        later_.push_back(std::move(action));
      }
    }
  }
  plan_later();
  if (monitor_) monitor_->set_ranks_run(core_->cpus_used_milli() > 0 || !builds_.empty());
  drain_planned_ = !events_.empty();
  if (drain_planned_) {
    asio::post(loop_.io(), [this, alive = alive_] {
      if (*alive) drain_events();
    });
  }
  arm_timer();
}

// What no slot waits for comes after the keeper was told what to start.
void WorkerShell::plan_later() {
  if (later_.empty() || std::exchange(later_planned_, true)) return;
  asio::post(loop_.io(), [this, alive = alive_] {
    if (!*alive) return;
    later_planned_ = false;
    for (Action& action : std::exchange(later_, {})) {
      perform(action);
      if (!*alive) return;
    }
  });
}

void WorkerShell::perform(Action& action) {
  if (stopping_) return;
  std::visit([this](auto& a) { on(a); }, action);
}

// Set only when the deadline comes before what is set already: one that fires early costs less than
// one that is set again for each step.
void WorkerShell::arm_timer() {
  const std::optional<TimeMs> deadline = core_->next_deadline();
  if (!deadline && !armed_) timer_due_ms_ = INT64_MAX;
  if (!deadline || (armed_ && *armed_ <= *deadline)) return;
  armed_ = deadline;
  const TimeMs now = now_ms();
  const TimeMs delay = std::max<TimeMs>(0, *deadline - now);
  timer_due_ms_ = now + delay;
  timer_ = loop_.timer()
               .afterDelay(delay * kj::MILLISECONDS)
               .then([this] {
                 leave_out_absence();
                 armed_.reset();
                 timer_due_ms_ = now_ms();  // till the next one is set: a sleep may fall in between
                 push(TimerFired{});
               })
               .eagerlyEvaluate(nullptr);
}

std::vector<AttemptKey> WorkerShell::holding() { return core_->holding(); }

void WorkerShell::on_connected(uint64_t heartbeat_ms, protocol::Blobs::Client blobs) {
  ++session_number_;
  blobs_ = blobs;
  fetcher_->set_source(blobs);
  push(Connected{heartbeat_ms});
}

void WorkerShell::on_disconnected() {
  ++session_number_;
  blobs_.reset();
  fetcher_->set_source(std::nullopt);
  push(Disconnected{});
}

void WorkerShell::on_update(UpdateReceived update) { push(std::move(update)); }

absl::StatusOr<PassOn::Offer> WorkerShell::pass_on(const BlobRef& blob, std::string_view ticket,
                                                   const std::string& address) {
  if (!pass_on_ || stopping_) {
    return absl::FailedPreconditionError("this worker passes nothing on");
  }
  return pass_on_->offer(blob, ticket, address);
}

// ---- the end
// ----------------------------------------------------------------------------------------

kj::Promise<void> WorkerShell::drain() {
  if (drained_) return kj::READY_NOW;
  auto paf = kj::newPromiseAndFulfiller<void>();
  waiting_for_drained_.push_back(kj::mv(paf.fulfiller));
  push(DrainRequested{});
  return kj::mv(paf.promise);
}

void WorkerShell::on(Drained&) {
  drained_ = true;
  for (auto& waiting : std::exchange(waiting_for_drained_, {})) waiting->fulfill();
}

kj::Promise<void> WorkerShell::vacate(uint64_t limit_ms) {
  UpdateReceived update;
  for (const AttemptView& attempt : core_->attempts()) {
    update.stop.push_back({attempt.key, EndReason::vacated});
  }
  push(DrainRequested{});
  push(std::move(update));
  return drain().exclusiveJoin(
      loop_.timer().afterDelay(static_cast<int64_t>(limit_ms) * kj::MILLISECONDS));
}

kj::Promise<void> WorkerShell::shutdown() {
  stopping_ = true;
  for (const auto& [key, attempt] : attempts_) cancel_save(*attempt);
  for (const auto& [key, build] : builds_) {
    build->cancelled->store(true);
    if (build->with_keeper && keeper_ != nullptr) keeper_->stop(build->run, EndReason::revoked, 0);
  }
  monitor_.reset();
  session_->stop();
  timer_ = nullptr;
  disk_timer_ = nullptr;
  idle_timer_ = nullptr;
  kj::Promise<void> keeper_end = kj::READY_NOW;
  // Ranks, and results that the coordinator does not have yet, stay with the keeper for the next
  // worker, unless nothing may outlive this process.
  if (keeper_ != nullptr && (options_.end_keeper_on_shutdown || attempts_.empty())) {
    auto paf = kj::newPromiseAndFulfiller<void>();
    keeper_ended_ = kj::mv(paf.fulfiller);
    keeper_->shutdown(kShutdownGraceMs);
    keeper_end = paf.promise.exclusiveJoin(
        loop_.timer().afterDelay(static_cast<int64_t>(2 * kShutdownGraceMs) * kj::MILLISECONDS));
  }
  return keeper_end.then([this] {
    keeper_.reset();
    return blocking(loop_, [cache = cache_] { return cache->close(); })
        .then([](absl::Status closed) {
          if (!closed.ok()) {
            rpc::log().warn("event=cache_not_synced error=\"{}\"", std::string(closed.message()));
          }
        });
  });
}

}  // namespace pesc::worker
