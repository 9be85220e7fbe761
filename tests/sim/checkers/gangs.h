// Parallel jobs: all ranks are placed or none, they start together, with one address and a port of
// that generation's own, and their results are of one generation.
#pragma once

#include <map>
#include <set>
#include <string>

#include "runtime/worker/core/core.h"
#include "tests/sim/checkers/ledger.h"

namespace pesc::sim {

class Gangs {
 public:
  // Before the ledger takes the record in.
  std::string check(const Ledger& ledger, const coordinator::Record& record);
  // After all records of a transaction were taken in.
  std::string check_transaction(const Ledger& ledger);
  // A worker starts a process.
  std::string starts(const Ledger& ledger, const worker::Start& action) const;
  // Orders leave the coordinator.
  std::string check_orders(const Ledger& ledger, const coordinator::SendUpdate& update) const;
  // The transaction did not become durable after all.
  void forget_transaction() { leased_.clear(), committed_.clear(); }

 private:
  std::string check_start(const Ledger& ledger, const coordinator::GangStarted& r) const;
  std::string check_end(const Ledger& ledger, const coordinator::AttemptEnded& r);

  std::set<std::pair<JobId, uint32_t>> leased_;  // generations with leases in this transaction
  std::set<std::pair<JobId, uint32_t>> committed_;
};

}  // namespace pesc::sim
