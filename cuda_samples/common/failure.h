// How the samples end: one exit code per remedy, so that a script, or a person reading ranks.csv,
// knows what to change without reading the message.
#pragma once

#include <functional>
#include <stdexcept>
#include <string>

namespace samples {

enum ExitCode {
  kSuccess = 0,
  kFailed = 1,           // a file that cannot be written, a CUDA call that failed, ...
  kUsage = 2,            // an argument that makes no sense
  kNoGpu = 10,           // no driver, no GPU, or none that this process may use
  kGpuMemory = 11,       // the GPU has too little free memory
  kDriverTooOld = 12,    // the driver is older than what the program was built with needs
  kVerifyFailed = 13,    // --verify found a difference
  kTooFewGpus = 14,      // two_gpus with one
  kGpuUnsupported = 15,  // the program has no code for this model of GPU
};

// Thrown within a sample, caught by guarded(). The message says what is wrong and what to do.
class Failure : public std::runtime_error {
 public:
  Failure(ExitCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  ExitCode code() const { return code_; }

 private:
  ExitCode code_;
};

// Runs the program's body; what it throws becomes a line on standard error and an exit code.
int guarded(const char* program, const std::function<int()>& body);

}  // namespace samples
