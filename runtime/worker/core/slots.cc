// What the keeper begins by itself: a slot whose rank has ended takes the next one without waiting
// for two processes to be woken, which costs a short rank as much as its start.
//
// Both sides count alike. The keeper begins the next of a job when fewer run than there were when
// that one was given; each Exited of a running rank of that job takes the first of them into its
// slot here, too. What the keeper says comes in its order, so that an Exited that is heard always
// comes before anything that concerns what was begun in its place. A job's ranks ask for the same
// cpus: those in use stay the same.
#include "runtime/worker/core/state.h"

namespace pesc::worker {
namespace {

// So many for each slot. The worker has the time of one rank to give the following one.
constexpr uint32_t kNextPerSlot = 1;

bool may_be_next(const Attempt& attempt) {
  return !attempt.hold && attempt.spec != nullptr && attempt.grant.gpus.empty();
}

}  // namespace

void Core::State::on(const KeeperFound& e, TimeMs) { keeper_holds_next = e.holds_next; }

void Core::State::enter_slot(const AttemptKey& key, Attempt& attempt) {
  if (attempt.spec != nullptr) ++slots[key.job].running;
}

void Core::State::leave_slot(const AttemptKey& key, Attempt& attempt) {
  if (attempt.spec == nullptr) return;
  const auto of_job = slots.find(key.job);
  --of_job->second.running;
  if (of_job->second.running == 0 && of_job->second.next.empty()) slots.erase(of_job);
}

void Core::State::leave_next(const AttemptKey& key, Attempt& attempt) {
  const auto of_job = slots.find(key.job);
  of_job->second.next.erase(attempt.order);
  --next_count;
  if (of_job->second.running == 0 && of_job->second.next.empty()) slots.erase(of_job);
}

// One of the job has left its slot.
void Core::State::begin_next(const JobId& job) {
  const auto of_job = slots.find(job);
  if (of_job == slots.end() || of_job->second.next.empty()) return;
  const AttemptKey key = of_job->second.next.begin()->second;
  Attempt& attempt = attempts.at(key);
  // First into the slot, so that the job's entry stays.
  cpus_used_milli += cpus_of(attempt.spec);
  enter_slot(key, attempt);
  leave_next(key, attempt);
  attempt.state = AttemptState::starting;
}

// In lease order, as always: whatever is first waits for all others, if it cannot be one of these.
void Core::State::give_next() {
  if (!keeper_holds_next || !busy.empty() || draining) return;
  // What was adopted beyond the limit makes room with its end.
  if (cpus_used_milli > config.cpus_milli) return;
  while (!ready.empty()) {
    const AttemptKey key = ready.begin()->second;
    Attempt& attempt = attempts.at(key);
    const auto of_job = slots.find(key.job);
    if (!may_be_next(attempt) || of_job == slots.end()) return;
    KeeperSlots& keepers = of_job->second;
    if (keepers.next.size() >= uint64_t{kNextPerSlot} * keepers.running) return;
    leave_state(key, attempt);
    attempt.state = AttemptState::next;
    keepers.next.emplace(attempt.order, key);
    ++next_count;
    Start start{key,          attempt.spec, {}, 0, attempt.local_rank, attempt.local_world_size,
                attempt.grant};
    start.most_of_job = keepers.running;
    out.actions.push_back(std::move(start));
  }
}

// What has begun by then runs on.
void Core::State::take_back_next(const AttemptKey& key, Attempt& attempt, const std::string& why) {
  if (attempt.stop.has_value()) return;  // it ends in any case
  attempt.stop_detail = why;
  out.actions.push_back(worker::Stop{key, EndReason::vacated, 0, true});
}

void Core::State::never_begun(const AttemptKey& key, Attempt& attempt,
                              const AttemptOutcome& outcome) {
  std::string detail = attempt.stop_detail.empty() ? outcome.detail : attempt.stop_detail;
  end_before_start(key, attempt, attempt.stop.value_or(outcome.reason), std::move(detail));
}

std::string Core::State::check_slots() const {
  std::map<JobId, uint32_t> running, next;
  uint32_t all_next = 0;
  for (const auto& [key, attempt] : attempts) {
    if (attempt.spec == nullptr) continue;
    if (attempt.state == AttemptState::starting || attempt.state == AttemptState::running) {
      ++running[key.job];
    } else if (attempt.state == AttemptState::next) {
      ++all_next;
      ++next[key.job];
      const auto of_job = slots.find(key.job);
      if (of_job == slots.end() || !of_job->second.next.contains(attempt.order)) {
        return to_string(key) + " comes next, but in no slot";
      }
    }
  }
  if (all_next != next_count) return "the count of what comes next is wrong";
  for (const auto& [job, of_job] : slots) {
    if (of_job.running != running[job] || of_job.next.size() != next[job]) {
      return "the keeper's slots of job " + to_string(job) + " are counted wrong";
    }
    if (of_job.running == 0 && !of_job.next.empty()) {
      return "of job " + to_string(job) + " ranks come next that nothing will begin";
    }
  }
  return {};
}

}  // namespace pesc::worker
