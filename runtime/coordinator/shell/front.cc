// What a stranger can call: login, and nothing else.

#include <utility>

#include "rpc/log.h"
#include "runtime/coordinator/shell/clock.h"
#include "runtime/coordinator/shell/service.h"

namespace pesc::coordinator {
namespace {

constexpr TimeMs kLogEveryMs = 10'000;

// One line now and then: whoever guesses tokens must not fill the disk with our log.
void log_failed_login(const std::string& peer) {
  static thread_local TimeMs next_line = 0;
  static thread_local uint64_t failures = 0;
  ++failures;
  const TimeMs now = boottime_ms();
  if (now < next_line) return;
  rpc::log().warn("event=login_refused address={} failures={}", peer, failures);
  next_line = now + kLogEveryMs;
  failures = 0;
}

class FrontServer final : public protocol::Front::Server {
 public:
  FrontServer(std::shared_ptr<Service> service, rpc::Peer peer)
      : service_(std::move(service)), peer_(std::move(peer)) {}

  kj::Promise<void> login(LoginContext context) override {
    rpc::throw_if_error(service_->open_status());
    const auto token = context.getParams().getToken();
    const absl::StatusOr<rpc::TokenStore*> tokens = service_->tokens();
    rpc::throw_if_error(tokens.status());
    const std::optional<rpc::Principal> principal =
        (*tokens)->find(std::string_view(token.cStr(), token.size()));
    if (!principal) {
      log_failed_login(peer_.address);
      // The same words whatever was wrong: a guess learns nothing.
      rpc::throw_if_error(absl::UnauthenticatedError(
          "the token is not one of this coordinator's; get a join file with `pesc join-file`"));
    }
    peer_.admit();
    auto results = context.getResults();
    results.setAdmin(principal->role == rpc::Role::admin);
    if (principal->role == rpc::Role::worker) {
      results.setWorker(make_worker_session(service_, peer_.address));
    } else {
      results.setUser(make_user_session(service_, *principal));
    }
    return kj::READY_NOW;
  }

 private:
  std::shared_ptr<Service> service_;
  const rpc::Peer peer_;
};

}  // namespace

protocol::Front::Client make_front(std::shared_ptr<Service> service, rpc::Peer peer) {
  return kj::heap<FrontServer>(std::move(service), std::move(peer));
}

}  // namespace pesc::coordinator
