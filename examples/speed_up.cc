// Runs a program N times, first one rank after the other, then on several slots, and prints the
// speed-up beside Amdahl's estimate (Amdahl, AFIPS 1967): 1 / (s + (1 - s) / p).
//
//   speed_up RANKS SLOTS PROGRAM [ARGUMENTS…]
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>

#include "pesc/pesc.h"

namespace {

constexpr double kSerialFraction = 0.01;  // as the thesis takes it

// Seconds from submit to the last result, or a message and the end.
double run(const pesc::Job& job, uint32_t slots) {
  absl::StatusOr<pesc::Client> client = pesc::Client::local({.slots = slots});
  auto start = std::chrono::steady_clock::now();
  absl::StatusOr<pesc::JobHandle> handle = client.ok() ? client->submit(job) : client.status();
  absl::StatusOr<pesc::JobResult> result = handle.ok() ? handle->wait() : handle.status();
  if (!result.ok() || !result->succeeded()) {
    std::string why = result.ok() ? "a rank failed" : std::string(result.status().message());
    std::fprintf(stderr, "speed_up: %s\n", why.c_str());
    std::exit(1);
  }
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

int main(int argc, char** argv) {
  long ranks = argc > 3 ? std::atol(argv[1]) : 0, slots = argc > 3 ? std::atol(argv[2]) : 0;
  if (ranks < 1 || slots < 1 || slots > 1'000) {
    std::fprintf(stderr, "usage: speed_up RANKS SLOTS PROGRAM [ARGUMENTS…]\n");
    return 2;
  }
  pesc::Job job{.program = argv[3], .arguments = {argv + 4, argv + argc}};
  job.repetitions = static_cast<uint32_t>(ranks);
  double sequential = run(job, 1), parallel = run(job, static_cast<uint32_t>(slots));
  double p = static_cast<double>(std::min(slots, ranks));
  std::printf("one after the other: %.2f s; on %ld slots: %.2f s\n", sequential, slots, parallel);
  std::printf("speed-up %.2f; Amdahl's estimate at %.0f %% serial: %.2f\n", sequential / parallel,
              kSerialFraction * 100, 1 / (kSerialFraction + (1 - kSerialFraction) / p));
  return 0;
}
