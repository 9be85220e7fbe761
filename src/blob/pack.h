// Outputs and archives: directories to tar + zstd and back, streaming, with memory bounded by a
// window. Reading trusts nobody: no absolute paths, no "..", no links that lead out, no devices, no
// bombs.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/ids.h"

namespace pesc::blob {

class Store;

using ByteSink = std::function<absl::Status(std::string_view)>;
// Returns the next bytes, empty at the end.
using ByteSource = std::function<absl::StatusOr<std::string>()>;

// A file that is packed from memory or from elsewhere, under a name of its own.
struct ExtraFile {
  std::string name;   // "output.txt"
  std::string bytes;  // used when `path` is empty
  std::filesystem::path path;
  int64_t modified_s = 0;  // since 1970; goes with `bytes`: what is read from `path` has its own
};

// Names are bytes, with '/' between components; they need not be UTF-8.
struct PackRequest {
  std::filesystem::path output_dir;    // all of it; may be empty or missing
  std::filesystem::path collect_root;  // matched against `collect`, relative; may be empty
  std::vector<std::string> collect;    // globs; a directory that matches comes back whole
  // Paths below collect_root that are inputs: never collected, never listed as uncollected. Each is
  // the path itself, so that what a program adds to a directory of inputs is seen; one that ends
  // with '/' is a directory with all that is in it. output_dir, if it is below, is skipped anyway.
  std::vector<std::string> skip;
  // Come first in the archive, in this order (so that output.txt is read without what follows it).
  // Taken from output_dir, else from what was collected, when there is a file of that name.
  std::vector<ExtraFile> extra;
  // Names of directories whose files are never listed as uncollected, wherever they are.
  std::vector<std::string> unlisted = {};
  // For root, who packs what another user left: files that this user could not read (hard links to
  // other people's) are left out. The extra files are the caller's own.
  std::optional<std::pair<uint32_t, uint32_t>> only_readable_by = {};  // user and group
};

struct PackReport {
  uint64_t files = 0, bytes = 0;         // before compression
  std::vector<std::string> uncollected;  // files below collect_root that nothing returns, ≤ 20
};

// tar (GNU) + zstd, the extra files first, then the others sorted by name; owners are not kept.
//
// Symbolic links are packed as links when they stay inside, else left out; sockets, devices and
// FIFOs are left out. A file that cannot be read is an error that names it. Aborted when a file
// changed its size meanwhile: the archive that the sink got is whole and valid then, with that file
// cut or filled with zeros.
//
// Thread-safe; each thread keeps a compressor of about 1 MiB for its next call.
absl::StatusOr<PackReport> pack(const PackRequest& request, const ByteSink& sink);

struct UnpackLimits {
  uint64_t max_bytes = 1ull << 40;  // unpacked
  uint64_t max_entries = 10'000'000;
  // Unpacked to packed, checked beyond 1 GiB (a bomb). 0: not checked, right for what ranks left:
  // a file of zeros is honest and packs to a thirty-thousandth.
  uint64_t max_ratio = 1'000;
  bool allow_existing = false;  // overwrite files that are there
};

// tar (all kinds), zip and 7z, packed with gzip, bzip2, xz, lzma, lz4, zstd, compress or nothing
// (zip and 7z from a file or a blob: their directory is at the end).
//
// InvalidArgument names the entry and what is wrong with it; nothing is ever written outside
// `target`, which is made when it is missing. No entry may go through a symbolic link. Modes are
// kept under the process's umask, without set-user-ID bits; owners are not. After an error `target`
// holds what came before it: the caller throws it away.
absl::Status unpack(const ByteSource& source, const std::filesystem::path& target,
                    const UnpackLimits& limits = {});
absl::Status unpack_file(const std::filesystem::path& archive, const std::filesystem::path& target,
                         const UnpackLimits& limits = {});
// An archive that a store has. What unpack_file() and check_archive() take it takes too; unpack()
// does not: a stream has no 7z, and of a zip neither modes nor links.
absl::Status unpack_blob(const Store& store, const BlobRef& blob,
                         const std::filesystem::path& target, const UnpackLimits& limits = {});
// Reads the whole archive and says whether unpack would accept it: refused at submit, not on a
// worker.
absl::Status check_archive(const std::filesystem::path& archive, const UnpackLimits& limits = {});

// One regular file out of an archive, without unpacking the rest. NotFound when it has none of that
// name.
absl::Status stream_member(const ByteSource& source, std::string_view name, const ByteSink& sink);
// The same in memory; ResourceExhausted when it is longer than max_bytes.
absl::StatusOr<std::string> read_member(const ByteSource& source, std::string_view name,
                                        uint64_t max_bytes);

// A source of bytes that are in memory.
ByteSource source_of(std::string bytes);
// A source of a blob in a store, which must outlive it: 1 MiB at a time.
ByteSource source_of(const Store& store, const Digest& digest);
absl::StatusOr<ByteSource> source_of_file(const std::filesystem::path& path);

}  // namespace pesc::blob
