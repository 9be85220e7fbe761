// Every message between coordinator and worker, and a user's job, as bytes: built with the structs
// of pesc.capnp and the project's codec, and read back from the bytes alone.
#pragma once

#include <capnp/common.h>

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/coordinator/core/core.h"
#include "runtime/worker/core/core.h"

namespace pesc::sim {

using Bytes = std::vector<capnp::word>;

struct AttachRequest {
  coordinator::WorkerInfo info;
  std::vector<AttemptKey> holding;
};
Bytes encode_attach(const AttachRequest& request);
absl::StatusOr<AttachRequest> decode_attach(const Bytes& bytes);

struct AttachAnswer {
  uint64_t lease_ms = 0, heartbeat_ms = 0;
  std::vector<worker::UpdateReceived::Stop> stop;
};
Bytes encode_attach_answer(const coordinator::AnswerAttach& answer,
                           const coordinator::CoreConfig& config);
absl::StatusOr<AttachAnswer> decode_attach_answer(const Bytes& bytes);

// request, session and unix_ms are not on the wire: the receiver adds them.
// `gpus`: those that have changed since they were told; null: none have.
Bytes encode_report(const worker::SendReport& report, const std::string& busy,
                    const std::vector<Gpu>* gpus);
absl::StatusOr<coordinator::WorkerReported> decode_report(const Bytes& bytes);

struct ReportAnswer {
  std::vector<AttemptKey> acknowledged;
  std::vector<worker::UpdateReceived::Stop> stop;
};
Bytes encode_report_answer(const coordinator::AnswerReport& answer);
absl::StatusOr<ReportAnswer> decode_report_answer(const Bytes& bytes);

// A job's description travels with its first lease in a session: `sent` and `known` are the two
// ends' memory of that.
Bytes encode_update(const coordinator::SendUpdate& update, std::set<JobId>& sent);
using KnownSpecs = std::map<JobId, std::shared_ptr<const JobSpec>>;
absl::StatusOr<worker::UpdateReceived> decode_update(const Bytes& bytes, KnownSpecs& known);

struct CheckpointOffer {
  AttemptKey key;
  BlobRef manifest;
  std::vector<BlobRef> chunks;
  uint64_t saved_ms = 0;
};
Bytes encode_checkpoint(const CheckpointOffer& offer);
absl::StatusOr<CheckpointOffer> decode_checkpoint(const Bytes& bytes);

}  // namespace pesc::sim
