// pesc-coordinator: the coordinator as a daemon.
#include <signal.h>
#include <sys/stat.h>

#include <CLI/CLI.hpp>
#include <asio/signal_set.hpp>
#include <cstdio>
#include <iostream>
#include <string>

#include "rpc/log.h"
#include "rpc/loop.h"
#include "runtime/common/memory.h"
#include "runtime/coordinator/shell/coordinator.h"
#include "runtime/coordinator/shell/daemon_config.h"
#include "runtime/coordinator/shell/revoke.h"

namespace {

using pesc::coordinator::Coordinator;
using pesc::coordinator::DaemonConfig;
using pesc::coordinator::DaemonSettings;

constexpr int kBadUsage = 2;

int complain(const absl::Status& status, int code) {
  std::cerr << "pesc-coordinator: " << status.message() << "\n";
  return code;
}

int serve(const DaemonConfig& config) {
  pesc::rpc::Loop loop;
  auto coordinator = Coordinator::open(loop, config.options);
  if (!coordinator.ok()) return complain(coordinator.status(), 1);
  auto address = (*coordinator)->listen(config.listen);
  if (!address.ok()) return complain(address.status(), 1);
  std::cout << "pesc-coordinator: listening on " << pesc::rpc::to_string(*address) << ", state in "
            << config.options.state_dir.string() << std::endl;

  asio::signal_set signals(loop.io(), SIGTERM, SIGINT);
  signals.async_wait([&](const asio::error_code& error, int signal) {
    if (error) return;
    pesc::rpc::log().info("event=stopping signal={}", signal);
    loop.detach(
        (*coordinator)->shutdown().then([&loop] { loop.stop(); }), [&loop](absl::Status status) {
          pesc::rpc::log().error("event=stop_failed error=\"{}\"", std::string(status.message()));
          loop.stop();
        });
  });
  loop.run();
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  pesc::common::keep_freed_pieces();
  umask(077);
  CLI::App app("The coordinator of PESC: keeps jobs and results, gives ranks to workers.");
  DaemonSettings flags;
  std::string config_file, revoke;
  app.add_option("--listen", flags.listen,
                 "ADDR:PORT to serve on (default 127.0.0.1:7341); TLS unless it is a loopback one");
  app.add_option("--state", flags.state,
                 "directory of its state, on a disk of this machine (default "
                 "~/.local/state/pesc/coordinator)");
  app.add_option("--lease", flags.lease,
                 "how long a worker may be silent before its ranks are given to others, e.g. 90s "
                 "or 5m (default 60s)");
  app.add_option("--config", config_file, "TOML file with the same settings; flags win");
  app.add_option("--retention-days", flags.retention_days,
                 "remove finished jobs after this many days (default 30)");
  app.add_option("--retention-bytes", flags.retention_bytes,
                 "remove the oldest finished jobs beyond this much output, e.g. 100GiB");
  app.add_option("--log-level", flags.log_level, "trace, debug, info, warn, error or off");
  app.add_flag("--drop-damaged", flags.drop_damaged,
               "start although the journal is damaged: removes the jobs that it names as damaged");
  app.add_option(
      "--revoke", revoke,
      "ROLE:NAME, e.g. worker:pc-7: forget the tokens of that user, worker or admin, and "
      "end; the coordinator must have been stopped");
  app.set_version_flag("--version", "pesc-coordinator " PESC_VERSION);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : kBadUsage;
  }

  DaemonSettings settings = flags;
  if (!config_file.empty()) {
    auto file = pesc::coordinator::read_settings(config_file);
    if (!file.ok()) return complain(file.status(), kBadUsage);
    settings = merge(std::move(*file), flags);
  }
  auto config = understand(settings);
  if (!config.ok()) return complain(config.status(), kBadUsage);
  pesc::rpc::set_up_daemon_log(config->log_level);
  if (revoke.empty()) return serve(*config);
  const absl::Status revoked = pesc::coordinator::revoke_tokens(config->options.state_dir, revoke);
  return revoked.ok() ? 0 : complain(revoked, 1);
}
