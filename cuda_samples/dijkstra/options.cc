#include "dijkstra/options.h"

#include "common/arguments.h"
#include "common/failure.h"

namespace samples::dijkstra {

bool parse_options(int argc, char** argv, Options* out) {
  Arguments arguments(
      "dijkstra",
      "Shortest paths from one vertex of a random graph to all others, on a GPU.\n"
      "Writes distances.bin and summary.json to the output directory; saves to the\n"
      "checkpoint directory and goes on from there.");
  arguments.number("vertices", &out->graph.vertices, 1, kMaxVertices, "vertices of the graph");
  arguments.number("degree", &out->graph.degree, 0, kMaxDegree, "edges per vertex, on average");
  arguments.number("max-weight", &out->graph.max_weight, 1, kMaxWeight, "weights are 1 to this");
  arguments.number("source", &out->source, 0, kMaxVertices - 1, "where the paths begin");
  arguments.seed(&out->graph.seed);
  arguments.flag("verify", &out->verify, "compare with Dijkstra's algorithm on the CPU");
  arguments.flag("dry-run", &out->dry_run, "print what it would need, and end; needs no GPU");
  arguments.flag("cpu", &out->cpu, "run the same steps on one core of the CPU");
  arguments.flag("no-distances", &out->no_distances, "write summary.json only");
  arguments.number("checkpoint-seconds", &out->checkpoint_seconds, 0, 1'000'000,
                   "between two checkpoints; 0: only when told to stop");
  if (!arguments.parse(argc, argv)) return false;
  if (out->source >= out->graph.vertices) {
    throw Failure(kUsage, "--source " + std::to_string(out->source) +
                              " is not a vertex: there are " + std::to_string(out->graph.vertices) +
                              ", the first is 0");
  }
  return true;
}

}  // namespace samples::dijkstra
