#include "runtime/worker/containment/host.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <string_view>

#ifndef CLONE_INTO_CGROUP
#define CLONE_INTO_CGROUP 0x200000000ULL
#endif

namespace pesc::containment {
namespace {

constexpr long kPauseNs = 10'000'000;

// struct clone_args up to its member `cgroup`: older headers have it shorter.
struct CloneArguments {
  uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid,
      set_tid_size, cgroup;
};

// Only what may be called between a fork and an exec.
int write_text(const char* path, const char* text, size_t size) {
  const int file = ::open(path, O_WRONLY | O_CLOEXEC);
  if (file < 0) return -errno;
  const ssize_t written = ::write(file, text, size);
  const int error = errno;
  ::close(file);
  return written < 0 ? -error : 0;
}

// 0: there is no such process, or it has died and is only not forgotten yet.
uint64_t start_of(uint64_t pid, Host& host) {
  std::string text;
  if (host.read("/proc/" + std::to_string(pid) + "/stat", text) != 0) return 0;
  // The 20th field after the name, which may contain anything; the first is the state.
  constexpr int kStartField = 20;
  size_t at = text.rfind(')');
  if (at == text.npos || text.compare(at, 3, ") Z") == 0 || text.compare(at, 3, ") X") == 0) {
    return 0;
  }
  for (int i = 0; i < kStartField && at != text.npos; ++i) at = text.find(' ', at + 1);
  return at == text.npos ? 0 : ::strtoull(text.c_str() + at, nullptr, 10);
}

long fork_into(const std::string& group) {
  const int directory = ::open(group.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (directory < 0) return -1;
  CloneArguments arguments{};
  arguments.flags = CLONE_INTO_CGROUP;
  arguments.exit_signal = SIGCHLD;
  arguments.cgroup = static_cast<uint64_t>(directory);
  const long pid = ::syscall(SYS_clone3, &arguments, sizeof(arguments));
  if (pid != 0) ::close(directory);
  return pid;
}

// A keeper has other uses for its descriptors: with more than these it opens the files each time.
constexpr int kMostDescriptors = 600;

// What was open is tried first: it may be gone, and another one of that name be there.
template <typename Use>
long use_kept(KeptFile& file, const std::string& path, int flags, Use use) {
  if (file.fd >= 0) {
    const long result = use(file.fd);
    if (result >= 0) return result;
    file.close();
  }
  file.fd = ::open(path.c_str(), flags | O_CLOEXEC);
  if (file.fd < 0) return -errno;
  long result = use(file.fd);
  if (result < 0) result = -errno;
  if (result < 0 || file.fd >= kMostDescriptors) file.close();
  return result;
}

class RealHost final : public Host {
 public:
  int make_directory(const std::string& path) override {
    return ::mkdir(path.c_str(), 0755) == 0 ? 0 : -errno;
  }
  int remove_directory(const std::string& path) override {
    return ::rmdir(path.c_str()) == 0 ? 0 : -errno;
  }
  int write(const std::string& path, const std::string& text) override {
    return write_text(path.c_str(), text.data(), text.size());
  }
  int read(const std::string& path, std::string& text) override {
    text.clear();
    const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (file < 0) return -errno;
    char buffer[4096];
    ssize_t size;
    while ((size = ::read(file, buffer, sizeof(buffer))) > 0) {
      text.append(buffer, static_cast<size_t>(size));
    }
    const int error = errno;
    ::close(file);
    return size < 0 ? -error : 0;
  }
  int write(KeptFile& file, const std::string& path, const std::string& text) override {
    const long result = use_kept(file, path, O_WRONLY,
                                 [&](int fd) { return ::pwrite(fd, text.data(), text.size(), 0); });
    return result < 0 ? static_cast<int>(result) : 0;
  }
  int read(KeptFile& file, const std::string& path, std::string& text) override {
    text.clear();
    char buffer[4096];
    const long result = use_kept(file, path, O_RDONLY,
                                 [&](int fd) { return ::pread(fd, buffer, sizeof(buffer), 0); });
    if (result > 0) text.assign(buffer, static_cast<size_t>(result));
    return result < 0 ? static_cast<int>(result) : 0;
  }
  bool exists(const std::string& path) override { return ::access(path.c_str(), F_OK) == 0; }

  std::vector<std::string> directories_in(const std::string& path) override {
    std::vector<std::string> result;
    DIR* directory = ::opendir(path.c_str());
    if (directory == nullptr) return result;
    while (const dirent* entry = ::readdir(directory)) {
      if (entry->d_type == DT_DIR && entry->d_name[0] != '.') result.emplace_back(entry->d_name);
    }
    ::closedir(directory);
    return result;
  }

  void pause() override {
    const timespec time{0, kPauseNs};
    ::nanosleep(&time, nullptr);
  }
  void kill(int64_t pid) override { ::kill(static_cast<pid_t>(pid), SIGKILL); }

  Process self() override {
    const auto pid = static_cast<uint64_t>(::getpid());
    struct stat info {};
    ::stat("/proc/self/ns/pid", &info);
    return {info.st_ino, pid, start_of(pid, *this)};
  }
  bool is_alive(const Process& process) override {
    return process.started != 0 && start_of(process.pid, *this) == process.started;
  }

  unsigned cpus() override {
    return static_cast<unsigned>(std::max(1l, ::sysconf(_SC_NPROCESSORS_ONLN)));
  }

  bool can_enter(const std::string& version2, const std::string& tasks_file) override {
    long pid = -1;
    std::string procs;
    if (!version2.empty()) {
      pid = fork_into(version2);
      if (pid < 0) procs = version2 + "/cgroup.procs";  // before Linux 5.7: it goes by itself
    }
    if (pid < 0) pid = ::fork();
    if (pid == 0) {
      bool entered = procs.empty() || write_text(procs.c_str(), "0", 1) == 0;
      if (!tasks_file.empty()) entered = write_text(tasks_file.c_str(), "0", 1) == 0 && entered;
      ::_exit(entered ? 0 : 1);
    }
    int status = 1;
    while (pid > 0 && ::waitpid(static_cast<pid_t>(pid), &status, __WALL) < 0 && errno == EINTR) {
    }
    return pid > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0;
  }
};

}  // namespace

void KeptFile::close() {
  if (fd >= 0) ::close(fd);
  fd = -1;
}

Host& real_host() {
  static RealHost host;
  return host;
}

uint64_t number_in(const std::string& text, const char* name) {
  const std::string_view wanted(name);
  if (wanted.empty()) return ::strtoull(text.c_str(), nullptr, 10);
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    const std::string_view line = std::string_view(text).substr(at, end - at);
    if (line.size() > wanted.size() && line.starts_with(wanted) && line[wanted.size()] == ' ') {
      return ::strtoull(text.c_str() + at + wanted.size() + 1, nullptr, 10);
    }
    at = end + 1;
  }
  return 0;
}

}  // namespace pesc::containment
