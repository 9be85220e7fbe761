// What the end of an attempt means, and what is said of it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "runtime/coordinator/core/core.h"

namespace pesc::coordinator {

inline constexpr size_t kMaxTextBytes = 4096;  // of anything a peer reports

uint64_t redone_ms(const AttemptOutcome& outcome);

// Its lease never reached its worker: nothing was done, and nothing is counted.
inline bool never_began(const AttemptEnded& record) {
  return record.outcome.reason == EndReason::worker_lost && !record.final &&
         record.state == RankState::waiting;
}

// The failure of a gang's rank that uses up no retry, as long as nothing else is known.
inline bool is_excused(const AttemptEnded& record) {
  return uses_up_a_retry(record.outcome.reason) && !record.final &&
         record.state == RankState::running;
}

std::string short_reason(const AttemptOutcome& outcome);  // "exit code 3: what it said"

// At most `max` bytes of what a peer said, never cut within a UTF-8 character.
std::string bounded(std::string text, size_t max = kMaxTextBytes);
void bound_outcome(AttemptOutcome& outcome);

}  // namespace pesc::coordinator
