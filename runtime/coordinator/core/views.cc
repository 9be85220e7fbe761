#include <algorithm>
#include <utility>

#include "runtime/coordinator/core/state.h"

namespace pesc::coordinator {
namespace {

// Of a gang: leased, and not told to start.
bool is_held(const Job& job) { return job.gang && job.gang->open > 0 && !job.gang->started; }

void append_open(AttemptKey key, const ActiveRank& active, std::vector<RunningRank>& running) {
  for (const OpenAttempt& open : active.open) {
    key.attempt = open.attempt;
    running.push_back(
        {key, open.worker, open.fraction, open.text, open.started == kNever, open.second});
  }
}

}  // namespace

std::vector<JobId> Core::jobs() const {
  std::vector<JobId> ids;
  ids.reserve(state_->by_submission.size());
  for (const auto& [order, job] : state_->by_submission) ids.push_back(job->id);
  return ids;
}

JobView Core::State::view(const Job& job) const {
  JobView view;
  view.id = job.id;
  view.owner = job.owner;
  view.spec = job.spec;
  view.state = job_state(job);
  // What is leased ahead waits on its worker for a free cpu.
  view.counts = job.ranks.counts();
  // So does a gang that is held until all of it is prepared.
  const uint32_t ahead =
      is_held(job) ? view.counts.running : std::min(job.ahead_leases, view.counts.running);
  view.counts.running -= ahead;
  view.counts.waiting += ahead;
  view.revision = job.revision;
  view.committed = job.ranks.committed();
  view.detail = job.detail;
  view.tally = job.tally;
  view.submitted_unix_ms = job.submitted_unix_ms;
  view.finished_unix_ms = job.finished_unix_ms;
  return view;
}

std::optional<JobView> Core::job(JobId id) const {
  const Job* job = state_->find_job(id);
  if (job == nullptr) return std::nullopt;
  return state_->view(*job);
}

std::vector<RunningRank> Core::running(JobId id) const {
  std::vector<RunningRank> running;
  const Job* job = state_->find_job(id);
  if (job == nullptr) return running;
  for (const auto& [rank, active] : job->active) append_open({id, rank, 0}, active, running);
  return running;
}

std::vector<RunningRank> Core::running(JobId id, uint32_t rank) const {
  std::vector<RunningRank> running;
  const Job* job = state_->find_job(id);
  if (job == nullptr) return running;
  const auto active = job->active.find(rank);
  if (active != job->active.end()) append_open({id, rank, 0}, active->second, running);
  return running;
}

std::vector<uint32_t> Core::committed_ranks(JobId id, uint32_t from, uint32_t max) const {
  const Job* job = state_->find_job(id);
  if (job == nullptr) return {};
  return job->ranks.committed_ranks(from, max);
}

RankState Core::rank_state(JobId id, uint32_t rank) const {
  const Job* job = state_->find_job(id);
  if (job == nullptr) return RankState::waiting;
  const RankState state = job->ranks.state(rank);
  if (state == RankState::running && is_held(*job)) return RankState::waiting;
  if (state != RankState::running || job->ahead_leases == 0) return state;
  return state_->is_all_ahead(*job, rank) ? RankState::waiting : RankState::running;
}

uint32_t Core::attempts(JobId id, uint32_t rank) const {
  const Job* job = state_->find_job(id);
  return job == nullptr ? 0 : job->ranks.attempts(rank);
}

std::vector<WorkerView> Core::workers() const {
  std::vector<WorkerView> views;
  for (const auto& [id, worker] : state_->workers) {
    if (state_->is_forgotten(worker)) continue;
    WorkerView view;
    view.info = worker.info;
    view.attached = worker.attached;
    view.session = worker.session;
    view.cpus_used_milli = static_cast<uint32_t>(worker.used_milli);
    for (const auto& [key, lease] : worker.leases) {
      view.leases += lease.ahead == 0 && !is_held(state_->jobs.at(key.job));
    }
    view.memory_used_bytes = worker.use.memory_bytes;
    view.disk_used_bytes = worker.use.disk_bytes;
    view.named_used.assign(worker.use.named.begin(), worker.use.named.end());
    for (const GpuUse& gpu : worker.use.gpus) view.gpus.push_back({gpu.bytes, gpu.ranks});
    if (worker.attached) view.measured = worker.measured;
    view.finished = worker.finished;
    view.last_seen = worker.last_seen;
    view.draining = worker.draining;
    view.paused = worker.paused;
    view.trouble = state_->trouble(worker, state_->now);
    views.push_back(std::move(view));
  }
  return views;
}

std::optional<uint64_t> Core::session_of(WorkerId id) const {
  const auto worker = state_->workers.find(id);
  if (worker == state_->workers.end() || !worker->second.attached) return std::nullopt;
  return worker->second.session;
}

// What is leased ahead waits on its worker, as in the counts.
bool Core::State::is_all_ahead(const Job& job, uint32_t rank) const {
  const std::vector<OpenAttempt>& open = job.active.at(rank).open;
  return std::all_of(open.begin(), open.end(), [&](const OpenAttempt& o) {
    return workers.at(o.worker).leases.at({job.id, rank, o.attempt}).ahead != 0;
  });
}

// One that went away long ago, and that nobody waits for.
bool Core::State::is_forgotten(const Worker& worker) const {
  return !worker.attached && worker.leases.empty() &&
         now - std::max(worker.last_seen, restored_at) > kForgottenMs;
}

}  // namespace pesc::coordinator
