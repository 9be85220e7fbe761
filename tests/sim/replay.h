// What was measured elsewhere, played again: the coordinator and workers that are simulated, with
// the machines and the work of somebody's experiment.
#pragma once

namespace pesc::sim {

// The thesis's section 5.3: 1,200 repetitions on four clients of known speeds. Prints a table; 0
// when the makespan is within 2 % of the best schedule of whole ranks.
int replay_thesis();

}  // namespace pesc::sim
