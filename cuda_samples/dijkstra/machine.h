// What runs the phases: a GPU, or the CPU in its place. Everything but the launches is here.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "dijkstra/graph.h"
#include "dijkstra/layout.h"
#include "dijkstra/steps.h"

namespace samples::dijkstra {

// A run between two phases: all that is needed to go on, but the graph, which is made again.
struct Snapshot {
  std::vector<std::uint64_t> distances;  // UINT64_MAX: unreached
  std::vector<std::uint8_t> settled;     // a bit per vertex, the lowest first
  std::uint64_t phases = 0, settled_count = 0, relaxed_edges = 0;
  double seconds = 0;  // of searching, over all attempts
};

// How far a run is.
struct Look {
  std::uint64_t phases, settled, relaxed_edges;
  std::uint32_t fringe;  // 0: finished
};

class Machine {
 public:
  Machine(const GraphSpec& spec, const Layout& layout) : spec_(spec), layout_(layout) {}
  virtual ~Machine() = default;
  Machine(const Machine&) = delete;
  Machine& operator=(const Machine&) = delete;

  virtual std::string device() const = 0;

  // Builds the graph; then the source alone is in the fringe, or the snapshot is as it was.
  void start(std::uint32_t source);
  void start_from(const Snapshot& snapshot);

  Look run(unsigned phases);
  std::vector<std::uint64_t> distances();
  Snapshot save();

 protected:
  virtual void* memory() = 0;
  virtual void upload(void* to, const void* from, std::uint64_t bytes) = 0;
  virtual void download(void* to, const void* from, std::uint64_t bytes) = 0;
  virtual void build(const Slices& slices) = 0;
  virtual void phase(const Slices& slices) = 0;  // may return before it is over

  const GraphSpec& spec() const { return spec_; }
  const Layout& layout() const { return layout_; }

 private:
  void start_with(const std::vector<std::uint32_t>& fringe, const Control& counters);

  GraphSpec spec_;
  Layout layout_;
  Slices slices_ = {};
};

using MachineFactory =
    std::function<std::unique_ptr<Machine>(const GraphSpec& spec, const Layout& layout)>;

}  // namespace samples::dijkstra
