// How fast an attempt may run: frozen, or at a part of its cpus.
// First, as in the keeper's other files: what Asio allocates with depends on what came before it.
// clang-format off
#include "runtime/worker/keeper/attempt.h"
// clang-format on

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include <algorithm>

namespace pesc::keeper {
namespace {

using std::chrono::duration_cast;
using std::chrono::milliseconds;

// Where no cgroup shares out the cpus, a slow program runs for a part of each.
constexpr milliseconds kDutyPeriod{100};

pid_t* scratch_pids() {
  static pid_t pids[kTreeCapacity];
  return pids;
}

void write_file(const char* path, const char* text) {
  int file = ::open(path, O_WRONLY | O_CLOEXEC);
  if (file < 0) return;
  [[maybe_unused]] ssize_t written = ::write(file, text, strlen(text));
  ::close(file);
}

}  // namespace

milliseconds Attempt::elapsed() const {
  return duration_cast<milliseconds>(counted_ + (Clock::now() - since_) * pace_ / 100);
}

void Attempt::set_pace(uint32_t percent) {
  const Clock::time_point now = Clock::now();
  counted_ += (now - since_) * pace_ / 100;
  since_ = now;
  pace_ = percent;
}

void Attempt::freeze(bool frozen) {
  if (frozen_ == frozen) return;
  frozen_ = frozen;
  apply_pace();
}

void Attempt::throttle(uint32_t percent) {
  throttle_ = std::clamp(percent, 1u, 100u);
  apply_pace();
}

// Also when the program has come up: before that there is nobody to hold back.
void Attempt::apply_pace() {
  if (state_ != State::running || shim_ == 0 || stop_reason_) return;
  set_pace(frozen_ ? 0 : throttle_);
  if (timer_) timer_->cancel();
  arm_limit();
  if (!is_up()) return;
  const bool shared_out = contained() && group_->holds_cpu();
  if (shared_out && throttle_ < 100) enter_late();
  if (shared_out) {
    const uint32_t all = limits_.cpus_milli != 0 ? limits_.cpus_milli : around_.cpus_milli;
    group_->set_cpus(throttle_ == 100 ? limits_.cpus_milli : std::max(1u, all * throttle_ / 100));
  }
  const bool by_turns = !frozen_ && throttle_ < 100 && !shared_out;
  if (!by_turns) {
    duty_.reset();
    return suspend(frozen_);
  }
  if (duty_) return;  // the new share holds from the next turn on
  duty_.emplace(around_.io);
  on_duty();
}

void Attempt::on_duty() {
  suspend(!suspended_);
  const uint32_t percent = suspended_ ? 100 - throttle_ : throttle_;
  duty_->expires_after(kDutyPeriod * percent / 100);
  duty_->async_wait([weak = weak_from_this()](std::error_code error) {
    auto self = weak.lock();
    if (!error && self && self->state_ == State::running && self->duty_) self->on_duty();
  });
}

void Attempt::suspend(bool suspended) {
  if (suspended_ == suspended) return;
  suspended_ = suspended;
  const LaunchPlan& plan = plan_->plan;
  if (contained() && plan.cgroup_freeze != nullptr) {
    return write_file(plan.cgroup_freeze, suspended ? "1" : "0");
  }
  if (contained() && plan.freezer_state != nullptr) {
    return write_file(plan.freezer_state, suspended ? "FROZEN" : "THAWED");
  }
  if (suspended) {
    stop_tree(shim_, scratch_pids(), kTreeCapacity);
  } else {
    signal_tree(shim_, SIGCONT, scratch_pids(), kTreeCapacity);
  }
}

// For its grace, or its end: what is frozen cannot handle a signal, and may not even die of one.
void Attempt::full_pace() {
  set_pace(100);
  duty_.reset();
  suspend(false);
  if (contained() && throttle_ < 100) group_->set_cpus(limits_.cpus_milli);
}

}  // namespace pesc::keeper
