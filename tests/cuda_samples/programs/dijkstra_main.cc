// The sample without its GPU: the same program, for machines without a CUDA toolkit.
#include "common/failure.h"
#include "dijkstra/program.h"

int main(int argc, char** argv) {
  return samples::dijkstra::run_program(
      argc, argv, [](const auto&, auto&&) -> std::unique_ptr<samples::dijkstra::Machine> {
        throw samples::Failure(samples::kNoGpu, "no GPU: built without CUDA; try it with --cpu");
      });
}
