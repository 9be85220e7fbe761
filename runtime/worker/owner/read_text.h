// Small files of the kernel's, whole.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <filesystem>
#include <optional>
#include <string>

namespace pesc::worker::owner {

inline constexpr size_t kMostTextBytes = 1 << 20;

// Nothing: it cannot be read, or is no plain file.
inline std::optional<std::string> read_text(const char* path) {
  const int fd = ::open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (fd < 0) return std::nullopt;
  std::string text;
  char buffer[8192];
  ssize_t got = 0;
  while (text.size() < kMostTextBytes && (got = ::read(fd, buffer, sizeof buffer)) > 0) {
    text.append(buffer, static_cast<size_t>(got));
  }
  ::close(fd);
  if (got < 0) return std::nullopt;
  return text;
}
inline std::optional<std::string> read_text(const std::filesystem::path& path) {
  return read_text(path.c_str());
}

}  // namespace pesc::worker::owner
