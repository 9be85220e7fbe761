// Pieces of work whose instructions are counted: the same for the same number, on every machine.
#pragma once

#include <cstdint>

namespace pesc::bench {

// Each returns something that depends on all of the work, so that none of it is left out.

// A coordinator core with 50 workers of 4 cpus takes a job of so many ranks and brings it to its
// end.
uint64_t coordinator_work(uint32_t ranks);
// Restores one that has so many ended ranks.
uint64_t restore_work(uint32_t ranks);
// A worker core with 4 cpus runs so many attempts that are leased to it in eights.
uint64_t worker_work(uint32_t attempts);
// What of a rank goes through the codec: its lease, its end, its outcome for the journal.
uint64_t codec_work(uint32_t ranks);

}  // namespace pesc::bench
