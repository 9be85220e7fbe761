#include "runtime/common/state_dir.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <system_error>

namespace pesc::common {
namespace {

namespace fs = std::filesystem;

struct NetworkType {
  uint32_t magic;
  const char* name;
};
// From statfs(2) and linux/magic.h; not all of them are in the headers of every distribution.
constexpr NetworkType kNetworkTypes[] = {
    {0x6969, "NFS"},       {0x517B, "SMB"},        {0xFF534D42, "CIFS"}, {0xFE534D42, "SMB"},
    {0x5346414F, "AFS"},   {0x6B414653, "AFS"},    {0x73757245, "Coda"}, {0x01021997, "9P"},
    {0x00C36400, "Ceph"},  {0x0BD00BD0, "Lustre"}, {0x47504653, "GPFS"}, {0x19830326, "BeeGFS"},
    {0x7461636F, "OCFS2"}, {0x01161970, "GFS2"},
};

}  // namespace

void UniqueFd::reset(int fd) {
  if (fd_ >= 0) ::close(fd_);
  fd_ = fd;
}

absl::Status errno_status(int error, std::string_view what, const fs::path& path) {
  std::string message = "cannot " + std::string(what) + " " + path.string() + ": " +
                        std::generic_category().message(error);
  switch (error) {
    case ENOSPC:
    case EDQUOT:
      return absl::ResourceExhaustedError(message);
    case EACCES:
    case EPERM:
    case EROFS:
      return absl::PermissionDeniedError(message);
    case ENOENT:
      return absl::NotFoundError(message);
    case EEXIST:
      return absl::AlreadyExistsError(message);
    default:
      return absl::InternalError(message);
  }
}

std::string network_file_system(const fs::path& path) {
  struct statfs info {};
  if (::statfs(path.c_str(), &info) != 0) return "";
  for (const NetworkType& type : kNetworkTypes) {
    if (static_cast<uint32_t>(info.f_type) == type.magic) return type.name;
  }
  return "";
}

absl::StatusOr<fs::path> make_state_dir(const fs::path& directory, mode_t mode) {
  if (directory.empty()) {
    return absl::InvalidArgumentError("the state directory has no name: give one with --state DIR");
  }
  std::error_code error;
  fs::path path = fs::absolute(directory, error).lexically_normal();
  if (error) return errno_status(error.value(), "find", directory);
  if (!path.has_filename()) path = path.parent_path();
  if (path.has_parent_path()) {
    fs::create_directories(path.parent_path(), error);
    if (error) return errno_status(error.value(), "make the directory", path.parent_path());
  }
  if (::mkdir(path.c_str(), mode) != 0 && errno != EEXIST) {
    return errno_status(errno, "make the state directory", path);
  }
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0) return errno_status(errno, "read", path);
  if (!S_ISDIR(info.st_mode)) {
    return absl::FailedPreconditionError("the state directory " + path.string() +
                                         " is not a directory: choose another with --state");
  }
  if (std::string name = network_file_system(path); !name.empty()) {
    return absl::FailedPreconditionError(
        "the state directory " + path.string() + " lies on a network file system (" + name +
        "), where its journal and locks are not safe: choose a local one with --state");
  }
  if (info.st_uid != ::geteuid()) {
    return absl::PermissionDeniedError("the state directory " + path.string() +
                                       " belongs to another user: choose another with --state");
  }
  if ((info.st_mode & 07777) != mode && ::chmod(path.c_str(), mode) != 0) {
    return errno_status(errno, "set the mode of", path);
  }
  return path;
}

absl::StatusOr<UniqueFd> lock_state_dir(const fs::path& directory, std::string_view program) {
  const fs::path path = directory / "lock";
  UniqueFd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!fd.valid()) return errno_status(errno, "open", path);
  if (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return errno_status(errno, "lock", path);
    char holder[32] = {};
    const ssize_t length = ::pread(fd.get(), holder, sizeof holder - 1, 0);
    std::string who = length > 0 ? std::string(holder, strcspn(holder, "\n")) : "";
    return absl::AlreadyExistsError("another " + std::string(program) + " uses " +
                                    directory.string() +
                                    (who.empty() ? "" : " (process " + who + ")") +
                                    ": stop it, or choose another directory with --state");
  }
  // Only for people and for the message above: the lock itself is the kernel's.
  const std::string pid = std::to_string(::getpid()) + "\n";
  if (::ftruncate(fd.get(), 0) != 0 || ::pwrite(fd.get(), pid.data(), pid.size(), 0) < 0) {
    return errno_status(errno, "write", path);
  }
  return fd;
}

absl::Status write_file_atomically(const fs::path& path, std::string_view contents, mode_t mode) {
  const fs::path temporary = path.string() + ".new";
  ::unlink(temporary.c_str());
  UniqueFd fd(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode));
  if (!fd.valid()) return errno_status(errno, "make", temporary);
  while (!contents.empty()) {
    const ssize_t written = ::write(fd.get(), contents.data(), contents.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return errno_status(errno, "write", temporary);
    contents.remove_prefix(static_cast<size_t>(written));
  }
  if (::fsync(fd.get()) != 0) return errno_status(errno, "write", temporary);
  if (::rename(temporary.c_str(), path.c_str()) != 0) return errno_status(errno, "replace", path);
  UniqueFd parent(::open(path.parent_path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (parent.valid()) ::fsync(parent.get());
  return absl::OkStatus();
}

absl::StatusOr<std::string> read_small_file(const fs::path& path, size_t max_bytes) {
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return errno_status(errno, "open", path);
  std::string contents;
  char buffer[4096];
  while (contents.size() < max_bytes) {
    const ssize_t got = ::read(fd.get(), buffer, sizeof buffer);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return errno_status(errno, "read", path);
    if (got == 0) break;
    contents.append(buffer, static_cast<size_t>(got));
  }
  if (contents.size() > max_bytes) contents.resize(max_bytes);
  return contents;
}

}  // namespace pesc::common
