// The two files of a run. Numbers are little-endian.
//
// distances.bin: 64 bytes of header, then a distance per vertex, 4 or 8 bytes each.
//    0  "PESCDIST"         32  u64 seed
//    8  u32 version, 1     40  u64 degree
//   12  u32 width: 4 or 8  48  u64 max_weight
//   16  u64 vertices       56  u32 CRC-32 of the distances
//   24  u64 source         60  u32 CRC-32 of the 60 bytes before
// A vertex that cannot be reached has the largest number of its width. The width is 4 when all
// distances fit below that, as they nearly always do. In Python:
//   numpy.fromfile("distances.bin", "<u4", offset=64)
//
// The checkpoint: 96 bytes of header, 8 bytes of distance per vertex, and a bit per vertex, the
// lowest first, that says whether it is settled.
//    0  "PESCDIJK"         48  u64 phases
//    8  u32 version, 1     56  u64 settled vertices
//   12  u32 source         64  u64 relaxed edges
//   16  u64 seed           72  f64 seconds
//   24  u64 vertices       80  u64 0
//   32  u64 degree         88  u32 CRC-32 of what follows the header
//   40  u64 max_weight     92  u32 CRC-32 of the 92 bytes before
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "dijkstra/machine.h"

namespace samples::dijkstra {

struct DistancesFile {
  GraphSpec spec;
  std::uint32_t source = 0;
  std::vector<std::uint64_t> distances;
};

// The width and the checksum that the file has for these distances.
struct DistancesSummary {
  std::uint32_t width = 4, checksum = 0;
  std::uint64_t reached = 0, max_distance = 0;
};
DistancesSummary summarize(const std::vector<std::uint64_t>& distances);

// Throws Failure.
void write_distances(const std::string& path, const GraphSpec& spec, std::uint32_t source,
                     const std::vector<std::uint64_t>& distances, const DistancesSummary& summary);

// These return what is wrong with the bytes, in words; nothing when they are fine.
std::string read_distances(const std::string& bytes, DistancesFile* out);

std::string encode_checkpoint(const GraphSpec& spec, std::uint32_t source,
                              const Snapshot& snapshot);
std::string decode_checkpoint(const std::string& bytes, const GraphSpec& spec, std::uint32_t source,
                              Snapshot* out);

}  // namespace samples::dijkstra
