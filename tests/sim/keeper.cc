#include "tests/sim/keeper.h"

#include <algorithm>
#include <utility>

namespace pesc::sim {
namespace {

constexpr TimeMs kMostSaves = 12;  // of one attempt

AttemptOutcome make_outcome(EndReason reason, int64_t started_unix_ms) {
  AttemptOutcome outcome;
  outcome.reason = reason;
  outcome.started_unix_ms = started_unix_ms;
  outcome.exit_code = reason == EndReason::succeeded      ? 0
                      : reason == EndReason::cannot_start ? 127
                      : reason == EndReason::exit_code    ? 3
                                                          : -1;
  outcome.signal = reason == EndReason::signal ? 11 : 0;
  return outcome;
}

// Each rank of a job that saves has work of its own, the same in every attempt.
TimeMs work_of(const AttemptKey& key, const JobPlan& job) {
  Random random(key.job.value * 1'000'003 + key.rank);
  return random.between(job.shortest_ms, job.longest_ms);
}

}  // namespace

uint32_t Keeper::used_milli() const {
  uint32_t used = 0;
  for (const auto& [key, kept] : kept_) {
    if (kept.running) used += kept.spec->resources.cpus_milli;
  }
  return used;
}

std::vector<AttemptKey> Keeper::running() const {
  std::vector<AttemptKey> keys;
  for (const auto& [key, kept] : kept_) {
    if (kept.running) keys.push_back(key);
  }
  return keys;
}

const Kept* Keeper::find(const AttemptKey& key) const {
  auto it = kept_.find(key);
  return it == kept_.end() ? nullptr : &it->second;
}

TimeMs Keeper::ran_ms(const Kept& kept) const {
  return kept.running ? play_.world.now() - kept.started
                      : static_cast<TimeMs>(kept.outcome.duration_ms);
}

bool Keeper::must_wait(const worker::Start& action) const {
  const auto of_job = std::count_if(kept_.begin(), kept_.end(), [&](const auto& one) {
    return one.second.running && one.first.job == action.key.job;
  });
  return action.most_of_job != 0 && of_job >= static_cast<int64_t>(action.most_of_job);
}

void Keeper::start(const worker::Start& action, const std::optional<Save>& from) {
  if (must_wait(action)) {
    next_.emplace_back(action, from);
  } else {
    begin(action, from);
  }
}

void Keeper::begin_next() {
  for (size_t i = 0; i < next_.size();) {
    if (must_wait(next_[i].first)) {
      ++i;
      continue;
    }
    const auto [action, from] = std::move(next_[i]);
    next_.erase(next_.begin() + static_cast<ptrdiff_t>(i));
    begin(action, from);
  }
}

void Keeper::begin(const worker::Start& action, const std::optional<Save>& from) {
  const AttemptKey& key = action.key;
  play_.expect(play_.limits.starts(plan_, key, *action.spec, used_milli()));
  play_.expect(play_.amounts.starts(plan_.id, key, running()));
  play_.expect(play_.results.started(key));
  play_.expect(play_.gangs.starts(play_.ledger, action));
  Kept& kept = kept_[key];
  kept.spec = action.spec;
  kept.grant = action.grant;
  kept.started = play_.world.now();
  kept.outcome.started_unix_ms = play_.world.unix_ms();
  kept.saved = from;  // restored before the start
  kept.begins_with_ms = from ? from->work_ms : 0;
  play_.expect(play_.redone.begins(key, kept.begins_with_ms));
  const JobPlan& job = *play_.plan_of(key.job);
  const double part = part_of_peak(key, job);
  kept.memory_bytes = static_cast<uint64_t>(part * static_cast<double>(job.peak_memory));
  kept.gpu_bytes = static_cast<uint64_t>(part * static_cast<double>(job.peak_gpu));
  if (dies_at_once(key, kept, job, from)) return;
  kept.corrupts = play_.world.random.chance(job.corrupts);
  Fate fate = draw(key, kept, job);
  outgrow(key, kept, fate);
  const int64_t now = play_.world.unix_ms();
  if (!fate.hangs) plan_end(key, kept, fate.takes, make_outcome(fate.reason, now));
  if (job.unit_ms > 0) plan_saves(key, kept.process, job, fate.takes);
  if (on_started) on_started(key, now);
  if (job.tells_progress && fate.takes > 1'000 && on_progress && play_.world.random.chance(0.2)) {
    on_progress(key, 0.5);
  }
}

bool Keeper::dies_at_once(const AttemptKey& key, Kept& kept, const JobPlan& job,
                          const std::optional<Save>& from) {
  Random& random = play_.world.random;
  const int64_t now = play_.world.unix_ms();
  if (random.chance(job.cannot_start)) {
    plan_end(key, kept, random.between(0, 5), make_outcome(EndReason::cannot_start, 0));
    return true;
  }
  if (random.chance(job.refuses)) {
    auto outcome = make_outcome(EndReason::exit_code, now);
    outcome.refused_arguments = true;
    plan_end(key, kept, 20, outcome);
    return true;
  }
  const bool in_the_hole = plan_.black_hole && !play_.healed;
  if (!in_the_hole && !(from && from->corrupt)) return false;
  auto outcome = make_outcome(EndReason::exit_code, now);
  if (!in_the_hole) play_.expect(play_.checkpoints.died_of_checkpoint(play_.ledger, key));
  if (from && job.scribbles) kept.saved = Save{from->work_ms, true, key};
  outcome.detail = in_the_hole ? "no such library" : "cannot read the checkpoint";
  if (on_started) on_started(key, now);
  plan_end(key, kept, random.between(5, 900), outcome);
  return true;
}

Keeper::Fate Keeper::draw(const AttemptKey& key, const Kept& kept, const JobPlan& job) {
  Random& random = play_.world.random;
  Fate fate;
  fate.takes = job.unit_ms > 0 ? std::max<TimeMs>(1, work_of(key, job) - kept.begins_with_ms)
                               : random.between(job.shortest_ms, job.longest_ms);
  if (plan_.slowness != 1) {
    fate.takes = static_cast<TimeMs>(static_cast<double>(fate.takes) * plan_.slowness);
  }
  if (random.chance(job.stragglers)) fate.takes *= 8;
  if (random.chance(job.fails)) {
    fate.reason = random.chance(0.5) ? EndReason::exit_code : EndReason::signal;
    if (random.chance(0.2) && job.peak_memory == 0) fate.reason = EndReason::out_of_memory;
    if (job.unit_ms > 0) fate.takes = random.between(1, fate.takes);
  }
  if (random.chance(job.floods)) {
    fate.reason = EndReason::output_limit;
    fate.takes = random.between(1, fate.takes);
  }
  if (kept.spec->parallel && key.rank == 0 && play_.goes_wrong(play_.scenario.faults.port_taken)) {
    fate.reason = EndReason::port_taken;
    fate.takes = random.between(1, 2'000);
  }
  fate.hangs = random.chance(job.hangs);
  const auto limit = static_cast<TimeMs>(kept.spec->time_limit_ms);
  if (limit != 0 && (fate.hangs || fate.takes > limit)) {
    fate.takes = limit + random.between(0, static_cast<TimeMs>(kept.spec->grace_ms));
    fate.reason = EndReason::time_limit;
    fate.hangs = false;
  }
  return fate;
}

void Keeper::outgrow(const AttemptKey& key, Kept& kept, Fate& fate) {
  const uint64_t limit = kept.grant.memory_limit_bytes;
  EndReason reason = try_gpus(key, kept);
  if (limit != 0 && kept.memory_bytes > limit) {
    reason = EndReason::out_of_memory;
    kept.memory_bytes = limit;
  }
  if (reason == EndReason::succeeded) return;
  fate.takes = play_.world.random.between(1, fate.takes);
  fate.reason = reason;
  fate.hangs = false;
}

// What it finds there: what runs beside it uses what it really uses.
EndReason Keeper::try_gpus(const AttemptKey& key, const Kept& kept) const {
  for (const Gpu& gpu : gpus) {
    const auto on_it = [&](const Kept& one) {
      const auto& uuids = one.grant.gpus;
      return std::find(uuids.begin(), uuids.end(), gpu.uuid) != uuids.end();
    };
    if (!on_it(kept)) continue;
    if (!gpu.trouble.empty()) return EndReason::gpu_fault;
    uint64_t used = gpu.taken_bytes + kept.gpu_bytes;
    for (const auto& [other, one] : kept_) {
      if (other != key && one.running && on_it(one)) used += one.gpu_bytes;
    }
    if (used > gpu.memory_bytes) return EndReason::gpu_out_of_memory;
  }
  return EndReason::succeeded;
}

void Keeper::fail_on_gpu(const std::string& uuid) {
  for (auto& [key, kept] : kept_) {
    const auto& uuids = kept.grant.gpus;
    if (!kept.running || std::find(uuids.begin(), uuids.end(), uuid) == uuids.end()) continue;
    if (play_.world.random.chance(0.3)) continue;
    plan_end(key, kept, play_.world.random.between(0, 500),
             make_outcome(EndReason::gpu_fault, kept.outcome.started_unix_ms));
  }
}

// What the worker has seen of it. One that did not come to its end has not come to its peak.
void Keeper::measure(const Kept& kept, AttemptOutcome& outcome) const {
  const bool whole =
      outcome.reason == EndReason::succeeded || outcome.reason == EndReason::out_of_memory;
  outcome.cpu_ms = outcome.duration_ms * kept.spec->resources.cpus_milli / 1'000;
  outcome.max_rss_bytes = kept.memory_bytes / (whole ? 1 : 2);
  outcome.written_bytes = outcome.max_rss_bytes / 16;
  const auto& uuids = kept.grant.gpus;
  for (const Gpu& gpu : gpus) {
    if (gpu.reports_memory && std::find(uuids.begin(), uuids.end(), gpu.uuid) != uuids.end()) {
      outcome.peak_gpu_bytes = kept.gpu_bytes / (whole ? 1 : 2);
    }
  }
}

void Keeper::plan_saves(const AttemptKey& key, uint64_t process, const JobPlan& job, TimeMs until) {
  for (TimeMs i = 1; i <= kMostSaves && i * job.unit_ms < until; ++i) {
    play_.world.after(i * job.unit_ms, [this, key, process, &job] {
      auto it = kept_.find(key);
      if (it == kept_.end() || it->second.process != process || !it->second.running) return;
      save(key, it->second, job);
    });
  }
}

void Keeper::save(const AttemptKey& key, Kept& kept, const JobPlan& job) {
  const TimeMs work = kept.begins_with_ms + (play_.world.now() - kept.started);
  kept.saved = Save{std::min(work, work_of(key, job) - 1), kept.corrupts, key};
  if (job.marks && on_marked) on_marked(key);
}

void Keeper::stop(const AttemptKey& key, EndReason reason, uint64_t grace_ms, bool unless_begun) {
  const auto waiting = std::find_if(next_.begin(), next_.end(),
                                    [&](const auto& one) { return one.first.key == key; });
  if (waiting != next_.end()) {
    Kept& kept = kept_[key];
    kept.spec = waiting->first.spec;
    next_.erase(waiting);
    kept.running = false;
    kept.outcome = make_outcome(reason, 0);
    if (on_exited) on_exited(key, AttemptOutcome(kept.outcome));
    return;
  }
  auto it = kept_.find(key);
  if (it == kept_.end() || !it->second.running || unless_begun) return;
  Kept& kept = it->second;
  const JobPlan& job = *play_.plan_of(key.job);
  const auto grace = static_cast<TimeMs>(grace_ms);
  // Some do not listen, and are killed when their time is over.
  const bool outlives = play_.world.random.chance(job.outlives);
  const TimeMs after = outlives ? grace : play_.world.random.between(0, grace);
  auto outcome = make_outcome(reason, kept.outcome.started_unix_ms);
  outcome.signal = outlives ? 9 : 15;
  plan_end(key, kept, after, outcome, !outlives && job.unit_ms > 0 && job.saves_when_told);
}

void Keeper::plan_end(const AttemptKey& key, Kept& kept, TimeMs after_ms, AttemptOutcome outcome,
                      bool saves) {
  kept.process = ++last_process_;
  play_.world.after(after_ms,
                    [this, key, process = kept.process, saves, outcome = std::move(outcome)] {
                      end(key, process, outcome, saves);
                    });
}

void Keeper::end(const AttemptKey& key, uint64_t process, AttemptOutcome outcome, bool saves) {
  auto it = kept_.find(key);
  if (it == kept_.end() || it->second.process != process) return;
  Kept& kept = it->second;
  if (kept.spec->parallel) {
    // One that is gone leaves the others waiting for it.
    if (outcome.reason != EndReason::succeeded) {
      play_.broken_gangs.insert({key.job, key.attempt});
    } else if (play_.broken_gangs.contains({key.job, key.attempt})) {
      return;
    }
  }
  if (saves) save(key, kept, *play_.plan_of(key.job));
  outcome.duration_ms = static_cast<uint64_t>(play_.world.now() - kept.started);
  measure(kept, outcome);
  kept.running = false;
  kept.outcome = outcome;
  play_.results.ended(key, outcome);
  if (on_exited) on_exited(key, outcome);
  begin_next();
}

void Keeper::lose_all() {
  for (const auto& [key, kept] : kept_) {
    if (kept.running) play_.redone.lost(key, ran_ms(kept));
    // What has ended well leaves nobody waiting.
    if (kept.spec->parallel && kept.running) play_.broken_gangs.insert({key.job, key.attempt});
  }
  kept_.clear();
  next_.clear();
}

}  // namespace pesc::sim
