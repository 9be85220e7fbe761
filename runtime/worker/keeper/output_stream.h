// One stream (standard output or error) of one attempt: memory first, then a file.
#pragma once

#include <asio/io_context.hpp>
#include <asio/posix/stream_descriptor.hpp>
#include <asio/thread_pool.hpp>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "model/outcome.h"

namespace pesc::keeper {

// Writes files that would otherwise hold up the loop on a slow disk. One thread, made when the
// first stream outgrows memory.
class SpillThread {
 public:
  asio::thread_pool& pool() {
    if (!pool_) pool_ = std::make_unique<asio::thread_pool>(1);
    return *pool_;
  }

 private:
  std::unique_ptr<asio::thread_pool> pool_;
};

class OutputStream : public std::enable_shared_from_this<OutputStream> {
 public:
  // Memory for a stream, and for all streams together: what exceeds either goes to the file.
  static constexpr size_t kMemoryBytes = 64 << 10;
  static constexpr size_t kMemoryBytesOfAll = 16 << 20;

  // Why the attempt must be stopped; told once.
  using Problem = std::function<void(EndReason, std::string detail)>;

  OutputStream(asio::io_context& io, SpillThread& spill, std::string name, std::string path,
               uint64_t limit_bytes, Problem problem);
  ~OutputStream();
  OutputStream(const OutputStream&) = delete;
  OutputStream& operator=(const OutputStream&) = delete;

  void open(int read_fd) { fd_ = read_fd; }
  // Reads from now on as data comes. Until then the pipe holds what is written.
  void watch();
  // Takes what is in the pipe at this moment.
  void take_now();
  // The processes are gone: takes what is still in the pipe, then calls `done` (perhaps at once).
  void finish(std::function<void()> done);

  const std::string& memory() const { return memory_; }  // the whole, unless spilled
  bool spilled() const { return file_ >= 0 || spilled_; }
  bool finished() const { return finished_; }
  // Bytes from `offset` on, at most `max_bytes`; `end`: nothing will follow them.
  std::string read(uint64_t offset, size_t max_bytes, bool& end) const;

 private:
  enum class Got { data, nothing, end };
  Got read_some();
  void wait_readable();
  void on_readable();
  void accept(const char* data, size_t size);
  void spill(const char* data, size_t size);
  bool open_file();
  void written(int error);
  void drain();
  void close_pipe();
  void complain(EndReason reason, std::string detail);

  static size_t memory_of_all_;

  asio::io_context& io_;
  SpillThread& spill_thread_;
  std::string name_, path_;
  uint64_t limit_bytes_;
  Problem problem_;
  int fd_ = -1;
  asio::posix::stream_descriptor descriptor_;
  bool watched_ = false, waiting_ = false;
  int file_ = -1;
  bool spilled_ = false, writing_ = false, discarding_ = false, finished_ = false;
  uint64_t stored_bytes_ = 0;  // in memory or in the file
  size_t drained_bytes_ = 0;
  std::string memory_;
  std::function<void()> done_;
};

}  // namespace pesc::keeper
