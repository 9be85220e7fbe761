// Time limits of jobs. A limit counts from the submission or the latest retry, in wall time; while
// the coordinator runs it is kept by a clock that nobody can set.
#include <algorithm>
#include <utility>

#include "model/text.h"
#include "runtime/coordinator/core/state.h"

namespace pesc::coordinator {
namespace {

// What a job's detail begins with when its time was over: durable, and read by stop_reason().
constexpr std::string_view kOverTime = "the job's time limit of ";

}  // namespace

EndReason stop_reason(const Job& job) {
  if (job.stopped_by_user) return EndReason::cancelled;
  return job.detail.starts_with(kOverTime) ? EndReason::time_limit : EndReason::revoked;
}

void Core::State::arm_limit(Job& job, TimeMs at) {
  if (job.limit_at == at) return;
  if (job.limit_at != kNever) limits.erase({job.limit_at, job.id});
  job.limit_at = at;
  if (at != kNever) limits.insert({at, job.id});
}

// After a restore: the first event that tells the wall time says how much is left. A job has its
// whole time again when its submission, or its latest retry, lies in the future of a clock that was
// set back, or when the retry's moment is not known.
void Core::State::settle_limits(bool timer) {
  if (unlimited.empty() || (unix_ms == 0 && !timer)) return;
  for (JobId id : std::exchange(unlimited, {})) {
    Job* job = find_job(id);
    if (job == nullptr || job->stopped || job->finished) continue;
    const int64_t limit = int64_t(job->spec->job_time_limit_ms);
    int64_t left = limit;
    const int64_t from = job->limit_from_unix_ms;
    if (from > 0 && unix_ms > from) left = std::max<int64_t>(from + limit - unix_ms, 0);
    arm_limit(*job, now + left);
  }
}

void Core::State::end_limits() {
  while (!limits.empty() && limits.begin()->first <= now) {
    Job& job = jobs.at(limits.begin()->second);
    arm_limit(job, kNever);
    if (job.stopped || job.ranks.all_final()) continue;
    const JobCounts& counts = job.ranks.counts();
    stop_job(job, false,
             std::string(kOverTime) + format_duration_ms(job.spec->job_time_limit_ms) +
                 " was over with " + std::to_string(counts.succeeded) + " of " +
                 std::to_string(job.ranks.size()) + " ranks done");
  }
}

}  // namespace pesc::coordinator
