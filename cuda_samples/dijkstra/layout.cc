#include "dijkstra/layout.h"

#include <cstring>
#include <stdexcept>

#include "common/checked.h"
#include "common/text.h"
#include "dijkstra/reference.h"

namespace samples::dijkstra {

std::uint64_t Layout::offset_of(const char* name) const {
  for (const Array& array : arrays) {
    if (std::strcmp(array.name, name) == 0) return array.offset;
  }
  throw std::logic_error(std::string("no array ") + name);
}

Slices Layout::slices(void* base) const {
  const auto at = [&](const char* name) {
    return static_cast<void*>(static_cast<char*>(base) + offset_of(name));
  };
  Slices out = {};
  out.control = static_cast<Control*>(at("control"));
  out.offsets = static_cast<std::uint64_t*>(at("offsets"));
  out.edges = static_cast<Edge*>(at("edges"));
  out.distances = static_cast<std::uint64_t*>(at("distances"));
  out.min_in = static_cast<std::uint32_t*>(at("min_in"));
  out.min_out = static_cast<std::uint32_t*>(at("min_out"));
  out.frontier = static_cast<std::uint32_t*>(at("frontier"));
  out.fringe = static_cast<std::uint32_t*>(at("fringe"));
  out.next_fringe = static_cast<std::uint32_t*>(at("next fringe"));
  return out;
}

std::optional<Layout> layout_for(std::uint64_t vertices, std::uint64_t degree) {
  const Checked n(vertices);
  const struct {
    const char* name;
    Checked bytes;
  } wanted[] = {
      {"control", sizeof(Control)}, {"offsets", (n + 1) * 8}, {"edges", n * degree * sizeof(Edge)},
      {"distances", n * 8},         {"min_in", n * 4},        {"min_out", n * 4},
      {"frontier", n * 4},          {"fringe", n * 4},        {"next fringe", n * 4},
  };
  Layout layout;
  Checked at(0);
  for (const auto& array : wanted) {
    const Checked end = (at + array.bytes).rounded_up_to(256);
    if (!end.value()) return std::nullopt;
    layout.arrays.push_back({array.name, *at.value(), *array.bytes.value()});
    at = end;
  }
  const std::optional<std::uint64_t> total = at.rounded_up_to(std::uint64_t{2} << 20).value();
  if (!total) return std::nullopt;
  layout.total = *total;
  return layout;
}

std::string describe(const GraphSpec& spec, const Layout& layout) {
  std::string out =
      text("%s vertices, %s edges, weights 1 to %s, seed %llu\n", grouped(spec.vertices).c_str(),
           grouped(spec.edges()).c_str(), grouped(spec.max_weight).c_str(),
           static_cast<unsigned long long>(spec.seed));
  out += "GPU memory:\n";
  for (const Layout::Array& array : layout.arrays) {
    out += text("  %-12s %15s bytes\n", array.name, grouped(array.bytes).c_str());
  }
  out += text("  %-12s %15s bytes, in one block\n", "together", grouped(layout.total).c_str());
  const std::optional<std::uint64_t> all = (Checked(layout.total) + kUsualContextBytes).value();
  out += "With a CUDA context of the usual " + shown_bytes(kUsualContextBytes) + ": " +
         (all ? shown_bytes(*all) : "more than 64 bits can say") + "\n";
  const std::optional<std::uint64_t> host = reference_bytes(spec);
  out += "The computer's memory: " + shown_bytes(spec.vertices * 17) + "; with --verify about " +
         (host ? shown_bytes(*host) : "more than 64 bits can say") + "\n";
  return out;
}

}  // namespace samples::dijkstra
