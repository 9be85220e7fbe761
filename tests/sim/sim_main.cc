// pesc_sim: plays seeds, and says which promise broke, when, and how to see it again.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <string>
#include <vector>

#include "tests/sim/replay.h"
#include "tests/sim/shrink.h"
#include "tests/sim/simulation.h"

namespace pesc::sim {
namespace {

struct Options {
  uint64_t first = 1, count = 100;
  uint64_t seed = 0;
  bool no_shrink = false, trace = false, expect_caught = false, no_invariants = false;
  bool all_bugs = false;
  std::string bug = "none", replay;
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
  const Scenario scenario = make_scenario(seed);
  const PlayResult again = play(scenario, bug, Tracing::keep, !options.no_invariants);
  if (again.failure != result.failure) {
    fmt::print("the second play of the seed went otherwise ({}): something is not deterministic\n",
               again.failure);
  }
  const Shrunk shrunk = options.no_shrink
                            ? Shrunk{scenario, 0}
                            : shrink(scenario, result.failure, [&](const Scenario& smaller) {
                                return play(smaller, bug, Tracing::off, !options.no_invariants);
                              });
  fmt::print("\nthe smallest play found that fails alike ({} were tried):\n{}", shrunk.plays,
             describe(shrunk.scenario));
  const PlayResult last = play(shrunk.scenario, bug, options.trace ? Tracing::print : Tracing::keep,
                               !options.no_invariants);
  if (!options.trace) {
    for (const std::string& line : last.trace) fmt::print("{}\n", line);
  }
  fmt::print("seed {}, commit {}\nto see it alone: {}\n", seed, PESC_SIM_COMMIT,
             command_for(options, seed));
}

// The first seed that the bug fails at; 0: none of the seeds that it is given.
uint64_t caught_at(const Bug& bug, std::string& failure) {
  for (uint64_t seed = 1; seed <= bug.seeds; ++seed) {
    failure = play(make_scenario(seed), bug, Tracing::off, false).failure;
    if (!failure.empty()) return seed;
  }
  return 0;
}

// Each planted bug must fail within its number of seeds, without the cores' checks of themselves.
int run_all_bugs() {
  int missed = 0;
  for (const Bug& bug : known_bugs()) {
    if (bug.name == "none") continue;
    std::string failure;
    const uint64_t seed = caught_at(bug, failure);
    fmt::print("{:28} {:>5} of {:>5} seeds  {}\n", bug.name,
               seed == 0 ? "no" : std::to_string(seed), bug.seeds, failure.substr(0, 150));
    missed += seed == 0 ? 1 : 0;
  }
  return missed == 0 ? 0 : 1;
}

int run(const Options& options, const Bug& bug) {
  using Clock = std::chrono::steady_clock;
  const auto begin = Clock::now();
  TimeMs simulated = 0;
  uint64_t played = 0, events = 0;
  bool failed = false;
  for (uint64_t i = 0; i < options.count && !failed; ++i) {
    const uint64_t seed = options.first + i;
    const PlayResult result = play(make_scenario(seed), bug, Tracing::off, !options.no_invariants);
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
  app.add_flag("--trace", options.trace, "Of a play that fails, print everything");
  app.add_flag("--no-shrink", options.no_shrink, "Show a play that fails as it is");
  app.add_option("--bug", options.bug, "Plant this bug");
  app.add_flag("--all-bugs", options.all_bugs,
               "Plant each bug in turn, and fail unless each is caught");
  app.add_flag("--expect-caught", options.expect_caught, "Fail unless some seed fails");
  app.add_flag("--no-invariants", options.no_invariants,
               "Without the cores' checks of themselves: only the promises");
  app.add_option("--replay", options.replay, "Play what somebody has measured again: thesis")
      ->check(CLI::IsMember({"thesis"}));
  CLI11_PARSE(app, argc, argv);
  if (!options.replay.empty()) return pesc::sim::replay_thesis();
  if (options.all_bugs) return pesc::sim::run_all_bugs();
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
