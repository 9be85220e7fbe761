// A program of somebody else's: runs a job wherever the environment says, and checks what came
// back.
//
//   consumer PROGRAM    with PESC_COORDINATOR in the environment: there; without: in this process
#include <cstdio>
#include <string>

#include "pesc/pesc.h"

int main(int argc, char** argv) {
  if (argc < 2) return 2;
  pesc::Job job{.program = argv[1], .repetitions = 4};
  absl::StatusOr<pesc::JobHandle> handle = pesc::submit(job);
  absl::StatusOr<pesc::JobResult> result = handle.ok() ? handle->wait() : handle.status();
  if (!result.ok()) {
    std::fprintf(stderr, "consumer: %s\n", std::string(result.status().message()).c_str());
    return 1;
  }
  for (uint32_t rank = 0; rank < job.repetitions; ++rank) {
    std::string expected = "hello from rank " + std::to_string(rank) + " of 4\n";
    absl::StatusOr<std::string> output = result->output(rank);
    if (!output.ok() || *output != expected) {
      std::fprintf(stderr, "consumer: rank %u said '%s'\n", rank,
                   output.value_or("nothing").c_str());
      return 1;
    }
  }
  std::printf("consumer: 4 ranks, PESC %s, worker %s\n", pesc::version(),
              result->ranks().value()[0].worker.c_str());
  return 0;
}
