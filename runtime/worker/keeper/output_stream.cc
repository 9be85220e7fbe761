#include "runtime/worker/keeper/output_stream.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include <algorithm>
#include <asio/executor_work_guard.hpp>
#include <asio/post.hpp>
#include <utility>

namespace pesc::keeper {
namespace {

// After the tree is dead only an outsider who was handed the pipe can still fill it; no more than
// this is taken from it. A pipe holds 64 KiB, or 1 MiB when the program enlarged it.
constexpr size_t kMaxDrainBytes = 4 << 20;

char* scratch() {
  static char buffer[OutputStream::kMemoryBytes];
  return buffer;
}

int write_all(int file, const std::string& data) {
  for (size_t at = 0; at < data.size();) {
    ssize_t size = ::write(file, data.data() + at, data.size() - at);
    if (size < 0 && errno == EINTR) continue;
    if (size < 0) return errno;
    at += static_cast<size_t>(size);
  }
  return 0;
}

}  // namespace

size_t OutputStream::memory_of_all_ = 0;

OutputStream::OutputStream(asio::io_context& io, SpillThread& spill, std::string name,
                           std::string path, uint64_t limit_bytes, Problem problem)
    : io_(io),
      spill_thread_(spill),
      name_(std::move(name)),
      path_(std::move(path)),
      limit_bytes_(limit_bytes),
      problem_(std::move(problem)),
      descriptor_(io) {}

OutputStream::~OutputStream() {
  close_pipe();
  if (file_ >= 0) ::close(file_);
  memory_of_all_ -= memory_.size();
}

void OutputStream::watch() {
  if (watched_ || finished_ || done_ || fd_ < 0) return;
  std::error_code error;
  descriptor_.assign(fd_, error);
  if (error) return;  // read at the end, then
  watched_ = true;
  wait_readable();
}

void OutputStream::take_now() {
  if (done_ || finished_ || writing_ || fd_ < 0) return;
  if (read_some() == Got::end) close_pipe();
}

void OutputStream::wait_readable() {
  if (!watched_ || std::exchange(waiting_, true)) return;
  descriptor_.async_wait(asio::posix::descriptor_base::wait_read,
                         [self = shared_from_this()](std::error_code error) {
                           self->waiting_ = false;
                           if (!error) self->on_readable();
                         });
}

// One read per turn: a flood must not keep the loop from the other attempts.
void OutputStream::on_readable() {
  if (done_ || finished_ || writing_) return;
  Got got = read_some();
  if (got == Got::end) return close_pipe();
  if (!writing_) wait_readable();
}

OutputStream::Got OutputStream::read_some() {
  ssize_t size;
  do {
    size = ::read(fd_, scratch(), kMemoryBytes);
  } while (size < 0 && errno == EINTR);
  if (size == 0) return Got::end;
  if (size < 0) return errno == EAGAIN ? Got::nothing : Got::end;
  drained_bytes_ += static_cast<size_t>(size);
  accept(scratch(), static_cast<size_t>(size));
  return Got::data;
}

void OutputStream::accept(const char* data, size_t size) {
  if (discarding_) return;
  bool over = limit_bytes_ > 0 && size > limit_bytes_ - stored_bytes_;
  if (over) size = static_cast<size_t>(limit_bytes_ - stored_bytes_);
  stored_bytes_ += size;
  bool fits = !spilled() && memory_.size() + size <= kMemoryBytes &&
              (path_.empty() || memory_of_all_ + size <= kMemoryBytesOfAll);
  if (fits) {
    memory_.append(data, size);
    memory_of_all_ += size;
  } else if (size > 0) {
    spill(data, size);
  }
  if (over) {
    complain(EndReason::output_limit, "its " + name_ + " went past the bound of " +
                                          std::to_string(limit_bytes_) +
                                          " bytes; write less, or raise the job's output limit");
  }
}

bool OutputStream::open_file() {
  if (file_ >= 0) return true;
  int flags = O_RDWR | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC | O_NOFOLLOW;
  file_ = path_.empty() ? -1 : ::open(path_.c_str(), flags, 0600);
  if (file_ < 0) {
    int error = path_.empty() ? ENOENT : errno;
    stored_bytes_ = memory_.size();
    complain(error == ENOSPC || error == EDQUOT ? EndReason::disk_full : EndReason::output_limit,
             "its " + name_ + " outgrew memory and cannot be written to " + path_ + ": " +
                 strerror(error));
    return false;
  }
  spilled_ = true;
  return true;
}

// On the helper thread; nothing more is read until it has been written.
void OutputStream::spill(const char* data, size_t size) {
  if (!open_file()) return;
  memory_of_all_ -= memory_.size();
  std::string chunk = std::exchange(memory_, {});
  chunk.append(data, size);
  writing_ = true;
  asio::post(spill_thread_.pool(), [self = shared_from_this(), chunk = std::move(chunk),
                                    work = asio::make_work_guard(io_)]() mutable {
    int error = write_all(self->file_, chunk);
    // The last reference must go on the loop's thread.
    asio::io_context& io = self->io_;
    asio::post(io, [self = std::move(self), error] { self->written(error); });
  });
}

void OutputStream::written(int error) {
  writing_ = false;
  if (error != 0) {
    complain(error == ENOSPC || error == EDQUOT ? EndReason::disk_full : EndReason::output_limit,
             "its " + name_ + " cannot be written to " + path_ + ": " + strerror(error));
  }
  if (done_) return drain();
  if (fd_ >= 0) wait_readable();
}

void OutputStream::complain(EndReason reason, std::string detail) {
  if (std::exchange(discarding_, true)) return;
  if (problem_) problem_(reason, std::move(detail));
}

void OutputStream::finish(std::function<void()> done) {
  done_ = std::move(done);
  drained_bytes_ = 0;
  if (!writing_) drain();
}

void OutputStream::drain() {
  while (fd_ >= 0 && drained_bytes_ < kMaxDrainBytes) {
    size_t before = drained_bytes_;
    if (read_some() != Got::data) break;
    if (writing_) return;                               // goes on in written()
    if (drained_bytes_ - before < kMemoryBytes) break;  // no writer is left: that was all
  }
  close_pipe();
  finished_ = true;
  problem_ = nullptr;
  std::exchange(done_, nullptr)();
}

void OutputStream::close_pipe() {
  if (fd_ < 0) return;
  if (watched_) {
    std::error_code ignored;
    descriptor_.close(ignored);
  } else {
    ::close(fd_);
  }
  fd_ = -1;
}

std::string OutputStream::read(uint64_t offset, size_t max_bytes, bool& end) const {
  uint64_t available = offset < stored_bytes_ ? stored_bytes_ - offset : 0;
  auto size = static_cast<size_t>(std::min<uint64_t>(available, max_bytes));
  std::string data;
  if (!spilled()) {
    if (size > 0) data = memory_.substr(static_cast<size_t>(offset), size);
  } else if (size > 0) {
    data.resize(size);
    ssize_t got = ::pread(file_, data.data(), size, static_cast<off_t>(offset));
    data.resize(got > 0 ? static_cast<size_t>(got) : 0);
  }
  end = finished_ && offset + data.size() >= stored_bytes_;
  return data;
}

}  // namespace pesc::keeper
