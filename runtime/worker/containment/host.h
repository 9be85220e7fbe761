// The machine, as far as cgroups need it: small, so that a test can be one.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace pesc::containment {

// A file that is read or written for each attempt: opening it costs many times as much.
class KeptFile {
 public:
  KeptFile() = default;
  ~KeptFile() { close(); }
  KeptFile(const KeptFile&) = delete;
  KeptFile& operator=(const KeptFile&) = delete;
  void close();

  int fd = -1;
};

// Results are 0, or -errno.
class Host {
 public:
  virtual ~Host() = default;
  virtual int make_directory(const std::string& path) = 0;
  virtual int remove_directory(const std::string& path) = 0;
  virtual int write(const std::string& path, const std::string& text) = 0;
  virtual int read(const std::string& path, std::string& text) = 0;
  // The same, through a file that stays open.
  virtual int write(KeptFile&, const std::string& path, const std::string& text) {
    return write(path, text);
  }
  virtual int read(KeptFile&, const std::string& path, std::string& text) {
    return read(path, text);
  }
  virtual bool exists(const std::string& path) = 0;
  virtual std::vector<std::string> directories_in(const std::string& path) = 0;
  // For what needs a moment.
  virtual void pause() = 0;
  virtual void kill(int64_t pid) = 0;  // SIGKILL

  // This process, and whether another is still there. A number alone may be another's by now:
  // `started` is the moment of its start, in ticks since boot.
  struct Process {
    uint64_t pid_namespace = 0, pid = 0, started = 0;
  };
  virtual Process self() = 0;
  virtual bool is_alive(const Process& process) = 0;
  virtual unsigned cpus() = 0;

  // Whether a process that this one makes can be put into a version 2 cgroup (empty: not asked) and
  // by writing to a version 1 cgroup's `tasks`. Tried, as permissions tell only half.
  virtual bool can_enter(const std::string& version2, const std::string& tasks_file) = 0;
};

Host& real_host();

// The number behind `name` in lines of "name number"; for an empty name the number that the text
// begins with. 0 when there is none.
uint64_t number_in(const std::string& text, const char* name);

}  // namespace pesc::containment
