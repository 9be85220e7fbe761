// pesc-keeper: the small process that is parent of every rank of one worker. It is started by the
// worker (runtime/worker/keeper_client) and by nobody else.
#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <asio/io_context.hpp>
#include <exception>
#include <filesystem>
#include <string>
#include <string_view>

#include "runtime/worker/keeper/keeper.h"

namespace pesc::keeper {
namespace {

constexpr int kListenFd = 3;

struct Arguments {
  int listen_fd = -1;
  std::string socket, log;
  bool die_with_parent = false, foreground = false;
  long linger_ms = 60'000;
};

int usage(const char* problem) {
  fprintf(stderr,
          "pesc-keeper: %s\n"
          "usage: pesc-keeper --listen-fd N | --socket PATH [--die-with-parent] [--linger-ms N]\n"
          "                   [--log FILE] [--foreground]\n"
          "It is started by a PESC worker; there is no need to start it by hand.\n",
          problem);
  return 2;
}

bool parse(int argc, char** argv, Arguments& arguments) {
  for (int i = 1; i < argc; ++i) {
    std::string_view name = argv[i];
    if (name == "--die-with-parent") {
      arguments.die_with_parent = true;
    } else if (name == "--foreground") {
      arguments.foreground = true;
    } else if (i + 1 == argc) {
      return false;
    } else if (name == "--listen-fd") {
      arguments.listen_fd = atoi(argv[++i]);
    } else if (name == "--socket") {
      arguments.socket = argv[++i];
    } else if (name == "--log") {
      arguments.log = argv[++i];
    } else if (name == "--linger-ms") {
      arguments.linger_ms = atol(argv[++i]);
    } else {
      return false;
    }
  }
  return (arguments.listen_fd >= 0) != !arguments.socket.empty() && arguments.linger_ms >= 0;
}

// A socket's path may have 107 bytes: a longer one is reached through its directory's descriptor.
int listen_at(const std::string& path) {
  std::filesystem::path file(path);
  int directory = ::open(file.parent_path().c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (directory < 0) return -1;
  std::string name = "/proc/self/fd/" + std::to_string(directory) + "/" + file.filename().string();
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (name.size() >= sizeof(address.sun_path)) return -1;
  memcpy(address.sun_path, name.c_str(), name.size() + 1);
  int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  mode_t mask = ::umask(0177);
  bool ok = ::bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0 &&
            ::listen(fd, 8) == 0;
  ::umask(mask);
  ::close(directory);
  return ok ? fd : -1;
}

// Descriptors are laid out once: 0 to 2 away from whoever started this, 3 the listening socket, and
// nothing else that was inherited.
bool arrange_descriptors(int listen_fd, const std::string& log) {
  int listener = ::fcntl(listen_fd, F_DUPFD_CLOEXEC, 16);
  int in = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  int out = log.empty() ? -1 : ::open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (out < 0) out = ::open("/dev/null", O_WRONLY | O_CLOEXEC);
  if (listener < 0 || in < 0 || out < 0) return false;
  int high_in = ::fcntl(in, F_DUPFD_CLOEXEC, 16), high_out = ::fcntl(out, F_DUPFD_CLOEXEC, 16);
  bool ok = ::dup2(high_in, 0) == 0 && ::dup2(high_out, 1) == 1 && ::dup2(high_out, 2) == 2 &&
            ::dup3(listener, kListenFd, O_CLOEXEC) == kListenFd;
  if (::syscall(SYS_close_range, kListenFd + 1, ~0u, 0) != 0) {
    for (int fd = kListenFd + 1; fd < 4096; ++fd) ::close(fd);
  }
  return ok;
}

// All signals are blocked for ever: the few that mean something are read from a descriptor, and
// the shims inherit the mask. Whatever the starter ignored is set back, as ranks inherit that.
int arrange_signals() {
  for (int signal = 1; signal < NSIG; ++signal) ::signal(signal, SIG_DFL);
  sigset_t all, wanted;
  sigfillset(&all);
  ::sigprocmask(SIG_SETMASK, &all, nullptr);
  sigemptyset(&wanted);
  sigaddset(&wanted, SIGCHLD);
  sigaddset(&wanted, SIGTERM);
  return ::signalfd(-1, &wanted, SFD_CLOEXEC | SFD_NONBLOCK);
}

// When memory runs out, a rank should go rather than the process that owns all of them. Only root
// may ask for that.
void guard_against_oom() {
  int file = ::open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
  if (file < 0) return;
  [[maybe_unused]] ssize_t written = ::write(file, "-500", 4);
  ::close(file);
}

int run(const Arguments& arguments) {
  int listen_fd = arguments.listen_fd;
  if (listen_fd < 0) listen_fd = listen_at(arguments.socket);
  if (listen_fd < 0) {
    fprintf(stderr, "pesc-keeper: cannot listen at %s: %s\n", arguments.socket.c_str(),
            strerror(errno));
    return 1;
  }
  if (!arguments.foreground) {
    pid_t child = ::fork();
    if (child < 0) {
      fprintf(stderr, "pesc-keeper: cannot fork: %s\n", strerror(errno));
      return 1;
    }
    if (child > 0) ::_exit(0);
    ::setsid();
  }
  ::umask(022);
  if (::chdir("/") != 0 || !arrange_descriptors(listen_fd, arguments.log)) return 1;
  KeeperOptions options;
  options.signal_fd = arrange_signals();
  options.listen_fd = kListenFd;
  options.die_with_parent = arguments.die_with_parent;
  options.linger = std::chrono::milliseconds(arguments.linger_ms);
  ::prctl(PR_SET_NAME, "pesc-keeper", 0, 0, 0);
  ::prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
  guard_against_oom();
  asio::io_context io(1);
  Keeper keeper(io, options);
  keeper.run();
  return 0;
}

}  // namespace
}  // namespace pesc::keeper

int main(int argc, char** argv) {
  pesc::keeper::Arguments arguments;
  if (!pesc::keeper::parse(argc, argv, arguments)) {
    return pesc::keeper::usage("unknown or incomplete arguments");
  }
  int result = 1;
  try {
    result = pesc::keeper::run(arguments);
  } catch (const std::exception& error) {
    fprintf(stderr, "pesc-keeper: %s\n", error.what());
  }
  // Without destructors: shims that still run read this process's memory.
  ::_exit(result);
}
