// What was saved stays saved: an acknowledged checkpoint is kept while its rank is not final, and
// an attempt begins from the one that stands for most work of those that are not known to be bad.
#pragma once

#include <map>
#include <set>
#include <string>
#include <utility>

#include "tests/sim/checkers/ledger.h"

namespace pesc::sim {

class Checkpoints {
 public:
  // `keep`: how many of each rank.
  explicit Checkpoints(uint32_t keep) : keep_(keep) {}

  // Before the ledger takes the record in.
  std::string check(const Ledger& ledger, const coordinator::Record& record);
  // After all records of a transaction were taken in.
  std::string check_transaction(const Ledger& ledger);
  // A program died of what it began from, and so would every other.
  std::string died_of_checkpoint(const Ledger& ledger, const AttemptKey& key);

 private:
  uint32_t keep_;
  std::map<std::pair<JobId, uint32_t>, uint32_t> deaths_;
  std::set<AttemptKey> died_, saved_;
  std::map<std::pair<JobId, uint32_t>, size_t> had_;           // ranks of which some were dropped
  std::map<std::pair<JobId, uint32_t>, uint64_t> dropped_ms_;  // the best of these
};

// Attempts that began from it have died at once on two workers, or three times in all.
bool is_passed_over(const LedgerRank& rank, uint32_t number);
// An answer to an offer leaves the coordinator with this number.
std::string check_checkpoint_answered(const Ledger& ledger, const AttemptKey& key, uint32_t number,
                                      const BlobRef& manifest);
// A lease leaves the coordinator.
std::string check_checkpoint_sent(const Ledger& ledger, const coordinator::LeaseGrant& lease);

}  // namespace pesc::sim
