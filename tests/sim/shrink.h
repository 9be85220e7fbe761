// Makes a scenario that fails smaller: fault after fault is left out, jobs go, the play gets
// shorter, and what still fails in the same way is kept.
#pragma once

#include <functional>
#include <string>

#include "tests/sim/scenario.h"
#include "tests/sim/simulation.h"

namespace pesc::sim {

struct Shrunk {
  Scenario scenario;
  uint32_t plays = 0;
};

using Replay = std::function<PlayResult(const Scenario&)>;
Shrunk shrink(const Scenario& scenario, const std::string& failure, const Replay& replay);

// What is played, in a few lines.
std::string describe(const Scenario& scenario);

}  // namespace pesc::sim
