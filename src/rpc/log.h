// Where the daemons' code logs to. Not spdlog's default logger: within a program that embeds PESC
// that one is the program's own, and writes to its standard output.
#pragma once

#include <spdlog/logger.h>

#include <string>

namespace pesc::rpc {

// Silent until a daemon sets it up, or PESC_LOG names a level (trace, debug, info, warn, error):
// then on standard error, one line of key=value pairs each. Thread-safe.
spdlog::logger& log();

// For daemons; sets spdlog's default logger as well.
void set_up_daemon_log(const std::string& level);

}  // namespace pesc::rpc
