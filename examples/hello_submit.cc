// The smallest use of the library: runs a program ten times and prints what came back.
#include <cstdio>

#include "pesc/pesc.h"

int main(int argc, char** argv) {
  absl::StatusOr<pesc::JobHandle> job =
      pesc::submit({.program = argc > 1 ? argv[1] : "./hello", .repetitions = 10});
  absl::StatusOr<pesc::JobResult> result = job.ok() ? job->wait() : job.status();
  if (!result.ok()) {
    std::fprintf(stderr, "%s\n", std::string(result.status().message()).c_str());
    return 1;
  }
  for (uint32_t rank = 0; rank < result->status().repetitions; ++rank) {
    std::printf("%s", result->output(rank).value_or("(no output)\n").c_str());
  }
  return result->succeeded() ? 0 : 1;
}
