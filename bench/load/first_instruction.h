// How long it takes from a submission, or a posix_spawn, to the program's first instruction.
#pragma once

#include <string>

#include "bench/load/sessions.h"

namespace pesc::bench {

// `program` writes the monotonic time of its start to the FIFO that its argument names. Prints one
// line of JSON: milliseconds of each submission and of each posix_spawn, in turn.
int first_instruction(rpc::Loop& loop, protocol::UserSession::Client session,
                      const std::string& program, const std::string& fifo, int times);

// From the first to the last start of a gang's ranks, and of as many posix_spawns, in turn.
int gang_starts(rpc::Loop& loop, protocol::UserSession::Client session, const std::string& program,
                const std::string& fifo, uint32_t ranks, int times);

}  // namespace pesc::bench
