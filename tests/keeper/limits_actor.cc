// Acts of programs that use more than others. Times here are the program's, not the tests'.
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <string>
#include <thread>
#include <vector>

namespace {

double seconds(clockid_t clock) {
  timespec now{};
  clock_gettime(clock, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

void spin_until(double end) {
  while (seconds(CLOCK_MONOTONIC) < end) {
  }
}

void wait_for_ever() {
  sigset_t none;
  sigemptyset(&none);
  for (;;) sigsuspend(&none);
}

char* touch(size_t mib) {
  const size_t bytes = mib << 20;
  char* memory = static_cast<char*>(malloc(bytes));
  // Not all the same: such pages could be merged.
  for (size_t i = 0; i < bytes; i += 4096) memory[i] = static_cast<char>(i >> 12 | 1);
  return memory;
}

// Takes so much, and then waits to be told, or ends.
int allocate(const char* mib, bool stays) {
  char* memory = touch(strtoul(mib, nullptr, 10));
  if (stays) wait_for_ever();
  free(memory);
  return 0;
}

// Several processes with so much each, at the same time and for a while.
int allocate_in_children(const char* children, const char* mib) {
  for (int i = 0; i < atoi(children); ++i) {
    if (fork() != 0) continue;
    touch(strtoul(mib, nullptr, 10));
    spin_until(seconds(CLOCK_MONOTONIC) + 1.5);
    _exit(0);
  }
  while (wait(nullptr) > 0 || errno == EINTR) {
  }
  return 0;
}

// A child is killed for its memory; the program itself would wait for ever.
int allocate_in_a_child(const char* mib) {
  if (fork() == 0) {
    touch(strtoul(mib, nullptr, 10));
    wait_for_ever();
  }
  wait_for_ever();
  return 0;
}

// Says how much of a core it has had.
int spin(const char* threads, const char* ms) {
  const double begin = seconds(CLOCK_MONOTONIC), end = begin + atof(ms) / 1000;
  std::vector<std::thread> others;
  for (int i = 1; i < atoi(threads); ++i) others.emplace_back([end] { spin_until(end); });
  spin_until(end);
  for (std::thread& other : others) other.join();
  printf("%.3f", seconds(CLOCK_PROCESS_CPUTIME_ID) / (seconds(CLOCK_MONOTONIC) - begin));
  return 0;
}

// Makes processes until it may not, and says how many that were.
int multiply(const char* most) {
  int count = 0;
  for (; count < atoi(most); ++count) {
    const pid_t pid = fork();
    if (pid == 0) wait_for_ever();
    if (pid < 0) {
      printf("%d", count);
      return 0;
    }
  }
  printf("all");
  fflush(stdout);
  wait_for_ever();
  return 0;
}

int show_priority() {
  printf("policy:%d io:%ld", sched_getscheduler(0), syscall(SYS_ioprio_get, 1, 0) >> 13);
  return 0;
}

int write_disk(const char* path, const char* mib) {
  const std::string block(1 << 20, 'x');
  const int file = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
  for (int i = 0; i < atoi(mib); ++i) {
    if (write(file, block.data(), block.size()) < 0) return 1;
  }
  return fsync(file);
}

}  // namespace

int act_on_limits(const std::string& name, char** arguments) {
  if (name == "allocate") return allocate(arguments[1], false);
  if (name == "allocate_and_stay") return allocate(arguments[1], true);
  if (name == "allocate_in_children") return allocate_in_children(arguments[1], arguments[2]);
  if (name == "allocate_in_a_child") return allocate_in_a_child(arguments[1]);
  if (name == "spin") return spin(arguments[1], arguments[2]);
  if (name == "multiply") return multiply(arguments[1]);
  if (name == "priority") return show_priority();
  if (name == "write_disk") return write_disk(arguments[1], arguments[2]);
  return 99;
}
