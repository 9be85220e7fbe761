#include "tests/sim/checkers/liveness.h"

#include <fmt/format.h>

#include <algorithm>

namespace pesc::sim {

TimeMs time_to_end(const Scenario& scenario) {
  TimeMs total = 0;
  for (const JobPlan& job : scenario.jobs) {
    const JobSpec& spec = *job.spec;
    uint32_t slots = 0;
    for (const WorkerPlan& worker : scenario.workers) {
      if (worker.leaves || (!spec.room.empty() && spec.room != worker.room)) continue;
      slots = std::max(slots, worker.cpus_milli / spec.resources.cpus_milli);
    }
    // One by one, perhaps, where something else is scarce.
    const Resources& asked = spec.resources;
    if (job.peak_memory > 0 || asked.gpus_milli > 0 || asked.disk_bytes > 0 ||
        !asked.named.empty()) {
      slots = 1;
    }
    TimeMs one = job.longest_ms;
    if (spec.time_limit_ms != 0) {
      one = std::max(one, static_cast<TimeMs>(spec.time_limit_ms + spec.grace_ms));
    }
    if (job.stragglers > 0) one *= 8;
    TimeMs tries = spec.retries + 1;
    if (job.corrupts > 0) tries *= 10;  // back over all that are kept, twice each
    if (job.peak_memory > 0 || job.peak_gpu > 0) tries += 10;  // as often for free
    // A try is preceded by a backoff, and costs a few messages and commits.
    const TimeMs overhead =
        4 * scenario.faults.longest_delay_ms + 4'000 + 4 * scenario.faults.longest_commit_ms;
    total += (spec.repetitions / std::max(1u, slots) + 1) * tries * (one + overhead) +
             tries * static_cast<TimeMs>(scenario.coordinator.backoff_max_ms);
  }
  // A worker may be set aside when the faults stop, and second attempts be on their way.
  total += static_cast<TimeMs>(2 * scenario.coordinator.set_aside_max_ms);
  return total + 4 * static_cast<TimeMs>(scenario.coordinator.lease_ms) + 600'000;
}

std::string find_unended(const Ledger& ledger, const std::vector<JobId>& accepted) {
  for (JobId id : accepted) {
    const LedgerJob* job = ledger.job(id);
    if (job == nullptr || job->finished) continue;
    uint32_t rank = 0;
    while (rank < job->ranks.size() && job->ranks[rank].final) ++rank;
    return fmt::format("promise 5: job {} has not ended: {} of {} ranks are final, rank {} is not",
                       to_string(id), job->finals, job->ranks.size(), rank);
  }
  return {};
}

}  // namespace pesc::sim
