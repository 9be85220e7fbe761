#include "runtime/coordinator/shell/turn.h"

#include <algorithm>
#include <utility>

namespace pesc::coordinator {
namespace {

// A turn ends after this many events or records, that a flood does not make one endless
// transaction: nobody is told anything before its end…
constexpr size_t kMaxEvents = 4096;
constexpr size_t kMaxRecords = 8192;
// …and after this many rounds of placement, that heartbeats never wait for it.
constexpr int kMaxTimerSteps = 8;
constexpr uint64_t kFirstRestoreDelayMs = 1'000;
constexpr uint64_t kMaxRestoreDelayMs = 30'000;

template <typename T>
void append(std::vector<T>& to, std::vector<T>&& from) {
  if (to.empty()) {
    to = std::move(from);
  } else {
    to.insert(to.end(), std::make_move_iterator(from.begin()), std::make_move_iterator(from.end()));
  }
}

}  // namespace

uint64_t request_of(const Event& event) {
  return std::visit(
      [](const auto& e) -> uint64_t {
        if constexpr (requires { e.request; }) return e.request;
        return 0;
      },
      event);
}

bool names_blob(const Record& record) {
  if (const auto* added = std::get_if<JobAdded>(&record)) return !added->spec->files.empty();
  if (const auto* ended = std::get_if<AttemptEnded>(&record)) return !ended->outcome.output.empty();
  if (std::holds_alternative<CheckpointKept>(record)) return true;
  return false;
}

Turn::Turn(TurnHost& host, std::unique_ptr<Core> core) : host_(host), core_(std::move(core)) {
  timer_due_ = true;  // what the journal left to do
  schedule();
}

void Turn::post(Event event) {
  if (!health_.ok()) {
    if (const uint64_t request = request_of(event)) host_.refuse(request, health_);
    return;  // the others belong to sessions that ended with the state
  }
  queue_.push_back(std::move(event));
  ++posted_;
  schedule();
}

void Turn::timer_fired() {
  timer_due_ = true;
  schedule();
}

void Turn::schedule() {
  if (scheduled_ || committing_ || !health_.ok()) return;
  scheduled_ = true;
  host_.schedule();
}

void Turn::run() {
  scheduled_ = false;
  if (committing_ || !health_.ok()) return;
  // All that had come by then has been stepped: others have come since, but that goes on for ever.
  if (stepped_ >= awaited_) awaited_ = posted_;
  for (size_t i = 0; i < kMaxEvents && batch_.records.size() < kMaxRecords && !queue_.empty();
       ++i) {
    const Event event = std::move(queue_.front());
    queue_.pop_front();
    ++stepped_;
    step(event, !queue_.empty());
  }
  step_timers(stepped_ < awaited_);
  batch_.sync_blobs = std::any_of(batch_.records.begin(), batch_.records.end(), names_blob);
  if (batch_.records.empty()) {
    release();
    return;
  }
  committing_ = true;
  host_.commit(batch_);
}

void Turn::step(const Event& event, bool more) {
  if (const uint64_t request = request_of(event)) requests_.push_back(request);
  Step step = core_->step(event, host_.now(), more);
  append(batch_.records, std::move(step.records));
  append(actions_, std::move(step.actions));
}

// The core leaves placement that is more than one step's worth to a timer that is due at once.
void Turn::step_timers(bool more) {
  for (int i = 0; i < kMaxTimerSteps; ++i) {
    const std::optional<TimeMs> deadline = core_->next_deadline();
    const bool due = deadline && *deadline <= host_.now();
    if (!due && !timer_due_) return;
    timer_due_ = false;
    if (due) step(TimerFired{host_.wall_ms()}, more);
  }
}

void Turn::committed(const absl::Status& status) {
  committing_ = false;
  if (!status.ok()) {
    fail(status);
    return;
  }
  release();
}

void Turn::release() {
  std::vector<Action> actions = std::exchange(actions_, {});
  const Batch batch = std::exchange(batch_, {});
  requests_.clear();
  for (Action& action : actions) host_.perform(std::move(action));
  host_.released(batch);
  answer_waiting(absl::OkStatus());
  arm();
  if (!queue_.empty() || timer_due_) schedule();
}

void Turn::arm() {
  const std::optional<TimeMs> deadline = core_->next_deadline();
  if (!deadline) return;
  if (*deadline <= host_.now()) {
    timer_due_ = true;
    schedule();
  } else {
    host_.arm(*deadline);
  }
}

// Nothing of the batch may be shown, and the core is ahead of the journal: both go.
void Turn::fail(const absl::Status& status) {
  health_ = status;
  actions_.clear();
  batch_ = {};
  timer_due_ = false;
  std::vector<uint64_t> requests = std::exchange(requests_, {});
  for (const Event& event : std::exchange(queue_, {})) {
    if (const uint64_t request = request_of(event)) requests.push_back(request);
  }
  for (const uint64_t request : requests) host_.refuse(request, status);
  stepped_ = posted_;
  answer_waiting(status);
  host_.state_lost(status);
  restore_delay_ms_ = kFirstRestoreDelayMs;
  host_.restore(restore_delay_ms_);
}

void Turn::restored(absl::StatusOr<std::unique_ptr<Core>> core) {
  if (!core.ok()) {
    health_ = core.status();
    restore_delay_ms_ = std::min(restore_delay_ms_ * 2, kMaxRestoreDelayMs);
    host_.restore(restore_delay_ms_);
    return;
  }
  core_ = std::move(*core);
  core_->finish_restore(host_.now());
  health_ = absl::OkStatus();
  timer_due_ = true;
  schedule();
}

void Turn::when_settled(std::function<void(const absl::Status&)> done) {
  when_done(stepped_, std::move(done));
}

void Turn::when_drained(std::function<void(const absl::Status&)> done) {
  when_done(posted_, std::move(done));
}

void Turn::when_done(uint64_t events, std::function<void(const absl::Status&)> done) {
  if (!health_.ok()) {
    done(health_);
  } else if (!committing_ && stepped_ >= events) {
    done(absl::OkStatus());
  } else {
    waiting_.push_back({events, std::move(done)});
  }
}

void Turn::answer_waiting(const absl::Status& status) {
  std::vector<Waiting> all = std::exchange(waiting_, {});
  for (Waiting& waiting : all) {
    if (waiting.events <= stepped_) {
      waiting.done(status);
    } else {
      waiting_.push_back(std::move(waiting));
    }
  }
}

}  // namespace pesc::coordinator
