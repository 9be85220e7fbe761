// Directories to tar + zstd.
#include "blob/pack.h"

#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>

#include "blob/compressor.h"
#include "blob/pack_plan.h"

namespace pesc::blob {
namespace {

struct FreeArchive {
  void operator()(archive* a) const { archive_write_free(a); }
};
struct FreeEntry {
  void operator()(archive_entry* e) const { archive_entry_free(e); }
};

// GNU tar, because its names are plain bytes: pax wants UTF-8 and asks the process's locale.
class Packer {
 public:
  Packer(const PackRequest& request, const ByteSink& sink)
      : request_(request),
        compressor_(sink),
        archive_(archive_write_new()),
        entry_(archive_entry_new()) {}

  absl::StatusOr<PackReport> run() {
    absl::StatusOr<PackPlan> plan = plan_pack(request_);
    if (!plan.ok()) return plan.status();
    archive_write_set_format_gnutar(archive_.get());
    archive_write_set_bytes_per_block(archive_.get(), 0);  // the compressor gathers by itself
    archive_write_set_bytes_in_last_block(archive_.get(), 1);
    if (archive_write_open(archive_.get(), this, nullptr, &Packer::on_bytes, nullptr) !=
        ARCHIVE_OK) {
      return failure("");
    }
    output_root_ = plan->output.get();
    for (const PlannedEntry& entry : plan->entries) {
      if (absl::Status added = add(entry); !added.ok()) return added;
    }
    if (archive_write_close(archive_.get()) != ARCHIVE_OK) return failure("");
    if (absl::Status finished = compressor_.finish(); !finished.ok()) return finished;
    if (!changed_.ok()) return changed_;
    report_.uncollected = std::move(plan->uncollected);
    return std::move(report_);
  }

 private:
  static la_ssize_t on_bytes(archive* a, void* self, const void* data, size_t size) {
    auto* packer = static_cast<Packer*>(self);
    // Closing or freeing an archive writes its end, after a failure too.
    if (!packer->sink_status_.ok()) return -1;
    packer->sink_status_ = packer->compressor_.append({static_cast<const char*>(data), size});
    if (packer->sink_status_.ok()) return static_cast<la_ssize_t>(size);
    archive_set_error(a, EIO, "the sink failed");
    return -1;
  }

  absl::Status failure(const std::string& name) const {
    if (!sink_status_.ok()) return sink_status_;
    const char* message = archive_error_string(archive_.get());
    return absl::InternalError("cannot pack " + printable(name) + ": " +
                               (message != nullptr ? message : "unknown error"));
  }

  absl::Status add(const PlannedEntry& planned) {
    archive_entry_clear(entry_.get());
    archive_entry_copy_pathname(entry_.get(), planned.name.c_str());
    if (planned.kind == NodeKind::link) {
      archive_entry_set_filetype(entry_.get(), AE_IFLNK);
      archive_entry_copy_symlink(entry_.get(), planned.link_target.c_str());
      archive_entry_set_perm(entry_.get(), 0777);
      return write_header(planned.name);
    }
    if (planned.extra != nullptr && planned.extra->path.empty()) return add_bytes(*planned.extra);
    const std::filesystem::path shown = shown_path(planned);
    // O_NONBLOCK: should a pipe have taken the file's place, opening it must not wait.
    absl::StatusOr<Fd> fd = planned.extra != nullptr
                                ? open_path(planned.extra->path)
                                : open_beneath(planned.root, planned.name,
                                               O_RDONLY | O_NONBLOCK | O_NOCTTY, root_of(planned));
    if (!fd.ok()) return fd.status();
    struct stat info;
    if (::fstat(fd->get(), &info) != 0) return errno_status(errno, "cannot read", shown);
    if (planned.extra == nullptr && S_ISREG(info.st_mode) && !may_read(info)) {
      return absl::OkStatus();
    }
    archive_entry_set_perm(entry_.get(), info.st_mode & 0777);
    archive_entry_set_mtime(entry_.get(), info.st_mtim.tv_sec, 0);
    if (S_ISDIR(info.st_mode) && planned.kind == NodeKind::directory) {
      archive_entry_set_filetype(entry_.get(), AE_IFDIR);
      return write_header(planned.name);
    }
    if (!S_ISREG(info.st_mode)) {
      return absl::InvalidArgumentError(shown.string() + " is not a regular file");
    }
    return add_file(fd->get(), static_cast<uint64_t>(info.st_size), planned.name, shown);
  }

  bool may_read(const struct stat& info) const {
    if (!request_.only_readable_by) return true;
    const auto& [user, group] = *request_.only_readable_by;
    return info.st_uid == user || (info.st_mode & S_IROTH) != 0 ||
           (info.st_gid == group && (info.st_mode & S_IRGRP) != 0);
  }

  const std::filesystem::path& root_of(const PlannedEntry& planned) const {
    return planned.root == output_root_ ? request_.output_dir : request_.collect_root;
  }

  std::filesystem::path shown_path(const PlannedEntry& planned) const {
    return planned.extra != nullptr ? planned.extra->path : root_of(planned) / planned.name;
  }

  static absl::StatusOr<Fd> open_path(const std::filesystem::path& path) {
    Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
    if (!fd) return errno_status(errno, "cannot open", path);
    return fd;
  }

  absl::Status write_header(const std::string& name) {
    if (archive_write_header(archive_.get(), entry_.get()) < ARCHIVE_WARN) return failure(name);
    return absl::OkStatus();
  }

  absl::Status begin_file(const std::string& name, uint64_t size_bytes) {
    archive_entry_set_filetype(entry_.get(), AE_IFREG);
    archive_entry_set_size(entry_.get(), static_cast<la_int64_t>(size_bytes));
    ++report_.files;
    report_.bytes += size_bytes;
    return write_header(name);
  }

  absl::Status add_bytes(const ExtraFile& extra) {
    archive_entry_set_perm(entry_.get(), 0644);
    archive_entry_set_mtime(entry_.get(), extra.modified_s, 0);
    if (absl::Status begun = begin_file(extra.name, extra.bytes.size()); !begun.ok()) return begun;
    return write_data(extra.bytes, extra.name);
  }

  absl::Status write_data(std::string_view bytes, const std::string& name) {
    if (!bytes.empty() && archive_write_data(archive_.get(), bytes.data(), bytes.size()) < 0) {
      return failure(name);
    }
    return absl::OkStatus();
  }

  absl::Status add_file(int fd, uint64_t size_bytes, const std::string& name,
                        const std::filesystem::path& shown) {
    if (absl::Status begun = begin_file(name, size_bytes); !begun.ok()) return begun;
    // One byte more than is left: so a file that grew is noticed without another call.
    buffer_.resize(std::max<size_t>(buffer_.size(), std::min(size_bytes + 1, kPieceBytes)));
    uint64_t done = 0;
    while (true) {
      const ssize_t n = ::read(fd, buffer_.data(), buffer_.size());
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return errno_status(errno, "cannot read", shown);
      if (n == 0) break;
      const uint64_t taken = std::min<uint64_t>(static_cast<uint64_t>(n), size_bytes - done);
      if (absl::Status written = write_data({buffer_.data(), taken}, name); !written.ok()) {
        return written;
      }
      done += taken;
      if (taken < static_cast<uint64_t>(n)) return note_change(shown);
      if (done == size_bytes && static_cast<size_t>(n) < buffer_.size()) break;
    }
    if (done == size_bytes) return absl::OkStatus();
    // The header has promised the rest: zeros.
    std::fill(buffer_.begin(), buffer_.end(), '\0');
    for (; done < size_bytes; done += std::min<uint64_t>(size_bytes - done, buffer_.size())) {
      const uint64_t piece = std::min<uint64_t>(size_bytes - done, buffer_.size());
      if (absl::Status padded = write_data({buffer_.data(), piece}, name); !padded.ok()) {
        return padded;
      }
    }
    return note_change(shown);
  }

  absl::Status note_change(const std::filesystem::path& shown) {
    if (changed_.ok()) {
      changed_ =
          absl::AbortedError("changed its size while it was being packed: " + shown.string() +
                             "; a process may still be writing to it");
    }
    return absl::OkStatus();
  }

  static constexpr size_t kPieceBytes = 256 * 1024;

  const PackRequest& request_;
  absl::Status sink_status_, changed_;
  Compressor compressor_;
  // Freed before the compressor: freeing one that failed flushes it.
  std::unique_ptr<archive, FreeArchive> archive_;
  std::unique_ptr<archive_entry, FreeEntry> entry_;
  std::string buffer_;
  PackReport report_;
  int output_root_ = -1;
};

}  // namespace

absl::StatusOr<PackReport> pack(const PackRequest& request, const ByteSink& sink) {
  return Packer(request, sink).run();
}

}  // namespace pesc::blob
