// Outputs and archives: directories to tar + zstd and back, streaming, with memory bounded by a
// window. Reading trusts nobody: no absolute paths, no "..", no links that lead out, no devices, no
// bombs.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace pesc::blob {

using ByteSink = std::function<absl::Status(std::string_view)>;
// Returns the next bytes, empty at the end.
using ByteSource = std::function<absl::StatusOr<std::string>()>;

// A file that is packed from memory or from elsewhere, under a name of its own.
struct ExtraFile {
  std::string name;                     // "output.txt"
  std::string bytes;                    // used when `path` is empty
  std::filesystem::path path;
};

struct PackRequest {
  std::filesystem::path output_dir;     // all of it; may be empty or missing
  std::filesystem::path collect_root;   // matched against `collect`, relative; may be empty
  std::vector<std::string> collect;     // globs
  std::vector<std::string> skip;        // paths below collect_root that are inputs, never collected
  std::vector<ExtraFile> extra;         // left out when output_dir has a file of that name
};

struct PackReport {
  uint64_t files = 0, bytes = 0;        // before compression
  std::vector<std::string> uncollected; // files below collect_root that nothing returns, ≤ 20
};

// Symbolic links are packed as links when they stay inside, else left out; sockets, devices and
// FIFOs are left out. A file that cannot be read is an error that names it.
absl::StatusOr<PackReport> pack(const PackRequest& request, const ByteSink& sink);

struct UnpackLimits {
  uint64_t max_bytes = 1ull << 40;      // unpacked
  uint64_t max_entries = 10'000'000;
  uint64_t max_ratio = 1'000;           // unpacked to packed, checked beyond 1 GiB (a bomb)
  bool allow_existing = false;          // overwrite files that are there
};

// Any archive libarchive reads that is safe (tar, tar.gz, tar.zst, zip…). InvalidArgument names the
// entry and what is wrong with it; nothing is ever written outside `target`.
absl::Status unpack(const ByteSource& source, const std::filesystem::path& target,
                    const UnpackLimits& limits = {});
absl::Status unpack_file(const std::filesystem::path& archive, const std::filesystem::path& target,
                         const UnpackLimits& limits = {});
// Reads the whole archive and says whether unpack would accept it: refused at submit, not on a worker.
absl::Status check_archive(const std::filesystem::path& archive, const UnpackLimits& limits = {});

}  // namespace pesc::blob
