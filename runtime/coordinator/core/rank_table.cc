#include "runtime/coordinator/core/rank_table.h"

#include <algorithm>
#include <string>

namespace pesc::coordinator {
namespace {

constexpr uint8_t kStateMask = 0x07, kClaimed = 0x08, kMany = 15;
constexpr int kAttemptsShift = 4;

RankState state_of(uint8_t cell) { return static_cast<RankState>(cell & kStateMask); }

}  // namespace

void RankTable::reset(uint32_t size) {
  *this = RankTable();
  size_ = size;
  counts_.waiting = size;
}

RankState RankTable::state(uint32_t rank) const {
  return rank < cells_.size() ? state_of(cells_[rank]) : RankState::waiting;
}

uint32_t RankTable::attempts(uint32_t rank) const {
  if (rank >= cells_.size()) return 0;
  const uint8_t few = cells_[rank] >> kAttemptsShift;
  return few == kMany ? many_.at(rank) : few;
}

bool RankTable::claimed(uint32_t rank) const {
  return rank < cells_.size() && (cells_[rank] & kClaimed) != 0;
}

uint32_t& RankTable::count(RankState state) {
  switch (state) {
    case RankState::waiting:
      return counts_.waiting;
    case RankState::running:
      return counts_.running;
    case RankState::succeeded:
      return counts_.succeeded;
    case RankState::failed:
      return counts_.failed;
    case RankState::cancelled:
      break;
  }
  return counts_.cancelled;
}

// Ranks that are passed over are unclaimed: they wait, and nobody has them.
void RankTable::grow(uint32_t size) {
  if (size <= cells_.size()) return;
  unclaimed_ += size - started();
  cursor_ = std::min(cursor_, started());
  cells_.resize(size, static_cast<uint8_t>(RankState::waiting));
}

uint32_t RankTable::next_unclaimed() {
  constexpr uint8_t kMask = kStateMask | kClaimed;
  while (cursor_ < cells_.size() &&
         (cells_[cursor_] & kMask) != static_cast<uint8_t>(RankState::waiting)) {
    ++cursor_;
  }
  return cursor_;
}

void RankTable::set_attempts(uint32_t rank, uint32_t attempts) {
  grow(rank + 1);
  const uint8_t few = static_cast<uint8_t>(std::min<uint32_t>(attempts, kMany));
  cells_[rank] =
      static_cast<uint8_t>((cells_[rank] & (kStateMask | kClaimed)) | (few << kAttemptsShift));
  if (few == kMany) many_[rank] = attempts;
}

void RankTable::claim(uint32_t rank) {
  grow(rank + 1);
  if (claimed(rank)) return;
  if (state(rank) == RankState::waiting) --unclaimed_;
  cells_[rank] |= kClaimed;
}

void RankTable::unclaim(uint32_t rank) {
  if (!claimed(rank)) return;
  cells_[rank] &= static_cast<uint8_t>(~kClaimed);
  if (state(rank) != RankState::waiting) return;
  ++unclaimed_;
  cursor_ = std::min(cursor_, rank);
}

void RankTable::put_state(uint32_t rank, RankState state) {
  --count(state_of(cells_[rank]));
  ++count(state);
  cells_[rank] = static_cast<uint8_t>((cells_[rank] & ~kStateMask) | static_cast<uint8_t>(state));
}

void RankTable::set_running(uint32_t rank, bool running) {
  put_state(rank, running ? RankState::running : RankState::waiting);
}

void RankTable::finalise(uint32_t rank, RankState final_state) {
  grow(rank + 1);
  if (state(rank) == RankState::waiting && !claimed(rank)) --unclaimed_;
  put_state(rank, final_state);
  cells_[rank] &= static_cast<uint8_t>(~kClaimed);
  append(rank, 1);
}

void RankTable::cancel_waiting(uint32_t first, uint32_t last) {
  last = std::min(last, size_ - 1);
  for (uint32_t rank = first; rank <= last && rank < started(); ++rank) {
    if (state(rank) == RankState::waiting) finalise(rank, RankState::cancelled);
  }
  const uint32_t begin = std::max(first, started());
  if (begin > last) return;
  grow(begin);
  const uint32_t count = last + 1 - begin;
  cells_.resize(last + 1, static_cast<uint8_t>(RankState::cancelled));
  counts_.waiting -= count;
  counts_.cancelled += count;
  append(begin, count);
}

void RankTable::reopen(const std::vector<uint32_t>& ranks) {
  for (uint32_t rank : ranks) {
    if (rank >= started()) continue;
    const RankState old = state(rank);
    if (old != RankState::failed && old != RankState::cancelled) continue;
    put_state(rank, RankState::waiting);
    ++unclaimed_;
    cursor_ = std::min(cursor_, rank);
  }
  // Ranks that were cancelled before they started are fresh again.
  while (!cells_.empty() && cells_.back() == static_cast<uint8_t>(RankState::waiting)) {
    cells_.pop_back();
    --unclaimed_;
  }
  cursor_ = std::min(cursor_, started());
  std::vector<Run> old_runs;
  old_runs.swap(runs_);
  const uint32_t old_committed = committed_;
  committed_ = 0;
  for (size_t i = 0; i < old_runs.size(); ++i) {
    const uint32_t end = i + 1 < old_runs.size() ? old_runs[i + 1].position : old_committed;
    for (uint32_t p = old_runs[i].position; p < end; ++p) {
      const uint32_t rank = old_runs[i].first + (p - old_runs[i].position);
      if (is_final(rank)) append(rank, 1);
    }
  }
}

void RankTable::append(uint32_t first, uint32_t count) {
  const bool extends =
      !runs_.empty() && runs_.back().first + (committed_ - runs_.back().position) == first;
  if (!extends) runs_.push_back({committed_, first});
  committed_ += count;
}

std::vector<uint32_t> RankTable::committed_ranks(uint32_t from, uint32_t max) const {
  std::vector<uint32_t> ranks;
  if (from >= committed_) return ranks;
  const uint32_t n = std::min(max, committed_ - from);
  ranks.reserve(n);
  auto run = std::upper_bound(runs_.begin(), runs_.end(), from,
                              [](uint32_t p, const Run& r) { return p < r.position; }) -
             1;
  for (uint32_t p = from; p < from + n; ++p) {
    if (run + 1 != runs_.end() && (run + 1)->position <= p) ++run;
    ranks.push_back(run->first + (p - run->position));
  }
  return ranks;
}

std::string RankTable::check() const {
  JobCounts seen;
  seen.waiting = fresh();
  uint32_t unclaimed = 0;
  for (size_t i = 0; i < cells_.size(); ++i) {
    switch (state_of(cells_[i])) {
      case RankState::waiting:
        ++seen.waiting;
        break;
      case RankState::running:
        ++seen.running;
        break;
      case RankState::succeeded:
        ++seen.succeeded;
        break;
      case RankState::failed:
        ++seen.failed;
        break;
      case RankState::cancelled:
        ++seen.cancelled;
        break;
    }
    const bool free = (cells_[i] & kClaimed) == 0;
    if (state_of(cells_[i]) == RankState::waiting && free) {
      ++unclaimed;
      if (i < cursor_) return "an unclaimed rank lies before the cursor";
    }
    if (state_of(cells_[i]) == RankState::running && free) return "a running rank is unclaimed";
  }
  if (!(seen == counts_)) return "the counts of the ranks' states do not add up";
  if (unclaimed != unclaimed_) return "the count of unclaimed ranks is wrong";
  const uint32_t final_ranks = counts_.succeeded + counts_.failed + counts_.cancelled;
  if (committed_ != final_ranks) return "the order of commits is not that of the final ranks";
  std::vector<bool> listed(cells_.size(), false);
  for (uint32_t rank : committed_ranks(0, committed_)) {
    if (rank >= cells_.size() || listed[rank] || !is_final(rank)) {
      return "rank " + std::to_string(rank) +
             " is in the order of commits without being final once";
    }
    listed[rank] = true;
  }
  return "";
}

}  // namespace pesc::coordinator
