#include "rpc/private_file.h"

#include <errno.h>
#include <fcntl.h>
#include <fmt/core.h>
#include <sys/stat.h>
#include <unistd.h>

#include <system_error>
#include <utility>

namespace pesc::rpc {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxBytes = 4 << 20;

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

absl::Status failed(std::string_view what, const fs::path& path, int error) {
  std::string text =
      fmt::format("cannot {} {}: {}", what, path.string(), std::generic_category().message(error));
  switch (error) {
    case ENOENT:
    case ENOTDIR:
      return absl::NotFoundError(text);
    case EACCES:
    case EPERM:
    case EROFS:
      return absl::PermissionDeniedError(text);
    case ENOSPC:
    case EDQUOT:
    case EMFILE:
    case ENFILE:
      return absl::ResourceExhaustedError(text);
    default:
      return absl::InternalError(text);
  }
}

absl::Status make_folders(const fs::path& folder) {
  if (folder.empty() || mkdir(folder.c_str(), 0700) == 0) return absl::OkStatus();
  if (errno == EEXIST) return absl::OkStatus();
  if (errno != ENOENT || !folder.has_relative_path()) return failed("make", folder, errno);
  absl::Status parent = make_folders(folder.parent_path());
  if (!parent.ok()) return parent;
  if (mkdir(folder.c_str(), 0700) < 0 && errno != EEXIST) return failed("make", folder, errno);
  return absl::OkStatus();
}

absl::Status write_all(int fd, std::string_view content, const fs::path& path) {
  while (!content.empty()) {
    ssize_t n = write(fd, content.data(), content.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return failed("write", path, errno);
    content.remove_prefix(static_cast<size_t>(n));
  }
  return absl::OkStatus();
}

absl::Status write_new_file(const fs::path& path, std::string_view content) {
  Descriptor fd(open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (fd.get() < 0) return failed("make", path, errno);
  if (fchmod(fd.get(), 0600) < 0) return failed("protect", path, errno);  // an odd umask
  absl::Status written = write_all(fd.get(), content, path);
  if (written.ok() && fsync(fd.get()) < 0) return failed("write", path, errno);
  return written;
}

absl::StatusOr<std::string> read_file(const fs::path& path, bool must_be_private) {
  // O_NONBLOCK: a FIFO must not hang us.
  Descriptor fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (fd.get() < 0) return failed("read", path, errno);
  struct stat info {};
  if (fstat(fd.get(), &info) < 0) return failed("read", path, errno);
  if (!S_ISREG(info.st_mode)) {
    return absl::InvalidArgumentError(fmt::format("{} is not a file", path.string()));
  }
  if (must_be_private && (info.st_mode & 077) != 0) {
    return absl::FailedPreconditionError(fmt::format(
        "{0} holds a secret and others can read it (mode {1:03o}): run `chmod 600 {0}`, and ask "
        "for a new one if someone may have read it",
        path.string(), info.st_mode & 0777));
  }
  std::string content;
  while (true) {
    char buffer[16384];
    ssize_t n = read(fd.get(), buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return failed("read", path, errno);
    if (n == 0) return content;
    content.append(buffer, static_cast<size_t>(n));
    if (content.size() > kMaxBytes) {
      return absl::InvalidArgumentError(
          fmt::format("{} is too large to be what it should be", path.string()));
    }
  }
}

}  // namespace

absl::Status write_private_file(const fs::path& path, std::string_view content) {
  fs::path folder = path.has_parent_path() ? path.parent_path() : fs::path(".");
  absl::Status made = make_folders(folder);
  if (!made.ok()) return made;

  fs::path temporary = path;
  temporary += fmt::format(".{}.tmp", getpid());
  unlink(temporary.c_str());  // left by a crash of a process that had our number
  absl::Status written = write_new_file(temporary, content);
  if (written.ok() && rename(temporary.c_str(), path.c_str()) < 0) {
    written = failed("replace", path, errno);
  }
  if (!written.ok()) {
    unlink(temporary.c_str());
    return written;
  }
  Descriptor directory(open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (directory.get() < 0 || fsync(directory.get()) < 0) return failed("write", folder, errno);
  return absl::OkStatus();
}

absl::StatusOr<std::string> read_private_file(const fs::path& path) {
  return read_file(path, true);
}

absl::StatusOr<std::string> read_small_file(const fs::path& path) { return read_file(path, false); }

}  // namespace pesc::rpc
