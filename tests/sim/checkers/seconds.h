// A second attempt runs beside a slow one, on another worker, and never of a gang; when one of them
// has the rank's result, the other is revoked in the same transaction, and stops.
#pragma once

#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "tests/sim/checkers/ledger.h"
#include "tests/sim/world.h"

namespace pesc::sim {

class Seconds {
 public:
  // Before the ledger takes the record in.
  std::string check(const Ledger& ledger, const coordinator::Record& record);
  // After all records of a transaction were taken in.
  std::string check_transaction(const Ledger& ledger);
  // What runs now, in a world without faults.
  std::string check_running(const Ledger& ledger, const std::vector<AttemptKey>& running,
                            TimeMs now);

 private:
  std::string check_lease(const Ledger& ledger, const coordinator::AttemptLeased& r) const;

  std::set<std::pair<JobId, uint32_t>> decided_;  // ranks, in this transaction
  std::map<AttemptKey, TimeMs> losers_;           // that run, and since when
};

}  // namespace pesc::sim
