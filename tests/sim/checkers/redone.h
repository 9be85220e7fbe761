// What is done again: no more than what was done since the last acknowledged checkpoint, and what
// no checkpoint was acknowledged for. And it is counted.
#pragma once

#include <map>
#include <set>
#include <string>
#include <utility>

#include "tests/sim/checkers/ledger.h"
#include "tests/sim/scenario.h"
#include "tests/sim/world.h"

namespace pesc::sim {

class Redone {
 public:
  explicit Redone(const Scenario& scenario);
  // A worker offers this: so much of the rank's work is done in it.
  void saves(const BlobRef& manifest, TimeMs work_ms) { work_[manifest] = work_ms; }
  // The answer to an offer leaves the coordinator.
  void acknowledged(const AttemptKey& key, uint32_t number, const BlobRef& manifest);
  // A process begins, with so much of its work done.
  std::string begins(const AttemptKey& key, TimeMs work_ms) const;
  // A keeper died, and with it a process that had run for so long; and the coordinator was told.
  void lost(const AttemptKey& key, TimeMs ran_ms) { ran_[key] = ran_ms; }
  void told_lost(const AttemptKey& key) { told_.insert(key); }
  void coordinator_started() { leased_.clear(); }
  // Before the ledger takes the record in.
  std::string check(const Ledger& ledger, const coordinator::Record& record);

 private:
  void leased(const Ledger& ledger, const coordinator::AttemptLeased& r);
  std::string check_end(const Ledger& ledger, const coordinator::AttemptEnded& r) const;

  using Rank = std::pair<JobId, uint32_t>;
  std::map<BlobRef, TimeMs> work_;
  std::map<Rank, std::map<uint32_t, BlobRef>> acknowledged_;
  std::map<AttemptKey, TimeMs> expected_;  // the least that it begins with
  std::map<AttemptKey, uint64_t> saved_;   // the most that it has saved of its running time
  std::set<std::pair<AttemptKey, uint32_t>> ahead_;  // of all of the rank, when it was kept
  std::map<AttemptKey, TimeMs> ran_;
  std::set<AttemptKey> told_, leased_, came_back_;
  std::set<JobId> never_ahead_;  // their ranks are too long for that
};

}  // namespace pesc::sim
