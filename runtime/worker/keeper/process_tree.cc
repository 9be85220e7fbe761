#include "runtime/worker/keeper/process_tree.h"

#include <fcntl.h>
#include <signal.h>

#include "runtime/worker/keeper/raw_syscalls.h"

namespace pesc::keeper {
namespace {

// A kernel's directory entry; glibc declares it only beside functions that use errno.
struct DirectoryEntry {
  uint64_t inode;
  int64_t offset;
  uint16_t size;
  uint8_t type;
  char name[1];
};

long parse_number(const char* text) {
  long value = 0;
  if (*text < '0' || *text > '9') return -1;
  while (*text >= '0' && *text <= '9') value = value * 10 + (*text++ - '0');
  return *text == '\0' ? value : -1;
}

char* print_proc(char* out, long pid) {
  return raw::print_number(raw::print_text(out, "/proc/"), static_cast<unsigned long>(pid));
}

// Calls visit(number) for each entry of `path` whose name is a number; false: no such directory.
template <typename Visit>
bool for_each_number(const char* path, Visit visit) {
  long directory = raw::call(SYS_openat, AT_FDCWD, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
  if (directory < 0) return false;
  alignas(8) char buffer[4096];
  for (;;) {
    long size = raw::call(SYS_getdents64, directory, buffer, static_cast<long>(sizeof(buffer)));
    if (size <= 0) break;
    for (long at = 0; at < size;) {
      auto* entry = reinterpret_cast<DirectoryEntry*>(buffer + at);
      long number = parse_number(entry->name);
      if (number > 0) visit(number);
      at += entry->size;
    }
  }
  raw::call(SYS_close, directory);
  return true;
}

// Appends the children of one thread. False: this kernel does not list children.
bool add_children(long pid, long tid, pid_t* pids, long capacity, long& count) {
  char path[64];
  char* end = raw::print_text(print_proc(path, pid), "/task/");
  end = raw::print_text(raw::print_number(end, static_cast<unsigned long>(tid)), "/children");
  *end = '\0';
  long file = raw::call(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
  if (file < 0) return false;
  char buffer[4096];
  long number = 0;
  for (;;) {
    long size = raw::call(SYS_read, file, buffer, static_cast<long>(sizeof(buffer)));
    if (size <= 0) break;
    for (long i = 0; i < size; ++i) {
      if (buffer[i] >= '0' && buffer[i] <= '9') {
        number = number * 10 + (buffer[i] - '0');
      } else {
        if (number > 0 && count < capacity) pids[count++] = static_cast<pid_t>(number);
        number = 0;
      }
    }
  }
  raw::call(SYS_close, file);
  return true;
}

// The children of all threads of a process. False: this kernel does not list children.
bool add_all_children(long pid, pid_t* pids, long capacity, long& count) {
  char path[64];
  *raw::print_text(print_proc(path, pid), "/task") = '\0';
  bool listed = false;
  for_each_number(path, [&](long tid) {
    if (add_children(pid, tid, pids, capacity, count)) listed = true;
  });
  return listed;
}

// The parent of a process from /proc/PID/stat: the second field after the last ')'.
pid_t parent_of(long pid) {
  char path[64];
  *raw::print_text(print_proc(path, pid), "/stat") = '\0';
  long file = raw::call(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
  if (file < 0) return 0;
  char buffer[512];
  long size = raw::call(SYS_read, file, buffer, static_cast<long>(sizeof(buffer)));
  raw::call(SYS_close, file);
  long at = size - 1;
  while (at > 0 && buffer[at] != ')') --at;
  at += 4;
  long parent = 0;
  while (at < size && buffer[at] >= '0' && buffer[at] <= '9') {
    parent = parent * 10 + (buffer[at++] - '0');
  }
  return static_cast<pid_t>(parent);
}

bool contains(const pid_t* pids, long count, pid_t pid) {
  for (long i = 0; i < count; ++i) {
    if (pids[i] == pid) return true;
  }
  return false;
}

// For kernels without CONFIG_PROC_CHILDREN: passes over all processes until nothing is added.
long scan_all(pid_t root, bool deep, pid_t* pids, long capacity) {
  long count = 0;
  for (bool added = true; added;) {
    added = false;
    for_each_number("/proc", [&](long number) {
      auto pid = static_cast<pid_t>(number);
      if (count >= capacity || contains(pids, count, pid)) return;
      pid_t parent = parent_of(pid);
      if (parent == root || (deep && contains(pids, count, parent))) {
        pids[count++] = pid;
        added = true;
      }
    });
  }
  return count;
}

}  // namespace

long collect_tree(pid_t root, pid_t* pids, long capacity) {
  long count = 0;
  if (!add_all_children(root, pids, capacity, count)) return scan_all(root, true, pids, capacity);
  for (long next = 0; next < count; ++next) add_all_children(pids[next], pids, capacity, count);
  return count;
}

long collect_children(pid_t parent, pid_t* pids, long capacity) {
  long count = 0;
  if (add_all_children(parent, pids, capacity, count)) return count;
  return scan_all(parent, false, pids, capacity);
}

long stop_tree(pid_t root, pid_t* pids, long capacity) {
  long before = -1;
  long count = 0;
  // The kernel lets no fork complete once a signal is pending, so two equal passes mean that all
  // have been reached. The bound is for a tree whose processes end as fast as they come.
  for (int pass = 0; pass < 16 && count != before; ++pass) {
    before = count;
    count = signal_tree(root, SIGSTOP, pids, capacity);
  }
  return count;
}

long signal_tree(pid_t root, int signal, pid_t* pids, long capacity) {
  long count = collect_tree(root, pids, capacity);
  for (long i = 0; i < count; ++i) {
    raw::call(SYS_kill, static_cast<long>(pids[i]), static_cast<long>(signal));
  }
  return count;
}

}  // namespace pesc::keeper
