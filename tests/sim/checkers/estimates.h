// What is learned of a program converges. Once one rank of a program has come to its end and was
// measured, no rank of it is given less than the highest peak that was measured, and never more
// than that with the margin (41 %: a quarter, rounded up by an eighth at most). Where peaks differ
// by a fifth at most (kStablePeaks), whoever is placed after that first end never outgrows what it
// is given. Until then a program has its GPUs for itself.
#pragma once

#include <map>
#include <set>
#include <string>

#include "tests/sim/checkers/ledger.h"
#include "tests/sim/scenario.h"

namespace pesc::sim {

class Estimates {
 public:
  explicit Estimates(const Scenario& scenario);
  // Before the ledger takes the record in.
  std::string check(const Ledger& ledger, const coordinator::Record& record);
  // What is known now is what is durable.
  void coordinator_started(const Ledger& ledger);

 private:
  struct Program {
    // As planned: of any rank of it.
    uint64_t peak_memory = 0, peak_gpu = 0;
    bool stable = true;
    // As measured: of those that came to their end.
    uint64_t memory = 0, gpu = 0;
    uint32_t ends = 0, gpu_ends = 0;
    bool gpu_measured = false;  // in any life of the coordinator: it may be known still
  };
  std::string check_lease(const Ledger& ledger, const coordinator::AttemptLeased& r);
  std::string check_gpu(const Program& program, const JobSpec& spec,
                        const coordinator::AttemptLeased& r) const;
  std::string check_end(const Ledger& ledger, const coordinator::AttemptEnded& r);
  void learn(Program& program, const AttemptOutcome& outcome);
  Program* program_of(JobId job);

  std::map<JobId, std::string> names_;
  std::map<std::string, Program> programs_;
  std::map<WorkerId, const WorkerPlan*> workers_;
  std::set<AttemptKey> well_known_, gpu_well_known_;  // placed when their program was known
  uint64_t least_memory_ = UINT64_MAX, least_gpu_ = UINT64_MAX;  // of a worker, of a GPU
  bool gpus_are_quiet_ = true;  // nothing but stable programs uses them
};

}  // namespace pesc::sim
