// Deleting what programs have left: directories of any depth and any mode, where another process of
// the ranks' user may still be at work. Every step is made from an open directory, no link is
// followed, and the number of descriptors is bounded.
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <string>

#include "runtime/common/state_dir.h"
#include "runtime/worker/shell/attempt_dirs.h"

namespace pesc::worker {
namespace {

namespace fs = std::filesystem;

constexpr int kMaxDepth = 32;  // what lies deeper is moved up first
// Each pass takes kMaxDepth levels off; only a program that still adds some needs as many.
constexpr int kMaxPasses = 100'000;

class Remover {
 public:
  // 0, or what is in the way.
  int remove(const fs::path& path) {
    const std::string name = path.filename().string();
    common::UniqueFd parent(::open(path.parent_path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!parent.valid()) return errno == ENOENT ? 0 : errno;
    if (::unlinkat(parent.get(), name.c_str(), 0) == 0 || errno == ENOENT) return 0;
    if (errno != EISDIR && errno != EPERM) return errno;
    root_.reset(open_directory(parent.get(), name.c_str()));
    if (!root_.valid()) return errno;
    for (int pass = 0; pass < kMaxPasses; ++pass) {
      moved_ = false;
      error_ = 0;
      empty(::openat(root_.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), 0);
      if (!moved_) break;
    }
    if (::unlinkat(parent.get(), name.c_str(), AT_REMOVEDIR) == 0) return 0;
    return error_ != 0 ? error_ : errno;
  }

 private:
  // A program may have taken its own right to enter; root needs none, and must not be led to change
  // the mode of something else.
  static int open_directory(int parent, const char* name) {
    constexpr int kFlags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
    int fd = ::openat(parent, name, kFlags);
    if (::geteuid() == 0) return fd;
    if (fd < 0 && errno == EACCES && ::fchmodat(parent, name, 0700, 0) == 0) {
      fd = ::openat(parent, name, kFlags);
    }
    struct stat info {};
    if (fd >= 0 && ::fstat(fd, &info) == 0 && (info.st_mode & 0700) != 0700) ::fchmod(fd, 0700);
    return fd;
  }

  void note(int error) {
    if (error_ == 0 && error != ENOENT) error_ = error;
  }

  void empty(int fd, int depth) {
    DIR* directory = fd < 0 ? nullptr : ::fdopendir(fd);
    if (directory == nullptr) {
      note(errno);
      if (fd >= 0) ::close(fd);
      return;
    }
    while (const dirent* entry = ::readdir(directory)) {
      const char* name = entry->d_name;
      if (name[0] == '.' && (name[1] == '\0' || (name[1] == '.' && name[2] == '\0'))) continue;
      if (entry->d_type != DT_DIR) {
        if (::unlinkat(fd, name, 0) == 0) continue;
        if (errno != EISDIR && errno != EPERM) {
          note(errno);
          continue;
        }
      }
      remove_directory(fd, name, depth);
    }
    ::closedir(directory);
  }

  void remove_directory(int parent, const char* name, int depth) {
    if (::unlinkat(parent, name, AT_REMOVEDIR) == 0) return;
    if (errno != ENOTEMPTY && errno != EEXIST && errno != EACCES) return note(errno);
    const int fd = open_directory(parent, name);
    if (fd < 0) return note(errno);
    if (depth + 1 >= kMaxDepth) {
      ::close(fd);
      return move_up(parent, name);
    }
    empty(fd, depth + 1);
    if (::unlinkat(parent, name, AT_REMOVEDIR) != 0) note(errno);
  }

  void move_up(int parent, const char* name) {
    do {
      const std::string target = "deep-" + std::to_string(next_++);
      if (::renameat(parent, name, root_.get(), target.c_str()) == 0) {
        moved_ = true;
        return;
      }
    } while (errno == ENOTEMPTY || errno == EEXIST || errno == ENOTDIR);
    note(errno);
  }

  common::UniqueFd root_;
  uint64_t next_ = 0;
  int error_ = 0;
  bool moved_ = false;
};

}  // namespace

absl::Status remove_tree(const fs::path& path) {
  const int error = Remover().remove(path);
  return error == 0 ? absl::OkStatus() : common::errno_status(error, "delete", path);
}

}  // namespace pesc::worker
