// A state directory that cannot be written takes no ranks: each would only lose a try.
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

#include "rpc/log.h"
#include "runtime/worker/shell/worker_impl.h"

namespace pesc::worker {
namespace {

constexpr off_t kEnoughBytes = 1 << 20;
constexpr uint64_t kLookEveryMs = 2'000;

}  // namespace

// An errno; 0: it can be written.
int WorkerShell::try_disk() const {
  const std::string path = (state_dir_ / "outbox" / "room").string();
  common::UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (!fd.valid()) return errno;
  const int error = ::posix_fallocate(fd.get(), 0, kEnoughBytes);
  ::unlink(path.c_str());
  return error;
}

// A large output that did not fit leaves room when it is gone: that is no trouble of the worker's.
void WorkerShell::note_full_disk() {
  const int error = disk_trouble_.empty() ? try_disk() : 0;
  if (error == 0) return;
  disk_trouble_ =
      "cannot write to " + state_dir_.string() + ": " + std::generic_category().message(error);
  rpc::log().warn("event=disk_full error=\"{}\" next=\"no ranks until it can\"", disk_trouble_);
  say_busy();
  disk_timer_ = wait_for_disk().eagerlyEvaluate(nullptr);
}

kj::Promise<void> WorkerShell::wait_for_disk() {
  return loop_.timer().afterDelay(kLookEveryMs * kj::MILLISECONDS).then([this]() {
    if (try_disk() != 0) return wait_for_disk();
    disk_trouble_.clear();
    rpc::log().info("event=disk_usable_again");
    say_busy();
    return kj::Promise<void>(kj::READY_NOW);
  });
}

void WorkerShell::say_busy() {
  const std::string owners = monitor_ ? monitor_->verdict().busy : std::string();
  push(BusyChanged{disk_trouble_.empty() ? owners : disk_trouble_});
}

}  // namespace pesc::worker
