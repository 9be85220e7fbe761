// Archives to directories.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "absl/container/flat_hash_set.h"
#include "blob/archive_reader.h"
#include "blob/store.h"
#include "blob/tree.h"

namespace pesc::blob {
namespace {

constexpr size_t kHoleBytes = 4096;

bool all_zeros(std::string_view bytes) {
  return bytes.front() == '\0' &&
         std::memcmp(bytes.data(), bytes.data() + 1, bytes.size() - 1) == 0;
}

// Makes entries below one directory, never following a symbolic link on the way.
class Unpacker {
 public:
  Unpacker(ArchiveReader& reader, const std::filesystem::path& target, bool allow_existing)
      : reader_(reader), target_(target), allow_existing_(allow_existing) {}

  absl::Status run() {
    if (absl::Status made = make_directories(target_); !made.ok()) return made;
    root_ = Fd(::open(target_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!root_) return errno_status(errno, "cannot open the directory", target_);
    ArchiveItem item;
    while (true) {
      absl::StatusOr<bool> more = reader_.next(item);
      if (!more.ok()) return more.status();
      if (!*more) return absl::OkStatus();
      if (item.name.empty()) continue;
      if (absl::Status made = make(item); !made.ok()) return made;
    }
  }

 private:
  absl::Status make(const ArchiveItem& item) {
    const size_t slash = item.name.rfind('/');
    const bool below = slash != std::string::npos;
    absl::StatusOr<int> parent = directory(below ? item.name.substr(0, slash) : "");
    if (!parent.ok()) return parent.status();
    const std::string base = below ? item.name.substr(slash + 1) : item.name;
    if (!item.hard_link_target.empty()) return make_hard_link(*parent, base, item);
    switch (item.kind) {
      case NodeKind::directory:
        return enter(*parent, base, item.name, item.mode | 0700).status();
      case NodeKind::link:
        return create(*parent, base, item,
                      [&] { return ::symlinkat(item.link_target.c_str(), *parent, base.c_str()); });
      default:
        return make_file(*parent, base, item);
    }
  }

  // The open directory of that path below the target, made as needed. Entries come in the order of
  // their directories, so the last one is kept.
  absl::StatusOr<int> directory(const std::string& path) {
    if (path.empty()) return root_.get();
    if (path == open_path_) return open_.get();
    Fd at;
    size_t from = 0;
    while (from <= path.size()) {
      const size_t slash = std::min(path.find('/', from), path.size());
      absl::StatusOr<Fd> next = enter(at ? at.get() : root_.get(), path.substr(from, slash - from),
                                      path.substr(0, slash), 0777);
      if (!next.ok()) return next.status();
      at = *std::move(next);
      from = slash + 1;
    }
    open_ = std::move(at);
    open_path_ = path;
    return open_.get();
  }

  absl::StatusOr<Fd> enter(int parent, const std::string& base, const std::string& name,
                           uint32_t mode) {
    for (const bool made : {false, true}) {
      Fd fd(::openat(parent, base.c_str(), O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
      if (fd) return fd;
      if (errno == ENOTDIR || errno == ELOOP) {
        return absl::InvalidArgumentError("the archive's entry " + printable(name) +
                                          " is to be a directory, and a file or symbolic link of "
                                          "that name is there already");
      }
      if (errno != ENOENT || made) break;
      if (::mkdirat(parent, base.c_str(), mode) != 0 && errno != EEXIST) break;
    }
    return failure(errno, name);
  }

  absl::Status failure(int error, const std::string& name) const {
    if (error == ENAMETOOLONG) {
      return absl::InvalidArgumentError("the archive's entry " + printable(name) +
                                        " has a name that is too long for this file system");
    }
    return errno_status(error, "cannot unpack", target_ / name);
  }

  // Runs `attempt`, which must fail with EEXIST when the name is taken; makes room when it may.
  template <typename Attempt>
  absl::Status create(int parent, const std::string& base, const ArchiveItem& item,
                      const Attempt& attempt) {
    if (attempt() < 0) {
      if (errno != EEXIST) return failure(errno, item.name);
      // The later of two entries of one name counts, as tar has it.
      if (!allow_existing_ && !made_.contains(item.name)) {
        return absl::AlreadyExistsError("the archive's entry " + printable(item.name) +
                                        " is there already in " + target_.string());
      }
      if (::unlinkat(parent, base.c_str(), 0) != 0) return failure(errno, item.name);
      if (attempt() < 0) return failure(errno, item.name);
    }
    if (!allow_existing_) made_.insert(item.name);
    return absl::OkStatus();
  }

  absl::Status make_hard_link(int parent, const std::string& base, const ArchiveItem& item) {
    const std::string& other = item.hard_link_target;
    const size_t slash = other.rfind('/');
    const bool below = slash != std::string::npos;
    // Through a descriptor: the name may not be a link, and stays what was looked at.
    absl::StatusOr<Fd> file = open_beneath(root_.get(), other, O_PATH, target_);
    if (!file.ok()) return file.status();
    struct stat info;
    if (::fstat(file->get(), &info) != 0) return failure(errno, other);
    if (!S_ISREG(info.st_mode)) {
      return absl::InvalidArgumentError("the archive's entry " + printable(item.name) +
                                        " is a hard link to something that is not a file");
    }
    Fd directory;
    if (below) {
      absl::StatusOr<Fd> opened =
          open_beneath(root_.get(), other.substr(0, slash), O_PATH | O_DIRECTORY, target_);
      if (!opened.ok()) return opened.status();
      directory = *std::move(opened);
    }
    const std::string other_base = below ? other.substr(slash + 1) : other;
    return create(parent, base, item, [&] {
      return ::linkat(below ? directory.get() : root_.get(), other_base.c_str(), parent,
                      base.c_str(), 0);
    });
  }

  absl::Status make_file(int parent, const std::string& base, const ArchiveItem& item) {
    Fd fd;
    absl::Status made = create(parent, base, item, [&] {
      const int flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
      fd = Fd(::openat(parent, base.c_str(), flags, item.mode | 0600));
      return fd.get();
    });
    if (!made.ok()) return made;
    const std::filesystem::path path = target_ / item.name;
    uint64_t written = 0, end = 0;
    absl::Status status = reader_.read_data([&](uint64_t offset, std::string_view bytes) {
      end = offset + bytes.size();
      if (bytes.size() >= kHoleBytes && all_zeros(bytes)) return absl::OkStatus();
      if (offset != written && ::lseek(fd.get(), static_cast<off_t>(offset), SEEK_SET) < 0) {
        return errno_status(errno, "cannot write", path);
      }
      written = end;
      return write_all(fd.get(), bytes, path);
    });
    if (!status.ok()) return status;
    end = std::max(end, item.size_bytes);
    if (end > written && ::ftruncate(fd.get(), static_cast<off_t>(end)) != 0) {
      return errno_status(errno, "cannot write", path);
    }
    if (item.has_time) {
      const timespec times[2] = {{0, UTIME_NOW}, {static_cast<time_t>(item.modified_s), 0}};
      // A time is not worth a failure: some file systems do not know all of them.
      if (::futimens(fd.get(), times) != 0) return absl::OkStatus();
    }
    return absl::OkStatus();
  }

  ArchiveReader& reader_;
  const std::filesystem::path& target_;
  const bool allow_existing_;
  Fd root_, open_;
  std::string open_path_;
  absl::flat_hash_set<std::string> made_;  // by this archive; a repeated name replaces
};

}  // namespace

absl::Status unpack(const ByteSource& source, const std::filesystem::path& target,
                    const UnpackLimits& limits) {
  ArchiveReader reader(limits);
  if (absl::Status opened = reader.open(source); !opened.ok()) return opened;
  return Unpacker(reader, target, limits.allow_existing).run();
}

absl::Status unpack_file(const std::filesystem::path& archive, const std::filesystem::path& target,
                         const UnpackLimits& limits) {
  ArchiveReader reader(limits);
  if (absl::Status opened = reader.open_file(archive); !opened.ok()) return opened;
  return Unpacker(reader, target, limits.allow_existing).run();
}

absl::Status unpack_blob(const Store& store, const BlobRef& blob,
                         const std::filesystem::path& target, const UnpackLimits& limits) {
  ArchiveReader reader(limits);
  if (absl::Status opened = reader.open_blob(store, blob); !opened.ok()) return opened;
  return Unpacker(reader, target, limits.allow_existing).run();
}

absl::Status check_archive(const std::filesystem::path& archive, const UnpackLimits& limits) {
  ArchiveReader reader(limits);
  if (absl::Status opened = reader.open_file(archive); !opened.ok()) return opened;
  ArchiveItem item;
  while (true) {
    absl::StatusOr<bool> more = reader.next(item);
    if (!more.ok()) return more.status();
    if (!*more) return absl::OkStatus();
    if (item.kind != NodeKind::file || !item.hard_link_target.empty()) continue;
    absl::Status read =
        reader.read_data([](uint64_t, std::string_view) { return absl::OkStatus(); });
    if (!read.ok()) return read;
  }
}

absl::Status stream_member(const ByteSource& source, std::string_view name, const ByteSink& sink) {
  UnpackLimits limits;
  limits.max_ratio = 0;
  ArchiveReader reader(limits);
  if (absl::Status opened = reader.open(source); !opened.ok()) return opened;
  ArchiveItem item;
  while (true) {
    absl::StatusOr<bool> more = reader.next(item);
    if (!more.ok()) return more.status();
    if (!*more) {
      return absl::NotFoundError("there is no file " + printable(name) + " in the archive");
    }
    if (item.name == name && item.kind == NodeKind::file && item.hard_link_target.empty()) break;
  }
  uint64_t end = 0;
  const std::string zeros(64 * 1024, '\0');
  auto fill_to = [&](uint64_t offset) {
    while (end < offset) {
      const uint64_t piece = std::min<uint64_t>(zeros.size(), offset - end);
      if (absl::Status sunk = sink({zeros.data(), piece}); !sunk.ok()) return sunk;
      end += piece;
    }
    return absl::OkStatus();
  };
  absl::Status read = reader.read_data([&](uint64_t offset, std::string_view bytes) {
    if (absl::Status filled = fill_to(offset); !filled.ok()) return filled;
    end += bytes.size();
    return sink(bytes);
  });
  if (!read.ok()) return read;
  return fill_to(item.size_bytes);
}

absl::StatusOr<std::string> read_member(const ByteSource& source, std::string_view name,
                                        uint64_t max_bytes) {
  std::string out;
  absl::Status read = stream_member(source, name, [&](std::string_view bytes) {
    if (out.size() + bytes.size() > max_bytes) {
      return absl::ResourceExhaustedError(printable(name) + " is longer than " +
                                          std::to_string(max_bytes) + " bytes");
    }
    out += bytes;
    return absl::OkStatus();
  });
  if (!read.ok()) return read;
  return out;
}

ByteSource source_of(std::string bytes) {
  return [left = std::move(bytes)]() mutable -> absl::StatusOr<std::string> {
    return std::exchange(left, std::string());
  };
}

ByteSource source_of(const Store& store, const Digest& digest) {
  return [&store, digest, offset = uint64_t{0}]() mutable -> absl::StatusOr<std::string> {
    absl::StatusOr<std::string> bytes = store.read(digest, offset, 1 << 20);
    if (bytes.ok()) offset += bytes->size();
    return bytes;
  };
}

absl::StatusOr<ByteSource> source_of_file(const std::filesystem::path& path) {
  auto fd = std::make_shared<Fd>(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!*fd) return errno_status(errno, "cannot open", path);
  return ByteSource([fd, path, offset = uint64_t{0}]() mutable -> absl::StatusOr<std::string> {
    absl::StatusOr<std::string> bytes = pread_up_to(fd->get(), offset, 256 * 1024, path);
    if (bytes.ok()) offset += bytes->size();
    return bytes;
  });
}

}  // namespace pesc::blob
