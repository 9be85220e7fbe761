// Promise 5: once nothing fails any more, every job ends within a bound, and what nobody wants any
// more stops and is given up.
#pragma once

#include <string>
#include <vector>

#include "tests/sim/checkers/ledger.h"
#include "tests/sim/scenario.h"

namespace pesc::sim {

// The time that all of the jobs may take from the end of the faults on.
TimeMs time_to_end(const Scenario& scenario);
// Names a job that has not ended, and what its ranks wait for; nothing when all have.
std::string find_unended(const Ledger& ledger, const std::vector<JobId>& accepted);

}  // namespace pesc::sim
