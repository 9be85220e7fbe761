// Second attempts: near the end of a job, idle cpus try its slowest ranks once more. The first
// attempt that succeeds commits, the other is revoked.
#include <algorithm>
#include <bit>
#include <utility>

#include "runtime/coordinator/core/state.h"

namespace pesc::coordinator {
namespace {

constexpr TimeMs kLookEveryMs = 1000;

// Four buckets for each power of two.
uint8_t bucket_of(uint64_t ms) {
  const uint64_t value = std::clamp<uint64_t>(ms, 4, UINT64_MAX >> 8);
  const int octave = std::bit_width(value) - 1;
  return static_cast<uint8_t>(4 * octave + ((value >> (octave - 2)) & 3));
}
uint64_t upper_bound_of(uint8_t bucket) { return uint64_t(5 + bucket % 4) << (bucket / 4 - 2); }

// How long it will still take, as it says itself; nothing: it does not say.
std::optional<uint64_t> own_estimate(const OpenAttempt& open, uint64_t run_ms) {
  if (open.fraction <= 0) return std::nullopt;
  return static_cast<uint64_t>(double(run_ms) * (1 - open.fraction) / open.fraction);
}

}  // namespace

void DurationHistogram::add(uint64_t duration_ms) {
  ++buckets[bucket_of(duration_ms)];
  ++count;
}

uint64_t DurationHistogram::median_ms() const {
  uint64_t seen = 0;
  for (const auto& [bucket, n] : buckets) {
    seen += n;
    if (2 * seen >= count) return upper_bound_of(bucket);
  }
  return 0;
}

// Nothing of it waits, and most of it is done: what its ranks take is known, and nobody of the job
// needs the cpus more.
bool Core::State::near_its_end(const Job& job) const {
  const JobCounts& counts = job.ranks.counts();
  return job.spec->second_attempts && !job.spec->parallel && !job.stopped && counts.waiting == 0 &&
         counts.running > 0 && counts.succeeded >= 3 &&
         uint64_t(counts.succeeded) * 4 >= uint64_t(job.ranks.size()) * 3;
}

void Core::State::watch_tail(Job& job) {
  const bool wanted = near_its_end(job);
  if (wanted == (job.tail_at != kNever)) return;
  if (wanted) {
    job.tail_at = now;
    tails.insert({now, job.id});
  } else {
    tails.erase({job.tail_at, job.id});
    job.tail_at = kNever;
  }
}

// After everything else was placed: second attempts take only what would be idle.
void Core::State::try_seconds() {
  if (placement_due) return;
  while (!tails.empty() && tails.begin()->first <= now) {
    Job& job = jobs.at(tails.begin()->second);
    const TimeMs next = std::max(try_seconds_of(job), now + kLookEveryMs);
    tails.erase({job.tail_at, job.id});
    job.tail_at = next;
    tails.insert({next, job.id});
  }
}

// When to look again. What runs is bounded by the cpus there are, since nothing waits.
TimeMs Core::State::try_seconds_of(Job& job) {
  const uint64_t median = job.durations.median_ms();
  const uint64_t slow = std::max(median * config.straggler_percent / 100, config.straggler_min_ms);
  const Demand demand{job.spec->room, need_of(job)};
  uint32_t budget = std::max<uint32_t>(config.max_placements_per_step, 1);
  TimeMs next = now + 60 * kLookEveryMs;
  std::vector<std::pair<uint32_t, WorkerId>> slow_ranks;
  for (const auto& [rank, active] : job.active) {
    if (active.open.size() != 1 || active.seconds >= kMaxSeconds) continue;
    const OpenAttempt& open = active.open.front();
    if (open.started == kNever) continue;
    const uint64_t run_ms = std::max<TimeMs>(now - open.started, 0);
    if (run_ms <= slow) {
      next = std::min<TimeMs>(next, open.started + TimeMs(slow) + 1);
      continue;
    }
    const std::optional<uint64_t> left = own_estimate(open, run_ms);
    next = now;
    if (left && *left <= median) continue;  // it ends sooner than a fresh one would
    slow_ranks.emplace_back(rank, open.worker);
  }
  for (const auto& [rank, own] : slow_ranks) {
    const bool anywhere = bug == PlantedBug::second_beside_itself;
    Worker* worker = choose_worker(demand, anywhere ? WorkerId() : own);
    if (worker == nullptr || budget-- == 0) break;
    if (worker->info.id == own && !anywhere) continue;
    lease(job, rank, job.ranks.attempts(rank) + 1, *worker, demand.need, true);
  }
  return next;
}

}  // namespace pesc::coordinator
