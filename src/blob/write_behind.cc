#include "blob/write_behind.h"

#include <signal.h>

#include <algorithm>
#include <system_error>
#include <utility>

namespace pesc::blob {

WriteBehind::WriteBehind(Fd fd, std::filesystem::path path, size_t piece_bytes)
    : fd_(std::move(fd)), path_(std::move(path)), piece_bytes_(piece_bytes) {}

WriteBehind::~WriteBehind() { stop(); }

absl::Status WriteBehind::append(std::string_view bytes) {
  while (!bytes.empty()) {
    if (filling_.capacity() < piece_bytes_) filling_.reserve(piece_bytes_);
    const size_t fits = std::min(bytes.size(), piece_bytes_ - filling_.size());
    filling_.append(bytes.substr(0, fits));
    bytes.remove_prefix(fits);
    if (filling_.size() < piece_bytes_) break;
    if (!thread_.joinable()) start_thread();
    if (absl::Status status = hand_over(); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::StatusOr<BlobRef> WriteBehind::finish() {
  stop();
  if (status_.ok()) status_ = take(filling_);
  if (!status_.ok()) return status_;
  const uint64_t size_bytes = hasher_.size_bytes();
  return BlobRef{hasher_.finish(), size_bytes};
}

// The host program's signals are its own: this thread takes none.
void WriteBehind::start_thread() {
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  try {
    thread_ = std::thread([this] { run(); });
  } catch (const std::system_error&) {
    // No thread is to be had: it is slower without.
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

absl::Status WriteBehind::hand_over() {
  if (!thread_.joinable()) {
    if (status_.ok()) status_ = take(filling_);
    filling_.clear();
    return status_;
  }
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return taken_.empty(); });
  if (!status_.ok()) return status_;
  filling_.swap(taken_);
  changed_.notify_one();
  return absl::OkStatus();
}

void WriteBehind::run() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return stopped_ || !taken_.empty(); });
    if (taken_.empty()) return;
    lock.unlock();
    absl::Status status = take(taken_);
    lock.lock();
    if (status_.ok()) status_ = std::move(status);
    taken_.clear();
    changed_.notify_one();
  }
}

absl::Status WriteBehind::take(std::string_view bytes) {
  hasher_.update(bytes);
  return write_all(fd_.get(), bytes, path_);
}

void WriteBehind::stop() {
  if (!thread_.joinable()) return;
  {
    std::lock_guard lock(mutex_);
    stopped_ = true;
  }
  changed_.notify_one();
  thread_.join();
}

}  // namespace pesc::blob
