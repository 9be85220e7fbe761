// Promise 6: no worker is given or runs more cpus than it has, and none a rank of another room.
#pragma once

#include <map>
#include <set>
#include <string>

#include "tests/sim/checkers/ledger.h"
#include "tests/sim/scenario.h"

namespace pesc::sim {

class Limits {
 public:
  explicit Limits(const Scenario& scenario);
  // After the ledger has taken the record in.
  std::string check(const Ledger& ledger, const coordinator::Record& record);
  // A worker starts an attempt while it already runs `used_milli`.
  std::string starts(const WorkerPlan& worker, const AttemptKey& key, const JobSpec& spec,
                     uint32_t used_milli) const;
  // The journal lost it: what was leased of it counts for nothing.
  void forget(JobId job);

 private:
  void close(const AttemptKey& key);
  void close_rank(const Ledger& ledger, JobId job, uint32_t rank);

  std::map<WorkerId, WorkerPlan> workers_;
  // Leases that are open and wanted, and what they take of their worker.
  std::map<AttemptKey, std::pair<WorkerId, uint32_t>> open_;
  std::map<WorkerId, uint32_t> given_milli_;
  std::set<AttemptKey> leased_;
  uint32_t times_ = 1;  // its cpus that a worker may be given: short ranks are leased ahead
};

}  // namespace pesc::sim
