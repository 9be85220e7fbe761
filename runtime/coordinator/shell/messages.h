// What the core shows, in the messages of the protocol.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "pesc.capnp.h"
#include "runtime/coordinator/core/core.h"
#include "runtime/coordinator/shell/journal.h"

namespace pesc::coordinator {

void encode_status(protocol::JobStatus::Builder out, const JobView& job);
void encode_tally(protocol::Tally::Builder out, const JobTally& tally);
// "attached", "draining", "set aside" or "away".
std::string_view worker_state(const WorkerView& worker);

// `state` and `attempts` are the core's word; the row is what the journal knows of the attempts.
void encode_rank(protocol::RankInfo::Builder out, const JobSpec& spec, const RankRow& row,
                 RankState state, uint32_t attempts, std::string_view worker_name);
// The attempt that speaks for the rank: the one that decided it, or else the latest.
const AttemptRow* speaker(const RankRow& row, RankState state);

std::string busy_text(capnp::Data::Reader in);  // bounded
absl::StatusOr<WorkerInfo> decode_worker_info(protocol::WorkerInfo::Reader in);

// "exit code 3: Segmentation …": one line for `pesc why`.
std::string failure_line(const AttemptOutcome& outcome);

// For a log line: what a peer says of itself must not begin another line, or end its quotes.
std::string loggable(std::string_view text);

}  // namespace pesc::coordinator
