#include "blob/files.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>
#include <vector>

namespace pesc::blob {

Fd::~Fd() {
  if (fd_ >= 0) ::close(fd_);
}

absl::Status errno_status(int error, std::string_view doing, const std::filesystem::path& path) {
  const std::string what = std::string(doing) + " " + path.string() + ": ";
  switch (error) {
    case ENOSPC:
    case EDQUOT: {
      const std::string directory = path.parent_path().string();
      return absl::ResourceExhaustedError(
          what + (error == ENOSPC ? "the disk is full" : "the disk quota is used up") +
          "; free space in " + (directory.empty() ? "." : directory) + " or use another directory");
    }
    case EROFS:
      return absl::ResourceExhaustedError(what +
                                          "the file system is read-only; use a directory on a "
                                          "writable one");
    case EFBIG:
      return absl::ResourceExhaustedError(what + "past the limit on a file's size (ulimit -f)");
    case EMFILE:
    case ENFILE:
      return absl::ResourceExhaustedError(what +
                                          "too many open files; raise the limit (ulimit -n)");
    case ENOENT:
    case ENOTDIR:
      return absl::NotFoundError(what + "no such file or directory");
    case EACCES:
    case EPERM:
      return absl::PermissionDeniedError(what + "permission denied");
    case EEXIST:
      return absl::AlreadyExistsError(what + "it exists already");
    default:
      return absl::InternalError(what + std::generic_category().message(error));
  }
}

absl::Status write_all(int fd, std::string_view bytes, const std::filesystem::path& path) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd, bytes.data(), bytes.size());
    if (n < 0) {
      if (errno == EINTR) continue;
      return errno_status(errno, "cannot write", path);
    }
    bytes.remove_prefix(static_cast<size_t>(n));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> pread_up_to(int fd, uint64_t offset, uint64_t bytes,
                                        const std::filesystem::path& path) {
  std::string out(bytes, '\0');
  size_t got = 0;
  while (got < bytes) {
    const ssize_t n = ::pread(fd, out.data() + got, bytes - got, static_cast<off_t>(offset + got));
    if (n < 0) {
      if (errno == EINTR) continue;
      return errno_status(errno, "cannot read", path);
    }
    if (n == 0) break;
    got += static_cast<size_t>(n);
  }
  out.resize(got);
  return out;
}

absl::Status make_directories(const std::filesystem::path& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (error) return errno_status(error.value(), "cannot make the directory", path);
  return absl::OkStatus();
}

namespace {

absl::Status copy_through_memory(int from, int to, const std::filesystem::path& from_path,
                                 const std::filesystem::path& to_path) {
  std::vector<char> buffer(256 * 1024);
  while (true) {
    const ssize_t n = ::read(from, buffer.data(), buffer.size());
    if (n < 0) {
      if (errno == EINTR) continue;
      return errno_status(errno, "cannot read", from_path);
    }
    if (n == 0) return absl::OkStatus();
    if (absl::Status written = write_all(to, {buffer.data(), static_cast<size_t>(n)}, to_path);
        !written.ok()) {
      return written;
    }
  }
}

}  // namespace

absl::Status copy_contents(int from, int to, const std::filesystem::path& from_path,
                           const std::filesystem::path& to_path) {
  if (::ioctl(to, FICLONE, from) == 0) return absl::OkStatus();
  while (true) {
    const ssize_t n = ::copy_file_range(from, nullptr, to, nullptr, size_t{1} << 30, 0);
    if (n > 0) continue;
    // 0 may also mean "this file system cannot": the loop through memory goes on from the offsets
    // and finds the end by itself.
    if (n == 0) return copy_through_memory(from, to, from_path, to_path);
    if (errno == EINTR) continue;
    if (errno == ENOSPC || errno == EDQUOT || errno == EROFS || errno == EFBIG || errno == EIO) {
      return errno_status(errno, "cannot write", to_path);
    }
    return copy_through_memory(from, to, from_path, to_path);
  }
}

}  // namespace pesc::blob
