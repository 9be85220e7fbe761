// The steps of the parallel Dijkstra, written once for the CPU and the GPU.
//
// The algorithm: A. Crauser, K. Mehlhorn, U. Meyer, P. Sanders, "A Parallelization of Dijkstra's
// Shortest Path Algorithm" (MFCS 1998), with both of its criteria, in the form in which H.
// Ortega-Arranz, Y. Torres, D. R. Llanos, A. Gonzalez-Escribano, "A New GPU-based Approach to the
// Shortest Path Problem" (HPCS 2013) runs it on a GPU: a phase is relax, minimum, update. Unlike
// there, the vertices at work are kept in lists, so that a phase costs what is in them and not a
// pass over all vertices.
//
// A vertex is unreached, in the fringe (reached, its distance may still fall) or settled. In a
// phase with L = min distance(u) and M = min distance(u) + lightest edge out of u, over the fringe:
//   OUT: v is settled if distance(v) <= M: every other way to v leaves the fringe by an edge that
//        makes it at least M long;
//   IN:  v is settled if distance(v) <= L + lightest edge into v: every other way arrives by one.
// All settled at once form the frontier, and their edges are relaxed with atomic minima. The vertex
// at distance L is always among them, so each phase makes progress.
//
// Distances after a phase do not depend on the order in which threads ran: minima commute, and the
// phase's sets are determined by the distances. So a run that resumes at a phase's end is the same
// run, bit for bit, also on another model of GPU, or on the CPU.
#pragma once

#include <cstdint>

#include "common/host_device.h"
#include "dijkstra/graph.h"

namespace samples::dijkstra {

struct Control {
  std::uint32_t fringe_count, next_count, frontier_count, unused;
  std::uint64_t nearest;  // L
  std::uint64_t reach;    // M
  std::uint64_t phases, settled, relaxed_edges;
};

struct Slices {
  Control* control;
  std::uint64_t* offsets;  // CSR: vertices + 1 of them
  Edge* edges;
  std::uint64_t* distances;
  std::uint32_t* min_in;   // the lightest edge into each vertex; none: UINT32_MAX
  std::uint32_t* min_out;  // and out of it
  std::uint32_t *frontier, *fringe, *next_fringe;
};

PESC_HOST_DEVICE inline Control fresh_control() {
  Control control = {};
  control.nearest = control.reach = UINT64_MAX;
  return control;
}

// ---- building the graph where the search runs ----

PESC_HOST_DEVICE inline void build_vertex(const GraphSpec& spec, const Slices& s, std::uint64_t v) {
  s.offsets[v] = first_edge(spec, v);
  if (v + 1 == spec.vertices) s.offsets[spec.vertices] = spec.edges();
  s.distances[v] = UINT64_MAX;
  s.min_in[v] = UINT32_MAX;
}

// After build_vertex() of all.
PESC_HOST_DEVICE inline void build_edge(const GraphSpec& spec, const Slices& s, std::uint64_t e) {
  const Edge edge = edge_at(spec, e);
  s.edges[e] = edge;
  atomic_min(&s.min_in[edge.target], edge.weight);
}

// After build_edge() of all.
PESC_HOST_DEVICE inline void build_min_out(const Slices& s, std::uint64_t v) {
  std::uint32_t lightest = UINT32_MAX;
  for (std::uint64_t e = s.offsets[v]; e < s.offsets[v + 1]; ++e) {
    if (s.edges[e].weight < lightest) lightest = s.edges[e].weight;
  }
  s.min_out[v] = lightest;
}

// ---- a phase: bounds of the fringe, split it, relax the frontier, advance ----

struct Bounds {
  std::uint64_t nearest, reach;
};

PESC_HOST_DEVICE inline Bounds lower(Bounds a, Bounds b) {
  return {a.nearest < b.nearest ? a.nearest : b.nearest, a.reach < b.reach ? a.reach : b.reach};
}

PESC_HOST_DEVICE inline Bounds bounds_of(const Slices& s, std::uint32_t vertex) {
  const std::uint64_t distance = s.distances[vertex];
  const std::uint32_t lightest = s.min_out[vertex];
  return {distance, lightest == UINT32_MAX ? UINT64_MAX : distance + lightest};
}

PESC_HOST_DEVICE inline bool settles(const Slices& s, std::uint32_t vertex, Bounds bounds) {
  const std::uint64_t distance = s.distances[vertex];
  return distance <= bounds.reach || distance <= bounds.nearest + s.min_in[vertex];
}

PESC_HOST_DEVICE inline void split(const Slices& s, std::uint32_t i, Bounds bounds) {
  const std::uint32_t vertex = s.fringe[i];
  if (settles(s, vertex, bounds)) {
    s.frontier[claim_slot(&s.control->frontier_count)] = vertex;
  } else {
    s.next_fringe[claim_slot(&s.control->next_count)] = vertex;
  }
}

// `distance`: of the frontier's vertex that the edge leaves, final.
PESC_HOST_DEVICE inline void relax(const Slices& s, std::uint64_t distance, std::uint64_t e) {
  const Edge edge = s.edges[e];
  const std::uint64_t candidate = distance + edge.weight;
  std::uint64_t* const target = &s.distances[edge.target];
  if (candidate >= peek(target)) return;  // spares most of the atomic operations
  // Exactly one thread sees the vertex unreached, and it puts it on the list.
  if (atomic_min(target, candidate) == UINT64_MAX) {
    s.next_fringe[claim_slot(&s.control->next_count)] = edge.target;
  }
}

// By one thread, after all others. A phase on an empty fringe changes nothing, so phases can be
// sent to the GPU ahead, without asking after each whether there is more to do.
PESC_HOST_DEVICE inline void advance(const Slices& s) {
  Control* const control = s.control;
  control->phases += control->fringe_count != 0 ? 1 : 0;
  control->settled += control->frontier_count;
  control->fringe_count = control->next_count;
  control->next_count = control->frontier_count = 0;
  control->nearest = control->reach = UINT64_MAX;
}

// What the next phase is to be called with: the lists change places.
PESC_HOST_DEVICE inline Slices turned(Slices s) {
  std::uint32_t* const fringe = s.fringe;
  s.fringe = s.next_fringe;
  s.next_fringe = fringe;
  return s;
}

}  // namespace samples::dijkstra
