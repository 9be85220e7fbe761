#include "tests/sim/keeper.h"

#include <algorithm>
#include <utility>

namespace pesc::sim {
namespace {

AttemptOutcome make_outcome(EndReason reason, int64_t started_unix_ms, TimeMs duration_ms) {
  AttemptOutcome outcome;
  outcome.reason = reason;
  outcome.started_unix_ms = started_unix_ms;
  outcome.duration_ms = static_cast<uint64_t>(duration_ms);
  outcome.exit_code = reason == EndReason::succeeded      ? 0
                      : reason == EndReason::cannot_start ? 127
                      : reason == EndReason::exit_code    ? 3
                                                          : -1;
  outcome.signal = reason == EndReason::signal ? 11 : 0;
  return outcome;
}

}  // namespace

uint32_t Keeper::used_milli() const {
  uint32_t used = 0;
  for (const auto& [key, kept] : kept_) {
    if (kept.running) used += kept.spec->resources.cpus_milli;
  }
  return used;
}

void Keeper::start(const AttemptKey& key, const std::shared_ptr<const JobSpec>& spec) {
  play_.expect(play_.limits.starts(plan_, key, *spec, used_milli()));
  play_.expect(play_.results.started(key));
  Kept& kept = kept_[key];
  kept.spec = spec;
  Random& random = play_.world.random;
  const JobPlan& job = *play_.plan_of(key.job);
  const int64_t now = play_.world.unix_ms();
  if (random.chance(job.cannot_start)) {
    plan_end(key, kept, random.between(0, 5), make_outcome(EndReason::cannot_start, 0, 0));
    return;
  }
  if (random.chance(job.refuses)) {
    auto outcome = make_outcome(EndReason::exit_code, now, 20);
    outcome.refused_arguments = true;
    plan_end(key, kept, 20, outcome);
    return;
  }
  TimeMs takes = random.between(job.shortest_ms, job.longest_ms);
  EndReason reason = EndReason::succeeded;
  if (random.chance(job.fails)) {
    reason = random.chance(0.5) ? EndReason::exit_code : EndReason::signal;
  }
  const bool hangs = random.chance(job.hangs);
  const auto limit = static_cast<TimeMs>(spec->time_limit_ms);
  if (limit != 0 && (hangs || takes > limit)) {
    takes = limit + random.between(0, static_cast<TimeMs>(spec->grace_ms));
    reason = EndReason::time_limit;
  }
  kept.outcome.started_unix_ms = now;
  if (!hangs || limit != 0) plan_end(key, kept, takes, make_outcome(reason, now, takes));
  if (on_started) on_started(key, now);
  if (takes > 1'000 && on_progress && random.chance(0.2)) on_progress(key, 0.5);
}

void Keeper::stop(const AttemptKey& key, EndReason reason, uint64_t grace_ms) {
  auto it = kept_.find(key);
  if (it == kept_.end() || !it->second.running) return;
  const TimeMs after = play_.world.random.between(0, static_cast<TimeMs>(grace_ms));
  plan_end(key, it->second, after, make_outcome(reason, it->second.outcome.started_unix_ms, after));
}

void Keeper::plan_end(const AttemptKey& key, Kept& kept, TimeMs after_ms, AttemptOutcome outcome) {
  kept.process = ++last_process_;
  play_.world.after(after_ms, [this, key, process = kept.process, outcome = std::move(outcome)] {
    auto it = kept_.find(key);
    if (it == kept_.end() || it->second.process != process) return;
    it->second.running = false;
    it->second.outcome = outcome;
    play_.results.ended(key, outcome);
    if (on_exited) on_exited(key, outcome);
  });
}

}  // namespace pesc::sim
