#include "dijkstra/solve.h"

#include <algorithm>

#include "dijkstra/formats.h"

namespace samples::dijkstra {
namespace {

// Starts the machine; returns the seconds that attempts before this one have searched.
double begin(const Options& options, Machine& machine, const Surroundings& around) {
  const auto source = static_cast<std::uint32_t>(options.source);
  std::string bytes;
  if (around.load(bytes)) {
    Snapshot snapshot;
    const std::string trouble = decode_checkpoint(bytes, options.graph, source, &snapshot);
    bytes = std::string();
    if (trouble.empty()) {
      machine.start_from(snapshot);
      return snapshot.seconds;
    }
    // It costs the time it would have saved; to fail here would cost the rank, on each attempt.
    around.say("the checkpoint is not used: " + trouble + "; starting from the beginning");
  }
  machine.start(source);
  return 0;
}

std::string shown(std::uint64_t distance) {
  return distance == UINT64_MAX ? "unreachable" : std::to_string(distance);
}

}  // namespace

Outcome solve(const Options& options, Machine& machine, const Surroundings& around) {
  around.progress(0);
  const double before = begin(options, machine, around);
  const double started = around.seconds();
  const auto searched = [&] { return before + around.seconds() - started; };
  const auto save = [&] {
    Snapshot snapshot = machine.save();
    snapshot.seconds = searched();
    around.save(
        encode_checkpoint(options.graph, static_cast<std::uint32_t>(options.source), snapshot));
  };
  const auto period = static_cast<double>(options.checkpoint_seconds);
  const auto vertices = static_cast<double>(options.graph.vertices);
  double saved = started;
  Look look = machine.run(0);
  while (look.fringe != 0) {
    if (around.stop_requested()) {
      save();
      Outcome outcome;
      outcome.stopped = true;
      return outcome;
    }
    if (period > 0 && around.seconds() - saved >= period) {
      save();
      saved = around.seconds();
    }
    look = machine.run(options.phases_per_look);
    around.progress(static_cast<double>(look.settled) / vertices);
  }
  Outcome outcome;
  outcome.seconds = searched();
  outcome.distances = machine.distances();
  outcome.phases = look.phases;
  outcome.settled = look.settled;
  outcome.relaxed_edges = look.relaxed_edges;
  return outcome;
}

std::string difference(const std::vector<std::uint64_t>& found,
                       const std::vector<std::uint64_t>& expected) {
  if (found.size() != expected.size()) return "there are too few or too many distances";
  std::uint64_t count = 0;
  std::size_t first = 0;
  for (std::size_t v = 0; v < found.size(); ++v) {
    if (found[v] == expected[v]) continue;
    if (count++ == 0) first = v;
  }
  if (count == 0) return "";
  return std::to_string(count) + " of " + std::to_string(found.size()) +
         " distances differ; the first is vertex " + std::to_string(first) + ": " +
         shown(found[first]) + " instead of " + shown(expected[first]);
}

}  // namespace samples::dijkstra
