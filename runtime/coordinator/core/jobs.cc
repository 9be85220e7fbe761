// What users ask for: submit, cancel, retry, remove.
#include <utility>

#include "runtime/coordinator/core/state.h"

namespace pesc::coordinator {
namespace {

absl::Status no_such_job(JobId id) {
  return absl::NotFoundError("there is no job " + to_string(id) +
                             " here; `pesc jobs` lists those there are");
}

}  // namespace

void Core::State::on(const JobSubmitted& event) {
  unix_ms = std::max(unix_ms, event.unix_ms);
  absl::Status status = submit(event);
  out.actions.push_back(Answer{event.request, std::move(status), 0});
}

absl::Status Core::State::submit(const JobSubmitted& event) {
  if (event.spec == nullptr) return absl::InvalidArgumentError("the job has no description");
  if (absl::Status status = validate(*event.spec); !status.ok()) return status;
  if (const Job* job = find_job(event.id)) {
    if (job->owner == event.owner && *job->spec == *event.spec) return absl::OkStatus();
    return absl::AlreadyExistsError("job " + to_string(event.id) +
                                    " exists and is another one; submit with a new id");
  }
  emit(JobAdded{event.id, event.owner, event.spec, event.unix_ms});
  return absl::OkStatus();
}

void Core::State::on(const JobCancelled& event) {
  unix_ms = std::max(unix_ms, event.unix_ms);
  absl::Status status = cancel(event);
  out.actions.push_back(Answer{event.request, std::move(status), 0});
}

// Cancelled again, or too late: nothing is left to be done, so a resend is harmless.
absl::Status Core::State::cancel(const JobCancelled& event) {
  Job* job = find_job(event.id);
  if (job == nullptr) return no_such_job(event.id);
  if (job->stopped || job->finished) return absl::OkStatus();
  if (bug == PlantedBug::forget_cancel && job->ranks.counts().running > 0) return absl::OkStatus();
  stop_job(*job, true, "cancelled");
  return absl::OkStatus();
}

// Ranks that run are final when each of their attempts has reported, or its lease has expired.
void Core::State::stop_job(Job& job, bool by_user, std::string detail) {
  emit(JobStopped{job.id, by_user, std::move(detail)});
  cancel_waiting(job);
  const EndReason reason = stop_reason(job);
  for (const auto& [rank, active] : job.active) {
    for (const OpenAttempt& open : active.open) {
      send_stop(open.worker, {job.id, rank, open.attempt}, reason);
    }
  }
  finish_if_done(job);
}

void Core::State::cancel_waiting(Job& job) {
  std::vector<std::pair<uint32_t, uint32_t>> ranges;
  const auto add = [&ranges](uint32_t first, uint32_t last) {
    if (!ranges.empty() && ranges.back().second + 1 == first) {
      ranges.back().second = last;
    } else {
      ranges.emplace_back(first, last);
    }
  };
  const RankTable& ranks = job.ranks;
  if (ranks.counts().waiting > ranks.fresh()) {
    for (uint32_t rank = 0; rank < ranks.started(); ++rank) {
      if (ranks.state(rank) == RankState::waiting) add(rank, rank);
    }
  }
  if (ranks.fresh() > 0) add(ranks.started(), ranks.size() - 1);
  for (const auto& [first, last] : ranges) emit(RanksCancelled{job.id, first, last});
}

void Core::State::finish_if_done(Job& job) {
  if (job.finished || !job.ranks.all_final()) return;
  emit(JobFinished{job.id, job_state(job), unix_ms});
}

void Core::State::on(const JobRetried& event) {
  unix_ms = std::max(unix_ms, event.unix_ms);
  uint32_t count = 0;
  absl::Status status = retry(event, count);
  out.actions.push_back(Answer{event.request, std::move(status), count});
}

absl::Status Core::State::retry(const JobRetried& event, uint32_t& count) {
  Job* job = find_job(event.id);
  if (job == nullptr) return no_such_job(event.id);
  if (!job->finished) {
    return absl::FailedPreconditionError("job " + to_string(event.id) +
                                         " has not finished yet: wait for its end or cancel it "
                                         "first, then retry");
  }
  RanksReopened reopened{event.id, {}, event.unix_ms};
  for (uint32_t rank = 0; rank < job->ranks.started(); ++rank) {
    const RankState state = job->ranks.state(rank);
    if (state == RankState::failed || state == RankState::cancelled) reopened.ranks.push_back(rank);
  }
  count = static_cast<uint32_t>(reopened.ranks.size());
  if (count > 0) emit(std::move(reopened));
  return absl::OkStatus();
}

void Core::State::on(const JobRemoved& event) {
  absl::Status status = remove(event);
  out.actions.push_back(Answer{event.request, std::move(status), 0});
}

absl::Status Core::State::remove(const JobRemoved& event) {
  Job* job = find_job(event.id);
  if (job == nullptr) return no_such_job(event.id);
  if (!job->finished) {
    return absl::FailedPreconditionError("job " + to_string(event.id) +
                                         " has not finished yet: cancel it first, then remove it");
  }
  keep_learned(*job);
  emit(JobErased{event.id});
  changed.push_back(event.id);
  return absl::OkStatus();
}

// A crash may have cut a history anywhere: what a step would have added is added now.
void Core::State::settle_after_restore() {
  for (JobId id : std::exchange(unsettled, {})) {
    Job* job = find_job(id);
    if (job == nullptr) continue;
    if (gang_is_torn(*job)) settle_gang(*job);
    if (job->stopped) cancel_waiting(*job);
    finish_if_done(*job);
  }
}

JobState job_state(const Job& job) {
  const JobCounts& counts = job.ranks.counts();
  if (!job.ranks.all_final()) {
    return job.started || job.ranks.committed() > 0 ? JobState::running : JobState::waiting;
  }
  if (counts.succeeded == job.ranks.size()) return JobState::succeeded;
  if (job.stopped) return job.stopped_by_user ? JobState::cancelled : JobState::failed;
  return counts.failed > 0 ? JobState::failed : JobState::cancelled;
}

}  // namespace pesc::coordinator
