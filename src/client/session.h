// A user's session with a coordinator, remote or embedded: made again when it breaks.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "client/dispatcher.h"
#include "client/loop_thread.h"
#include "pesc.capnp.h"
#include "pesc/client.h"
#include "rpc/connection.h"
#include "rpc/credentials.h"
#include "runtime/local/cluster.h"

namespace pesc::client {

// Where sessions come from. On the loop's thread.
class Link {
 public:
  virtual ~Link() = default;
  // The session, connecting when there is none. Fails with what keeps it from being had.
  virtual kj::Promise<protocol::UserSession::Client> session() = 0;
  // What failed was the connection: the next session() makes a new one.
  virtual void drop() = 0;
  // Before it is destroyed: ends what must not outlive it.
  virtual kj::Promise<void> close() = 0;
  // See Session::on_contact.
  virtual void on_contact(std::function<void(bool answers)>) {}
};

std::unique_ptr<Link> make_remote_link(rpc::Loop& loop, rpc::JoinFile join);
absl::StatusOr<std::unique_ptr<Link>> make_local_link(rpc::Loop& loop, const LocalOptions& options);

inline constexpr uint64_t kForever = UINT64_MAX;
inline constexpr uint64_t kRetryForMs = 30'000;

using UserSession = protocol::UserSession::Client;

// Calls on the session. Held by shared pointers only; the last one may be let go on any thread, a
// callback's too. Everything here may be called from any thread but the loop's.
class Session {
 public:
  static absl::StatusOr<std::shared_ptr<Session>> connect(rpc::JoinFile join);
  static absl::StatusOr<std::shared_ptr<Session>> local(const LocalOptions& options);
  ~Session();

  // Makes a call; one that fails because the connection broke is made again, with back-off, for
  // retry_for_ms. So a call must be one that may be repeated: all of UserSession's are.
  template <typename T>
  absl::StatusOr<T> call(std::function<kj::Promise<T>(UserSession&)> make,
                         uint64_t retry_for_ms = kRetryForMs) {
    return thread_.call<T>([this, make = std::move(make), retry_for_ms] {
      return attempt<T>(make, retry_for_ms, 100);
    });
  }
  absl::Status call_void(std::function<kj::Promise<void>(UserSession&)> make,
                         uint64_t retry_for_ms = kRetryForMs);

  // The same on the loop's thread, as a promise.
  template <typename T>
  kj::Promise<T> attempt(std::function<kj::Promise<T>(UserSession&)> make, uint64_t retry_for_ms,
                         uint64_t backoff_ms);

  // Calls back, on the loop's thread, with false when no connection to the coordinator can be made
  // (its calls wait then) and with true when one is made again; with false at once when that is so
  // already. One that breaks and is made again at once is no absence. Replaces the former callback,
  // which must not block; {} ends it.
  void on_contact(std::function<void(bool answers)> callback);

  LoopThread& thread() { return thread_; }
  Dispatcher& dispatcher() { return dispatcher_; }
  bool embedded() const { return embedded_; }
  const std::string& address() const { return address_; }  // empty: embedded

 private:
  Session() = default;
  static std::shared_ptr<Session> make();
  LoopThread thread_;
  std::unique_ptr<Link> link_;  // made and ended on the loop's thread
  Dispatcher dispatcher_;
  bool embedded_ = false;
  std::string address_;
};

template <typename T>
kj::Promise<T> Session::attempt(std::function<kj::Promise<T>(UserSession&)> make,
                                uint64_t retry_for_ms, uint64_t backoff_ms) {
  if (!link_) return KJ_EXCEPTION(DISCONNECTED, "unavailable: the session has ended");
  return link_->session()
      .then([make](UserSession session) { return make(session); })
      .catch_([this, make, retry_for_ms, backoff_ms](kj::Exception&& error) -> kj::Promise<T> {
        if (rpc::to_status(error).code() != absl::StatusCode::kUnavailable) {
          kj::throwFatalException(kj::mv(error));
        }
        if (!link_) kj::throwFatalException(kj::mv(error));
        link_->drop();
        if (retry_for_ms < backoff_ms) kj::throwFatalException(kj::mv(error));
        uint64_t left_ms = retry_for_ms == kForever ? kForever : retry_for_ms - backoff_ms;
        return thread_.loop()
            .timer()
            .afterDelay(backoff_ms * kj::MILLISECONDS)
            .then([this, make, left_ms, backoff_ms] {
              return attempt<T>(make, left_ms, std::min<uint64_t>(backoff_ms * 2, 5'000));
            });
      });
}

}  // namespace pesc::client
