// One loop for everything a process does: an asio::io_context with KJ's event loop riding on it, so
// that Cap'n Proto, TLS and HTTP share a thread with timers, sockets and process exits.
#pragma once

#include <kj/async-io.h>
#include <kj/async.h>
#include <kj/timer.h>

#include <asio/io_context.hpp>
#include <functional>
#include <memory>

#include "absl/status/status.h"

namespace pesc::rpc {

// Made on the thread that will run it, and used on that thread only, but for post() and stop().
class Loop {
 public:
  Loop();
  ~Loop();
  Loop(const Loop&) = delete;
  Loop& operator=(const Loop&) = delete;

  asio::io_context& io();
  kj::Timer& timer();
  kj::WaitScope& wait_scope();

  // Resolves when there is nothing else to do, or a little later if that never comes: for what is
  // better done once for many. (kj::evalLast() waits for as long as there is something.)
  kj::Promise<void> when_quiet();

  // Runs until stop(). Handlers and promises both make progress.
  void run();
  void stop();                            // thread-safe
  void post(std::function<void()> work);  // thread-safe; runs on the loop's thread

  // Runs the loop until the promise is done (start-up and tests; never inside a handler).
  template <typename T>
  T wait(kj::Promise<T> promise) {
    return promise.wait(wait_scope());
  }

  // Keeps a promise running in the background; a failure goes to `on_error`, or to the log.
  void detach(kj::Promise<void> promise, std::function<void(absl::Status)> on_error = {});

  // Runs blocking work (hashing, compressing, bulk files) on a small pool; `done` follows on the
  // loop's thread.
  void run_blocking(std::function<void()> work, std::function<void()> done);

  struct Impl;
  Impl& impl() { return *impl_; }

 private:
  std::unique_ptr<Impl> impl_;
};

// Errors across KJ and the wire: a status becomes a kj::Exception whose description begins with the
// code's name ("invalid argument: …"), and is read back from it; a lost connection is Unavailable.
kj::Exception to_exception(const absl::Status& status);
absl::Status to_status(const kj::Exception& exception);
// Throws to_exception(status) unless OK: for the bodies of RPC methods.
void throw_if_error(const absl::Status& status);

}  // namespace pesc::rpc
