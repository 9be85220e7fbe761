// Promise 2: each rank has exactly one committed result, it is what its attempt really left, and an
// attempt that was revoked never commits.
#pragma once

#include <map>
#include <set>
#include <string>

#include "tests/sim/checkers/ledger.h"

namespace pesc::sim {

class SingleResult {
 public:
  // Before the ledger takes the record in. Returns what is wrong, or nothing.
  std::string check(const Ledger& ledger, const coordinator::Record& record) const;
  // A worker starts an attempt: no number is ever started twice, anywhere.
  std::string started(const AttemptKey& key);
  // What a process really did, and what was packed of it.
  void ended(const AttemptKey& key, const AttemptOutcome& outcome) { ends_[key] = outcome; }
  void packed(const AttemptKey& key, const BlobRef& output) { outputs_[key].insert(output); }

 private:
  std::string check_lease(const Ledger& ledger, const coordinator::AttemptLeased& record) const;
  std::string check_end(const Ledger& ledger, const coordinator::AttemptEnded& record) const;
  std::string check_result(const coordinator::AttemptEnded& record) const;
  std::string check_failure(const LedgerJob& job, const LedgerRank& rank,
                            const coordinator::AttemptEnded& record) const;
  std::string check_finish(const Ledger& ledger, const coordinator::JobFinished& record) const;
  std::string check_reopen(const Ledger& ledger, const coordinator::RanksReopened& record) const;
  std::string check_cancel(const Ledger& ledger, const coordinator::RanksCancelled& record) const;

  std::set<AttemptKey> started_;
  std::map<AttemptKey, AttemptOutcome> ends_;
  // Several: a daemon that crashes before the acknowledgement packs again.
  std::map<AttemptKey, std::set<BlobRef>> outputs_;
};

}  // namespace pesc::sim
