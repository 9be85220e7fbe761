#include <algorithm>
#include <utility>

#include "runtime/coordinator/core/state.h"

namespace pesc::coordinator {
namespace {

constexpr size_t kMaxRangesText = 1000;
constexpr size_t kMaxWhyLines = 100;

std::string cpus_text(uint64_t milli) {
  std::string text = std::to_string(milli / 1000);
  if (milli % 1000 == 0) return text;
  std::string decimals = std::to_string(1000 + milli % 1000).substr(1);
  decimals.erase(decimals.find_last_not_of('0') + 1);
  return text + "." + decimals;
}

// "5-9,12", built rank by rank in ascending order.
struct RangesText {
  std::vector<std::pair<uint32_t, uint32_t>> ranges;
  uint32_t count = 0;

  void add(uint32_t first, uint32_t last) {
    count += last - first + 1;
    if (!ranges.empty() && ranges.back().second + 1 == first) {
      ranges.back().second = last;
    } else {
      ranges.emplace_back(first, last);
    }
  }
  std::string text() const {
    std::string text;
    for (const auto& [first, last] : ranges) {
      if (text.size() > kMaxRangesText) return text + ",…";
      if (!text.empty()) text += ',';
      text += std::to_string(first);
      if (last > first) text += "-" + std::to_string(last);
    }
    return text;
  }
};

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
  view.counts = job.ranks.counts();
  view.revision = job.revision;
  view.committed = job.ranks.committed();
  view.detail = job.detail;
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
  for (const auto& [rank, active] : job->active) {
    for (const OpenAttempt& open : active.open) {
      running.push_back({{id, rank, open.attempt}, open.worker, open.fraction, open.text});
    }
  }
  return running;
}

std::vector<uint32_t> Core::committed_ranks(JobId id, uint32_t from, uint32_t max) const {
  const Job* job = state_->find_job(id);
  if (job == nullptr) return {};
  return job->ranks.committed_ranks(from, max);
}

RankState Core::rank_state(JobId id, uint32_t rank) const {
  const Job* job = state_->find_job(id);
  return job == nullptr ? RankState::waiting : job->ranks.state(rank);
}

uint32_t Core::attempts(JobId id, uint32_t rank) const {
  const Job* job = state_->find_job(id);
  return job == nullptr ? 0 : job->ranks.attempts(rank);
}

std::vector<WorkerView> Core::workers() const {
  std::vector<WorkerView> views;
  for (const auto& [id, worker] : state_->workers) {
    WorkerView view;
    view.info = worker.info;
    view.attached = worker.attached;
    view.session = worker.session;
    view.cpus_used_milli = static_cast<uint32_t>(worker.used_milli);
    view.leases = static_cast<uint32_t>(worker.leases.size());
    view.finished = worker.finished;
    view.last_seen = worker.last_seen;
    views.push_back(std::move(view));
  }
  return views;
}

std::vector<WhyLine> Core::why(JobId id, TimeMs now) const {
  const Job* job = state_->find_job(id);
  return job == nullptr ? std::vector<WhyLine>() : state_->why(*job, now);
}

// What keeps a rank that could start from starting, as exactly as it is known.
std::string Core::State::missing(const Job& job) const {
  const std::string& room = job.spec->room;
  const uint32_t cpus = cpus_of(*job.spec);
  const uint64_t memory = job.spec->resources.memory_bytes;
  const Worker *most_cpus = nullptr, *most_memory = nullptr;
  uint64_t usable = 0, used = 0, elsewhere = 0;
  bool cpus_free = false, silent = false, leaving = false;
  for (const auto& [id, worker] : workers) {
    if (!worker.attached) continue;
    if (!room.empty() && worker.info.room != room) {
      ++elsewhere;
      continue;
    }
    if (!worker.responsive) {
      silent = true;
      continue;
    }
    if (worker.leaving) {
      leaving = true;
      continue;
    }
    if (most_cpus == nullptr || worker.info.cpus_milli > most_cpus->info.cpus_milli) {
      most_cpus = &worker;
    }
    if (most_memory == nullptr || worker.info.memory_bytes > most_memory->info.memory_bytes) {
      most_memory = &worker;
    }
    if (worker.info.cpus_milli < cpus || worker.info.memory_bytes < memory) continue;
    usable += worker.info.cpus_milli;
    used += worker.used_milli;
    cpus_free = cpus_free || worker.free_milli() >= int64_t(cpus);
  }
  if (most_cpus == nullptr) {
    if (leaving) return "every worker that could run it is being shut down";
    if (silent) return "every worker that could run it has not been heard of lately";
    if (elsewhere > 0) return "room '" + room + "' has no worker";
    return "no worker is attached";
  }
  const auto too_small = [](const std::string& need, const Worker& worker, const std::string& has) {
    return "needs " + need + "; the largest worker attached (" + worker.info.name + ") has " + has;
  };
  if (most_cpus->info.cpus_milli < cpus) {
    return too_small(cpus_text(cpus) + " cpus", *most_cpus, cpus_text(most_cpus->info.cpus_milli));
  }
  if (most_memory->info.memory_bytes < memory) {
    return too_small(format_bytes(memory) + " of memory", *most_memory,
                     format_bytes(most_memory->info.memory_bytes));
  }
  if (usable == 0) {
    return "needs " + cpus_text(cpus) + " cpus and " + format_bytes(memory) +
           " of memory; no worker attached has both";
  }
  if (cpus_free && memory > 0) {
    return "waits for " + format_bytes(memory) + " of memory to be free beside free cpus";
  }
  return "waits for a free slot: " + cpus_text(used) + " of " + cpus_text(usable) + " cpus in use";
}

std::vector<WhyLine> Core::State::why(const Job& job, TimeMs at) const {
  std::map<std::string, RangesText> reasons;
  if (job.ranks.counts().waiting == 0) return {};
  const std::string startable = missing(job);
  const auto tried = [](const ActiveRank& rank) {
    std::string text =
        "tried " + std::to_string(rank.tries) + (rank.tries == 1 ? " time" : " times");
    std::string last = std::string(to_string(rank.last_reason));
    if (!rank.last_detail.empty()) last += ": " + bounded(rank.last_detail, 200);
    return std::pair(text, "; last: " + last);
  };
  for (uint32_t rank = 0; rank < job.ranks.started(); ++rank) {
    if (job.ranks.state(rank) != RankState::waiting) continue;
    std::string reason = startable;
    auto it = job.active.find(rank);
    if (it != job.active.end() && it->second.tries > 0) {
      const auto [times, last] = tried(it->second);
      const TimeMs due = it->second.not_before;
      const TimeMs seconds = due == kNever || due <= at ? 0 : (due - at + 999) / 1000;
      reason = seconds > 0 ? times + ", next try in " + std::to_string(seconds) + "s" + last
                           : startable + " (" + times + last + ")";
    }
    if (reasons.size() >= kMaxWhyLines && reasons.count(reason) == 0) reason = "other reasons";
    reasons[reason].add(rank, rank);
  }
  if (job.ranks.fresh() > 0) {
    reasons[startable].add(job.ranks.started(), job.ranks.size() - 1);
  }
  std::vector<WhyLine> lines;
  for (const auto& [reason, ranges] : reasons) {
    lines.push_back({ranges.text(), ranges.count, RankState::waiting, reason});
  }
  std::stable_sort(lines.begin(), lines.end(),
                   [](const WhyLine& a, const WhyLine& b) { return a.count > b.count; });
  return lines;
}

}  // namespace pesc::coordinator
