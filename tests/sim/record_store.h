// The simulated disk: what the coordinator has committed, as rows in the form that core.h documents
// (of an attempt only its latest lease and its latest end), and as a log beside it. Descriptions
// and outcomes are kept as bytes of the project's codec.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "runtime/coordinator/core/core.h"
#include "tests/sim/world.h"

namespace pesc::sim {

class RecordStore {
 public:
  void commit(const std::vector<coordinator::Record>& records);
  // From the rows; `random` decides whatever core.h leaves open.
  void restore(coordinator::Core& core, Random& random) const;
  // From the log, every record as it was emitted.
  void replay(coordinator::Core& core) const;

 private:
  struct Stored {
    coordinator::Record record;  // without description and outcome
    std::string bytes;           // of the one that it had
  };
  struct AttemptPlaces {
    uint64_t leased = 0, ended = 0;  // 0: none
  };
  struct JobRows {
    std::map<uint64_t, Stored> records;  // by number
    std::map<AttemptKey, AttemptPlaces> attempts;
  };
  void keep(const Stored& stored, uint64_t number);

  std::map<JobId, JobRows> jobs_;
  std::map<WorkerId, Stored> workers_;
  std::map<WorkerId, Stored> draining_;
  std::vector<Stored> log_;
};

}  // namespace pesc::sim
