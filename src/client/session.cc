#include "client/session.h"

#include <openssl/crypto.h>
#include <unistd.h>

#include <asio/error.hpp>
#include <list>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "rpc/log.h"

namespace pesc::client {
namespace {

constexpr uint64_t kConnectMs = 10'000;
constexpr int64_t kSilentMs = 8'000;  // less than that: see RemoteLink::open

class RemoteLink : public Link {
 public:
  RemoteLink(rpc::Loop& loop, rpc::JoinFile join) : loop_(loop), join_(std::move(join)) {}

  kj::Promise<UserSession> session() override {
    if (!session_) session_ = std::make_unique<kj::ForkedPromise<UserSession>>(open().fork());
    return session_->addBranch();
  }

  void drop() override { session_.reset(); }
  kj::Promise<void> close() override { return kj::READY_NOW; }

  void on_contact(std::function<void(bool)> callback) override {
    observer_ = std::move(callback);
    if (observer_ && away_) observer_(false);
  }

 private:
  kj::Promise<UserSession> open() {
    kj::Promise<UserSession> login = log_in();
    // The first time, whoever accepts and says nothing is no coordinator. Where one has answered,
    // it is stopped, or its machine is: it is waited for.
    if (answered_) {
      login = login.exclusiveJoin(
          loop_.timer()
              .afterDelay(kSilentMs * kj::MILLISECONDS)
              .then([]() -> kj::Promise<UserSession> {
                return rpc::to_exception(absl::UnavailableError("the coordinator does not answer"));
              }));
    }
    return login.then(
        [this](UserSession session) {
          answered_ = true;
          contact(true);
          return session;
        },
        [this](kj::Exception&& error) -> UserSession {
          if (rpc::to_status(error).code() == absl::StatusCode::kUnavailable) contact(false);
          kj::throwFatalException(kj::mv(error));
        });
  }

  void contact(bool answers) {
    if (away_ == !answers) return;
    away_ = !answers;
    if (observer_) observer_(answers);
  }

  kj::Promise<UserSession> log_in() {
    absl::StatusOr<rpc::Address> address = rpc::parse_address(join_.address);
    if (!address.ok()) return rpc::to_exception(address.status());
    return rpc::connect(loop_, *address, join_.certificate_pem, kConnectMs, join_.coordinator_uid)
        .then([this](std::unique_ptr<rpc::Connection> connection) {
          // The old connection ends only now: calls on it that are under way fail with it.
          connection_ = std::move(connection);
          auto request = connection_->bootstrap().castAs<protocol::Front>().loginRequest();
          request.setToken(join_.token.c_str());
          request.setSoftware("pesc " PESC_VERSION);
          return request.send();
        })
        .then([this](capnp::Response<protocol::Front::LoginResults> response) -> UserSession {
          if (!response.hasUser()) {
            rpc::throw_if_error(absl::PermissionDeniedError(
                "the token for " + join_.address +
                " is a worker's; ask for a user's (pesc join-file user NAME)"));
          }
          return response.getUser();
        });
  }

  rpc::Loop& loop_;
  rpc::JoinFile join_;
  std::unique_ptr<rpc::Connection> connection_;
  std::unique_ptr<kj::ForkedPromise<UserSession>> session_;
  std::function<void(bool)> observer_;
  bool away_ = false, answered_ = false;
};

class LocalLink : public Link {
 public:
  explicit LocalLink(std::unique_ptr<local::Cluster> cluster)
      : cluster_(std::move(cluster)), session_(cluster_->session()) {}
  ~LocalLink() noexcept override = default;
  kj::Promise<UserSession> session() override { return session_; }
  void drop() override {}
  // Ranks that still run are ended: nothing may outlive the process that embeds PESC.
  kj::Promise<void> close() override { return cluster_->shutdown(); }

 private:
  std::unique_ptr<local::Cluster> cluster_;
  UserSession session_;  // one for all calls: it remembers what it told whom
};

// Sessions that end on a thread of their own. At the program's exit they are waited for: their
// threads use what the exit takes away (error categories, loggers, OpenSSL), so those are made
// before this. One whose last reference goes later still, in a callback that outlives main(), is
// left to the end of the process, which ends what it has.
class Endings {
 public:
  Endings() {
    (void)asio::error::get_misc_category();
    (void)asio::error::get_netdb_category();
    (void)asio::error::get_addrinfo_category();
    (void)rpc::log();
    // Without its own clean-up at exit, where nobody of the host's has begun with OpenSSL yet: it
    // would take locks away that the threads of a job that still runs hold.
    OPENSSL_init_crypto(OPENSSL_INIT_NO_ATEXIT, nullptr);
  }

  void finish() {
    for (;;) {
      {
        std::lock_guard lock(mutex_);
        finished_ = endings_.empty();
        if (finished_) return;
      }
      reap(true);
    }
  }

  void run(std::function<void()> end) {
    reap(false);
    std::lock_guard lock(mutex_);
    if (finished_) {
      never_.push_back(std::move(end));
      return;
    }
    Ending& ending = endings_.emplace_back();
    ending.thread = std::thread([this, &ending, end = std::move(end)]() mutable {
      end();
      end = {};
      std::lock_guard done(mutex_);
      ending.done = true;
    });
  }

 private:
  struct Ending {
    std::thread thread;
    bool done = false;
  };

  void reap(bool all) {
    std::list<Ending> over;
    {
      std::lock_guard lock(mutex_);
      for (auto it = endings_.begin(); it != endings_.end();) {
        const auto next = std::next(it);
        if (all || it->done) over.splice(over.end(), endings_, it);
        it = next;
      }
    }
    for (Ending& ending : over) {
      const bool itself = ending.thread.get_id() == std::this_thread::get_id();
      itself ? ending.thread.detach() : ending.thread.join();
    }
  }

  std::mutex mutex_;
  bool finished_ = false;      // the program exits
  std::list<Ending> endings_;  // each stays where it is
  std::vector<std::function<void()>> never_;
};

// Never destroyed: a callback may still ask for it while the program exits.
Endings& endings() {
  static Endings& instance = *new Endings;
  static const struct AtExit {
    ~AtExit() { instance.finish(); }
  } at_exit;
  (void)at_exit;
  return instance;
}

}  // namespace

std::unique_ptr<Link> make_remote_link(rpc::Loop& loop, rpc::JoinFile join) {
  return std::make_unique<RemoteLink>(loop, std::move(join));
}

absl::StatusOr<std::unique_ptr<Link>> make_local_link(rpc::Loop& loop,
                                                      const LocalOptions& options) {
  local::Options cluster;
  cluster.state_dir = options.state_directory;
  cluster.workers = options.workers;
  cluster.slots = options.slots;
  cluster.gpus = options.gpus;
  auto started = local::Cluster::start(loop, cluster);
  if (!started.ok()) return started.status();
  return std::make_unique<LocalLink>(*std::move(started));
}

std::shared_ptr<Session> Session::make() {
  (void)endings();
  return {new Session, [](Session* session) {
            // It joins its threads, so it cannot end on one of them.
            if (session->thread_.on_loop() || session->dispatcher_.on_thread()) {
              endings().run([session] { delete session; });
            } else {
              delete session;
            }
          }};
}

absl::StatusOr<std::shared_ptr<Session>> Session::connect(rpc::JoinFile join) {
  std::shared_ptr<Session> session = make();
  session->address_ = join.address;
  absl::Status status = session->thread_.call_void([&] {
    session->link_ = make_remote_link(session->thread_.loop(), std::move(join));
    return session->link_->session().ignoreResult();
  });
  if (!status.ok()) return status;
  return session;
}

absl::StatusOr<std::shared_ptr<Session>> Session::local(const LocalOptions& options) {
  std::shared_ptr<Session> session = make();
  session->embedded_ = true;
  std::promise<absl::Status> done;
  session->thread_.loop().post([&] {
    auto link = make_local_link(session->thread_.loop(), options);
    if (link.ok()) session->link_ = *std::move(link);
    done.set_value(link.status());
  });
  absl::Status status = done.get_future().get();
  if (!status.ok()) return status;
  return session;
}

Session::~Session() {
  if (!link_) return;
  // What cannot be ended here is ended by the keeper, which outlives this process.
  (void)thread_.call_void([this] { return link_->close(); });
  std::promise<void> done;
  thread_.loop().post([&] {
    link_.reset();
    done.set_value();
  });
  done.get_future().wait();
}

void Session::on_contact(std::function<void(bool)> callback) {
  thread_.loop().post([this, callback = std::move(callback)]() mutable {
    if (link_) link_->on_contact(std::move(callback));
  });
}

absl::Status Session::call_void(std::function<kj::Promise<void>(UserSession&)> make,
                                uint64_t retry_for_ms) {
  return call<bool>([make = std::move(make)](
                        UserSession& session) { return make(session).then([] { return true; }); },
                    retry_for_ms)
      .status();
}

}  // namespace pesc::client
