// The life of an attempt, from its lease to its end.
#include <algorithm>

#include "runtime/worker/core/state.h"

namespace pesc::worker {
namespace {

std::string cpus_text(uint32_t milli) {
  std::string text = std::to_string(milli / 1'000);
  if (milli % 1'000 == 0) return text;
  std::string part = std::to_string(milli % 1'000);
  text += "." + std::string(3 - part.size(), '0') + part;
  while (text.back() == '0') text.pop_back();
  return text;
}

std::string busy_detail(const std::string& busy) { return "its worker is busy: " + busy; }

bool is_being_prepared(AttemptState state) {
  return state == AttemptState::preparing || state == AttemptState::building;
}

AttemptOutcome outcome_without_run(EndReason reason, std::string detail) {
  AttemptOutcome outcome;
  outcome.reason = reason;
  outcome.exit_code = -1;
  outcome.detail = std::move(detail);
  return outcome;
}

// The keeper saw a program die of the signal, or leave because of it; why it was sent is known
// here. A program that succeeded before the signal reached it has succeeded.
// What takes what others were promised ends at once.
uint64_t grace_ms(const Attempt& attempt, EndReason reason) {
  if (reason == EndReason::gpu_memory_limit || reason == EndReason::disk_limit) return 0;
  return attempt.spec == nullptr ? 10'000 : attempt.spec->grace_ms;
}

// So many times what runs at once is prepared ahead, for ranks so short that more are leased.
constexpr uint32_t kReadyTimes = 4;

void apply_stop(AttemptOutcome& outcome, EndReason stop) {
  if (outcome.reason == EndReason::signal || outcome.reason == EndReason::exit_code) {
    outcome.reason = stop;
  }
}

}  // namespace

void Core::State::on(const UpdateReceived& e, TimeMs) {
  last_update = std::max(last_update, e.number);
  for (const auto& lease : e.leases) add_lease(lease);
  if (!e.leases.empty()) most_waiting = waiting();
  for (const auto& stop : e.stop) stop_attempt(stop, stop.detail);
  for (const auto& order : e.start) start_held(order);
}

void Core::State::add_lease(const UpdateReceived::Lease& lease) {
  auto [it, added] = attempts.try_emplace(lease.key);
  if (!added) return;  // sent again: it is here already
  Attempt& attempt = it->second;
  attempt.order = next_order++;
  attempt.spec = lease.spec;
  attempt.checkpoint = lease.checkpoint;
  attempt.hold = lease.hold;
  attempt.local_rank = lease.local_rank;
  attempt.local_world_size = lease.local_world_size;
  attempt.grant = lease.grant;
  leased.emplace(attempt.order, lease.key);
  if (lease.spec == nullptr) {
    end_before_start(lease.key, attempt, EndReason::inputs_unavailable,
                     "the lease came without the job's description");
  } else if (draining) {
    end_before_start(lease.key, attempt, EndReason::vacated, "the worker is shutting down");
  } else if (!busy.empty()) {  // it was on its way when the coordinator was told
    end_before_start(lease.key, attempt, EndReason::vacated, busy_detail(busy));
  } else if (cpus_of(lease.spec) > config.cpus_milli) {
    end_before_start(lease.key, attempt, EndReason::cannot_start,
                     "needs " + cpus_text(cpus_of(lease.spec)) + " cpus, the worker has " +
                         cpus_text(config.cpus_milli));
  }
}

// Takes an attempt out of the queue or the count of its state.
void Core::State::leave_state(const AttemptKey& key, Attempt& attempt) {
  switch (attempt.state) {
    case AttemptState::leased:
      if (leased.erase(attempt.order) == 0) {
        std::erase_if(retry_at, [&](const auto& entry) { return entry.second == key; });
      }
      break;
    case AttemptState::preparing:
      --preparing;
      break;
    case AttemptState::ready:
      ready.erase({!attempt.hold, attempt.order});
      break;
    case AttemptState::next:
      leave_next(key, attempt);
      break;
    case AttemptState::starting:
    case AttemptState::running:
      leave_slot(key, attempt);
      [[fallthrough]];
    case AttemptState::held:
      attempt.gang_ready = false;
      cpus_used_milli -= cpus_of(attempt.spec);
      // The allowance shrinks with what it was made for.
      adopted_excess_milli =
          std::min(adopted_excess_milli,
                   cpus_used_milli > config.cpus_milli ? cpus_used_milli - config.cpus_milli : 0);
      break;
    case AttemptState::building:
    case AttemptState::saving:
    case AttemptState::packing:
    case AttemptState::finished:
      break;
  }
}

void Core::State::end_before_start(const AttemptKey& key, Attempt& attempt, EndReason reason,
                                   std::string detail) {
  if (is_being_prepared(attempt.state) || attempt.state == AttemptState::ready ||
      attempt.state == AttemptState::held) {
    out.actions.push_back(CancelPrepare{key});
  }
  attempt.outcome = outcome_without_run(reason, std::move(detail));
  leave_state(key, attempt);
  finish(key, attempt);
}

void Core::State::stop_attempt(const UpdateReceived::Stop& stop, const std::string& detail) {
  Attempt* attempt = find(stop.key);
  if (attempt == nullptr) return;
  switch (attempt->state) {
    case AttemptState::leased:
    case AttemptState::preparing:
    case AttemptState::building:
    case AttemptState::ready:
    case AttemptState::held:
      end_before_start(stop.key, *attempt, stop.reason,
                       detail.empty() ? "stopped before it was started" : detail);
      break;
    case AttemptState::next:
    case AttemptState::starting:
    case AttemptState::running:
      if (attempt->stop.has_value()) return;  // the keeper has been told
      if (bug == PlantedBug::ignore_stop) return;
      attempt->stop = stop.reason;
      attempt->stop_detail = detail;
      out.actions.push_back(worker::Stop{stop.key, stop.reason, grace_ms(*attempt, stop.reason)});
      break;
    case AttemptState::saving:
      stop_saving(stop.key, *attempt, stop.reason);
      break;
    case AttemptState::packing:
      // Its files are being read: what becomes of them is decided when that ends.
      attempt->stop = stop.reason;
      break;
    case AttemptState::finished:
      if (attempt->report != 0) break;
      if (stop.reason == EndReason::cancelled) attempt->outcome.reason = stop.reason;
      if (unwanted(stop.reason)) attempt->stop = stop.reason;
      // Nobody wants it: it is not worth an upload that has not begun.
      if (unwanted(stop.reason)) {
        if (unreported_large.erase(attempt->order) != 0) {
          unreported_small.emplace(attempt->order, stop.key);
        }
        if (!keeps_reason(*attempt)) attempt->outcome.reason = stop.reason;
        attempt->outcome.output = {};
      }
      break;
  }
}

void Core::State::on(const Prepared& e, TimeMs) {
  Attempt* attempt = find(e.key);
  if (attempt == nullptr || attempt->state != AttemptState::preparing) return;
  leave_state(e.key, *attempt);
  attempt->state = AttemptState::ready;
  ready.emplace(std::pair(!attempt->hold, attempt->order), e.key);
}

void Core::State::on(const PrepareFailed& e, TimeMs now) {
  Attempt* attempt = find(e.key);
  if (attempt == nullptr || !is_being_prepared(attempt->state)) return;
  leave_state(e.key, *attempt);
  attempt->state = AttemptState::leased;
  say_trouble(*attempt, "");
  // A failure without a coordinator says nothing about the inputs.
  if (connected) ++attempt->prepare_tries;
  if (e.may_pass && attempt->prepare_tries < config.max_prepare_tries) {
    retry_at.emplace(now + static_cast<TimeMs>(config.prepare_retry_ms), e.key);
    return;
  }
  attempt->outcome = outcome_without_run(e.reason, e.detail);
  attempt->outcome.exit_code = e.exit_code;
  attempt->outcome.output = e.output;
  finish(e.key, *attempt);
}

void Core::State::say_trouble(Attempt& attempt, std::string text) {
  if (attempt.progress.trouble == text) return;
  attempt.progress.trouble = std::move(text);
  attempt.progress_fresh = true;
}

// The first one is told at once: whoever has just submitted the job wants to know.
void Core::State::on(const BuildAwaited& e, TimeMs) {
  Attempt* attempt = find(e.key);
  if (attempt == nullptr || attempt->state != AttemptState::preparing) return;
  const bool told = std::any_of(attempts.begin(), attempts.end(), [](const auto& other) {
    return other.second.state == AttemptState::building;
  });
  if (!told) say_progress = true;
  leave_state(e.key, *attempt);
  attempt->state = AttemptState::building;
  attempt->progress.key = e.key;
  say_trouble(*attempt, e.what);
}

void Core::State::on(const BuildDone& e, TimeMs) {
  Attempt* attempt = find(e.key);
  if (attempt == nullptr || attempt->state != AttemptState::building) return;
  attempt->state = AttemptState::leased;
  leased.emplace(attempt->order, e.key);
  say_trouble(*attempt, "");
}

void Core::State::on(const Started& e, TimeMs now) {
  Attempt* attempt = find(e.key);
  if (attempt == nullptr || attempt->state != AttemptState::starting) return;
  attempt->state = AttemptState::running;
  attempt->outcome.started_unix_ms = e.unix_ms;
  begin_saves(*attempt, now);
  consider_save(e.key, *attempt, now);
}

void Core::State::on(const Exited& e, TimeMs now) {
  Attempt* attempt = find(e.key);
  if (attempt == nullptr) return;
  const bool had_slot =
      attempt->state == AttemptState::starting || attempt->state == AttemptState::running;
  if (attempt->state == AttemptState::next) {
    // One that the keeper was told not to begin.
    if (e.outcome.started_unix_ms == 0) return never_begun(e.key, *attempt, e.outcome);
  } else if (!had_slot) {
    return;
  }
  leave_state(e.key, *attempt);
  if (had_slot) begin_next(e.key.job);
  attempt->outcome = e.outcome;
  if (attempt->stop.has_value()) {
    apply_stop(attempt->outcome, *attempt->stop);
    if (!attempt->stop_detail.empty() && attempt->outcome.reason == *attempt->stop) {
      attempt->outcome.detail = attempt->stop_detail;
    }
  }
  if (!save_last(e.key, *attempt, now)) pack_or_finish(e.key, *attempt);
}

void Core::State::pack_or_finish(const AttemptKey& key, Attempt& attempt) {
  const EndReason why = attempt.stop.value_or(attempt.outcome.reason);
  if (unwanted(why) || unwanted(attempt.outcome.reason) || attempt.spec == nullptr) {
    finish(key, attempt);
    return;
  }
  attempt.state = AttemptState::packing;
  out.actions.push_back(Pack{key, attempt.spec, attempt.outcome});
}

void Core::State::on(const Packed& e, TimeMs) {
  Attempt* attempt = find(e.key);
  if (attempt == nullptr || attempt->state != AttemptState::packing) return;
  attempt->outcome.uncollected = e.uncollected;
  const bool dropped = attempt->stop.has_value() && unwanted(*attempt->stop);
  if ((dropped && !keeps_reason(*attempt)) || attempt->stop == EndReason::cancelled) {
    attempt->outcome.reason = *attempt->stop;
  }
  if (!dropped) attempt->outcome.output = e.output;
  finish(e.key, *attempt);
}

void Core::State::on(const PackFailed& e, TimeMs) {
  Attempt* attempt = find(e.key);
  if (attempt == nullptr || attempt->state != AttemptState::packing) return;
  attempt->outcome.reason = e.reason;
  attempt->outcome.detail = e.detail;
  finish(e.key, *attempt);
}

void Core::State::on(const Progressed& e, TimeMs) {
  Attempt* attempt = find(e.key);
  if (attempt == nullptr || attempt->state != AttemptState::running) return;
  std::string trouble = std::move(attempt->progress.trouble);
  attempt->progress = e;
  attempt->progress.trouble = std::move(trouble);
  attempt->progress_fresh = true;
}

void Core::State::on(const Adopted& e, TimeMs now) {
  auto [it, added] = attempts.try_emplace(e.key);
  if (!added) return;
  Attempt& attempt = it->second;
  attempt.order = next_order++;
  attempt.spec = e.spec;
  attempt.outcome = e.outcome;
  attempt.saves.marked = attempt.saves.pending = e.marked;
  if (!e.running) {
    if (!save_last(e.key, attempt, now)) pack_or_finish(e.key, attempt);
    return;
  }
  attempt.state = AttemptState::running;
  cpus_used_milli += cpus_of(e.spec);
  enter_slot(e.key, attempt);
  begin_saves(attempt, now);
  consider_save(e.key, attempt, now);
  if (cpus_used_milli > config.cpus_milli) {
    adopted_excess_milli = cpus_used_milli - config.cpus_milli;
  }
}

void Core::State::on(const KeeperLost&, TimeMs) {
  keeper_holds_next = false;
  for (auto& [key, attempt] : attempts) {
    // Which of those that came next it had begun nobody knows.
    if (attempt.state != AttemptState::starting && attempt.state != AttemptState::running &&
        attempt.state != AttemptState::next) {
      continue;
    }
    leave_state(key, attempt);
    end_saves(key, attempt);
    const int64_t started = attempt.outcome.started_unix_ms;
    attempt.outcome = outcome_without_run(EndReason::worker_lost,
                                          "the worker's keeper ended, and the rank with it");
    attempt.outcome.started_unix_ms = started;
    finish(key, attempt);
  }
}

void Core::State::on(const DrainRequested&, TimeMs) {
  draining = true;
  give_back_unstarted("the worker is shutting down");
}

void Core::State::on(const BusyChanged& e, TimeMs) {
  if (busy == e.busy) return;
  busy = e.busy;
  say_busy = true;
  if (!busy.empty()) give_back_unstarted(busy_detail(busy));
}

void Core::State::on(const ReportWanted&, TimeMs) { say_busy = true; }

// Another worker may have time for them.
void Core::State::give_back_unstarted(const std::string& why) {
  for (auto& [key, attempt] : attempts) {
    if (attempt.state == AttemptState::leased || is_being_prepared(attempt.state) ||
        attempt.state == AttemptState::ready || attempt.state == AttemptState::held) {
      end_before_start(key, attempt, EndReason::vacated, why);
    } else if (attempt.state == AttemptState::next) {
      take_back_next(key, attempt, why);
    }
  }
}

void Core::State::on(const TimerFired&, TimeMs) {}  // advance() does all that is due

void Core::State::stop_detached(TimeMs) {
  away_since.reset();
  gave_up = true;
  const std::string detail =
      "stopped by its worker, which has been out of contact with the "
      "coordinator for " +
      format_duration_ms(config.detached_limit_ms);
  for (const AttemptKey& key : holding()) {
    const AttemptState state = attempts.at(key).state;
    if (state == AttemptState::saving || state == AttemptState::packing ||
        state == AttemptState::finished) {
      continue;
    }
    stop_attempt({key, EndReason::vacated}, detail);
  }
}

void Core::State::start_ready() {
  // Strictly in lease order: a wide rank at the front waits for the cpus it needs instead of being
  // overtaken for ever by narrow ones. Its slots stand idle no longer than the ranks now running.
  while (!ready.empty()) {
    const AttemptKey key = ready.begin()->second;
    Attempt& attempt = attempts.at(key);
    const uint64_t wanted = uint64_t{cpus_used_milli} + cpus_of(attempt.spec);
    if (wanted > config.cpus_milli && bug != PlantedBug::start_beyond_cpus) return give_next();
    leave_state(key, attempt);
    cpus_used_milli += cpus_of(attempt.spec);
    if (attempt.hold) {
      hold(key, attempt);
    } else {
      begin_start(key, attempt, {}, 0);
    }
  }
}

// Enough is prepared for what will begin next. Whatever is leased besides needs no directories yet:
// it gets those of ranks that have ended by then.
bool Core::State::has_enough_ready(const Attempt& next) const {
  const uint64_t count = ready.size() + preparing + next_count;
  return count >= config.max_preparing && !next.hold &&
         count * cpus_of(next.spec) >= uint64_t{kReadyTimes} * config.cpus_milli;
}

void Core::State::prepare_leased() {
  while (preparing < config.max_preparing && !leased.empty()) {
    const AttemptKey key = leased.begin()->second;
    Attempt& attempt = attempts.at(key);
    if (has_enough_ready(attempt)) return;
    leave_state(key, attempt);
    attempt.state = AttemptState::preparing;
    ++preparing;
    out.actions.push_back(Prepare{key, attempt.spec, attempt.checkpoint, attempt.grant.gpus});
  }
}

void Core::State::advance(TimeMs now) {
  // Away from the coordinator a retry would only fail again.
  while (connected && !retry_at.empty() && retry_at.begin()->first <= now) {
    const AttemptKey key = retry_at.begin()->second;
    retry_at.erase(retry_at.begin());
    leased.emplace(attempts.at(key).order, key);
  }
  if (away_since && config.detached_limit_ms > 0 &&
      now - *away_since >= static_cast<TimeMs>(config.detached_limit_ms)) {
    stop_detached(now);
  }
  if (!connected && !away_since && !gave_up) away_since = now;  // since the very first step
  start_ready();  // first: a slot must not wait for the bookkeeping
  prepare_leased();
  save_due(now);
  send_reports(now);
  if (draining && !drained && attempts.empty()) {
    drained = true;
    out.actions.push_back(Drained{});
  }
}

}  // namespace pesc::worker
