// Promise 3: the coordinator's death stops nothing. An attempt that really runs is not given up
// before its worker was silent for a whole lease, counted from the coordinator's own start too.
#pragma once

#include <functional>
#include <map>
#include <string>

#include "tests/sim/checkers/ledger.h"
#include "tests/sim/world.h"

namespace pesc::sim {

class Uninterrupted {
 public:
  // Whether a worker's keeper really runs an attempt, and its daemon lives.
  std::function<bool(WorkerId, const AttemptKey&)> runs;

  // All times are the coordinator's own.
  void coordinator_started(TimeMs now) { started_ = now, heard_.clear(); }
  void heard(WorkerId worker, TimeMs now) { heard_[worker] = now; }
  // Before the ledger takes the record in.
  std::string check(const Ledger& ledger, const coordinator::Record& record, TimeMs now,
                    uint64_t lease_ms) const;

 private:
  TimeMs started_ = 0;
  std::map<WorkerId, TimeMs> heard_;
};

}  // namespace pesc::sim
