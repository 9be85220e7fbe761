// A worker that is drained gets nothing more, and is empty in the end.
#pragma once

#include <string>

#include "tests/sim/checkers/ledger.h"

namespace pesc::sim {

// Before the ledger takes the record in.
std::string check_drain_record(const Ledger& ledger, const coordinator::Record& record);
// The acknowledgement of a drain, or of its end, leaves the coordinator.
std::string check_drain_answered(const Ledger& ledger, WorkerId worker, bool drain);
// Long after the order, in a world without faults.
std::string check_drained_empty(const Ledger& ledger, WorkerId worker, const std::string& name,
                                size_t held);

}  // namespace pesc::sim
