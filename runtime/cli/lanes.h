// Which ranks ran where, when, and how many at once: for `pesc stats`.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "pesc/pesc.h"

namespace pesc::cli {

inline constexpr size_t kLaneSteps = 60;  // of the time from the first start to the last end

// The ranks of one worker, or of one of its GPUs. One with two GPUs is in the lanes of both.
struct Lane {
  struct Bar {
    uint32_t rank = 0;
    int64_t from_ms = 0, to_ms = 0;  // since 1970, by the worker's clock
    uint64_t gpu_bytes = 0;          // its peak
    bool failed = false;
  };
  std::string worker, gpu;  // gpu: of ranks that had none, empty
  std::vector<Bar> bars;    // by start
  uint32_t at_once = 0;     // the most
  double min_seconds = 0, median_seconds = 0, mean_seconds = 0, max_seconds = 0;
  double busy_seconds = 0;                  // at least one ran
  uint64_t gpu_peak_bytes = 0;              // of one rank
  uint64_t gpu_at_once_bytes = 0;           // the most that the peaks of those at once come to
  std::vector<uint32_t> at_once_over_time;  // the most in each of kLaneSteps
};

struct Lanes {
  int64_t from_ms = 0, to_ms = 0;
  std::vector<Lane> lanes;  // by worker and GPU
};

// Of the attempts that decided their ranks.
Lanes lanes_of(const std::vector<RankResult>& ranks);

// A table, and a bar for each lane; of a small job one for each rank.
std::vector<std::string> lane_lines(const Lanes& lanes);

// A drawing: time to the right, each rank a bar, and on GPUs the memory that ranks took together.
std::string lanes_svg(const Lanes& lanes, const std::string& title);

}  // namespace pesc::cli
