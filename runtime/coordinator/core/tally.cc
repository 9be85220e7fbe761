// What is counted of a job's attempts. From their records alone, so that a restart changes nothing.
#include <algorithm>

#include "runtime/coordinator/core/state.h"

namespace pesc::coordinator {

uint64_t redone_ms(const AttemptOutcome& outcome) {
  return outcome.duration_ms - std::min(outcome.duration_ms, outcome.saved_ms);
}

void count_end(JobTally& tally, const AttemptEnded& record) {
  const bool succeeded = record.outcome.reason == EndReason::succeeded;
  if ((succeeded && !record.final) || never_began(record)) return;
  ++tally.ended[static_cast<size_t>(record.outcome.reason)];
  if (succeeded) {
    tally.useful_ms += record.outcome.duration_ms;
  } else {
    tally.redone_ms += redone_ms(record.outcome);
  }
}

void uncount_end(JobTally& tally, EndReason reason, uint64_t redone_ms) {
  --tally.ended[static_cast<size_t>(reason)];
  tally.redone_ms -= redone_ms;
}

void uncount_lost(JobTally& tally, const LostAttempt& lost) {
  if (lost.counted) uncount_end(tally, EndReason::worker_lost, lost.redone_ms);
}

std::string short_reason(const AttemptOutcome& outcome) {
  std::string text;
  if (outcome.reason == EndReason::exit_code) {
    text = "exit code " + std::to_string(outcome.exit_code);
  } else if (outcome.reason == EndReason::signal) {
    text = "signal " + std::to_string(outcome.signal);
  } else {
    text = std::string(to_string(outcome.reason));
  }
  return outcome.detail.empty() ? text : text + ": " + bounded(outcome.detail, 300);
}

}  // namespace pesc::coordinator
