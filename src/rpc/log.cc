#include "rpc/log.h"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <cstdlib>
#include <memory>

namespace pesc::rpc {
namespace {

// Made once and never destroyed: work on the pool may log while the process ends.
const std::shared_ptr<spdlog::logger>& logger() {
  static const auto* instance = [] {
    auto* made = new std::shared_ptr<spdlog::logger>(std::make_shared<spdlog::logger>(
        "pesc", std::make_shared<spdlog::sinks::stderr_sink_mt>()));
    (*made)->set_pattern("time=%Y-%m-%dT%H:%M:%S.%e%z level=%l %v");
    const char* level = std::getenv("PESC_LOG");
    (*made)->set_level(level == nullptr ? spdlog::level::off : spdlog::level::from_str(level));
    (*made)->flush_on(spdlog::level::info);
    return made;
  }();
  return *instance;
}

}  // namespace

spdlog::logger& log() { return *logger(); }

void set_up_daemon_log(const std::string& level) {
  logger()->set_level(spdlog::level::from_str(level));
  spdlog::set_default_logger(logger());
}

}  // namespace pesc::rpc
