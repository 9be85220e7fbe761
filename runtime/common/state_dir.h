// State directories of the daemons: made with the right mode, on a local file system, one process
// at a time.
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace pesc::common {

// A descriptor that closes itself.
class UniqueFd {
 public:
  UniqueFd() = default;
  explicit UniqueFd(int fd) : fd_(fd) {}
  UniqueFd(UniqueFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept {
    if (this != &other) reset(std::exchange(other.fd_, -1));
    return *this;
  }
  ~UniqueFd() { reset(); }
  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }
  int release() { return std::exchange(fd_, -1); }
  void reset(int fd = -1);

 private:
  int fd_ = -1;
};

// "cannot WHAT PATH: No space left on device": ResourceExhausted for a full disk, PermissionDenied,
// NotFound, else Internal.
absl::Status errno_status(int error, std::string_view what, const std::filesystem::path& path);

// The absolute path of `directory`, made (parents too) when missing, with exactly `mode`. Refused
// when it is not a directory, when it belongs to another user, or when it lies on a network file
// system: locks and renames there do not hold what a journal needs.
absl::StatusOr<std::filesystem::path> make_state_dir(const std::filesystem::path& directory,
                                                     mode_t mode);

// The name of the network file system that `path` lies on; empty: a local one.
std::string network_file_system(const std::filesystem::path& path);

// Holds DIR/lock until it is destroyed or the process ends. AlreadyExists, naming `program` and the
// process that holds it, when another one does.
absl::StatusOr<UniqueFd> lock_state_dir(const std::filesystem::path& directory,
                                        std::string_view program);

// Replaces `path` by a file with these contents: readers see the old or the new one, whole.
absl::Status write_file_atomically(const std::filesystem::path& path, std::string_view contents,
                                   mode_t mode);

// The whole file, at most `max_bytes` of it.
absl::StatusOr<std::string> read_small_file(const std::filesystem::path& path,
                                            size_t max_bytes = 1 << 20);

}  // namespace pesc::common
