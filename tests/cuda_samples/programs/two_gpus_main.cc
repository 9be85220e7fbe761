// The sample without its GPU: the same program, for machines without a CUDA toolkit.
#include "common/failure.h"
#include "two_gpus/program.h"

int main(int argc, char** argv) {
  return samples::two_gpus::run_program(
      argc, argv, [](const auto&, auto&&) -> std::unique_ptr<samples::two_gpus::Machine> {
        throw samples::Failure(samples::kNoGpu, "no GPU: built without CUDA; try it with --cpu");
      });
}
