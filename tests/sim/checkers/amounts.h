// Promise 6 beside cpus: at no instant do a worker's leases, or what really runs there, take more
// memory, disk, named resources, GPUs or GPU memory than it has; who is to have a GPU for itself
// has it so; a GPU that cannot tell who uses what serves one rank at a time; one that is out of
// service gets nothing new. Nothing here is counted by the core's own functions.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "tests/sim/checkers/ledger.h"
#include "tests/sim/scenario.h"
#include "tests/sim/world.h"

namespace pesc::sim {

class Amounts {
 public:
  explicit Amounts(const Scenario& scenario);
  // After the ledger has taken the record in.
  std::string check(const Ledger& ledger, const coordinator::Record& record);
  // When it is decided, before it is committed: what the coordinator has been told of GPUs counts.
  std::string check_gpus(const coordinator::Record& record, TimeMs now) const;
  // A worker's keeper starts an attempt while `running` are running.
  std::string starts(WorkerId worker, const AttemptKey& key,
                     const std::vector<AttemptKey>& running) const;
  // The coordinator has heard of a worker's GPUs.
  void told(WorkerId worker, const std::vector<Gpu>& gpus, TimeMs now);
  // The journal lost it: what was leased of it counts for nothing.
  void forget(JobId job);

 private:
  struct Taken {
    WorkerId worker;
    Claim claim;
    Resources asked;
  };
  struct GpuState {
    Gpu gpu;
    TimeMs since = 0;
  };
  std::string check_claim(const WorkerPlan& worker, const AttemptKey& key,
                          const Taken& taken) const;
  // What `keys` take together, as far as the newest of them takes of it.
  template <class Keys>
  std::string check_sum(const WorkerPlan& worker, const Keys& keys, const AttemptKey& newest,
                        const char* what) const;
  std::string check_gpu(const Gpu& gpu, const std::vector<const Taken*>& on_it) const;
  void close(const AttemptKey& key);
  void close_rank(const Ledger& ledger, JobId job, uint32_t rank);

  std::map<WorkerId, const WorkerPlan*> workers_;
  std::map<AttemptKey, Taken> taken_;              // of every lease there was
  std::map<WorkerId, std::set<AttemptKey>> open_;  // that are open and wanted
  std::set<AttemptKey> leased_;
  std::map<std::string, GpuState> told_;  // by uuid
  TimeMs slack_ms_ = 0;                   // between what is heard and what is decided by it
};

}  // namespace pesc::sim
