#include "client/loop_thread.h"

#include <pthread.h>
#include <signal.h>

namespace pesc::client {

absl::Status blocking_call_refused() {
  return absl::FailedPreconditionError(
      "a blocking PESC call was made on PESC's own thread, where it could never end; make it from "
      "another thread");
}

LoopThread::LoopThread() {
  // The new thread inherits the mask, so no signal of the host can land on it even at its start.
  sigset_t all, old;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &old);
  std::promise<rpc::Loop*> ready;
  thread_ = std::thread([&ready] {
    rpc::Loop loop;
    ready.set_value(&loop);
    loop.run();
  });
  loop_ = ready.get_future().get();
  pthread_sigmask(SIG_SETMASK, &old, nullptr);
}

LoopThread::~LoopThread() {
  loop_->stop();
  thread_.join();
}

absl::Status LoopThread::call_void(std::function<kj::Promise<void>()> work) {
  auto result = call<bool>([work = std::move(work)] { return work().then([] { return true; }); });
  return result.status();
}

}  // namespace pesc::client
