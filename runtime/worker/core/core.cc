#include "runtime/worker/core/core.h"

#include "runtime/worker/core/state.h"

namespace pesc::worker {

Core::Core(CoreConfig config) : state_(std::make_unique<State>(config)) {}
Core::~Core() = default;

Step Core::step(const Event& event, TimeMs now) {
  state_->out = {};
  std::visit([&](const auto& e) { state_->on(e, now); }, event);
  state_->advance(now);
  return std::move(state_->out);
}

std::optional<TimeMs> Core::next_deadline() const { return state_->next_deadline(); }
std::string Core::check_invariants() const { return state_->check_invariants(); }
std::vector<AttemptKey> Core::holding() const { return state_->holding(); }
const std::string& Core::busy() const { return state_->busy; }
uint32_t Core::cpus_used_milli() const { return state_->cpus_used_milli; }

std::vector<AttemptView> Core::attempts() const {
  std::vector<AttemptView> views;
  views.reserve(state_->attempts.size());
  for (const auto& [key, attempt] : state_->attempts) {
    views.push_back({key, attempt.state, attempt.spec});
  }
  return views;
}

#ifdef PESC_PLANTED_BUGS
void Core::plant(PlantedBug bug) { state_->bug = bug; }
#endif

std::optional<TimeMs> Core::State::next_deadline() const {
  std::optional<TimeMs> deadline;
  if (connected) {
    deadline = small_in_flight() == 0 ? std::min(next_heartbeat, next_upkeep) : next_upkeep;
  }
  // Away from the coordinator a retry would only fail again: Connected brings them all back.
  if (connected && !retry_at.empty()) {
    deadline = std::min(*deadline, retry_at.begin()->first);
  }
  if (connected && !save_at.empty()) deadline = std::min(*deadline, save_at.begin()->first);
  // With a report under way its answer is waited for.
  if (connected && !unreported_small.empty() && small_in_flight() == 0) {
    deadline = std::min(*deadline, next_small_report);
  }
  if (away_since && config.detached_limit_ms > 0 && !attempts.empty()) {
    deadline = *away_since + static_cast<TimeMs>(config.detached_limit_ms);
  }
  return deadline;
}

std::string Core::State::check_invariants() const {
  uint32_t used = 0, seen_preparing = 0;
  size_t in_leased = 0, in_ready = 0, ended = 0, waking = 0;
  for (const auto& [key, attempt] : attempts) {
    if (attempt.saves.wake) {
      ++waking;
      if (!save_at.contains({*attempt.saves.wake, key})) {
        return to_string(key) + " waits for a time to save that will not come";
      }
    }
    if (attempt.gang_ready && attempt.state != AttemptState::held) {
      return to_string(key) + " says ready, but is not held";
    }
    switch (attempt.state) {
      case AttemptState::leased:
        ++in_leased;
        break;
      case AttemptState::preparing:
        ++seen_preparing;
        break;
      case AttemptState::ready:
        ++in_ready;
        if (!ready.contains({!attempt.hold, attempt.order}))
          return to_string(key) + " is ready but not queued";
        break;
      case AttemptState::held:
        if (!attempt.hold) return to_string(key) + " is held but of no gang";
        used += cpus_of(attempt.spec);
        break;
      case AttemptState::next:
        break;
      case AttemptState::starting:
      case AttemptState::running:
        used += cpus_of(attempt.spec);
        break;
      case AttemptState::building:
        if (attempt.spec->build.empty()) return to_string(key) + " waits for a build of nothing";
        break;
      case AttemptState::saving:
        if (!attempt.saves.last) return to_string(key) + " saves after its end, but not its last";
        if (!attempt.saves.under_way && !attempt.saves.pending) {
          return to_string(key) + " is saving, and nothing is to be saved";
        }
        if (!attempt.saves.under_way && connected && !attempt.saves.wake) {
          return to_string(key) + " waits for a save that nobody begins";
        }
        break;
      case AttemptState::packing:
        break;
      case AttemptState::finished:
        ++ended;
        if (attempt.report != 0 && !in_flight.contains(attempt.report)) {
          return to_string(key) + " names a report that is not in flight";
        }
        break;
    }
  }
  if (used != cpus_used_milli) {
    return "cpus in use are " + std::to_string(used) + ", accounted are " +
           std::to_string(cpus_used_milli);
  }
  if (used > config.cpus_milli + adopted_excess_milli) {
    return std::to_string(used) + " cpus (thousandths) in use of " +
           std::to_string(config.cpus_milli);
  }
  if (std::string wrong = check_slots(); !wrong.empty()) return wrong;
  if (seen_preparing != preparing) return "the count of attempts being prepared is wrong";
  if (preparing > config.max_preparing) return "too many attempts are being prepared";
  if (in_leased != leased.size() + retry_at.size()) return "a leased attempt is in no queue";
  if (in_ready != ready.size()) return "the queue of ready attempts is wrong";
  if (waking != save_at.size()) return "the queue of saves is wrong";
  size_t carried = 0;
  for (const auto& [number, report] : in_flight) carried += report.keys.size();
  if (ended != unreported_small.size() + unreported_large.size() + unanswered.size() + carried) {
    return "an ended attempt is in no report and in no queue, or in two";
  }
  return {};
}

}  // namespace pesc::worker
