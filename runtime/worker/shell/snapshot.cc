#include "runtime/worker/shell/snapshot.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <climits>
#include <string_view>

#include "blob/files.h"
#include "blob/hash.h"
#include "blob/tree.h"
#include "protocol/codec.h"
#include "runtime/common/state_dir.h"
#include "runtime/worker/shell/attempt_dirs.h"
#include "runtime/worker/shell/restore.h"

namespace pesc::worker {
namespace {

constexpr uint64_t kSmallBytes = 256 * 1024;
constexpr uint64_t kMemoryBytes = 1 << 20;  // of all small ones together
constexpr uint64_t kReadBytes = 1 << 20;
constexpr size_t kMaxDepth = 64;
// Another worker's checkpoint_dir may lie deeper than this one's.
constexpr size_t kPathMargin = 1024;
constexpr auto kSlice = std::chrono::milliseconds(100);
constexpr uint64_t kSliceBytes = 64 << 20;

int64_t nanoseconds(const timespec& t) { return int64_t{t.tv_sec} * 1'000'000'000 + t.tv_nsec; }

FilePrint print_of(const struct stat& info) {
  return {info.st_dev, info.st_ino, static_cast<uint64_t>(info.st_size), nanoseconds(info.st_mtim),
          nanoseconds(info.st_ctim)};
}

bool is_work_in_progress(std::string_view name) {
  return name.size() > 4 && name.substr(name.size() - 4) == ".tmp";
}

absl::Status changed(const std::string& path) {
  return absl::AbortedError(blob::printable(path) +
                            " changes while it is read: write it aside and rename it into place");
}

absl::Status cannot_open(int error, const std::string& path) {
  if (error != EWOULDBLOCK) return blob::errno_status(error, "cannot read", path);
  return absl::AbortedError(blob::printable(path) +
                            " is held by a lease of a program (F_SETLEASE): give that up before "
                            "the checkpoint is announced");
}

// One walk over the directory. `visit` gets each entry's stat and, of a file, an O_PATH descriptor.
class Walk {
 public:
  Walk(std::string root, uid_t owner) : root_(std::move(root)), owner_(owner) {}
  virtual ~Walk() = default;

  absl::Status run() {
    blob::Fd fd(::open(root_.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!fd) return blob::errno_status(errno, "cannot open", root_);
    return enter(fd.get(), "", 0);
  }

 protected:
  virtual absl::Status visit(CheckpointFile entry, const struct stat& info, int fd) = 0;
  std::string full(const std::string& path) const { return root_ + "/" + path; }

 private:
  absl::Status enter(int fd, const std::string& prefix, size_t depth) {
    if (depth > kMaxDepth) {
      return absl::InvalidArgumentError("checkpoint_dir is more than " + std::to_string(kMaxDepth) +
                                        " directories deep");
    }
    auto nodes = blob::list_directory(fd, full(prefix));
    if (!nodes.ok()) return nodes.status();
    for (const blob::Node& node : *nodes) {
      if (node.kind == blob::NodeKind::other || is_work_in_progress(node.name)) continue;
      absl::Status taken = take(fd, node, prefix + node.name, depth);
      // Gone meanwhile: the second look tells.
      if (!taken.ok() && !absl::IsNotFound(taken)) return taken;
    }
    return absl::OkStatus();
  }

  absl::Status take(int parent, const blob::Node& node, const std::string& path, size_t depth) {
    blob::Fd fd(::openat(parent, node.name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
    struct stat info {};
    if (!fd || ::fstat(fd.get(), &info) != 0) {
      return blob::errno_status(errno, "cannot open", full(path));
    }
    if (info.st_uid != owner_) return absl::OkStatus();  // a link to somebody else's file
    if (root_.size() + 1 + path.size() + kPathMargin > PATH_MAX) {
      return absl::InvalidArgumentError(
          "checkpoint_dir has a path of " + std::to_string(path.size()) +
          " bytes, too long to be restored: " + blob::printable(path.substr(0, 60)) +
          "…: use shorter names");
    }
    if (++count_ > kMaxCheckpointFiles) {
      return absl::InvalidArgumentError("checkpoint_dir has more than " +
                                        std::to_string(kMaxCheckpointFiles) + " files");
    }
    CheckpointFile entry;
    entry.path = path;
    entry.mode = info.st_mode & 0777;
    entry.modified_unix_ms = nanoseconds(info.st_mtim) / 1'000'000;
    if (S_ISLNK(info.st_mode)) {
      entry.kind = CheckpointFileKind::symlink;
      entry.mode = 0777;
      char target[4096];
      const ssize_t size = ::readlinkat(fd.get(), "", target, sizeof target);
      if (size <= 0 || size == sizeof target) return absl::OkStatus();
      entry.target.assign(target, static_cast<size_t>(size));
      return visit(std::move(entry), info, fd.get());
    }
    if (S_ISREG(info.st_mode)) return visit(std::move(entry), info, fd.get());
    if (!S_ISDIR(info.st_mode)) return absl::OkStatus();
    entry.kind = CheckpointFileKind::directory;
    entry.modified_unix_ms = 0;  // changes with every temporary file: equal contents stay equal
    absl::Status visited = visit(std::move(entry), info, fd.get());
    if (!visited.ok()) return visited;
    blob::Fd below(::openat(fd.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!below) return blob::errno_status(errno, "cannot open", full(path));
    return enter(below.get(), path + "/", depth + 1);
  }

  const std::string root_;
  const uid_t owner_;
  size_t count_ = 0;
};

class Taker final : public Walk {
 public:
  Taker(const std::string& root, std::string directory, uid_t owner)
      : Walk(root, owner), directory_(std::move(directory)) {}
  Snapshot snapshot;

 private:
  absl::Status visit(CheckpointFile entry, const struct stat& info, int fd) override {
    Snapshot::File file;
    file.entry = std::move(entry);
    file.print = print_of(info);
    absl::Status taken = absl::OkStatus();
    if (file.entry.kind == CheckpointFileKind::file) {
      file.size_bytes = file.print.size_bytes;
      taken = take_file(file, fd);
    }
    if (taken.ok()) snapshot.files.push_back(std::move(file));
    return taken;
  }

  absl::Status take_file(Snapshot::File& file, int path_fd) {
    const std::string path = full(file.entry.path);
    // Through /proc: it is the very file that was looked at, and no FIFO to wait for.
    const std::string self = "/proc/self/fd/" + std::to_string(path_fd);
    blob::Fd fd(::open(self.c_str(), O_RDONLY | O_NOCTTY | O_NONBLOCK | O_CLOEXEC));
    if (!fd) return cannot_open(errno, file.entry.path);
    if (file.size_bytes <= kSmallBytes && memory_ + file.size_bytes <= kMemoryBytes) {
      auto bytes = blob::pread_up_to(fd.get(), 0, file.size_bytes, path);
      if (!bytes.ok()) return bytes.status();
      memory_ += bytes->size();
      file.bytes = *std::move(bytes);
    } else {
      absl::Status kept = keep(file, fd.get(), self, path);
      if (!kept.ok()) return kept;
    }
    struct stat after {};
    if (::fstat(fd.get(), &after) != 0) return blob::errno_status(errno, "cannot read", path);
    const FilePrint print = print_of(after);
    if (print.size_bytes != file.print.size_bytes || print.modified_ns != file.print.modified_ns ||
        (file.bytes.size() != file.size_bytes && file.copy.empty())) {
      return changed(file.entry.path);
    }
    file.print = print;
    file.links = after.st_nlink;
    return absl::OkStatus();
  }

  absl::Status keep(Snapshot::File& file, int fd, const std::string& self,
                    const std::string& path) {
    if (!made_) {
      absl::Status removed = remove_tree(directory_);
      if (!removed.ok()) return removed;
      if (::mkdir(directory_.c_str(), 0700) != 0) {
        return common::errno_status(errno, "make the directory", directory_);
      }
      made_ = true;
    }
    file.copy = directory_ + "/" + std::to_string(next_++);
    if (may_clone_) {
      blob::Fd copy(::open(file.copy.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
      if (!copy) return common::errno_status(errno, "make", file.copy);
      if (::ioctl(copy.get(), FICLONE, fd) == 0) return absl::OkStatus();
      ::unlink(file.copy.c_str());
      may_clone_ = false;
    }
    if (::linkat(AT_FDCWD, self.c_str(), AT_FDCWD, file.copy.c_str(), AT_SYMLINK_FOLLOW) == 0) {
      file.linked = true;
      return absl::OkStatus();
    }
    if (errno == ENOENT) return absl::NotFoundError(path);  // deleted meanwhile
    blob::Fd copy(::open(file.copy.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    if (!copy) return common::errno_status(errno, "make", file.copy);
    return blob::copy_contents(fd, copy.get(), path, file.copy);
  }

  const std::string directory_;
  bool made_ = false, may_clone_ = true;
  uint64_t memory_ = 0, next_ = 0;
};

// A second look: everything is there still, as it was, and nothing else.
class Checker final : public Walk {
 public:
  Checker(const std::string& root, uid_t owner, const Snapshot& snapshot)
      : Walk(root, owner), snapshot_(snapshot) {}
  bool all_seen() const { return next_ == snapshot_.files.size(); }

 private:
  absl::Status visit(CheckpointFile entry, const struct stat& info, int) override {
    if (next_ == snapshot_.files.size()) return changed(entry.path);
    const Snapshot::File& before = snapshot_.files[next_++];
    if (before.entry.path != entry.path || before.entry.kind != entry.kind) {
      return changed(entry.path);
    }
    if (entry.kind == CheckpointFileKind::directory) return absl::OkStatus();
    const FilePrint now = print_of(info);
    if (entry.target != before.entry.target || now.inode != before.print.inode ||
        now.size_bytes != before.print.size_bytes || now.modified_ns != before.print.modified_ns) {
      return changed(entry.path);
    }
    return absl::OkStatus();
  }

  const Snapshot& snapshot_;
  size_t next_ = 0;
};

// Whether somebody wrote to a file of which we only have a link. Its ctime changes as well when the
// program replaces its name, which is no harm: the number of its links tells that apart.
absl::Status check_unwritten(const Snapshot::File& file, int fd) {
  struct stat info {};
  if (::fstat(fd, &info) != 0) return blob::errno_status(errno, "cannot read", file.copy);
  const FilePrint now = print_of(info);
  const bool same_links = info.st_nlink == file.links;
  if (now.size_bytes != file.print.size_bytes || now.modified_ns != file.print.modified_ns ||
      (same_links && now.changed_ns != file.print.changed_ns)) {
    return changed(file.entry.path);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Snapshot> take_snapshot(const std::string& checkpoint_dir,
                                       const std::string& directory, uid_t owner) {
  Taker taker(checkpoint_dir, directory, owner);
  absl::Status taken = taker.run();
  if (!taken.ok()) return taken;
  Checker checker(checkpoint_dir, owner, taker.snapshot);
  absl::Status checked = checker.run();
  if (!checked.ok()) return checked;
  if (!checker.all_seen()) {
    return absl::AbortedError(
        "files go while they are read: rename what is new into place, and announce it then");
  }
  return std::move(taker.snapshot);
}

const BlobRef& zero_chunk() {
  static const BlobRef zero{sha256(std::string(kCheckpointChunkBytes, '\0')),
                            kCheckpointChunkBytes};
  return zero;
}

SnapshotHashing::SnapshotHashing(Snapshot snapshot,
                                 std::shared_ptr<const std::atomic<bool>> cancelled)
    : snapshot_(std::move(snapshot)), cancelled_(std::move(cancelled)) {
  // A directory comes before what it contains, "a.b" before "a/b": as the manifest is sorted.
  std::sort(snapshot_.files.begin(), snapshot_.files.end(),
            [](const auto& a, const auto& b) { return a.entry.path < b.entry.path; });
}

std::optional<absl::StatusOr<HashedSnapshot>> SnapshotHashing::step() {
  const auto until = std::chrono::steady_clock::now() + kSlice;
  const uint64_t read_until = read_bytes_ + kSliceBytes;
  if (fd_ && snapshot_.files[file_].linked) {  // why read the rest of what is spoilt already
    absl::Status unwritten = check_unwritten(snapshot_.files[file_], fd_.get());
    if (!unwritten.ok()) return unwritten;
  }
  while (file_ < snapshot_.files.size()) {
    if (cancelled_->load()) return absl::CancelledError("it is not wanted any more");
    absl::Status done = next();
    if (!done.ok()) return done;
    if (read_bytes_ >= read_until || std::chrono::steady_clock::now() >= until) return std::nullopt;
  }
  return finish();
}

// A small file, a chunk of a large one, or its end.
absl::Status SnapshotHashing::next() {
  Snapshot::File& file = snapshot_.files[file_];
  if (!file.copy.empty()) {
    if (!fd_) {
      // Not to wait for a program that has a lease on its file.
      fd_ = blob::Fd(::open(file.copy.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
      if (!fd_) return cannot_open(errno, file.entry.path);
      offset_ = data_ = 0;
    }
    if (offset_ < file.size_bytes) return add_chunk(file);
    absl::Status unwritten = file.linked ? check_unwritten(file, fd_.get()) : absl::OkStatus();
    if (!unwritten.ok()) return unwritten;
    fd_ = blob::Fd();
  } else if (!file.bytes.empty()) {
    absl::Status added = add_small(file);
    if (!added.ok()) return added;
  }
  result_.manifest.files.push_back(std::move(file.entry));
  ++file_;
  return absl::OkStatus();
}

absl::Status SnapshotHashing::add_small(Snapshot::File& file) {
  HashedSnapshot::Piece piece;
  piece.blob = {sha256(file.bytes), file.bytes.size()};
  piece.bytes = std::move(file.bytes);
  read_bytes_ += piece.blob.size_bytes;
  return add(file, std::move(piece));
}

absl::Status SnapshotHashing::add_chunk(Snapshot::File& file) {
  const uint64_t end = std::min(file.size_bytes, offset_ + kCheckpointChunkBytes);
  auto blob = hash(file, end);
  if (!blob.ok()) return blob.status();
  HashedSnapshot::Piece piece{*blob, "", file.copy, offset_};
  offset_ = end;
  return add(file, std::move(piece));
}

absl::StatusOr<BlobRef> SnapshotHashing::hash(const Snapshot::File& file, uint64_t end) {
  if (is_hole(end)) {
    const uint64_t size = end - offset_;
    if (size == kCheckpointChunkBytes) return zero_chunk();
    return BlobRef{sha256(std::string(size, '\0')), size};
  }
  blob::Hasher hasher;
  for (uint64_t at = offset_; at < end;) {
    if (cancelled_->load()) return absl::CancelledError("it is not wanted any more");
    auto bytes = blob::pread_up_to(fd_.get(), at, std::min(kReadBytes, end - at), file.copy);
    if (!bytes.ok()) return bytes.status();
    if (bytes->empty()) return changed(file.entry.path);
    hasher.update(*bytes);
    at += bytes->size();
    read_bytes_ += bytes->size();
  }
  BlobRef blob;
  blob.size_bytes = hasher.size_bytes();
  blob.digest = hasher.finish();
  return blob;
}

// Whether there is nothing but a hole from offset_ to `end`.
bool SnapshotHashing::is_hole(uint64_t end) {
  if (data_ < offset_ || (data_ == 0 && offset_ == 0)) {
    const off_t data = ::lseek(fd_.get(), static_cast<off_t>(offset_), SEEK_DATA);
    if (data >= 0) {
      data_ = static_cast<uint64_t>(data);
    } else {
      data_ = errno == ENXIO ? snapshot_.files[file_].size_bytes : offset_;
    }
  }
  return data_ >= end;
}

absl::Status SnapshotHashing::add(Snapshot::File& file, HashedSnapshot::Piece piece) {
  file.entry.chunks.push_back(piece.blob);
  if (known_.insert(piece.blob.digest).second) result_.pieces.push_back(std::move(piece));
  if (++chunks_ <= kMaxCheckpointChunks) return absl::OkStatus();
  return absl::InvalidArgumentError("checkpoint_dir is larger than 1 TiB");
}

// One that could not be restored would only push out those that can.
absl::StatusOr<HashedSnapshot> SnapshotHashing::finish() {
  result_.manifest_bytes = protocol::serialize_manifest(result_.manifest);
  result_.manifest_blob = {sha256(result_.manifest_bytes), result_.manifest_bytes.size()};
  absl::Status restorable = check_restorable(result_.manifest, result_.manifest_bytes.size());
  if (restorable.ok()) {
    auto parsed = protocol::parse_manifest(result_.manifest_bytes);
    restorable = parsed.status();
    if (parsed.ok() && *parsed != result_.manifest) {
      restorable = absl::InvalidArgumentError("it would not come back as it is");
    }
  }
  if (!restorable.ok()) {
    return absl::InvalidArgumentError("what is in checkpoint_dir could not be restored: " +
                                      std::string(restorable.message()));
  }
  return std::move(result_);
}

}  // namespace pesc::worker
