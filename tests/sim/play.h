// What all actors of one play share.
#pragma once

#include <map>
#include <set>
#include <string>
#include <utility>

#include "runtime/coordinator/core/core.h"
#include "runtime/worker/core/core.h"
#include "tests/sim/checkers/amounts.h"
#include "tests/sim/checkers/checkpoints.h"
#include "tests/sim/checkers/estimates.h"
#include "tests/sim/checkers/gangs.h"
#include "tests/sim/checkers/ledger.h"
#include "tests/sim/checkers/limits.h"
#include "tests/sim/checkers/redone.h"
#include "tests/sim/checkers/seconds.h"
#include "tests/sim/checkers/shares.h"
#include "tests/sim/checkers/single_result.h"
#include "tests/sim/checkers/uninterrupted.h"
#include "tests/sim/planted.h"
#include "tests/sim/scenario.h"
#include "tests/sim/world.h"

namespace pesc::sim {

// Of what was committed.
struct Totals {
  std::map<WorkerId, uint32_t> committed;  // ranks that succeeded, by where
  uint32_t second_attempts = 0;
  TimeMs first_lease = 0, last_commit = 0;
};

struct Play {
  Play(const Scenario& s, const Bug& b, bool tracing)
      : scenario(s),
        bug(b),
        world(s.seed, tracing),
        limits(s),
        amounts(s),
        estimates(s),
        shares(s),
        checkpoints(s.coordinator.keep_checkpoints),
        redone(s) {}

  const Scenario& scenario;
  const Bug& bug;
  World world;
  Ledger ledger;
  SingleResult results;
  Limits limits;
  Amounts amounts;
  Estimates estimates;
  Shares shares;
  Checkpoints checkpoints;
  Gangs gangs;
  Redone redone;
  Seconds seconds;
  Uninterrupted uninterrupted;
  Totals totals;
  bool healed = false;  // no more faults
  // The cores' own checks of themselves; without them a planted bug must show in what it breaks.
  bool check_invariants = true;
  // Generations that have lost a process: the others wait for it for ever.
  std::set<std::pair<JobId, uint32_t>> broken_gangs;

  const JobPlan* plan_of(JobId id) const {
    for (const JobPlan& job : scenario.jobs) {
      if (job.id == id) return &job;
    }
    return nullptr;
  }
  // Of a fault, while there are faults.
  bool goes_wrong(double probability) { return !healed && world.random.chance(probability); }
  void expect(const std::string& wrong) {
    if (!wrong.empty()) world.fail(wrong);
  }
};

}  // namespace pesc::sim
