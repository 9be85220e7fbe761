#include "tests/sim/programs.h"

#include <cinttypes>
#include <cstdio>

#include "protocol/codec.h"

namespace pesc::sim {

SaveBlobs to_blobs(const Save& save) {
  SaveBlobs blobs;
  char text[160];
  std::snprintf(text, sizeof text, "%" PRId64 " %d %" PRIu64 " %u %u", save.work_ms,
                save.corrupt ? 1 : 0, save.by.job.value, save.by.rank, save.by.attempt);
  blobs.chunk_bytes = text;
  blobs.chunk = {sha256(blobs.chunk_bytes), blobs.chunk_bytes.size()};
  CheckpointManifest manifest;
  manifest.files.push_back({.path = "state", .chunks = {blobs.chunk}});
  blobs.manifest_bytes = protocol::serialize_manifest(manifest);
  blobs.manifest = {sha256(blobs.manifest_bytes), blobs.manifest_bytes.size()};
  return blobs;
}

absl::StatusOr<BlobRef> chunk_of(const std::string& manifest_bytes) {
  auto manifest = protocol::parse_manifest(manifest_bytes);
  if (!manifest.ok()) return manifest.status();
  if (manifest->files.size() != 1 || manifest->files[0].chunks.size() != 1) {
    return absl::InvalidArgumentError("another manifest than a program of the simulator makes");
  }
  return manifest->files[0].chunks[0];
}

absl::StatusOr<Save> from_chunk(const std::string& chunk_bytes) {
  Save save;
  int corrupt = 0;
  if (std::sscanf(chunk_bytes.c_str(), "%" SCNd64 " %d %" SCNu64 " %u %u", &save.work_ms, &corrupt,
                  &save.by.job.value, &save.by.rank, &save.by.attempt) != 5) {
    return absl::InvalidArgumentError("another chunk than a program of the simulator makes");
  }
  save.corrupt = corrupt != 0;
  return save;
}

}  // namespace pesc::sim
