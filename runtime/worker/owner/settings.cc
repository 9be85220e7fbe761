#include "runtime/worker/owner/settings.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace pesc::worker::owner {

absl::Status set_pause_file(const std::filesystem::path& file, bool paused) {
  if (paused) {
    const int fd =
        ::open(file.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0644);
    if (fd >= 0) {
      ::close(fd);
      return absl::OkStatus();
    }
  } else if (::unlink(file.c_str()) == 0 || errno == ENOENT) {
    return absl::OkStatus();
  }
  const int error = errno;
  std::string message = "cannot " + std::string(paused ? "make" : "remove") + " " + file.string() +
                        ": " + std::strerror(error);
  if (error == EACCES || error == EPERM) {
    message +=
        "; do it as the user that the worker runs as, or name a file that you may write by "
        "`pause_file` in the [owner] table of its configuration";
  } else if (error == ENOENT) {
    message +=
        "; name the worker's own state directory by --state, or its configuration by "
        "--config";
  }
  return absl::FailedPreconditionError(message);
}

}  // namespace pesc::worker::owner
