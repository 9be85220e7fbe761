#include "runtime/worker/keeper_client/launch_keeper.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <new>
#include <optional>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "runtime/worker/keeper_client/carried_keeper.h"

namespace pesc::worker {
namespace {

namespace fs = std::filesystem;

class Descriptor {
 public:
  explicit Descriptor(int fd = -1) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  int get() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }
  explicit operator bool() const { return fd_ >= 0; }

 private:
  int fd_;
};

absl::Status failure(const std::string& what, int error) {
  return absl::UnavailableError(what + ": " + strerror(error));
}

// A socket's path may have 107 bytes: a longer one is reached through its directory's descriptor.
struct Address {
  Descriptor directory;
  sockaddr_un address{};
};

absl::StatusOr<Address> address_of(const fs::path& socket) {
  Address result;
  std::string name = socket.string();
  if (name.size() >= sizeof(result.address.sun_path)) {
    fs::path parent = socket.parent_path();
    result.directory = Descriptor(::open(parent.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (!result.directory) return failure("cannot open " + parent.string(), errno);
    name = "/proc/self/fd/" + std::to_string(result.directory.get()) + "/" +
           socket.filename().string();
  }
  if (name.size() >= sizeof(result.address.sun_path)) {
    return absl::InvalidArgumentError("the file name of the keeper's socket is too long: " + name);
  }
  result.address.sun_family = AF_UNIX;
  memcpy(result.address.sun_path, name.c_str(), name.size() + 1);
  return result;
}

// A connected socket; an empty one when nobody listens.
absl::StatusOr<Descriptor> connect_to(const fs::path& socket) {
  absl::StatusOr<Address> address = address_of(socket);
  if (!address.ok()) return address.status();
  Descriptor fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd) return failure("cannot make a socket", errno);
  if (::connect(fd.get(), reinterpret_cast<sockaddr*>(&address->address),
                sizeof(address->address)) != 0) {
    if (errno == ECONNREFUSED || errno == ENOENT) return Descriptor();
    return failure("cannot connect to the keeper at " + socket.string(), errno);
  }
  ucred peer{};
  socklen_t size = sizeof(peer);
  if (::getsockopt(fd.get(), SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0 ||
      (peer.uid != ::geteuid() && peer.uid != 0)) {
    return absl::PermissionDeniedError("the keeper at " + socket.string() +
                                       " belongs to another user; use a state directory of your "
                                       "own");
  }
  return fd;
}

// The socket listens before the keeper runs, so that connecting needs no waiting.
absl::StatusOr<Descriptor> listen_at(const fs::path& socket) {
  absl::StatusOr<Address> address = address_of(socket);
  if (!address.ok()) return address.status();
  Descriptor fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd) return failure("cannot make a socket", errno);
  ::unlink(socket.c_str());
  // Before bind this sets the mode of the file to be; the umask belongs to the host program.
  ::fchmod(fd.get(), 0600);
  if (::bind(fd.get(), reinterpret_cast<sockaddr*>(&address->address), sizeof(address->address)) !=
          0 ||
      ::listen(fd.get(), 8) != 0) {
    return failure("cannot make the keeper's socket at " + socket.string(), errno);
  }
  return fd;
}

// A program that another user could have put there is not run.
bool trustworthy(const fs::path& program) {
  struct stat info {};
  if (::stat(program.c_str(), &info) != 0 || !S_ISREG(info.st_mode)) return false;
  if (info.st_uid != 0 && info.st_uid != ::geteuid()) return false;
  return (info.st_mode & S_IWOTH) == 0 && ::access(program.c_str(), X_OK) == 0;
}

// Beside the library (or the program that it is linked into), as it is installed.
std::optional<fs::path> installed_program() {
  std::vector<fs::path> places;
  Dl_info info{};
  if (::dladdr(reinterpret_cast<void*>(&connect_to_keeper), &info) != 0 &&
      info.dli_fname != nullptr && info.dli_fname[0] == '/') {
    places.push_back(fs::path(info.dli_fname).parent_path());
  }
  std::error_code error;
  fs::path self = fs::read_symlink("/proc/self/exe", error);
  if (!error) places.push_back(self.parent_path());
  for (const fs::path& place : places) {
    for (const char* relative : {"pesc-keeper", "../libexec/pesc/pesc-keeper",
                                 "../lib/pesc/pesc-keeper", "../../libexec/pesc/pesc-keeper"}) {
      fs::path program = place / relative;
      if (trustworthy(program)) return program;
    }
  }
  return std::nullopt;
}

bool write_all(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    ssize_t size = ::write(fd, bytes.data(), bytes.size());
    if (size < 0 && errno == EINTR) continue;
    if (size <= 0) return false;
    bytes.remove_prefix(static_cast<size_t>(size));
  }
  return true;
}

// The carried program as a file in memory.
Descriptor program_in_memory() {
#ifdef MFD_EXEC
  constexpr unsigned kExecutable = MFD_EXEC;
#else
  constexpr unsigned kExecutable = 0x10;
#endif
  Descriptor fd(::memfd_create("pesc-keeper", MFD_CLOEXEC | kExecutable));
  if (!fd) fd = Descriptor(::memfd_create("pesc-keeper", MFD_CLOEXEC));  // before Linux 6.3
  if (fd && !write_all(fd.get(), carried_keeper())) return Descriptor();
  return fd;
}

// Where memory may not be executed (vm.memfd_noexec): a file beside the socket, for a moment.
absl::StatusOr<fs::path> program_on_disk(const fs::path& socket) {
  std::string name = (socket.parent_path() / "pesc-keeper-XXXXXX").string();
  Descriptor fd(::mkostemp(name.data(), O_CLOEXEC));
  if (!fd) return failure("cannot write the keeper's program to " + name, errno);
  if (!write_all(fd.get(), carried_keeper()) || ::fchmod(fd.get(), 0700) != 0) {
    int error = errno;
    ::unlink(name.c_str());
    return failure("cannot write the keeper's program to " + name, error);
  }
  return fs::path(name);
}

// The keeper gets nothing of the host's environment but what a dynamic build needs to run.
std::vector<std::string> keeper_environment() {
  std::vector<std::string> result;
  for (const char* name : {"LD_LIBRARY_PATH", "ASAN_OPTIONS", "TSAN_OPTIONS", "UBSAN_OPTIONS"}) {
    if (const char* value = ::getenv(name)) result.push_back(std::string(name) + "=" + value);
  }
  return result;
}

std::vector<char*> pointers(std::vector<std::string>& strings) {
  std::vector<char*> result;
  for (std::string& text : strings) result.push_back(text.data());
  result.push_back(nullptr);
  return result;
}

constexpr int kListenFd = 3;
constexpr size_t kStackBytes = 128 * 1024;

// Sanitizers keep a thread's state in its memory: a process that shared it would change the host's.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr int kCloneFlags = CLONE_VFORK;
#else
constexpr int kCloneFlags = CLONE_VM | CLONE_VFORK;
#endif

// What the two processes need that come before the keeper. They share the host's memory (this, at
// least), while the host's thread stands still.
struct Launch {
  const char* program = nullptr;
  char** argv = nullptr;
  char** environment = nullptr;
  int listen_fd = -1;
  char* stack_top = nullptr;  // of the second
  int error = 0;              // errno of what failed
  int status = 0;             // wait status of the program's first process
};

// The second process becomes the program. System calls only; the tables of handlers and of
// descriptors are its own.
int become_keeper(void* argument) {
  Launch& launch = *static_cast<Launch*>(argument);
  const int listener = ::fcntl(launch.listen_fd, F_DUPFD_CLOEXEC, 10);  // clear of 0 to 3
  const int null = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  bool ready = listener >= 0 && null >= 0;
  for (int fd = 0; fd < kListenFd; ++fd) ready = ready && ::dup2(null, fd) == fd;
  ready = ready && ::dup2(listener, kListenFd) == kListenFd;
  sigset_t none;
  sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  if (ready) ::execve(launch.program, launch.argv, launch.environment);
  launch.error = errno;
  ::_exit(127);
}

// The first process stands between: it is the program's parent until that has forked itself away.
int stand_between(void* argument) {
  Launch& launch = *static_cast<Launch*>(argument);
  struct sigaction by_default {};
  by_default.sa_handler = SIG_DFL;
  for (int signal = 1; signal < NSIG; ++signal) ::sigaction(signal, &by_default, nullptr);
  const pid_t pid = ::clone(become_keeper, launch.stack_top, kCloneFlags, argument);
  if (pid < 0) {
    launch.error = errno;
    ::_exit(127);
  }
  while (::waitpid(pid, &launch.status, __WALL) < 0 && errno == EINTR) {
  }
  ::_exit(0);
}

// Starts `program`, which forks itself away and ends: the keeper is not the host's child, and the
// host has no child left. Not by posix_spawn: the end of its child is a SIGCHLD for the host, and
// one that the host's own wait() could take. A process cloned without an exit signal is neither, as
// long as it executes nothing (that brings the signal back): hence two. Returns an errno value.
int spawn(const std::string& program, int listen_fd, bool die_with_parent, int& status) {
  std::vector<std::string> arguments = {"pesc-keeper", "--listen-fd", std::to_string(kListenFd)};
  if (die_with_parent) arguments.emplace_back("--die-with-parent");
  std::vector<std::string> environment = keeper_environment();
  std::vector<char*> argv = pointers(arguments), envp = pointers(environment);
  constexpr size_t kBytes = 2 * kStackBytes + sizeof(Launch);
  void* memory = ::mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return errno;
  char* first_top = static_cast<char*>(memory) + kStackBytes;
  char* second_top = first_top + kStackBytes;
  Launch& launch = *new (second_top) Launch{
      program.c_str(), argv.data(), envp.data(), listen_fd, second_top, 0, 0};
  // The host's handlers must not run in a process that shares its memory.
  sigset_t all, before;
  sigfillset(&all);
  ::pthread_sigmask(SIG_BLOCK, &all, &before);
  const pid_t pid = ::clone(stand_between, first_top, kCloneFlags, &launch);
  const int error = pid < 0 ? errno : launch.error;
  while (pid >= 0 && ::waitpid(pid, nullptr, __WALL) < 0 && errno == EINTR) {
  }
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  status = launch.status;
  ::munmap(memory, kBytes);
  return error;
}

absl::Status spawn_and_await(const std::string& program, int listen_fd, bool die_with_parent,
                             int& error) {
  int status = 0;
  error = spawn(program, listen_fd, die_with_parent, status);
  if (error != 0) return failure("cannot start the keeper " + program, error);
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return absl::OkStatus();
  return absl::UnavailableError("the keeper could not start (wait status " +
                                std::to_string(status) + ")");
}

absl::Status start_keeper(const KeeperClient::Options& options, int listen_fd) {
  int error = 0;
  bool die = options.die_with_parent;
  if (!options.program.empty()) {
    return spawn_and_await(options.program.string(), listen_fd, die, error);
  }
  if (std::optional<fs::path> program = installed_program()) {
    return spawn_and_await(program->string(), listen_fd, die, error);
  }
  if (Descriptor memory = program_in_memory()) {
    std::string path = "/proc/self/fd/" + std::to_string(memory.get());
    absl::Status status = spawn_and_await(path, listen_fd, die, error);
    if (status.ok() || (error != EACCES && error != EPERM)) return status;
  }
  absl::StatusOr<fs::path> program = program_on_disk(options.socket);
  if (!program.ok()) return program.status();
  absl::Status status = spawn_and_await(program->string(), listen_fd, die, error);
  ::unlink(program->c_str());
  return status;
}

}  // namespace

absl::StatusOr<int> connect_to_keeper(const KeeperClient::Options& options) {
  fs::path directory = options.socket.parent_path();
  if (directory.empty() || options.socket.filename().empty()) {
    return absl::InvalidArgumentError("the keeper's socket needs an absolute path");
  }
  // Two clients at once would each start one.
  fs::path lock_path = options.socket;
  lock_path += ".lock";
  Descriptor lock(::open(lock_path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!lock) return failure("cannot open " + lock_path.string(), errno);
  while (::flock(lock.get(), LOCK_EX) != 0) {
    if (errno != EINTR) return failure("cannot lock " + lock_path.string(), errno);
  }
  absl::StatusOr<Descriptor> connected = connect_to(options.socket);
  if (!connected.ok()) return connected.status();
  if (*connected) return connected->release();
  absl::StatusOr<Descriptor> listener = listen_at(options.socket);
  if (!listener.ok()) return listener.status();
  absl::Status status = start_keeper(options, listener->get());
  if (!status.ok()) {
    ::unlink(options.socket.c_str());
    return status;
  }
  connected = connect_to(options.socket);
  if (!connected.ok()) return connected.status();
  if (!*connected) return absl::UnavailableError("the keeper ended at once");
  return connected->release();
}

}  // namespace pesc::worker
