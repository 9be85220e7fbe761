#include "runtime/worker/owner/command.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <asio/post.hpp>
#include <cerrno>
#include <chrono>
#include <cstring>

extern char** environ;

namespace pesc::worker::owner {
namespace {

// In a process group of its own, silent, with default signal handlers.
int spawn(const std::vector<std::string>& words, pid_t& pid) {
  std::vector<char*> argv;
  for (const std::string& word : words) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  posix_spawn_file_actions_t files;
  posix_spawnattr_t attributes;
  posix_spawn_file_actions_init(&files);
  posix_spawnattr_init(&attributes);
  posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&files, 1, "/dev/null", O_WRONLY, 0);
  posix_spawn_file_actions_adddup2(&files, 1, 2);
  sigset_t none, all;
  sigemptyset(&none);
  sigfillset(&all);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setsigdefault(&attributes, &all);
  posix_spawnattr_setpgroup(&attributes, 0);
  posix_spawnattr_setflags(&attributes,
                           POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  const int error = ::posix_spawnp(&pid, argv[0], &files, &attributes, argv.data(), environ);
  posix_spawn_file_actions_destroy(&files);
  posix_spawnattr_destroy(&attributes);
  return error;
}

}  // namespace

PresenceCommand::PresenceCommand(asio::io_context& io, std::vector<std::string> argv,
                                 uint64_t limit_ms)
    : io_(io), argv_(std::move(argv)), limit_ms_(limit_ms), pidfd_(io), limit_(io) {}

PresenceCommand::~PresenceCommand() {
  *alive_ = false;
  if (pid_ == 0) return;
  ::kill(-pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
}

std::string PresenceCommand::start() {
  pid_t pid = 0;
  if (const int error = spawn(argv_, pid); error != 0) {
    return argv_[0] + " cannot be started: " + std::strerror(error);
  }
  const int fd = static_cast<int>(::syscall(SYS_pidfd_open, pid, 0));
  if (fd < 0) {
    const int error = errno;
    ::kill(-pid, SIGKILL);
    ::waitpid(pid, nullptr, 0);
    return std::string("its end cannot be waited for: ") + std::strerror(error);
  }
  pid_ = pid;
  pidfd_.assign(fd);
  return {};
}

void PresenceCommand::run(Done done) {
  if (running()) return;
  done_ = std::move(done);
  over_time_ = false;
  if (std::string error = start(); !error.empty()) {
    asio::post(io_, [this, alive = alive_, error = std::move(error)] {
      if (*alive) finish(CommandVerdict::failed, error);
    });
    return;
  }
  pidfd_.async_wait(asio::posix::stream_descriptor::wait_read,
                    [this, alive = alive_](const asio::error_code& error) {
                      if (!error && *alive) ended();
                    });
  limit_.expires_after(std::chrono::milliseconds(limit_ms_));
  limit_.async_wait([this, alive = alive_](const asio::error_code& error) {
    if (error || !*alive || pid_ == 0) return;
    over_time_ = true;
    ::kill(-pid_, SIGKILL);
  });
}

void PresenceCommand::ended() {
  int status = 0;
  ::waitpid(pid_, &status, 0);
  // What it has left behind in its group must not gather, one each time.
  ::kill(-pid_, SIGKILL);
  pid_ = 0;
  limit_.cancel();
  asio::error_code ignored;
  pidfd_.close(ignored);
  if (over_time_) {
    return finish(CommandVerdict::failed,
                  argv_[0] + " took longer than " + std::to_string(limit_ms_ / 1000) + " s");
  }
  if (WIFEXITED(status) && WEXITSTATUS(status) <= 1) {
    return finish(WEXITSTATUS(status) == 0 ? CommandVerdict::present : CommandVerdict::absent, {});
  }
  const std::string how = WIFEXITED(status)
                              ? "ended with exit code " + std::to_string(WEXITSTATUS(status))
                              : "was killed by signal " + std::to_string(WTERMSIG(status));
  finish(CommandVerdict::failed,
         argv_[0] + " " + how + " (0 means that somebody is here, 1 that nobody is)");
}

void PresenceCommand::finish(CommandVerdict verdict, std::string error) {
  if (Done done = std::exchange(done_, nullptr)) done(verdict, std::move(error));
}

}  // namespace pesc::worker::owner
