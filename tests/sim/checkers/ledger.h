// What is durable, as the checkers understand it: built from the committed records alone, never
// from what a core says of itself.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <vector>

#include "runtime/coordinator/core/core.h"

namespace pesc::sim {

struct LedgerAttempt {
  WorkerId worker;
  bool ended = false;
  bool final = false;
  AttemptOutcome outcome;
};

struct LedgerRank {
  uint32_t last_attempt = 0;
  uint32_t revoked_through = 0;  // attempts up to this number may not commit any more
  bool final = false;
  RankState state = RankState::waiting;
  uint32_t program_failures = 0;  // in this round
  std::map<uint32_t, LedgerAttempt> attempts;
};

struct LedgerJob {
  std::shared_ptr<const JobSpec> spec;
  bool stopped = false, stopped_by_user = false, finished = false;
  JobState state = JobState::waiting;
  uint32_t finals = 0;
  std::vector<LedgerRank> ranks;
};

struct Ledger {
  std::map<JobId, LedgerJob> jobs;
  std::set<JobId> erased;

  const LedgerJob* job(JobId id) const;
  const LedgerRank* rank(const AttemptKey& key) const;
  const LedgerAttempt* attempt(const AttemptKey& key) const;
  // Its end is durable, or nobody wants it: the worker may delete it. That it was given up for lost
  // does not settle an attempt which did succeed.
  bool settled(const AttemptKey& key, bool succeeded) const;
  // Only for records that the checkers have let pass.
  void apply(const coordinator::Record& record);
};

}  // namespace pesc::sim
