#include "blob/hash_beside.h"

#include <signal.h>

#include <system_error>

namespace pesc::blob {
namespace {

constexpr uint64_t kLargeBlobBytes = 4 << 20;
constexpr size_t kLargePieceBytes = 128 << 10;  // less is hashed sooner than a thread wakes up
constexpr int kMostThreads = 4;                 // of this process
std::atomic<int> threads{0};

}  // namespace

HashBeside::~HashBeside() {
  if (!thread_.joinable()) return;
  join();
  state_.store(State::over, std::memory_order_release);
  state_.notify_one();
  thread_.join();
  --threads;
}

void HashBeside::start(std::string_view bytes) {
  size_bytes_ += bytes.size();
  if (bytes.size() < kLargePieceBytes || size_bytes_ < kLargeBlobBytes || !has_thread()) {
    hasher_.update(bytes);
    return;
  }
  bytes_ = bytes;
  state_.store(State::hashing, std::memory_order_release);
  state_.notify_one();
}

void HashBeside::join() {
  while (state_.load(std::memory_order_acquire) == State::hashing) state_.wait(State::hashing);
}

// The host program's signals are its own: this thread takes none.
bool HashBeside::has_thread() {
  if (thread_.joinable()) return true;
  if (refused_) return false;
  if (++threads <= kMostThreads) {
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
  if (thread_.joinable()) return true;
  --threads;
  refused_ = true;
  return false;
}

void HashBeside::run() {
  while (true) {
    state_.wait(State::idle, std::memory_order_acquire);
    const State state = state_.load(std::memory_order_acquire);
    if (state == State::over) return;
    if (state == State::idle) continue;
    hasher_.update(bytes_);
    state_.store(State::idle, std::memory_order_release);
    state_.notify_one();
  }
}

}  // namespace pesc::blob
