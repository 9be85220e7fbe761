#pragma once

#include <cstdint>
#include <string>

#include "common/surroundings.h"
#include "option_pricing/estimate.h"
#include "option_pricing/machine.h"
#include "option_pricing/option.h"

namespace samples::option_pricing {

struct Options {
  Contract contract;
  Stream stream;
  std::uint64_t paths = 100'000'000;
  std::uint64_t checkpoint_seconds = 60;
  bool verify = false, cpu = false;
  std::string merge;  // a directory of results; empty: price
};

// False: --help was asked for. Throws Failure(kUsage).
bool parse_options(int argc, char** argv, Options* out);

// Goes on from the checkpoint if there is a good one. A record whose estimate has fewer paths than
// it should was stopped, and saved.
Record price(const Options& options, Machine& machine, const Surroundings& around);

// Compares the machine's chunks with the CPU's (some of them), and a European price with the exact
// one. What is wrong, in words; nothing when all is well.
std::string check(const Options& options, Machine& machine, const Estimate& estimate);

}  // namespace samples::option_pricing
