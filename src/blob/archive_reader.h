// libarchive's reader behind statuses: which formats are let in, where bytes come from, what names
// are. Nothing here writes anywhere.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "blob/files.h"
#include "blob/pack.h"
#include "blob/tree.h"

struct archive;
struct archive_entry;

namespace pesc::blob {

struct ArchiveItem {
  std::string name;  // relative, normalised; empty: the root itself
  NodeKind kind = NodeKind::file;
  std::string link_target;       // of a symbolic link
  std::string hard_link_target;  // not empty: another name of a file that came before
  uint32_t mode = 0644;
  int64_t modified_s = 0;
  bool has_time = false;
  uint64_t size_bytes = 0;  // 0 when the archive does not say
};

class ArchiveReader {
 public:
  explicit ArchiveReader(const UnpackLimits& limits = {});
  ~ArchiveReader();
  ArchiveReader(const ArchiveReader&) = delete;
  ArchiveReader& operator=(const ArchiveReader&) = delete;

  absl::Status open(const ByteSource& source);  // must outlive the reader
  absl::Status open_file(const std::filesystem::path& path);
  absl::Status open_blob(const Store& store, const BlobRef& blob);  // the store must outlive it

  // The next entry, or false at the end. InvalidArgument names what is wrong with it.
  absl::StatusOr<bool> next(ArchiveItem& item);
  // The current entry's bytes. Blocks come in order; what lies between them is zeros.
  using BlockSink = std::function<absl::Status(uint64_t offset, std::string_view)>;
  absl::Status read_data(const BlockSink& sink);

 private:
  class Utf8Names;

  void prepare_foreign();
  absl::StatusOr<bool> open_small();
  absl::Status failure(const std::string& doing) const;
  absl::Status fill(ArchiveItem& item);
  absl::Status admit(const ArchiveItem& item);
  absl::Status count(uint64_t bytes);
  absl::Status check_end() const;
  static ssize_t on_read(archive* a, void* self, const void** data);
  static int64_t on_seek(archive* a, void* self, int64_t offset, int whence);

  const UnpackLimits limits_;
  archive* archive_;
  const ByteSource* source_ = nullptr;
  std::vector<std::string> read_ahead_;  // pieces for on_read() to begin with, the last one first
  std::string piece_;
  ByteSource blob_source_;
  uint64_t blob_offset_ = 0, blob_bytes_ = 0;
  absl::Status source_status_;
  Fd file_;
  archive_entry* entry_ = nullptr;
  std::string name_;  // of the current entry
  uint64_t entries_ = 0, bytes_ = 0;
  // What each name is so far, by the name's hash: a collision could at worst refuse an archive.
  absl::flat_hash_map<size_t, NodeKind> kinds_;
};

}  // namespace pesc::blob
