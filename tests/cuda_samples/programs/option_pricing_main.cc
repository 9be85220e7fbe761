// The sample without its GPU: the same program, for machines without a CUDA toolkit.
#include "common/failure.h"
#include "option_pricing/program.h"

int main(int argc, char** argv) {
  return samples::option_pricing::run_program(
      argc, argv, [](const auto&, auto&&) -> std::unique_ptr<samples::option_pricing::Machine> {
        throw samples::Failure(samples::kNoGpu, "no GPU: built without CUDA; try it with --cpu");
      });
}
