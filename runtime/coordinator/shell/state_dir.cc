#include "runtime/coordinator/shell/state_dir.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>
#include <system_error>
#include <utility>

namespace pesc::coordinator {
namespace {

absl::Status cannot(const std::string& what, const std::filesystem::path& path, int error) {
  const std::string message = what + " " + path.string() + ": " + std::strerror(error);
  if (error == ENOSPC || error == EDQUOT) return absl::ResourceExhaustedError(message);
  return absl::FailedPreconditionError(message +
                                       "; choose another state directory with --state, or give "
                                       "this user the right to write there");
}

absl::Status make_directory(const std::filesystem::path& path) {
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) return absl::OkStatus();
  if (path.has_parent_path()) std::filesystem::create_directories(path.parent_path(), error);
  if (error) return cannot("cannot make the state directory", path, error.value());
  if (mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) {
    return cannot("cannot make the state directory", path, errno);
  }
  if (!std::filesystem::is_directory(path, error)) {
    return absl::FailedPreconditionError("the state directory " + path.string() +
                                         " is not a directory; name another one with --state");
  }
  return absl::OkStatus();
}

std::string holder(const std::filesystem::path& lock_file) {
  std::ifstream file(lock_file);
  std::string pid;
  file >> pid;
  return pid.empty() ? "unknown" : pid;
}

}  // namespace

std::string_view network_file_system(long magic) {
  switch (static_cast<unsigned long>(magic) & 0xffffffffUL) {
    case 0x6969:
      return "NFS";
    case 0x517B:
      return "SMB";
    case 0xFF534D42:
      return "CIFS";
    case 0xFE534D42:
      return "SMB2";
    case 0x65735546:
      return "FUSE (sshfs and the like)";
    case 0x00C36400:
      return "Ceph";
    case 0x0BD00BD0:
      return "Lustre";
    case 0x5346414F:
      return "AFS";
    case 0x6B414653:
      return "AFS";
    case 0x73757245:
      return "Coda";
    case 0x47504653:
      return "GPFS";
    case 0x19830326:
      return "BeeGFS";
    case 0x01021997:
      return "9p";
    case 0x564C:
      return "NCP";
    default:
      return "";
  }
}

absl::StatusOr<StateDir> StateDir::open(const std::filesystem::path& given) {
  std::error_code error;
  const std::filesystem::path path = std::filesystem::absolute(given, error);
  if (given.empty() || error) {
    return absl::InvalidArgumentError("no state directory is given; name one with --state");
  }
  if (absl::Status made = make_directory(path); !made.ok()) return made;
  struct statfs info {};
  if (statfs(path.c_str(), &info) == 0) {
    if (const std::string_view name = network_file_system(info.f_type); !name.empty()) {
      return absl::FailedPreconditionError(
          "the state directory " + path.string() + " is on a network file system (" +
          std::string(name) +
          "), where locks and the journal's promises do not hold; choose one on a disk of this "
          "machine with --state");
    }
  }
  const std::filesystem::path lock_file = path / "lock";
  const int fd = ::open(lock_file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) return cannot("cannot write into the state directory", path, errno);
  StateDir dir(path, fd);
  if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
    return absl::FailedPreconditionError("another pesc-coordinator (pid " + holder(lock_file) +
                                         ") uses this state directory: " + path.string() +
                                         "; stop it, or name another directory with --state");
  }
  // Known file systems may still refuse to be written to: find out now, not at the first job.
  const std::string pid = std::to_string(getpid()) + "\n";
  if (ftruncate(fd, 0) != 0 || pwrite(fd, pid.data(), pid.size(), 0) != ssize_t(pid.size())) {
    return cannot("cannot write into the state directory", path, errno);
  }
  return dir;
}

StateDir::StateDir(StateDir&& other) noexcept
    : path_(std::move(other.path_)), lock_fd_(std::exchange(other.lock_fd_, -1)) {}

StateDir& StateDir::operator=(StateDir&& other) noexcept {
  if (this != &other) {
    if (lock_fd_ >= 0) close(lock_fd_);
    path_ = std::move(other.path_);
    lock_fd_ = std::exchange(other.lock_fd_, -1);
  }
  return *this;
}

StateDir::~StateDir() {
  if (lock_fd_ >= 0) close(lock_fd_);
}

}  // namespace pesc::coordinator
