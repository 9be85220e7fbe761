#include "runtime/worker/owner/monitor.h"

#include <sys/stat.h>
#include <time.h>

#include <algorithm>
#include <asio/post.hpp>
#include <chrono>
#include <utility>

#include "rpc/log.h"

namespace pesc::worker::owner {
namespace {

constexpr int64_t kBusyEveryMs = 500, kQuietEveryMs = 5'000;
// However many notices come.
constexpr int64_t kLeastBetweenMs = 50;
constexpr int64_t kLoadEveryMs = 2'000;
// Reading the load of many processes takes its time: no more than a thousandth of it.
constexpr int64_t kLoadRest = 1'000;

timespec time_of(clockid_t clock) {
  timespec time{};
  ::clock_gettime(clock, &time);
  return time;
}
int64_t boot_ms() {
  const timespec time = time_of(CLOCK_BOOTTIME);
  return int64_t{time.tv_sec} * 1000 + time.tv_nsec / 1'000'000;
}
int64_t cpu_us() {
  const timespec time = time_of(CLOCK_THREAD_CPUTIME_ID);
  return int64_t{time.tv_sec} * 1'000'000 + time.tv_nsec / 1'000;
}

}  // namespace

uint32_t local_minute_of_week(int64_t unix_ms) {
  const time_t seconds = unix_ms / 1000;
  tm local{};
  ::tzset();  // whoever sets the machine's zone need not start the worker again
  ::localtime_r(&seconds, &local);
  return static_cast<uint32_t>(((local.tm_wday + 6) % 7 * 24 + local.tm_hour) * 60 + local.tm_min);
}

Monitor::Monitor(rpc::Loop& loop, Settings settings, std::function<void(const Verdict&)> changed)
    : loop_(loop),
      settings_(std::move(settings)),
      changed_(std::move(changed)),
      policy_(settings_.policy),
      watch_(loop.io(), settings_.root, settings_.pause_file, [this] { look_soon(); }),
      cpu_(settings_.root),
      timer_(loop.io()),
      command_timer_(loop.io()) {
  if (!settings_.presence_command.empty() && settings_.policy.watching) {
    command_.emplace(loop.io(), settings_.presence_command);
  }
}

Monitor::~Monitor() { *alive_ = false; }

void Monitor::start() {
  if (settings_.policy.watching) {
    watch_.watch_people();
    for (const Sight& sight : what_is_seen(settings_.root)) {
      rpc::log().info("event=owner_sight what=\"{}\" seen={} text=\"{}\"", sight.subject,
                      sight.seen, sight.text);
    }
  }
  look();
  if (command_) ask_command();
}

void Monitor::order_pause(bool paused) {
  if (std::exchange(paused_, paused) != paused) look_soon();
}

void Monitor::set_ranks_run(bool run) {
  if (std::exchange(ranks_run_, run) == run || !run) return;
  // What was seen long ago may not hold any more.
  if (settings_.policy.watching && boot_ms() - looked_ms_ >= kBusyEveryMs) look_soon();
  schedule();
}

void Monitor::look_soon() {
  if (std::exchange(soon_, true)) return;
  schedule();
}

bool Monitor::needs_looks() const { return settings_.policy.watching || !watch_.works(); }

void Monitor::schedule() {
  if (!soon_ && !needs_looks()) return;
  const int64_t every = ranks_run_ ? kBusyEveryMs : kQuietEveryMs;
  const int64_t due = looked_ms_ + (soon_ ? kLeastBetweenMs : every);
  timer_.expires_after(std::chrono::milliseconds(std::max<int64_t>(due - boot_ms(), 0)));
  timer_.async_wait([this, alive = alive_](const asio::error_code& error) {
    if (error || !*alive) return;
    const Verdict before = policy_.verdict();
    look();
    if (*alive && policy_.verdict() != before) changed_(policy_.verdict());
  });
}

void Monitor::look() {
  soon_ = false;
  looked_ms_ = boot_ms();
  const Sample seen = sample();
  const Verdict& verdict = policy_.step(seen, looked_ms_);
  watch_.renew(seen.people);
  const std::string now = std::string(to_string(verdict.mode)) + verdict.busy;
  if (now != logged_ && !(logged_.empty() && verdict == Verdict{})) {
    rpc::log().info("event=owner ranks={} busy=\"{}\" seen=\"{}\"", to_string(verdict.mode),
                    verdict.busy, policy_.seen());
  }
  logged_ = now;
  schedule();
}

Sample Monitor::sample() {
  Sample sample;
  struct stat info {};
  sample.paused_by_order = paused_;
  sample.paused_here =
      !settings_.pause_file.empty() && ::lstat(settings_.pause_file.c_str(), &info) == 0;
  if (!settings_.policy.watching) return sample;
  const int64_t now = unix_ms();
  sample.minute_of_week = local_minute_of_week(now);
  sample.people = people(settings_.root, now, watch_.input_unix_ms());
  watch_.sharpen(sample.people, now);
  sample.command = said_;
  sample.command_error = command_error_;
  if (gpus_) sample.gpus = gpus_();
  if (looked_ms_ >= next_load_ms_) read_load(sample);
  return sample;
}

void Monitor::read_load(Sample& sample) {
  const int64_t began = cpu_us();
  uint64_t own = own_cpu_ticks();
  if (keeper_ > 0) own += tree_cpu_ticks(keeper_);
  cpu_.read(own, sample.cpu_all, sample.cpu_others);
  sample.memory = memory_percent(settings_.root);
  const int64_t cost_us = cpu_us() - began;
  next_load_ms_ = looked_ms_ + std::max(kLoadEveryMs, cost_us * kLoadRest / 1'000);
}

void Monitor::ask_command() {
  command_->run([this](CommandVerdict said, std::string error) {
    if (said == CommandVerdict::failed && error != command_logged_) {
      rpc::log().error(
          "event=presence_command_failed error=\"{}\" next=\"no new ranks until it does\"", error);
    }
    command_logged_ = error;
    const bool news = said != said_ || error != command_error_;
    said_ = said;
    command_error_ = std::move(error);
    if (news) look_soon();
    command_timer_.expires_after(std::chrono::milliseconds(settings_.presence_every_ms));
    command_timer_.async_wait([this, alive = alive_](const asio::error_code& failed) {
      if (!failed && *alive) ask_command();
    });
  });
}

}  // namespace pesc::worker::owner
