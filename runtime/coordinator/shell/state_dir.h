// The coordinator's state directory: one coordinator at a time, on a disk of this machine.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace pesc::coordinator {

// Holds the lock of the directory as long as it lives.
class StateDir {
 public:
  // Makes the directory (0700) when it is missing. FailedPrecondition when another coordinator uses
  // it or when it is on a network file system, where neither locks nor SQLite's journal hold.
  static absl::StatusOr<StateDir> open(const std::filesystem::path& path);

  StateDir(StateDir&& other) noexcept;
  StateDir& operator=(StateDir&& other) noexcept;
  ~StateDir();

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path journal() const { return path_ / "journal.db"; }
  std::filesystem::path blobs() const { return path_ / "blobs"; }

 private:
  StateDir(std::filesystem::path path, int lock_fd) : path_(std::move(path)), lock_fd_(lock_fd) {}

  std::filesystem::path path_;
  int lock_fd_ = -1;
};

// The name of a network file system by statfs's magic number, empty for any other.
std::string_view network_file_system(long magic);

}  // namespace pesc::coordinator
