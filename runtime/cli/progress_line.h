// The words of a job's progress: counts, rate, time to go.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

#include "pesc/result.h"

namespace pesc::cli {

class ProgressLine {
 public:
  using Time = std::chrono::steady_clock::time_point;
  // "3/20 ranks, 2 running, 1 failed, 4.0/s, ETA 4s": the rate is of what was done since the first
  // call, so that a job that is watched late, or resumed, has an honest one.
  std::string text(const Progress& progress, Time now);

 private:
  std::optional<Time> start_;
  uint32_t first_done_ = 0;
};

// Tells of attempts that failed and are tried again, and of gangs that start again: at most every
// ten seconds, nothing when there was nothing new.
class RetryNotes {
 public:
  using Time = ProgressLine::Time;
  void update(const JobStatus& status);
  // When the next line is due; nothing when there is none.
  std::optional<Time> due() const;
  // The line, once, when it is due.
  std::optional<std::string> take(Time now);

 private:
  std::string pending_;
  uint32_t told_ = 0;  // attempts and starts that the newest line speaks of
  std::optional<Time> last_;
};

uint32_t done_of(const JobStatus& status);

// "[####......]  40% LINE", what fits into `width` columns; the bar goes before the words do.
std::string with_bar(double fraction, const std::string& line, size_t width);

}  // namespace pesc::cli
