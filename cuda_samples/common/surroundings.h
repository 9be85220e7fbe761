// What a sample's loop needs of the world around it, so that tests can put it into another one.
#pragma once

#include <functional>
#include <string>

namespace samples {

struct Surroundings {
  std::function<double()> seconds;                     // a clock that only goes forward
  std::function<bool()> stop_requested;                // by a signal
  std::function<void(double)> progress;                // 0 to 1
  std::function<void(const std::string& bytes)> save;  // a checkpoint; says itself what fails
  std::function<bool(std::string& bytes)> load;        // false: there is no checkpoint
  std::function<void(const std::string& line)> say;    // on standard error
};

// Those of a rank, through rank.h. A checkpoint that cannot be saved or read costs time, not the
// rank: it is said on standard error. The texts must outlive what is returned.
Surroundings real_surroundings(const char* program, const char* checkpoint, const char* doing);

// The rank's output directory, if it can be written to: else Failure, before the work and not
// after.
std::string output_directory();

// After success: the next run, in the same directory, starts from the beginning.
void forget_checkpoint(const char* checkpoint);

}  // namespace samples
