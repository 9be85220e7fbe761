// Leases beyond the free cpus. A slot whose rank has ended takes the next one at once, instead of
// waiting for a report, a commit and an update; and one commit takes many short ranks.
#include <algorithm>
#include <utility>

#include "runtime/coordinator/core/state.h"

namespace pesc::coordinator {

// A power of two, so that a mean that moves a little leaves the job in its queue.
uint32_t Core::State::times_ahead(const Job& job) const {
  if (job.measured == 0 || job.measured_ms >= config.prefetch_below_ms * job.measured) return 0;
  const uint64_t mean_ms = std::max<uint64_t>(job.measured_ms / job.measured, 1);
  uint32_t times = 1;
  while (times * 2 <= config.prefetch_most && times * 2 * mean_ms <= config.prefetch_for_ms) {
    times *= 2;
  }
  return times;
}

// Where the least is ahead for the worker's size: so all of them come to their ends together. Those
// that are stuck leave the index until something ends there; of others that cannot have it only so
// many are looked at.
Worker* Core::State::choose_ahead(RoomIndex& room, const Demand& demand, WorkerId avoid) {
  constexpr int kLook = 64;
  if (ahead_total >= config.prefetch_total) return nullptr;
  Worker* second_choice = nullptr;
  int looked = 0;
  for (auto it = room.by_load.begin(); it != room.by_load.end() && looked < kLook;) {
    if (it->first >= int64_t(demand.ahead) * 1000) break;
    Worker& worker = workers.at(it->second);
    ++it;
    if (is_stuck(worker)) {
      leave_load_index(worker);
      continue;
    }
    ++looked;
    // A rank larger than its whole worker would wait there for ever.
    if (demand.need.cpus_milli > worker.info.cpus_milli || !worker.has_spare(demand)) continue;
    if (!worker.claim_for(demand.need) || !may_go_ahead(worker, demand)) continue;
    if (worker.info.id != avoid) return &worker;
    second_choice = &worker;
  }
  return second_choice;
}

// Where room is kept for somebody (a gang, an owner who has less) nothing is: it would take each
// cpu that becomes free.
bool Core::State::may_go_ahead(const Worker& worker, const Demand& demand) const {
  return demand.ahead > 0 && worker.reserved_milli == 0 && ahead_total < config.prefetch_total &&
         !is_stuck(worker);
}

// Its ranks are short on the average; those that it runs now are not.
bool Core::State::is_stuck(const Worker& worker) const {
  return now - worker.last_end >= TimeMs(config.prefetch_patience_ms);
}

// With thousands of workers whose ranks are over at once what they say waits here for its turn.
// What is taken back then has ended, and would only be done again.
TimeMs Core::State::patience_ms(const Worker& worker) const {
  const TimeMs lag = std::min(std::max(worker.lag_ms, lag_ms), TimeMs(2 * config.heartbeat_ms));
  return TimeMs(config.prefetch_patience_ms) + lag;
}

// What was leased ahead counts as begun only when another end is heard of, so of those that end
// together it is the one that was heard of latest that tells.
void Core::State::hear_lag(const OpenAttempt& open, const AttemptOutcome& outcome) {
  if (open.started == kNever || outcome.reason != EndReason::succeeded) return;
  heard_lag_ms = std::max(heard_lag_ms, now - open.started - TimeMs(outcome.duration_ms));
}

void Core::State::note_lag(Worker& worker) {
  const TimeMs heard = std::exchange(heard_lag_ms, 0);
  worker.lag_ms = std::max(heard, worker.lag_ms / 2);
  lag_ms = std::max(heard, lag_ms - (lag_ms + 7) / 8);
}

void Core::State::count_ahead(Job& job, bool more) {
  job.ahead_leases += more ? 1 : -1;
  ahead_total += more ? 1 : -1;
  if (more || ahead_total + 1 != config.prefetch_total) return;
  for (auto& [demand, queue] : queues) {
    if (demand.ahead > 0 && !queue.impossible) queue.blocked = false;
  }
}

void Core::State::watch_ahead(Worker& worker, TimeMs at) {
  if (worker.ahead_at != kNever) aheads.erase({worker.ahead_at, worker.info.id});
  worker.ahead_at = at;
  if (at != kNever) aheads.insert({at, worker.info.id});
}

bool Core::State::take_back_aheads() {
  bool any = false;
  size_t budget = std::max<size_t>(config.max_placements_per_step, 1);
  while (!aheads.empty() && aheads.begin()->first <= now && budget-- > 0) {
    Worker& worker = workers.at(aheads.begin()->second);
    if (worker.ahead.empty()) {
      watch_ahead(worker, kNever);
    } else if (now - worker.last_end < patience_ms(worker)) {
      watch_ahead(worker, worker.last_end + patience_ms(worker));
    } else {
      watch_ahead(worker, now + patience_ms(worker));
      any = take_back(worker) || any;
    }
  }
  return any;
}

// As many as others could begin now, those first that would come last here. One that has begun all
// the same is stopped.
bool Core::State::take_back(Worker& worker) {
  constexpr int kLook = 16;
  int64_t free = 0;
  int looked = 0;
  const auto room = rooms.find("");
  if (room == rooms.end()) return false;
  for (const auto& [negated_free, id] : room->second.by_free) {
    if (negated_free >= 0 || ++looked > kLook) break;
    if (id != worker.info.id) free -= negated_free;
  }
  std::vector<AttemptKey> back;
  for (auto it = worker.ahead.rbegin(); it != worker.ahead.rend(); ++it) {
    const Job& job = jobs.at(it->second.job);
    free -= int64_t(worker.leases.at(it->second).cpus_milli);
    if (free < 0) break;
    if (job.gang) continue;
    const Demand demand{job.spec->room, need_of(job), 0, 0, false};
    if (!job.stopped && choose_worker(job, demand, worker.info.id) != nullptr)
      back.push_back(it->second);
  }
  for (const AttemptKey& key : back) {
    const ActiveRank& rank = jobs.at(key.job).active.at(key.rank);
    AttemptOutcome outcome;
    outcome.reason = EndReason::vacated;
    outcome.exit_code = -1;
    outcome.detail = "waited for a cpu while another worker had one free";
    emit(AttemptEnded{key, std::move(outcome), false,
                      rank.open.size() > 1 ? RankState::running : RankState::waiting});
    send_stop(worker.info.id, key, EndReason::revoked);
  }
  return !back.empty();
}

}  // namespace pesc::coordinator
