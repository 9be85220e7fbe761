// pesc-worker: a worker over a connection to its coordinator, until it is told to end.
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <asio/signal_set.hpp>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "rpc/connection.h"
#include "rpc/credentials.h"
#include "rpc/log.h"
#include "rpc/loop.h"
#include "runtime/common/memory.h"
#include "runtime/worker/containment/containment.h"
#include "runtime/worker/shell/daemon_options.h"
#include "runtime/worker/shell/run_as.h"
#include "runtime/worker/shell/worker.h"

namespace pesc::worker {
namespace {

// From the first signal to the end, whatever the ranks do: their grace, and time to upload what
// they have saved in it, within systemd's TimeoutStopSec. What is not done by then the next worker
// does.
constexpr uint64_t kVacateLimitMs = 25'000;
constexpr uint64_t kConnectMs = 10'000;

int fail(const absl::Status& status, int code) {
  std::fprintf(stderr, "pesc-worker: %s\n", std::string(status.message()).c_str());
  return code;
}

absl::StatusOr<rpc::JoinFile> find_join(const DaemonOptions& options) {
  const std::string& named = options.join_file.empty() ? options.coordinator : options.join_file;
  auto found = rpc::find_coordinator(named, rpc::Role::worker);
  if (!found.ok()) return found.status();
  if (!*found) {
    return absl::InvalidArgumentError(
        "no coordinator is named: give --coordinator HOST:PORT or --join-file FILE, set "
        "PESC_COORDINATOR, or write `coordinator = \"HOST:PORT\"` to " +
        (rpc::user_config_dir() / "config.toml").string());
  }
  rpc::JoinFile join = **found;
  // Both given: the file has the credentials, the flag the address.
  if (!options.join_file.empty() && !options.coordinator.empty()) {
    join.address = options.coordinator;
  }
  if (join.role != rpc::Role::worker) {
    return absl::InvalidArgumentError("the credentials for " + join.address + " are a " +
                                      std::string(to_string(join.role)) +
                                      "'s: make a worker's with `pesc join-file worker`");
  }
  return join;
}

// A connection, kept as long as the session that came over it.
class Dialler {
 public:
  Dialler(rpc::Loop& loop, DaemonOptions options) : loop_(loop), options_(std::move(options)) {}

  // Credentials are looked up each time: a coordinator on this machine may start later than we do,
  // and a new join file is used without a restart.
  kj::Promise<protocol::WorkerSession::Client> dial() {
    connection_.reset();
    auto join = find_join(options_);
    // Unavailable, so that it is looked for again soon: it costs nothing.
    if (!join.ok()) {
      return rpc::to_exception(absl::UnavailableError(std::string(join.status().message())));
    }
    auto address = rpc::parse_address(join->address);
    if (!address.ok()) return rpc::to_exception(address.status());
    return rpc::connect(loop_, *address, join->certificate_pem, kConnectMs, join->coordinator_uid)
        .then([this, token = join->token](std::unique_ptr<rpc::Connection> connection)
                  -> kj::Promise<protocol::WorkerSession::Client> {
          connection_ = std::move(connection);
          auto front = connection_->bootstrap().castAs<protocol::Front>();
          auto request = front.loginRequest();
          request.setToken(token);
          request.setSoftware("pesc-worker " PESC_VERSION);
          return request.send().then([this](auto&& response) {
            if (!response.hasWorker()) refuse();
            accepted_ = true;
            return response.getWorker();
          });
        });
  }

  // What no trying again can mend: the credentials that this worker was started with are not a
  // worker's. It has run nothing with them, so it ends.
  const absl::Status& refused() const { return refused_; }

 private:
  void refuse() {
    absl::Status status = absl::PermissionDeniedError(
        "the token is not a worker's: make a join file with `pesc join-file worker NAME` on the "
        "coordinator's machine");
    if (!accepted_) {
      refused_ = status;
      loop_.post([this] { loop_.stop(); });
    }
    rpc::throw_if_error(status);
  }

  rpc::Loop& loop_;
  const DaemonOptions options_;
  bool accepted_ = false;
  absl::Status refused_;
  std::unique_ptr<rpc::Connection> connection_;
};

void end_at_signal(rpc::Loop& loop, Worker& worker, asio::signal_set& signals) {
  signals.async_wait([&](const asio::error_code& error, int signal) {
    if (error) return;
    rpc::log().info(
        "event=stopping signal={} next=\"ranks are given back; a second signal ends at "
        "once\"",
        signal);
    signals.async_wait([](const asio::error_code& again, int) {
      if (!again) ::_exit(1);
    });
    loop.detach(worker.vacate(kVacateLimitMs)
                    .then([&worker] { return worker.shutdown(); })
                    .then([&] { loop.stop(); },
                          [&](kj::Exception&& e) {
                            rpc::log().error("event=stop_failed error=\"{}\"",
                                             e.getDescription().cStr());
                            loop.stop();
                          }));
  });
}

int run(const DaemonOptions& given) {
  DaemonOptions options = given;
  if (::geteuid() == 0 && options.worker.run_as.empty()) {
    options.worker.run_as = default_rank_user();
    rpc::log().warn(
        "event=warning text=\"started as root without --run-as: ranks run as the user "
        "{}\"",
        options.worker.run_as);
  }
  // Found wrong now, a name is told to the person at the keyboard.
  auto join = find_join(options);
  const bool will_not_do = absl::IsInvalidArgument(join.status()) ||
                           absl::IsPermissionDenied(join.status()) || !options.join_file.empty();
  if (!join.ok() && will_not_do) return fail(join.status(), 2);

  options.worker.moved_itself = containment::enter_supervisor(options.worker.containment);
  rpc::Loop loop;
  Dialler dialler(loop, options);
  auto worker = Worker::open(loop, options.worker, [&dialler] { return dialler.dial(); });
  if (!worker.ok()) return fail(worker.status(), 1);
  asio::signal_set signals(loop.io(), SIGTERM, SIGINT);
  end_at_signal(loop, **worker, signals);
  loop.run();
  rpc::log().info("event=stopped");
  worker->reset();
  return dialler.refused().ok() ? 0 : fail(dialler.refused(), 2);
}

// For whoever sits at the machine: no coordinator, and no token of one, is needed.
int set_pause(const DaemonOptions& options) {
  std::filesystem::path file = options.worker.owner->pause_file;
  if (file.empty()) file = options.worker.state_dir / "pause";
  absl::Status set = owner::set_pause_file(file, *options.set_pause);
  if (!set.ok()) return fail(set, 1);
  std::fprintf(
      stderr, "pesc-worker: %s\n",
      *options.set_pause
          ? "the worker here is paused: what it runs is frozen, and it takes no more until "
            "pesc-worker --resume"
          : "the worker here is not paused any more");
  return 0;
}

}  // namespace

int worker_main(int argc, char** argv) {
  auto options = parse_daemon_options(std::vector<std::string>(argv + 1, argv + argc));
  if (!options.ok()) return fail(options.status(), 2);
  if (options->exit_code >= 0) {
    std::fputs(options->text.c_str(), stdout);
    return options->exit_code;
  }
  if (options->set_pause) return set_pause(*options);
  ::umask(022);
  rpc::set_up_daemon_log(options->log_level);
  try {
    return run(*options);
  } catch (const kj::Exception& e) {
    return fail(rpc::to_status(e), 1);
  } catch (const std::exception& e) {
    return fail(absl::InternalError(e.what()), 1);
  }
}

}  // namespace pesc::worker

int main(int argc, char** argv) {
  pesc::common::keep_freed_pieces();
  return pesc::worker::worker_main(argc, argv);
}
