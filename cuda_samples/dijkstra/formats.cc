#include "dijkstra/formats.h"

#include <algorithm>
#include <cstring>

#include "common/bytes.h"
#include "common/crc32.h"
#include "common/files.h"

namespace samples::dijkstra {
namespace {

constexpr std::size_t kDistancesHeader = 64, kCheckpointHeader = 96, kChunk = 1 << 17;
constexpr char kDistancesMagic[] = "PESCDIST", kCheckpointMagic[] = "PESCDIJK";
constexpr std::uint32_t kVersion = 1;

// Calls `take` with the distances as the file has them, piece by piece.
template <class Take>
void in_pieces(const std::vector<std::uint64_t>& distances, std::uint32_t width, const Take& take) {
  std::vector<std::uint32_t> narrow;
  for (std::size_t at = 0; at < distances.size(); at += kChunk) {
    const std::size_t count = std::min(kChunk, distances.size() - at);
    if (width == 8) {
      take(&distances[at], count * 8);
      continue;
    }
    narrow.resize(count);
    for (std::size_t i = 0; i < count; ++i)
      narrow[i] = static_cast<std::uint32_t>(distances[at + i]);
    take(narrow.data(), count * 4);
  }
}

// What both headers begin and end with.
std::string header_trouble(const std::string& bytes, const char* magic, std::size_t size) {
  if (bytes.size() < size) return "it is cut off within its header";
  if (bytes.compare(0, 8, magic) != 0) return "it is a file of another kind";
  if (get<std::uint32_t>(bytes, 8) != kVersion) return "it is of another version of this program";
  if (get<std::uint32_t>(bytes, size - 4) != crc32(bytes.data(), size - 4)) {
    return "its header is damaged";
  }
  return "";
}

std::uint64_t count_bits(const std::vector<std::uint8_t>& bytes) {
  std::uint64_t count = 0;
  for (const std::uint8_t byte : bytes) {
    count += static_cast<std::uint64_t>(__builtin_popcount(byte));
  }
  return count;
}

}  // namespace

DistancesSummary summarize(const std::vector<std::uint64_t>& distances) {
  DistancesSummary out;
  for (const std::uint64_t distance : distances) {
    if (distance == UINT64_MAX) continue;
    ++out.reached;
    out.max_distance = std::max(out.max_distance, distance);
  }
  out.width = out.max_distance < UINT32_MAX ? 4 : 8;
  in_pieces(distances, out.width, [&](const void* piece, std::size_t size) {
    out.checksum = crc32(piece, size, out.checksum);
  });
  return out;
}

void write_distances(const std::string& path, const GraphSpec& spec, std::uint32_t source,
                     const std::vector<std::uint64_t>& distances, const DistancesSummary& summary) {
  std::string header = kDistancesMagic;
  put(header, kVersion);
  put(header, summary.width);
  put(header, spec.vertices);
  put(header, std::uint64_t{source});
  put(header, spec.seed);
  put(header, spec.degree);
  put(header, spec.max_weight);
  put(header, summary.checksum);
  put(header, crc32(header.data(), header.size()));
  FileWriter file(path);
  file.write(header);
  in_pieces(distances, summary.width,
            [&](const void* piece, std::size_t size) { file.write(piece, size); });
  file.done();
}

std::string read_distances(const std::string& bytes, DistancesFile* out) {
  std::string trouble = header_trouble(bytes, kDistancesMagic, kDistancesHeader);
  if (!trouble.empty()) return trouble;
  const auto width = get<std::uint32_t>(bytes, 12);
  const auto vertices = get<std::uint64_t>(bytes, 16);
  const std::size_t payload = bytes.size() - kDistancesHeader;
  if ((width != 4 && width != 8) || payload % width != 0 || payload / width != vertices) {
    return "its size is not what its header says";
  }
  if (crc32(bytes.data() + kDistancesHeader, payload) != get<std::uint32_t>(bytes, 56)) {
    return "its distances are damaged";
  }
  out->source = static_cast<std::uint32_t>(get<std::uint64_t>(bytes, 24));
  out->spec = {get<std::uint64_t>(bytes, 32), vertices, get<std::uint64_t>(bytes, 40),
               get<std::uint64_t>(bytes, 48)};
  out->distances.resize(vertices);
  for (std::size_t v = 0; v < vertices; ++v) {
    if (width == 8) {
      out->distances[v] = get<std::uint64_t>(bytes, kDistancesHeader + 8 * v);
    } else {
      const auto distance = get<std::uint32_t>(bytes, kDistancesHeader + 4 * v);
      out->distances[v] = distance == UINT32_MAX ? UINT64_MAX : distance;
    }
  }
  return "";
}

std::string encode_checkpoint(const GraphSpec& spec, std::uint32_t source,
                              const Snapshot& snapshot) {
  const std::size_t distances = snapshot.distances.size() * sizeof(std::uint64_t);
  std::string out;
  out.reserve(kCheckpointHeader + distances + snapshot.settled.size());
  out = kCheckpointMagic;
  put(out, kVersion);
  put(out, source);
  put(out, spec.seed);
  put(out, spec.vertices);
  put(out, spec.degree);
  put(out, spec.max_weight);
  put(out, snapshot.phases);
  put(out, snapshot.settled_count);
  put(out, snapshot.relaxed_edges);
  put(out, snapshot.seconds);
  put(out, std::uint64_t{0});
  put(out, crc32(snapshot.settled.data(), snapshot.settled.size(),
                 crc32(snapshot.distances.data(), distances)));
  put(out, crc32(out.data(), out.size()));
  out.append(reinterpret_cast<const char*>(snapshot.distances.data()), distances);
  out.append(reinterpret_cast<const char*>(snapshot.settled.data()), snapshot.settled.size());
  return out;
}

std::string decode_checkpoint(const std::string& bytes, const GraphSpec& spec, std::uint32_t source,
                              Snapshot* out) {
  std::string trouble = header_trouble(bytes, kCheckpointMagic, kCheckpointHeader);
  if (!trouble.empty()) return trouble;
  const GraphSpec saved = {get<std::uint64_t>(bytes, 16), get<std::uint64_t>(bytes, 24),
                           get<std::uint64_t>(bytes, 32), get<std::uint64_t>(bytes, 40)};
  if (!(saved == spec) || get<std::uint32_t>(bytes, 12) != source) {
    return "it is of another graph or source";
  }
  const std::uint64_t distances = spec.vertices * 8, settled = (spec.vertices + 7) / 8;
  if (bytes.size() - kCheckpointHeader != distances + settled) return "it is cut off or too long";
  const char* const payload = bytes.data() + kCheckpointHeader;
  if (crc32(payload, distances + settled) != get<std::uint32_t>(bytes, 88)) return "it is damaged";
  out->phases = get<std::uint64_t>(bytes, 48);
  out->settled_count = get<std::uint64_t>(bytes, 56);
  out->relaxed_edges = get<std::uint64_t>(bytes, 64);
  out->seconds = get<double>(bytes, 72);
  out->distances.resize(spec.vertices);
  std::memcpy(out->distances.data(), payload, distances);
  out->settled.resize(settled);
  std::memcpy(out->settled.data(), payload + distances, settled);
  if (count_bits(out->settled) != out->settled_count) return "its parts contradict each other";
  return "";
}

}  // namespace samples::dijkstra
