// What every command says, and with which exit code.
#include <fmt/format.h>

#include "model/text.h"
#include "runtime/cli/cli.h"

namespace pesc::cli {

void say(const std::string& line) { fmt::print(stderr, "pesc: {}\n", for_terminal(line)); }

void print_line(const std::string& line) { fmt::print("{}\n", for_terminal(line)); }

std::string count_ranks(uint64_t count) {
  return fmt::format("{} rank{}", count, count == 1 ? "" : "s");
}

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

}  // namespace pesc::cli
