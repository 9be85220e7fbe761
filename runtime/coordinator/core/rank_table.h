// The ranks of a job, as compact as they can be: a rank that never started costs nothing, a started
// one a byte, a final one at most eight more for its place in the order of commits.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "model/outcome.h"

namespace pesc::coordinator {

class RankTable {
 public:
  void reset(uint32_t size);
  uint32_t size() const { return size_; }

  RankState state(uint32_t rank) const;
  uint32_t attempts(uint32_t rank) const;
  const JobCounts& counts() const { return counts_; }
  bool is_final(uint32_t rank) const { return state(rank) > RankState::running; }
  bool all_final() const { return counts_.waiting == 0 && counts_.running == 0; }

  // Ranks [started(), size()) were never leased or cancelled.
  uint32_t started() const { return static_cast<uint32_t>(cells_.size()); }
  uint32_t fresh() const { return size_ - started(); }
  // Started ranks that wait without being in anyone's hands: after a retry.
  uint32_t unclaimed() const { return unclaimed_; }
  // The next of them; there is one.
  uint32_t next_unclaimed();

  void set_attempts(uint32_t rank, uint32_t attempts);
  // From "unclaimed" (or fresh) to being somebody's, and back.
  void claim(uint32_t rank);
  void unclaim(uint32_t rank);
  bool claimed(uint32_t rank) const;
  void set_running(uint32_t rank, bool running);  // else waiting; a claimed rank
  // A claimed or waiting rank gets its final state, and the next place in the order of commits.
  void finalise(uint32_t rank, RankState state);
  void cancel_waiting(uint32_t first, uint32_t last);  // those in the range that wait, unclaimed
  // Failed and cancelled ranks of the list wait again, unclaimed.
  void reopen(const std::vector<uint32_t>& ranks);

  uint32_t committed() const { return committed_; }
  std::vector<uint32_t> committed_ranks(uint32_t from, uint32_t max) const;

  std::string check() const;  // its own invariants; empty when they hold

 private:
  struct Run {  // committed_[position…] are first, first + 1, …
    uint32_t position = 0, first = 0;
  };
  void grow(uint32_t size);
  void put_state(uint32_t rank, RankState state);
  uint32_t& count(RankState state);
  void append(uint32_t first, uint32_t count);

  uint32_t size_ = 0;
  uint32_t unclaimed_ = 0;
  uint32_t cursor_ = 0;  // no unclaimed rank lies before it
  JobCounts counts_;
  // Bits 0-2: state. Bit 3: claimed. Bits 4-7: attempts, 15 meaning "see many_".
  std::vector<uint8_t> cells_;
  std::map<uint32_t, uint32_t> many_;
  std::vector<Run> runs_;
  uint32_t committed_ = 0;
};

}  // namespace pesc::coordinator
