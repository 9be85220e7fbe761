// Whether the kernel has lately killed a process for want of memory.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

namespace pesc::keeper {

// The number behind `name` in lines of "name number"; 0 when there is none.
inline uint64_t counter_in(const std::string& path, std::string_view name) {
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return 0;
  std::string text(32 << 10, '\0');
  size_t size = 0;
  for (ssize_t got;
       size < text.size() && (got = ::read(file, text.data() + size, text.size() - size)) > 0;) {
    size += static_cast<size_t>(got);
  }
  ::close(file);
  text.resize(size);
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    const std::string_view line = std::string_view(text).substr(at, end - at);
    if (line.size() > name.size() && line.starts_with(name) && line[name.size()] == ' ') {
      return std::strtoull(text.c_str() + at + name.size() + 1, nullptr, 10);
    }
    at = end + 1;
  }
  return 0;
}

// The machine's counter, looked at now and then: without a cgroup nothing tells whom the kernel
// killed, but a program that died of SIGKILL while the counter grew was most probably it.
class OomWatch {
 public:
  using Clock = std::chrono::steady_clock;
  static constexpr std::chrono::seconds kEvery{30};

  explicit OomWatch(std::string path = "/proc/vmstat") : path_(std::move(path)) {}

  // To be called about every kEvery while something runs, and before something is started.
  void look(Clock::time_point now) {
    if (looked_ && now - last_ < kEvery) return;
    const uint64_t count = read();
    // After a pause what was before tells nothing.
    before_ = looked_ && now - last_ < 2 * kEvery ? current_ : count;
    current_ = count;
    last_ = now;
    looked_ = true;
  }
  // Since one to two looks ago.
  bool killed_lately() const { return looked_ && read() > before_; }

 private:
  uint64_t read() const { return counter_in(path_, "oom_kill"); }

  std::string path_;
  uint64_t before_ = 0, current_ = 0;
  Clock::time_point last_{};
  bool looked_ = false;
};

}  // namespace pesc::keeper
