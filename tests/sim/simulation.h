// One play from its first event to its end.
#pragma once

#include <string>
#include <vector>

#include "tests/sim/play.h"

namespace pesc::sim {

struct PlayResult {
  std::string failure;  // empty: every promise held
  TimeMs failed_at_ms = 0, simulated_ms = 0;
  uint64_t events = 0;
  uint32_t faults = 0;  // that were planned: skipped ones too
  Totals totals;
  std::vector<std::string> trace;  // the last lines, when one was asked for
};

enum class Tracing : uint8_t { off, keep, print };

// `check_invariants`: also the cores' own checks of themselves, after each step.
PlayResult play(const Scenario& scenario, const Bug& bug, Tracing tracing, bool check_invariants);

}  // namespace pesc::sim
