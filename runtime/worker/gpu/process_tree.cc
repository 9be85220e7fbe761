#include "runtime/worker/gpu/process_tree.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <charconv>
#include <string>
#include <string_view>

namespace pesc::worker {
namespace {

// The first PID namespace's number is the same in every kernel (PROC_PID_INIT_INO).
constexpr ino_t kFirstPidNamespace = 0xEFFFFFFCu;

}  // namespace

std::optional<uint32_t> parent_of(uint32_t pid) {
  const std::string path = "/proc/" + std::to_string(pid) + "/stat";
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return std::nullopt;
  char buffer[512];
  const ssize_t size = ::read(file, buffer, sizeof buffer);
  ::close(file);
  if (size <= 0) return std::nullopt;
  // PID (NAME) STATE PARENT …; the name may hold anything, parentheses too.
  std::string_view text(buffer, static_cast<size_t>(size));
  const size_t name_end = text.rfind(") ");
  if (name_end == text.npos || text.size() < name_end + 5) return std::nullopt;
  text.remove_prefix(name_end + 4);
  uint32_t parent = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), parent);
  if (error != std::errc()) return std::nullopt;
  return parent;
}

bool sees_the_machines_processes() {
  struct stat info {};
  return ::stat("/proc/self/ns/pid", &info) == 0 && info.st_ino == kFirstPidNamespace;
}

}  // namespace pesc::worker
