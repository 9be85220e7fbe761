// The test program plays the rank's program as well: with PESC_TEST_ACT in its environment it acts
// and ends before any test runs. A shell would add descriptors and processes of its own.
#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <string>

// limits_actor.cc; 99: it does not know that.
int act_on_limits(const std::string& name, char** arguments);

namespace {

int list_descriptors() {
  DIR* directory = opendir("/proc/self/fd");
  while (dirent* entry = readdir(directory)) {
    int fd = atoi(entry->d_name);
    if (entry->d_name[0] != '.' && fd != dirfd(directory)) printf("%d ", fd);
  }
  closedir(directory);
  char byte;
  printf("stdin:%zd", read(0, &byte, 1));
  return 0;
}

int show_state() {
  sigset_t mask;
  sigprocmask(SIG_SETMASK, nullptr, &mask);
  int blocked = 0, ignored = 0;
  for (int i = 1; i < NSIG; ++i) {
    struct sigaction action {};
    blocked += sigismember(&mask, i) == 1 ? 1 : 0;
    if (sigaction(i, nullptr, &action) == 0 && action.sa_handler == SIG_IGN) ++ignored;
  }
  rlimit files{};
  getrlimit(RLIMIT_NOFILE, &files);
  printf("blocked:%d ignored:%d session:%d files:%llu", blocked, ignored, getsid(0) == getpid(),
         static_cast<unsigned long long>(files.rlim_cur));
  return 0;
}

int print_arguments(char** argv) {
  for (char** argument = argv + 1; *argument != nullptr; ++argument) {
    fwrite(*argument, 1, strlen(*argument) + 1, stdout);
  }
  return 0;
}

// Writes until it is ended.
int flood() {
  std::string block(1 << 16, 'x');
  signal(SIGTERM, SIG_IGN);
  for (;;) {
    if (write(1, block.data(), block.size()) < 0) return 1;
  }
}

int write_many(const char* count) {
  std::string line = "0123456789abcde\n";
  for (long i = 0; i < atol(count); ++i) {
    fwrite(line.data(), 1, line.size(), stdout);
    fwrite(line.data(), 1, line.size() / 2, stderr);
  }
  return 0;
}

int wait_for_ever() {
  sigset_t none;
  sigemptyset(&none);
  for (;;) sigsuspend(&none);
}

// Tells that it is ready through a FIFO, whose opening waits for the reader.
void tell_ready(const char* fifo) {
  FILE* file = fopen(fifo, "w");
  fprintf(file, "%d\n", getpid());
  fclose(file);
}

int ignore_term(const char* fifo) {
  signal(SIGTERM, SIG_IGN);
  tell_ready(fifo);
  return wait_for_ever();
}

int exit_on_term(const char* fifo) {
  signal(SIGTERM, [](int) { _exit(0); });
  tell_ready(fifo);
  return wait_for_ever();
}

// Leaves a grandchild in a session of its own, which keeps the output open and ignores SIGTERM.
int leave_daemon(const char* fifo) {
  int ready[2];
  if (pipe(ready) != 0) return 1;
  if (fork() == 0) {
    setsid();
    if (fork() != 0) _exit(0);
    signal(SIGTERM, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    printf("%d", getpid());
    fflush(stdout);
    [[maybe_unused]] ssize_t size = write(ready[1], "r", 1);
    wait_for_ever();
  }
  close(ready[1]);
  char byte;
  [[maybe_unused]] ssize_t size = read(ready[0], &byte, 1);
  if (fifo == nullptr) return 7;
  tell_ready(fifo);
  return wait_for_ever();
}

int bomb(const char* fifo) {
  tell_ready(fifo);
  for (int i = 0; i < 40; ++i) {
    if (fork() == 0) {
      // Each makes another and ends, for ever: none lives long enough to be caught alone.
      for (;;) {
        pid_t child = fork();
        if (child > 0) _exit(0);
        if (child < 0) usleep(100);
      }
    }
  }
  return wait_for_ever();
}

__attribute__((constructor)) void act(int, char** argv, char**) {
  const char* name = getenv("PESC_TEST_ACT");
  if (name == nullptr) return;
  std::string act = name;
  const char* first = argv[0] != nullptr ? argv[1] : nullptr;
  int result = act_on_limits(act, argv);
  if (act == "descriptors") result = list_descriptors();
  if (act == "state") result = show_state();
  if (act == "arguments") result = print_arguments(argv);
  if (act == "flood") result = flood();
  if (act == "write_many") result = write_many(first);
  if (act == "ignore_term") result = ignore_term(first);
  if (act == "exit_on_term") result = exit_on_term(first);
  if (act == "leave_daemon") result = leave_daemon(first);
  if (act == "bomb") result = bomb(first);
  fflush(stdout);
  fflush(stderr);
  _exit(result);
}

}  // namespace
