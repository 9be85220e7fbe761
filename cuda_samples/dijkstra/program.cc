#include "dijkstra/program.h"

#include <cstdio>
#include <memory>
#include <new>
#include <optional>
#include <string>

#include "common/failure.h"
#include "common/files.h"
#include "common/json.h"
#include "common/stop.h"
#include "common/surroundings.h"
#include "common/text.h"
#include "dijkstra/emulation.h"
#include "dijkstra/formats.h"
#include "dijkstra/reference.h"
#include "dijkstra/solve.h"
#include "pesc/rank.h"

namespace samples::dijkstra {
namespace {

constexpr char kProgram[] = "dijkstra", kCheckpoint[] = "dijkstra.checkpoint";

void verify(const Options& options, const Outcome& outcome) {
  (void)pesc_progress(1, "comparing with the CPU");
  const auto source = static_cast<std::uint32_t>(options.source);
  std::string found;
  try {
    found = difference(outcome.distances, reference_distances(build_graph(options.graph), source));
  } catch (const std::bad_alloc&) {
    throw Failure(kFailed,
                  "--verify: the computer has too little free memory (--dry-run says what "
                  "it needs); leave it out, or give fewer --vertices");
  }
  if (!found.empty()) {
    throw Failure(kVerifyFailed, "--verify: " + found + "; a GPU that computes wrongly, or a bug");
  }
}

void write_results(const std::string& directory, const Options& options, const Machine& machine,
                   const Outcome& outcome) {
  const DistancesSummary summary = summarize(outcome.distances);
  const GraphSpec& graph = options.graph;
  if (!options.no_distances) {
    write_distances(directory + "/distances.bin", graph, static_cast<std::uint32_t>(options.source),
                    outcome.distances, summary);
  }
  const double rate =
      outcome.seconds > 0 ? static_cast<double>(outcome.relaxed_edges) / outcome.seconds : 0;
  write_file(directory + "/summary.json",
             JsonObject()
                 .add("program", kProgram)
                 .add("device", machine.device())
                 .add("rank", static_cast<std::uint64_t>(pesc_rank()))
                 .add("seed", std::to_string(graph.seed))  // JSON's numbers end at 2^53 for many
                 .add("vertices", graph.vertices)
                 .add("edges", graph.edges())
                 .add("max_weight", graph.max_weight)
                 .add("source", options.source)
                 .add("reached", summary.reached)
                 .add("max_distance", summary.max_distance)
                 .add("iterations", outcome.phases)
                 .add("relaxed_edges", outcome.relaxed_edges)
                 .add("seconds", outcome.seconds)
                 .add("edges_per_second", rate)
                 .add("checksum", text("%08x", summary.checksum))
                 .add("verified", options.verify)
                 .done());
  (void)pesc_metric("edges_per_second", rate);
  std::printf(
      "rank %d: %llu of %llu vertices reached, farthest %llu, %llu phases, %.3f s, "
      "%.3g edges/s, checksum %08x%s, %s\n",
      pesc_rank(), static_cast<unsigned long long>(summary.reached),
      static_cast<unsigned long long>(graph.vertices),
      static_cast<unsigned long long>(summary.max_distance),
      static_cast<unsigned long long>(outcome.phases), outcome.seconds, rate, summary.checksum,
      options.verify ? ", verified" : "", machine.device().c_str());
}

int run(int argc, char** argv, const MachineFactory& on_gpu) {
  Options options;
  if (!parse_options(argc, argv, &options)) return kSuccess;
  const std::optional<Layout> layout = layout_for(options.graph.vertices, options.graph.degree);
  if (!layout) throw Failure(kUsage, "--vertices times --degree is more than 64 bits can say");
  if (options.dry_run) {
    std::fputs(describe(options.graph, *layout).c_str(), stdout);
    return kSuccess;
  }
  const std::string directory = output_directory();
  watch_for_stop();
  const std::unique_ptr<Machine> machine = options.cpu
                                               ? std::make_unique<Emulation>(options.graph, *layout)
                                               : on_gpu(options.graph, *layout);
  const Outcome outcome =
      solve(options, *machine, real_surroundings(kProgram, kCheckpoint, "shortest paths"));
  if (outcome.stopped) end_as_asked();
  obey_stop();  // what follows has no checkpoints: a signal ends it, and the search is done again
  if (options.verify) verify(options, outcome);
  write_results(directory, options, *machine, outcome);
  forget_checkpoint(kCheckpoint);
  (void)pesc_progress(1, "done");
  return kSuccess;
}

}  // namespace

int run_program(int argc, char** argv, const MachineFactory& on_gpu) {
  return guarded(kProgram, [&] { return run(argc, argv, on_gpu); });
}

}  // namespace samples::dijkstra
