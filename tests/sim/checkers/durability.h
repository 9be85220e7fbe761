// Promise 1: what was acknowledged is durable, and a restore knows all of it.
#pragma once

#include <set>
#include <string>
#include <vector>

#include "tests/sim/checkers/ledger.h"

namespace pesc::sim {

// Each returns what is wrong, or nothing.
std::string check_submit_answered(const Ledger& ledger, JobId id);
std::string check_cancel_answered(const Ledger& ledger, JobId id);
std::string check_remove_answered(const Ledger& ledger, JobId id);
// `succeeded`: those of the report that ended well.
std::string check_acknowledged(const Ledger& ledger, const std::vector<AttemptKey>& keys,
                               const std::set<AttemptKey>& succeeded);
// A lease that a worker is told of must be known after any crash.
std::string check_leases_sent(const Ledger& ledger, const coordinator::SendUpdate& update);
// A worker deletes an attempt.
std::string check_forgotten(const Ledger& ledger, const AttemptKey& key);
// A core, just restored from what is durable or with nothing waiting to be committed.
std::string check_core_agrees(const Ledger& ledger, const coordinator::Core& core);

}  // namespace pesc::sim
