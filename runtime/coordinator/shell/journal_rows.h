// Rows of the journal: columns, checksums, payloads. Shared by the writer and the reader.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/coordinator/core/core.h"
#include "runtime/coordinator/shell/journal.h"
#include "runtime/coordinator/shell/sqlite.h"

namespace pesc::coordinator {

// The columns of `attempts` in the order that read_attempt expects.
#define PESC_ATTEMPT_COLUMNS                                                                  \
  "job,rank,attempt,worker,leased_seq,ended_seq,final,state,reason,exit_code,signal,"         \
  "refused,detail,started,duration,cpu,rss,output,output_size,uncollected,checkpoint,second," \
  "saved,base,claim,written,gpu_peak,crc"

struct StoredAttempt {
  AttemptRow row;
  uint64_t leased_seq = 0;
  uint64_t ended_seq = 0;  // 0: not ended
};

StoredAttempt read_attempt(const Statement& statement, int first_column, bool* intact);
uint32_t attempt_crc(const StoredAttempt& attempt);
// Empty for a claim of nothing.
std::string encode(const Claim& claim);
Claim decode_claim(
    std::string_view bytes);  // of damaged bytes: something, and the checksum says so
std::string join_names(const std::vector<std::string>& names);
std::string_view output_bytes(const BlobRef& output);

uint32_t job_crc(JobId id, uint64_t seq, std::string_view owner, std::string_view spec,
                 int64_t submitted);
struct StoredWorker {
  WorkerSeen seen;
  bool draining = false, paused = false;
};
// Its column `draining`: 1 is draining, 2 paused, 3 both.
inline int64_t orders_of(const StoredWorker& worker) {
  return (worker.draining ? 1 : 0) + (worker.paused ? 2 : 0);
}
inline void set_orders(StoredWorker& worker, int64_t orders) {
  worker.draining = (orders & 1) != 0;
  worker.paused = (orders & 2) != 0;
}
uint32_t worker_crc(const StoredWorker& worker);

uint32_t program_crc(const ProgramLearned& program, uint64_t seq);
std::string_view bytes_of(const Digest& digest);

uint32_t checkpoint_crc(const CheckpointKept& kept, std::string_view chunks, uint64_t seq);
uint32_t drop_crc(const CheckpointsDropped& dropped, uint64_t seq);

// Blobs one behind the other: 32 bytes of digest, 8 of size.
inline constexpr size_t kBlobRefBytes = 40;
std::string join_blobs(const std::vector<BlobRef>& blobs);
std::vector<BlobRef> split_blobs(std::string_view joined);  // what does not fill one is left out
BlobRef blob_ref(std::string_view digest, uint64_t size_bytes);  // none, when it is no digest

// Records of a job that are neither JobAdded nor attempts.
enum class JobEventKind : int {
  ranks_cancelled = 1,
  stopped = 2,
  finished = 3,
  reopened = 4,
  gang_started = 5,
};
uint32_t job_event_crc(JobId job, uint64_t seq, JobEventKind kind, std::string_view payload);
std::string encode(const RanksCancelled& record);
std::string encode(const JobStopped& record);
std::string encode(const JobFinished& record);
std::string encode(const RanksReopened& record);
std::string encode(const GangStarted& record);
absl::StatusOr<Record> decode_job_event(JobId job, JobEventKind kind, std::string_view payload);

}  // namespace pesc::coordinator
