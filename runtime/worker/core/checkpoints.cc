// When a rank's checkpoint_dir is saved.
//
// A program that has ever said `checkpoint` is saved at its word only: at other times its directory
// may be half written. One that never did is saved at the job's interval and when it has ended.
// What is asked for while a save runs, or too soon after one, stays pending.
#include <signal.h>

#include <algorithm>

#include "runtime/worker/core/state.h"

namespace pesc::worker {
namespace {

// However cheap the saves are: each costs the coordinator a commit.
constexpr TimeMs kLeastRestMs = 1'000;
// After one that failed (the directory changed meanwhile, the coordinator has no room).
constexpr TimeMs kAgainMs = 1'000;
// A program that leaves by itself so soon has computed nothing. What it began from may be what it
// died of: whatever it changed of that would be a new checkpoint, as bad as the old one, and never
// passed over.
constexpr uint64_t kAtOnceMs = 2'000;
// The last one of an attempt is given up after so many failures with a coordinator there.
constexpr uint32_t kLastTries = 3;

bool may_be_tried_again(const Attempt& attempt) {
  return !uses_up_a_retry(attempt.outcome.reason) || attempt.spec->retries > 0;
}

bool was_killed(const AttemptOutcome& outcome) {
  return outcome.signal == SIGKILL || outcome.reason == EndReason::out_of_memory;
}

// Whether a next attempt could begin from what is there now that the program has left.
bool worth_saving(const Attempt& attempt) {
  switch (attempt.outcome.reason) {
    case EndReason::cannot_start:
    case EndReason::inputs_unavailable:
    case EndReason::cancelled:
    case EndReason::worker_lost:
      return false;
    case EndReason::succeeded:
    case EndReason::revoked:
      // The rank has its result, or another attempt has it. But of a gang the others may fail, and
      // all begin again.
      return attempt.spec->parallel && attempt.saves.pending;
    default:
      break;
  }
  if (!may_be_tried_again(attempt)) return false;
  if (attempt.saves.marked) return attempt.saves.pending;
  if (was_killed(attempt.outcome)) return false;
  // One that was told to leave has not died of what it began from, however short it ran.
  const bool told = attempt.outcome.reason == EndReason::vacated ||
                    attempt.outcome.reason == EndReason::time_limit;
  return told || attempt.outcome.duration_ms >= kAtOnceMs;
}

// It was told to stop, and no other attempt will begin from what it leaves. (Of a gang that is
// stopped all begin again.)
bool given_up(const Attempt& attempt) {
  if (attempt.stop == EndReason::cancelled) return true;
  return attempt.stop == EndReason::revoked && (attempt.spec == nullptr || !attempt.spec->parallel);
}

}  // namespace

void Core::State::begin_saves(Attempt& attempt, TimeMs now) {
  if (attempt.spec == nullptr || attempt.spec->checkpoint_every_ms == 0) return;
  attempt.saves.next_interval = now + static_cast<TimeMs>(attempt.spec->checkpoint_every_ms);
}

void Core::State::wake_at(const AttemptKey& key, Attempt& attempt, std::optional<TimeMs> when) {
  if (attempt.saves.wake == when) return;
  if (attempt.saves.wake) save_at.erase({*attempt.saves.wake, key});
  attempt.saves.wake = when;
  if (when) save_at.emplace(*when, key);
}

// Begins what may begin, and plans what may begin later.
void Core::State::consider_save(const AttemptKey& key, Attempt& attempt, TimeMs now) {
  Saves& saves = attempt.saves;
  const bool running = attempt.state == AttemptState::running && !given_up(attempt);
  std::optional<TimeMs> due;
  if (!saves.under_way && (running || attempt.state == AttemptState::saving)) {
    if (saves.pending) {
      due = saves.not_before;
    } else if (running && !saves.marked && saves.next_interval) {
      due = std::max(*saves.next_interval, saves.not_before);
    }
  }
  // Away from the coordinator nothing can be saved: Connected looks at all of them again.
  if (due && *due <= now) {
    if (connected) return save(key, attempt, now);
    saves.pending = true;
    due.reset();
  }
  wake_at(key, attempt, connected ? due : std::nullopt);
}

void Core::State::save(const AttemptKey& key, Attempt& attempt, TimeMs now) {
  Saves& saves = attempt.saves;
  wake_at(key, attempt, std::nullopt);
  saves.under_way = true;
  saves.pending_was = std::exchange(saves.pending, false);
  saves.began = now;
  if (saves.next_interval) {
    saves.next_interval = now + static_cast<TimeMs>(attempt.spec->checkpoint_every_ms);
  }
  out.actions.push_back(SaveCheckpoint{key});
}

void Core::State::save_due(TimeMs now) {
  while (connected && !save_at.empty() && save_at.begin()->first <= now) {
    const AttemptKey key = save_at.begin()->second;
    Attempt& attempt = attempts.at(key);
    wake_at(key, attempt, std::nullopt);
    consider_save(key, attempt, now);
  }
}

void Core::State::save_all_waiting(TimeMs now) {
  for (auto& [key, attempt] : attempts) {
    if (attempt.state == AttemptState::running || attempt.state == AttemptState::saving) {
      consider_save(key, attempt, now);
    }
  }
}

void Core::State::on(const CheckpointMarked& e, TimeMs now) {
  Attempt* attempt = find(e.key);
  if (attempt == nullptr) return;
  if (attempt->state != AttemptState::starting && attempt->state != AttemptState::running) return;
  attempt->saves.marked = attempt->saves.pending = true;
  if (attempt->state == AttemptState::running) consider_save(e.key, *attempt, now);
}

// A save that was under way when the lid was closed did not cost the night.
void Core::State::on(const WasAbsent& e, TimeMs now) {
  for (auto& [key, attempt] : attempts) {
    Saves& saves = attempt.saves;
    if (saves.under_way) saves.began = std::min(saves.began + e.ms, now);
  }
}

void Core::State::on(const CheckpointSaved& e, TimeMs now) {
  Attempt* attempt = find(e.key);
  if (attempt == nullptr || !attempt->saves.under_way) return;
  Saves& saves = attempt->saves;
  saves.under_way = false;
  const TimeMs cost = std::max<TimeMs>(now - saves.began, 0);
  const TimeMs rest = std::max(kLeastRestMs, cost * config.checkpoint_rest_factor);
  tell_trouble(e.key, *attempt, e);
  if (attempt->state == AttemptState::running) {
    // One that failed cost the rank as much. An interval simply comes again.
    saves.not_before = now + rest;
    saves.pending = saves.pending || (!e.saved && saves.pending_was);
    consider_save(e.key, *attempt, now);
    return;
  }
  if (attempt->state != AttemptState::saving) return;
  if (e.saved) {
    saves.not_before = now;  // the program is gone: nothing is slowed by the next
    if (!saves.pending) return saved_last(e.key, *attempt);
  } else {
    saves.pending = saves.pending || saves.pending_was;
    if (!saves.pending) return saved_last(e.key, *attempt);
    if (connected && ++saves.failures >= kLastTries) {
      std::string& detail = attempt->outcome.detail;
      detail += (detail.empty() ? "" : "; ") + attempt->progress.trouble;
      return saved_last(e.key, *attempt);
    }
    saves.not_before = now + kAgainMs;
  }
  consider_save(e.key, *attempt, now);
}

// A program that computes on for days must not do so in the belief that it could go on from there.
void Core::State::tell_trouble(const AttemptKey& key, Attempt& attempt, const CheckpointSaved& e) {
  if (attempt.state != AttemptState::running && attempt.state != AttemptState::saving) return;
  // Without a coordinator none can be saved, and nobody can be told.
  if (!e.saved && (!connected || given_up(attempt))) return;
  std::string trouble = e.saved ? "" : "checkpoint not saved: " + e.detail;
  if (trouble == attempt.progress.trouble) return;
  attempt.progress.key = key;
  attempt.progress.trouble = std::move(trouble);
  attempt.progress_fresh = true;
}

bool Core::State::save_last(const AttemptKey& key, Attempt& attempt, TimeMs now) {
  Saves& saves = attempt.saves;
  const bool wanted = attempt.spec != nullptr && !given_up(attempt);
  const bool worth = wanted && worth_saving(attempt);
  // What is on its way is worth the wait if another attempt may begin from it.
  const bool wait = wanted && saves.under_way && attempt.outcome.reason != EndReason::cancelled &&
                    (attempt.spec->parallel ||
                     (attempt.outcome.reason != EndReason::succeeded &&
                      attempt.outcome.reason != EndReason::revoked && may_be_tried_again(attempt)));
  if (!worth && !wait) {
    end_saves(key, attempt);
    return false;
  }
  saves.last = true;
  saves.pending = worth;
  saves.not_before = now;
  attempt.state = AttemptState::saving;
  attempt.progress_fresh = false;
  consider_save(key, attempt, now);
  return true;
}

void Core::State::end_saves(const AttemptKey& key, Attempt& attempt) {
  wake_at(key, attempt, std::nullopt);
  attempt.saves.pending = false;
}

void Core::State::saved_last(const AttemptKey& key, Attempt& attempt) {
  end_saves(key, attempt);
  pack_or_finish(key, attempt);
}

void Core::State::stop_saving(const AttemptKey& key, Attempt& attempt, EndReason reason) {
  attempt.stop = reason;
  if (reason != EndReason::revoked && reason != EndReason::cancelled) return;
  if (reason == EndReason::cancelled || !keeps_reason(attempt)) attempt.outcome.reason = reason;
  // A gang that begins again begins from it.
  if (reason == EndReason::revoked && attempt.spec->parallel) return;
  saved_last(key, attempt);
}

}  // namespace pesc::worker
