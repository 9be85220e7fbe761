// Second attempts: near the end of a job, idle cpus try its slowest ranks once
// more: those that take far longer than others, and those on slow workers,
// which a faster one that is idle would finish sooner though it begins now. The
// first attempt that succeeds commits, the other is revoked.
#include <algorithm>
#include <bit>
#include <utility>

#include "runtime/coordinator/core/state.h"

namespace pesc::coordinator {
namespace {

constexpr TimeMs kLookEveryMs = 1000;
constexpr uint32_t kKnownPace = 5;           // ranks
constexpr uint64_t kClearGainPercent = 125;  // of what it takes elsewhere
constexpr int kLookAtWorkers = 64;

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

// What a rank of the job takes on this worker; nothing: too few have ended
// there to say.
std::optional<uint64_t> mean_on(const Job& job, WorkerId worker) {
  const auto pace = job.paces.find(worker);
  if (pace == job.paces.end() || pace->second.count < kKnownPace) return std::nullopt;
  return pace->second.total_ms / pace->second.count;
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

// Nothing of it waits, and most of it is done: what its ranks take is known,
// and nobody of the job needs the cpus more.
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

// After everything else was placed: second attempts take only what would be
// idle.
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

// What runs is bounded by the cpus there are, since nothing waits.
Core::State::Slow Core::State::find_slow(const Job& job) const {
  const uint64_t median = job.durations.median_ms();
  Slow slow{.look_at = now + 60 * kLookEveryMs};
  for (const auto& [rank, active] : job.active) {
    if (active.open.size() != 1 || active.seconds >= kMaxSeconds) continue;
    const OpenAttempt& open = active.open.front();
    if (open.started == kNever) continue;
    const uint64_t run_ms = std::max<TimeMs>(now - open.started, 0);
    std::optional<uint64_t> left = own_estimate(open, run_ms);
    // On a slow worker it takes too long when others there were faster.
    const std::optional<uint64_t> mean = mean_on(job, open.worker);
    const uint64_t usual = std::max(median, mean.value_or(0));
    const uint64_t too_long =
        std::max(usual * config.straggler_percent / 100, config.straggler_min_ms);
    if (run_ms > too_long) {
      slow.look_at = now;
      if (left && *left <= median) continue;  // it ends sooner than a fresh one would
      slow.stragglers.emplace_back(rank, open.worker);
      continue;
    }
    slow.look_at = std::min<TimeMs>(slow.look_at, open.started + TimeMs(too_long) + 1);
    if (!left && mean && *mean > run_ms) left = *mean - run_ms;
    if (left && *left >= config.straggler_min_ms) {
      slow.outpaced.push_back({*left, rank, open.worker});
    }
  }
  std::sort(slow.outpaced.begin(), slow.outpaced.end(), [](const Outpaced& a, const Outpaced& b) {
    return a.left_ms != b.left_ms ? a.left_ms > b.left_ms : a.rank < b.rank;
  });
  if (!slow.outpaced.empty()) slow.look_at = std::min(slow.look_at, now + 5 * kLookEveryMs);
  return slow;
}

// When to look again.
TimeMs Core::State::try_seconds_of(Job& job) {
  const Demand demand{job.spec->room, need_of(job)};
  uint32_t budget = std::max<uint32_t>(config.max_placements_per_step, 1);
  const Slow slow = find_slow(job);
  for (const auto& [rank, own] : slow.stragglers) {
    const bool anywhere = bug == PlantedBug::second_beside_itself;
    Worker* worker = choose_worker(job, demand, anywhere ? WorkerId() : own);
    if (worker == nullptr || budget-- == 0) return slow.look_at;
    if (worker->info.id == own && !anywhere) continue;
    lease(job, rank, job.ranks.attempts(rank) + 1, *worker, demand.need, true);
  }
  for (const auto& [left_ms, rank, own] : slow.outpaced) {
    Worker* worker = choose_faster(job, demand, own, left_ms);
    if (worker == nullptr) continue;
    if (budget-- == 0) break;
    lease(job, rank, job.ranks.attempts(rank) + 1, *worker, demand.need, true);
  }
  return slow.look_at;
}

// The fastest of those with room that would end it clearly sooner than the
// worker that has it.
Worker* Core::State::choose_faster(const Job& job, const Demand& demand, WorkerId own,
                                   uint64_t left_ms) {
  const auto room = rooms.find(demand.room);
  if (room == rooms.end()) return nullptr;
  Worker* best = nullptr;
  uint64_t best_ms = left_ms * 100 / kClearGainPercent + 1;
  int looked = 0;
  for (const auto& [negated_free, id] : room->second.by_free) {
    if (-negated_free < int64_t(demand.need.cpus_milli) || looked++ == kLookAtWorkers) break;
    const std::optional<uint64_t> mean = mean_on(job, id);
    if (id == own || !mean || *mean >= best_ms) continue;
    Worker& worker = workers.at(id);
    if (!worker.has_spare(demand)) continue;
    if (!worker.claim_for(demand.need)) continue;
    best = &worker;
    best_ms = *mean;
  }
  return best;
}

}  // namespace pesc::coordinator
