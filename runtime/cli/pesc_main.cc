// pesc: the command line.
#include <fmt/format.h>

#include "runtime/cli/cli.h"
#include "runtime/cli/watcher.h"

namespace pesc::cli {

void say(const std::string& line) { fmt::print(stderr, "pesc: {}\n", line); }

int fail(const absl::Status& status) {
  say(std::string(status.message()));
  switch (status.code()) {
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kUnauthenticated:
    case absl::StatusCode::kPermissionDenied:
      return kNoCoordinator;
    case absl::StatusCode::kInternal:
    case absl::StatusCode::kDataLoss:
    case absl::StatusCode::kResourceExhausted:
      return kSomeFailed;
    case absl::StatusCode::kCancelled:
      return kInterrupted;
    default:
      return kBadUsage;
  }
}

void add_common_flags(CLI::App* app, Common& common, bool json) {
  app->add_option("--coordinator", common.coordinator,
                  "HOST:PORT or a join file; default: $PESC_COORDINATOR, then the configuration")
      ->type_name("ADDR");
  if (json) app->add_flag("--json", common.json, "Machine-readable output (docs/json.md)");
}

int run_command_line(int argc, char** argv) {
  CLI::App app{"pesc: run a sequential program N times on the computers there are, and bring every "
               "output back",
               "pesc"};
  app.set_version_flag("--version", "pesc " PESC_VERSION);
  app.require_subcommand(1);
  app.failure_message([](const CLI::App* app, const CLI::Error& error) {
    const CLI::App* used = app->get_subcommands().empty() ? app : app->get_subcommands().front();
    return fmt::format("pesc: {}\npesc: see `{} --help`\n", error.what(),
                       used == app ? "pesc" : "pesc " + used->get_name());
  });
  Common common;
  Commands commands;
  add_run_commands(app, common, commands);
  add_follow_commands(app, common, commands);
  add_job_commands(app, common, commands);
  add_lab_commands(app, common, commands);
  add_local_commands(app, common, commands);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kSucceeded : kBadUsage;
  }
  for (const Command& command : commands) {
    if (command.app->parsed()) return command.run();
  }
  return kBadUsage;
}

}  // namespace pesc::cli

int main(int argc, char** argv) {
  pesc::cli::block_signals();
  return pesc::cli::run_command_line(argc, argv);
}
