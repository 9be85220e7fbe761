// Fair shares between users, in cpus (thousandths) in use.
//
// Whoever is given a rank has no more cpus in use than any other user with ranks that wait and
// would fit in its place. That holds for each lease, where no leases ahead of time blur what is in
// use.
//
// In a play without faults, where all ranks take as many cpus, it follows for any time in which the
// same users have ranks waiting that fit on every worker: the cpu-time that two of them have used
// differs by no more than one rank's cpus for as long as it lasts, and what ran already when it
// began.
#pragma once

#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "tests/sim/checkers/ledger.h"
#include "tests/sim/scenario.h"
#include "tests/sim/world.h"

namespace pesc::sim {

class Shares {
 public:
  explicit Shares(const Scenario& scenario);
  // Before the ledger takes the record in.
  std::string check(const Ledger& ledger, const coordinator::Record& record);
  // After all records of a transaction were taken in.
  std::string check_transaction(const Ledger& ledger, TimeMs now);
  // The journal lost it.
  void forget(JobId job);

 private:
  struct Waiting {
    const JobPlan* plan = nullptr;
    uint32_t fresh = 0;   // ranks that were never leased
    bool simple = false;  // asks for cpus alone, and takes nothing else that counts
  };
  struct Sum {
    int64_t used = 0, before = 0;  // cpu-time: all, and of what ran when it began
  };
  std::string check_lease(const Ledger& ledger, const coordinator::AttemptLeased& r) const;
  void close(const AttemptKey& key);
  void close_rank(const Ledger& ledger, JobId job, uint32_t rank);
  void add_up(TimeMs now);
  std::set<std::string> ready(const Ledger& ledger) const;
  std::string judge() const;

  std::map<JobId, Waiting> jobs_;
  std::map<AttemptKey, std::pair<std::string, uint32_t>> open_;  // whose, and their cpus
  std::map<std::string, uint64_t> used_;
  bool exact_ = true;   // nothing is leased ahead of time
  bool quiet_ = false;  // nothing goes wrong in this play, and all ranks are as wide
  uint32_t widest_ = 0, narrowest_worker_ = 0;

  // The time since the same users have ranks waiting.
  std::set<std::string> same_;
  std::set<AttemptKey> before_;
  std::map<std::string, Sum> sums_;
  TimeMs began_ = 0, last_ = 0;
};

}  // namespace pesc::sim
