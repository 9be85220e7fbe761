#include "dijkstra/machine.h"

namespace samples::dijkstra {

void Machine::start(std::uint32_t source) {
  slices_ = layout_.slices(memory());
  build(slices_);
  const std::uint64_t zero = 0;
  upload(&slices_.distances[source], &zero, sizeof zero);
  start_with({source}, fresh_control());
}

void Machine::start_from(const Snapshot& snapshot) {
  slices_ = layout_.slices(memory());
  build(slices_);
  upload(slices_.distances, snapshot.distances.data(), spec_.vertices * sizeof(std::uint64_t));
  std::vector<std::uint32_t> fringe;
  for (std::uint64_t v = 0; v < spec_.vertices; ++v) {
    const bool settled = (snapshot.settled[v / 8] >> (v % 8) & 1) != 0;
    if (!settled && snapshot.distances[v] != UINT64_MAX) {
      fringe.push_back(static_cast<std::uint32_t>(v));
    }
  }
  Control control = fresh_control();
  control.phases = snapshot.phases;
  control.settled = snapshot.settled_count;
  control.relaxed_edges = snapshot.relaxed_edges;
  start_with(fringe, control);
}

void Machine::start_with(const std::vector<std::uint32_t>& fringe, const Control& counters) {
  Control control = counters;
  control.fringe_count = static_cast<std::uint32_t>(fringe.size());
  upload(slices_.fringe, fringe.data(), fringe.size() * sizeof(std::uint32_t));
  upload(slices_.control, &control, sizeof control);
}

Look Machine::run(unsigned phases) {
  for (unsigned i = 0; i < phases; ++i) {
    phase(slices_);
    slices_ = turned(slices_);
  }
  Control control;
  download(&control, slices_.control, sizeof control);
  return {control.phases, control.settled, control.relaxed_edges, control.fringe_count};
}

std::vector<std::uint64_t> Machine::distances() {
  std::vector<std::uint64_t> out(spec_.vertices);
  download(out.data(), slices_.distances, spec_.vertices * sizeof(std::uint64_t));
  return out;
}

Snapshot Machine::save() {
  Control control;
  download(&control, slices_.control, sizeof control);
  std::vector<std::uint32_t> fringe(control.fringe_count);
  download(fringe.data(), slices_.fringe, fringe.size() * sizeof(std::uint32_t));
  Snapshot out;
  out.distances = distances();
  out.settled.resize((spec_.vertices + 7) / 8);
  for (std::uint64_t v = 0; v < spec_.vertices; ++v) {
    if (out.distances[v] != UINT64_MAX) {
      out.settled[v / 8] = static_cast<std::uint8_t>(out.settled[v / 8] | 1U << (v % 8));
    }
  }
  for (const std::uint32_t v : fringe) {
    out.settled[v / 8] = static_cast<std::uint8_t>(out.settled[v / 8] & ~(1U << (v % 8)));
  }
  out.phases = control.phases;
  out.settled_count = control.settled;
  out.relaxed_edges = control.relaxed_edges;
  return out;
}

}  // namespace samples::dijkstra
