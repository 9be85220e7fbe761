// What is durable, as the checkers understand it: built from the committed records alone, never
// from what a core says of itself.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "runtime/coordinator/core/core.h"

namespace pesc::sim {

struct LedgerAttempt {
  WorkerId worker;
  uint32_t checkpoint = 0;  // it began from
  uint64_t base_ms = 0;     // what that stands for
  bool second = false;
  Claim claim;
  bool ended = false;
  bool final = false;
  bool counts = false;  // it has used up a retry
  AttemptOutcome outcome;
  bool operator==(const LedgerAttempt&) const = default;
};

struct LedgerCheckpoint {
  AttemptKey by;
  BlobRef manifest;
  uint64_t saved_ms = 0;
  uint64_t total_ms = 0;
  bool operator==(const LedgerCheckpoint&) const = default;
};

struct LedgerRank {
  uint32_t last_attempt = 0;
  uint32_t revoked_through = 0;  // attempts up to this number may not commit any more
  bool final = false;
  RankState state = RankState::waiting;
  uint32_t program_failures = 0;  // in this round
  std::map<uint32_t, LedgerAttempt> attempts;
  std::map<uint32_t, LedgerCheckpoint> checkpoints;  // that are kept
  bool operator==(const LedgerRank&) const = default;
};

struct LedgerGangStart {
  std::string master_addr;
  uint16_t master_port = 0;
  bool operator==(const LedgerGangStart&) const = default;
};

struct LedgerJob {
  std::shared_ptr<const JobSpec> spec;
  bool stopped = false, stopped_by_user = false, finished = false;
  JobState state = JobState::waiting;
  uint32_t finals = 0;
  std::vector<LedgerRank> ranks;
  std::map<uint32_t, LedgerGangStart> gang_starts;  // by generation
};

struct Ledger {
  std::map<JobId, LedgerJob> jobs;
  std::set<JobId> erased;
  std::set<JobId> damaged;  // erased by --drop-damaged
  std::set<WorkerId> draining;

  const LedgerJob* job(JobId id) const;
  const LedgerRank* rank(const AttemptKey& key) const;
  const LedgerAttempt* attempt(const AttemptKey& key) const;
  // Its end is durable, or nobody wants it: the worker may delete it. That it was given up for lost
  // does not settle an attempt which did succeed.
  bool settled(const AttemptKey& key, bool succeeded) const;
  // Only for records that the checkers have let pass.
  void apply(const coordinator::Record& record);

 private:
  void apply_kept(const coordinator::Record& record);
};

// How two ledgers differ in what a restore must know; nothing when they do not.
std::string difference(const Ledger& a, const Ledger& b);

}  // namespace pesc::sim
