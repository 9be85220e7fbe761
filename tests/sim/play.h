// What all actors of one play share.
#pragma once

#include <string>

#include "runtime/coordinator/core/core.h"
#include "runtime/worker/core/core.h"
#include "tests/sim/checkers/ledger.h"
#include "tests/sim/checkers/limits.h"
#include "tests/sim/checkers/single_result.h"
#include "tests/sim/scenario.h"
#include "tests/sim/world.h"

namespace pesc::sim {

// A planted bug: of a core, or of the shell turn.
struct Bug {
  std::string name = "none";
  coordinator::PlantedBug coordinator = coordinator::PlantedBug::none;
  worker::PlantedBug worker = worker::PlantedBug::none;
  bool release_before_commit = false;
};

struct Play {
  Play(const Scenario& s, const Bug& b, bool tracing)
      : scenario(s), bug(b), world(s.seed, tracing), limits(s) {}

  const Scenario& scenario;
  const Bug& bug;
  World world;
  Ledger ledger;
  SingleResult results;
  Limits limits;
  bool healed = false;  // no more faults
  // The cores' own checks of themselves; without them a planted bug must show in what it breaks.
  bool check_invariants = true;

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
