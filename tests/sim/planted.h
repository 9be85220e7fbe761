// Planted bugs: of a core (compiled into it), or of what lies between a core and the world, which
// the simulator plays itself. Each must be caught by a checker.
#pragma once

#include <string>
#include <vector>

#include "runtime/coordinator/core/core.h"
#include "runtime/worker/core/core.h"
#include "tests/sim/checkers/ledger.h"

namespace pesc::sim {

enum class HostBug : uint8_t {
  none,
  release_before_commit,  // answers leave before the transaction is on the disk
  disk_lies,              // an fsync that does nothing
  forget_last_record,     // a transaction lacks its last record
  flip_unnoticed,         // no: a damaged row is taken for a good one
  lease_old_checkpoint,   // the one before the newest
  drop_all_checkpoints,   // all, when there are too many
  collect_kept_blobs,     // the garbage collection takes what is still wanted
  start_gang_early,       // a gang's lease is not held
  another_port,           // each rank is told another
  place_gang_in_part,     // one of a gang's ranks gets no lease
  drain_not_written,      // acknowledged, never made durable
  forget_open_leases,     // a new coordinator does not know of them
  answer_without_saving,  // a checkpoint is acknowledged, never made durable
  begin_from_nothing,     // what was restored is not there when the program starts
};

struct Bug {
  std::string name = "none";
  coordinator::PlantedBug coordinator = coordinator::PlantedBug::none;
  worker::PlantedBug worker = worker::PlantedBug::none;
  HostBug host = HostBug::none;
  uint32_t seeds = 300;  // within which it is caught
};

// What the bug makes of a transaction, and of a message.
void mutate(HostBug bug, const Ledger& ledger, std::vector<coordinator::Record>& records);
void mutate(HostBug bug, coordinator::SendUpdate& update);

// Every bug that can be planted, "none" first.
const std::vector<Bug>& known_bugs();

}  // namespace pesc::sim
