// A file that is hashed and written behind the back of who makes its bytes.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <filesystem>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "blob/files.h"
#include "blob/hash.h"
#include "model/ids.h"

namespace pesc::blob {

// To compress costs as much as to hash and write: of what is large the two go on at the same time,
// on a thread that comes with the first full piece. Two pieces are in memory at most.
class WriteBehind {
 public:
  explicit WriteBehind(Fd fd, std::filesystem::path path, size_t piece_bytes = size_t{512} << 10);
  ~WriteBehind();  // what is not finished may be written in part
  WriteBehind(const WriteBehind&) = delete;
  WriteBehind& operator=(const WriteBehind&) = delete;

  // The error may be one of bytes given before.
  absl::Status append(std::string_view bytes);
  // Once, after the last byte.
  absl::StatusOr<BlobRef> finish();

 private:
  void start_thread();
  void run();
  absl::Status hand_over();
  absl::Status take(std::string_view bytes);
  void stop();

  Fd fd_;
  const std::filesystem::path path_;
  const size_t piece_bytes_;
  std::string filling_;

  Hasher hasher_;  // of the thread, while there is one
  std::thread thread_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::string taken_;  // full: the thread's; empty: the caller's
  absl::Status status_;
  bool stopped_ = false;
};

}  // namespace pesc::blob
