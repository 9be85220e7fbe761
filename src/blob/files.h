// The few system calls that the store and the packer share, with errors that name the path and say
// what to do.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace pesc::blob {

// A descriptor that is closed when it goes.
class Fd {
 public:
  Fd() = default;
  explicit Fd(int fd) : fd_(fd) {}
  Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Fd& operator=(Fd&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Fd();
  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }
  int release() { return std::exchange(fd_, -1); }

 private:
  int fd_ = -1;
};

// ResourceExhausted for a full, over-quota or read-only disk, NotFound, PermissionDenied,
// AlreadyExists or Internal. `doing`: "cannot write".
absl::Status errno_status(int error, std::string_view doing, const std::filesystem::path& path);

absl::Status write_all(int fd, std::string_view bytes, const std::filesystem::path& path);
// Reads until `bytes` are there or the file ends.
absl::StatusOr<std::string> pread_up_to(int fd, uint64_t offset, uint64_t bytes,
                                        const std::filesystem::path& path);
absl::Status make_directories(const std::filesystem::path& path);

// Copies all of `from` (its offset at 0) to the empty file `to`: a reflink where the file system
// has them, else inside the kernel, else through memory.
absl::Status copy_contents(int from, int to, const std::filesystem::path& from_path,
                           const std::filesystem::path& to_path);

}  // namespace pesc::blob
