// Hashing on a second thread, beside what else is done with the same bytes.
#pragma once

#include <atomic>
#include <cstdint>
#include <string_view>
#include <thread>

#include "blob/hash.h"

namespace pesc::blob {

// To hash a large blob takes longer than to write it: both at the same time take as long as the
// hash alone. The thread comes with the first large piece of a blob that has become large, and only
// while few others have one; without, the caller hashes.
class HashBeside {
 public:
  HashBeside() = default;
  ~HashBeside();
  HashBeside(const HashBeside&) = delete;
  HashBeside& operator=(const HashBeside&) = delete;

  // Begins to hash; `bytes` must stay as they are until join(), which comes before all else.
  void start(std::string_view bytes);
  void join();

  uint64_t size_bytes() const { return size_bytes_; }  // with those that were started
  Digest finish() { return hasher_.finish(); }         // once

 private:
  enum class State : uint32_t { idle, hashing, over };
  bool has_thread();
  void run();

  Hasher hasher_;  // the thread's between start() and join()
  uint64_t size_bytes_ = 0;
  std::string_view bytes_;
  std::atomic<State> state_{State::idle};
  std::thread thread_;
  bool refused_ = false;
};

}  // namespace pesc::blob
