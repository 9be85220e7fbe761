// The coordinator's durable memory: every record of the core, in one SQLite database. Rows carry
// a CRC32, because SQLite's own checks do not see a flipped payload byte.
// docs/on-disk.md describes the tables.
//
// A Journal is used by one thread at a time (the journal thread); readers have their own
// connection.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/coordinator/core/core.h"

namespace pesc::coordinator {

inline constexpr int kJournalSchema = 5;
// Programs whose learned sizes are kept when their jobs are erased: those of the latest.
inline constexpr uint32_t kMaxKeptPrograms = 5'000;

struct JournalOptions {
  std::filesystem::path path;
  bool durable = true;        // false: no fsync
  uint64_t max_pages = 0;     // a bound on its size in pages; 0: none (tests: a full disk)
  bool drop_damaged = false;  // open: remove what is damaged
  std::string vfs;            // SQLite's file system; empty: the real one
  // One connection only, no shared memory: for a VFS that has none. No reader can be opened.
  bool exclusive = false;
};

class Journal {
 public:
  // Opens or makes the database. DataLoss or FailedPrecondition say what is wrong with it and what
  // to do.
  static absl::StatusOr<std::unique_ptr<Journal>> open(const JournalOptions& options);
  virtual ~Journal() = default;

  // Gives all records back, in an order that a core can apply: workers, then job by job in the
  // order they were emitted. Needed once before the first commit. DataLoss names every damaged row.
  virtual absl::Status replay(const std::function<void(const Record&)>& apply) = 0;

  // All in one transaction, durable when it returns OK. After an error: reopen(), replay().
  virtual absl::Status commit(const std::vector<Record>& records) = 0;

  // A new connection, since the state of one that failed is unknown; then writes something to see
  // whether that is possible again.
  virtual absl::Status reopen() = 0;

  // Rows of erased jobs go bit by bit, so that a commit never waits for a long delete.
  virtual absl::StatusOr<std::vector<JobId>> erased() = 0;
  // True: all rows of that job are gone now.
  virtual absl::StatusOr<bool> purge(JobId job, uint32_t max_rows) = 0;
  // The blobs of dropped checkpoints up to this number (JournalReader::dropped) are collected.
  virtual absl::Status forget_dropped(uint64_t through) = 0;
};

// One attempt as journalled.
struct AttemptRow {
  AttemptKey key;
  WorkerId worker;
  uint32_t checkpoint = 0;  // it began from; 0: from none
  bool second = false;
  uint64_t base_ms = 0;  // what that checkpoint stands for
  Claim claim;
  bool ended = false;
  bool final = false;
  RankState state = RankState::running;
  AttemptOutcome outcome;  // when ended
};

struct RankRow {
  uint32_t rank = 0;
  std::optional<AttemptRow> decided;  // the attempt that decided the rank last
  std::optional<AttemptRow> latest;   // the one with the highest number
};

// Reads what is committed. One thread at a time.
class JournalReader {
 public:
  static absl::StatusOr<std::unique_ptr<JournalReader>> open(const std::filesystem::path& path);
  virtual ~JournalReader() = default;

  // Ranks that never had an attempt come back with neither.
  virtual absl::StatusOr<std::vector<RankRow>> ranks(JobId job,
                                                     const std::vector<uint32_t>& ranks) = 0;
  virtual absl::StatusOr<std::vector<RankRow>> page(JobId job, uint32_t first, uint32_t count) = 0;
  // Every attempt that decided its rank as failed, or failed without deciding it (`final` tells),
  // in the order of ranks and attempts.
  virtual absl::Status failures(JobId job, const std::function<void(const AttemptRow&)>& row) = 0;
  // Of erased jobs too, until they are purged: their blobs are still to be collected.
  virtual absl::Status outputs(JobId job, const std::function<void(const BlobRef&)>& output) = 0;
  // Inputs of the job's specification.
  virtual absl::Status inputs(JobId job, const std::function<void(const BlobRef&)>& input) = 0;
  virtual absl::StatusOr<std::vector<JobId>> jobs() = 0;
  // What the checkpoints name that are kept, of all jobs.
  virtual absl::Status checkpoints(const std::function<void(const Digest&)>& blob) = 0;
  // What those name that were dropped and are not forgotten yet: the oldest, `max` of them. Returns
  // the number through which it went.
  virtual absl::StatusOr<uint64_t> dropped(uint32_t max,
                                           const std::function<void(const Digest&)>& blob) = 0;
};

}  // namespace pesc::coordinator
