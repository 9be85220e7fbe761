// What simulated programs leave in their checkpoint_dir: how far they are, and whether the file can
// be read at all.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "model/ids.h"
#include "tests/sim/world.h"

namespace pesc::sim {

struct Save {
  TimeMs work_ms = 0;    // of the rank's work is done
  bool corrupt = false;  // a program that begins from it dies at once
  AttemptKey by;
  bool operator==(const Save&) const = default;
};

// The save as it travels: a manifest and one chunk, both blobs.
struct SaveBlobs {
  BlobRef manifest, chunk;
  std::string manifest_bytes, chunk_bytes;
};
SaveBlobs to_blobs(const Save& save);
// The one chunk that a manifest names.
absl::StatusOr<BlobRef> chunk_of(const std::string& manifest_bytes);
absl::StatusOr<Save> from_chunk(const std::string& chunk_bytes);

}  // namespace pesc::sim
