#include "blob/tree.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>

namespace pesc::blob {
namespace {

NodeKind kind_of_mode(mode_t mode) {
  if (S_ISREG(mode)) return NodeKind::file;
  if (S_ISDIR(mode)) return NodeKind::directory;
  return S_ISLNK(mode) ? NodeKind::link : NodeKind::other;
}

NodeKind kind_of(int directory, const dirent& entry) {
  switch (entry.d_type) {
    case DT_REG:
      return NodeKind::file;
    case DT_DIR:
      return NodeKind::directory;
    case DT_LNK:
      return NodeKind::link;
    case DT_UNKNOWN: {
      struct stat info;
      if (::fstatat(directory, entry.d_name, &info, AT_SYMLINK_NOFOLLOW) != 0) {
        return NodeKind::other;
      }
      return kind_of_mode(info.st_mode);
    }
    default:
      return NodeKind::other;
  }
}

// The length of the UTF-8 sequence at the front, 0 when there is none.
size_t utf8_length(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  const uint8_t first = byte(0);
  const size_t length = first < 0x80   ? 1
                        : first < 0xc2 ? 0
                        : first < 0xe0 ? 2
                        : first < 0xf0 ? 3
                        : first < 0xf5 ? 4
                                       : 0;
  if (length == 0 || length > text.size()) return 0;
  for (size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return 0;
  }
  // Overlong forms, surrogates and what lies beyond Unicode.
  if (first == 0xe0 && byte(1) < 0xa0) return 0;
  if (first == 0xed && byte(1) > 0x9f) return 0;
  if (first == 0xf0 && byte(1) < 0x90) return 0;
  if (first == 0xf4 && byte(1) > 0x8f) return 0;
  return length;
}

}  // namespace

absl::StatusOr<std::vector<Node>> list_directory(int fd, const std::filesystem::path& path) {
  // fdopendir() takes its descriptor over, and a duplicate would share the position with ours.
  const int own = ::openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR* directory = own < 0 ? nullptr : ::fdopendir(own);
  if (directory == nullptr) {
    absl::Status status = errno_status(errno, "cannot read the directory", path);
    if (own >= 0) ::close(own);
    return status;
  }
  std::vector<Node> nodes;
  errno = 0;
  while (const dirent* entry = ::readdir(directory)) {
    const std::string_view name = entry->d_name;
    if (name != "." && name != "..") nodes.push_back({std::string(name), kind_of(own, *entry)});
    errno = 0;
  }
  const int error = errno;
  ::closedir(directory);
  if (error != 0) return errno_status(error, "cannot read the directory", path);
  std::sort(nodes.begin(), nodes.end(),
            [](const Node& a, const Node& b) { return a.name < b.name; });
  return nodes;
}

absl::StatusOr<Fd> open_beneath(int root, std::string_view relative, int flags,
                                const std::filesystem::path& root_path) {
  Fd directory;
  int at = root;
  std::string_view rest = relative;
  while (true) {
    const size_t slash = rest.find('/');
    const std::string component(rest.substr(0, slash));
    const bool last = slash == std::string_view::npos;
    const int how = last ? flags : O_PATH | O_DIRECTORY;
    Fd next(::openat(at, component.c_str(), how | O_NOFOLLOW | O_CLOEXEC));
    if (!next) {
      const int error = errno == ELOOP ? ENOTDIR : errno;
      return errno_status(error, "cannot open", root_path / relative);
    }
    if (last) return next;
    directory = std::move(next);
    at = directory.get();
    rest.remove_prefix(slash + 1);
  }
}

bool link_stays_inside(std::string_view target, size_t depth) {
  if (target.empty() || target.front() == '/') return false;
  bool named = false;
  size_t up = 0;
  while (true) {
    const size_t slash = target.find('/');
    const std::string_view component = target.substr(0, slash);
    if (component == "..") {
      if (named || ++up > depth) return false;
    } else if (!component.empty() && component != ".") {
      named = true;
    }
    if (slash == std::string_view::npos) return true;
    target.remove_prefix(slash + 1);
  }
}

size_t depth_of(std::string_view name) {
  return static_cast<size_t>(std::count(name.begin(), name.end(), '/'));
}

std::string printable(std::string_view name) {
  std::string out = "'";
  while (!name.empty()) {
    const size_t length = utf8_length(name);
    const uint8_t first = static_cast<uint8_t>(name.front());
    if (length == 0 || first < 0x20 || first == 0x7f) {
      char escaped[8];
      std::snprintf(escaped, sizeof escaped, "\\x%02x", first);
      out += escaped;
      name.remove_prefix(1);
      continue;
    }
    out += name.substr(0, length);
    name.remove_prefix(length);
  }
  return out + "'";
}

}  // namespace pesc::blob
