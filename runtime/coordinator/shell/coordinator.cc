#include "runtime/coordinator/shell/coordinator.h"

#include <pwd.h>
#include <unistd.h>

#include <array>
#include <system_error>
#include <utility>

#include "rpc/log.h"
#include "runtime/coordinator/shell/reachable.h"
#include "runtime/coordinator/shell/service.h"

namespace pesc::coordinator {
namespace {

// For who connects and does not log in.
constexpr uint64_t kLoginWithinMs = 10'000;

std::string user_name() {
  std::array<char, 4096> buffer{};
  passwd entry{};
  passwd* found = nullptr;
  if (getpwuid_r(geteuid(), &entry, buffer.data(), buffer.size(), &found) == 0 &&
      found != nullptr) {
    return found->pw_name;
  }
  return "uid-" + std::to_string(geteuid());
}

class CoordinatorImpl final : public Coordinator {
 public:
  CoordinatorImpl(rpc::Loop& loop, std::shared_ptr<Service> service, std::filesystem::path dir)
      : loop_(loop), service_(std::move(service)), dir_(std::move(dir)) {}
  ~CoordinatorImpl() noexcept override { remove_pointers(); }

  protocol::UserSession::Client user_session(const rpc::Principal& owner) override {
    return make_user_session(service_, owner);
  }
  protocol::WorkerSession::Client worker_session(const std::string& peer_address) override {
    return make_worker_session(service_, peer_address);
  }
  absl::StatusOr<rpc::Address> listen(const rpc::Address& address) override;
  kj::Promise<void> shutdown() override;

 private:
  struct Pointer {
    std::filesystem::path path;
    std::string token;
  };

  // The token of this user's own tools: made once, kept in the state directory.
  absl::StatusOr<rpc::JoinFile> own_join_file(rpc::Role role, const rpc::Address& address);
  absl::Status leave_pointers(const rpc::Address& bound);
  void remove_pointers();

  rpc::Loop& loop_;
  std::shared_ptr<Service> service_;
  std::filesystem::path dir_;
  rpc::Identity identity_;  // outlives the listener
  std::string certificate_;
  std::unique_ptr<rpc::Listener> listener_;
  std::vector<Pointer> pointers_;
};

absl::StatusOr<rpc::Address> CoordinatorImpl::listen(const rpc::Address& address) {
  if (listener_) return absl::FailedPreconditionError("this coordinator listens already");
  // Credentials first: nobody may connect to a coordinator that does not know its tokens.
  const absl::StatusOr<rpc::TokenStore*> tokens = service_->tokens();
  if (!tokens.ok()) return tokens.status();
  rpc::ListenOptions options;
  options.address = address;
  options.admit_within_ms = kLoginWithinMs;
  certificate_.clear();
  if (!rpc::is_loopback(address)) {
    absl::StatusOr<rpc::Identity> identity = rpc::load_or_create_identity(dir_);
    if (!identity.ok()) return identity.status();
    identity_ = std::move(*identity);
    certificate_ = identity_.certificate_pem;
    options.identity = &identity_;
  }
  absl::StatusOr<std::unique_ptr<rpc::Listener>> listener = rpc::listen(
      loop_, options,
      [service = service_](const rpc::Peer& peer) { return make_front(service, peer); });
  if (!listener.ok()) return listener.status();
  listener_ = std::move(*listener);
  const rpc::Address bound = listener_->local_address();
  service_->set_join_address(reachable_address(bound), certificate_);
  if (absl::Status status = leave_pointers(bound); !status.ok()) {
    listener_ = nullptr;
    return status;
  }
  return bound;
}

absl::StatusOr<rpc::JoinFile> CoordinatorImpl::own_join_file(rpc::Role role,
                                                             const rpc::Address& address) {
  const std::filesystem::path path = dir_ / (std::string(rpc::to_string(role)) + ".join");
  const absl::StatusOr<rpc::TokenStore*> tokens = service_->tokens();
  if (!tokens.ok()) return tokens.status();
  rpc::JoinFile join;
  std::error_code ignored;
  if (std::filesystem::exists(path, ignored)) {
    absl::StatusOr<rpc::JoinFile> kept = rpc::read_join_file(path);
    if (kept.ok() && (*tokens)->find(kept->token)) join.token = std::move(kept->token);
  }
  join.role = role;
  join.name = user_name();
  join.address = rpc::to_string(address);
  join.certificate_pem = certificate_;
  if (certificate_.empty()) join.coordinator_uid = geteuid();
  if (join.token.empty()) {
    absl::StatusOr<std::string> token = (*tokens)->issue(role, join.name);
    if (!token.ok()) return token.status();
    join.token = std::move(*token);
  }
  if (absl::Status status = rpc::write_join_file(path, join); !status.ok()) return status;
  return join;
}

absl::Status CoordinatorImpl::leave_pointers(const rpc::Address& bound) {
  const rpc::Address local = local_address(bound);
  auto admin = own_join_file(rpc::Role::admin, local);
  if (!admin.ok()) return admin.status();
  auto worker = own_join_file(rpc::Role::worker, local);
  if (!worker.ok()) return worker.status();
  const std::pair<rpc::Role, const rpc::JoinFile*> all[] = {
      {rpc::Role::admin, &*admin}, {rpc::Role::user, &*admin}, {rpc::Role::worker, &*worker}};
  for (const auto& [role, join] : all) {
    const std::filesystem::path path = rpc::pointer_path(bound.port, role);
    absl::Status status = rpc::write_join_file(path, *join);
    if (!status.ok()) {
      // A user without a writable home can still name the join file of the state directory.
      rpc::log().warn(
          "msg=\"tools of this user will not find the coordinator by themselves\" "
          "error=\"{}\" join_file={}",
          std::string(status.message()), (dir_ / "admin.join").string());
      return absl::OkStatus();
    }
    pointers_.push_back({path, join->token});
  }
  return absl::OkStatus();
}

// Only those that are still ours: another coordinator may have the port by now.
void CoordinatorImpl::remove_pointers() {
  for (const Pointer& pointer : std::exchange(pointers_, {})) {
    const absl::StatusOr<rpc::JoinFile> join = rpc::read_join_file(pointer.path);
    std::error_code ignored;
    if (join.ok() && join->token == pointer.token) std::filesystem::remove(pointer.path, ignored);
  }
}

kj::Promise<void> CoordinatorImpl::shutdown() {
  remove_pointers();
  // Calls that wait for a commit are answered before their connections are closed.
  return service_->shutdown().then(
      [this] { return kj::evalLast([this] { listener_ = nullptr; }); });
}

}  // namespace

absl::StatusOr<std::unique_ptr<Coordinator>> Coordinator::open(rpc::Loop& loop, Options options) {
  std::error_code error;
  options.state_dir = std::filesystem::absolute(options.state_dir, error);
  absl::StatusOr<std::shared_ptr<Service>> service = Service::open(loop, options);
  if (!service.ok()) return service.status();
  return std::make_unique<CoordinatorImpl>(loop, std::move(*service), options.state_dir);
}

}  // namespace pesc::coordinator
