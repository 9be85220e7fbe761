// pesc_sim: plays seeds, and says which promise broke, when, and how to see it again.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <string>
#include <vector>

#include "tests/sim/simulation.h"

namespace pesc::sim {
namespace {

struct Options {
  uint64_t first = 1, count = 100;
  uint64_t seed = 0;
  bool one = false, trace = false, expect_caught = false, no_invariants = false;
  std::string bug = "none";
  std::string program;
};

std::string command_for(const Options& options, uint64_t seed) {
  return fmt::format("{} --seed {}{}{}", options.program, seed,
                     options.bug == "none" ? "" : " --bug " + options.bug,
                     options.no_invariants ? " --no-invariants" : "");
}

void print_failure(const Options& options, const Bug& bug, uint64_t seed,
                   const PlayResult& result) {
  fmt::print("seed {} fails after {:.3f} s: {}\n", seed,
             static_cast<double>(result.failed_at_ms) / 1e3, result.failure);
  const PlayResult again = play(seed, bug, Tracing::keep, !options.no_invariants);
  for (const std::string& line : again.trace) fmt::print("{}\n", line);
  if (again.failure != result.failure) {
    fmt::print("the second play of the seed went otherwise ({}): something is not deterministic\n",
               again.failure);
  }
  fmt::print("to see it alone: {}\n", command_for(options, seed));
}

int run(const Options& options, const Bug& bug) {
  using Clock = std::chrono::steady_clock;
  const auto begin = Clock::now();
  TimeMs simulated = 0;
  uint64_t played = 0, events = 0;
  bool failed = false;
  for (uint64_t i = 0; i < options.count && !failed; ++i) {
    const uint64_t seed = options.first + i;
    const PlayResult result =
        play(seed, bug, options.trace ? Tracing::print : Tracing::off, !options.no_invariants);
    simulated += result.simulated_ms;
    events += result.events;
    ++played;
    failed = !result.failure.empty();
    if (!failed) continue;
    if (options.expect_caught) {
      fmt::print("caught {} at seed {}: {}\n", bug.name, seed, result.failure);
    } else {
      print_failure(options, bug, seed, result);
    }
  }
  const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  fmt::print("{} seeds, {:.1f} seeds/s, {:.0f} simulated seconds/s, {:.0f} events/s\n", played,
             static_cast<double>(played) / seconds, static_cast<double>(simulated) / 1e3 / seconds,
             static_cast<double>(events) / seconds);
  if (options.expect_caught && !failed) {
    fmt::print("{} was not caught in {} seeds\n", bug.name, played);
  }
  return failed == options.expect_caught ? 0 : 1;
}

}  // namespace
}  // namespace pesc::sim

int main(int argc, char** argv) {
  pesc::sim::Options options;
  options.program = argv[0];
  CLI::App app{"Plays PESC's coordinator and workers over a simulated world"};
  app.add_option("--seeds", options.count, "How many seeds");
  app.add_option("--first", options.first, "The first of them");
  auto* seed = app.add_option("--seed", options.seed, "This seed only");
  app.add_flag("--trace", options.trace, "Print everything that happens");
  app.add_option("--bug", options.bug, "Plant this bug");
  app.add_flag("--expect-caught", options.expect_caught, "Fail unless some seed fails");
  app.add_flag("--no-invariants", options.no_invariants,
               "Without the cores' checks of themselves: only the promises");
  CLI11_PARSE(app, argc, argv);
  if (*seed) {
    options.first = options.seed;
    options.count = 1;
  }
  for (const pesc::sim::Bug& bug : pesc::sim::known_bugs()) {
    if (bug.name == options.bug) return pesc::sim::run(options, bug);
  }
  fmt::print(stderr, "unknown bug {}; there are:", options.bug);
  for (const pesc::sim::Bug& bug : pesc::sim::known_bugs()) fmt::print(stderr, " {}", bug.name);
  fmt::print(stderr, "\n");
  return 2;
}
