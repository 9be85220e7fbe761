// Why a gang does not run, as exactly as it is known.
#include <algorithm>
#include <set>

#include "runtime/coordinator/core/state.h"
#include "runtime/coordinator/core/text.h"

namespace pesc::coordinator {
namespace {

constexpr size_t kMaxNames = 8;

// "pc1, pc2"
std::string names_text(const std::set<std::string>& names) {
  std::string text;
  size_t listed = 0;
  for (const std::string& name : names) {
    if (listed++ == kMaxNames)
      return text + " and " + std::to_string(names.size() - kMaxNames) + " more";
    text += (text.empty() ? "" : ", ") + name;
  }
  return text;
}

std::string cause_of_last(const Gang& gang) {
  std::string text = "tried " + std::to_string(gang.tries) + (gang.tries == 1 ? " time" : " times");
  text += "; last: rank " + std::to_string(gang.last_rank) + ": " +
          std::string(to_string(gang.last_reason));
  if (!gang.last_detail.empty()) text += ": " + bounded(gang.last_detail, 300);
  return text;
}

// What all workers together, and the largest of them, have for a gang.
struct Together {
  uint64_t cpus = 0, ranks = 0;
  uint64_t most_cpus = 0, most_ranks = 0;
  std::string largest;
};

std::string too_little(const Job& job, const Together& capacity) {
  const uint64_t need = uint64_t(job.ranks.size()) * cpus_of(*job.spec);
  const std::string ranks = std::to_string(job.ranks.size()) + " ranks";
  const std::string& room = job.spec->room;
  const std::string workers = room.empty() ? "the workers that take work"
                                           : "the workers that take work in room '" + room + "'";
  if (job.spec->same_worker) {
    if (capacity.most_cpus < need) {
      return "needs " + cpus_text(need) + " cpus on one worker; the largest (" + capacity.largest +
             ") has " + cpus_text(capacity.most_cpus);
    }
    return "needs room for " + ranks + " on one worker; none has it for more than " +
           std::to_string(capacity.most_ranks);
  }
  if (capacity.cpus < need) {
    return "needs " + cpus_text(need) + " cpus at the same time; " + workers + " have " +
           cpus_text(capacity.cpus);
  }
  return "needs room for " + ranks + " at the same time; " + workers + " have it for " +
         std::to_string(capacity.ranks);
}

}  // namespace

// What keeps a gang that could start from starting.
std::string Core::State::gang_missing(const Job& job, TimeMs at) const {
  Together capacity;
  uint64_t now_ranks = 0, now_most = 0;
  const bool doubtful = takes_doubtful(job);
  const Need need = need_of(job);
  for (const auto& [id, worker] : workers) {
    const uint32_t ranks = gang_ranks_on_empty(worker, *job.spec, need, job.ranks.size(), doubtful);
    if (ranks == 0) continue;
    capacity.cpus += worker.info.cpus_milli;
    capacity.ranks += ranks;
    capacity.most_ranks = std::max<uint64_t>(capacity.most_ranks, ranks);
    if (worker.info.cpus_milli > capacity.most_cpus) {
      capacity.most_cpus = worker.info.cpus_milli;
      capacity.largest = worker.info.name;
    }
    const bool never = job.spec->same_worker && ranks < job.ranks.size();
    const uint32_t fit = never ? 0 : gang_ranks_on(worker, job, doubtful);
    now_ranks += fit;
    now_most = std::max<uint64_t>(now_most, fit);
  }
  if (capacity.ranks == 0) return missing(job, at);
  const uint64_t ranks = job.ranks.size();
  const bool one = job.spec->same_worker;
  if ((one ? capacity.most_ranks : capacity.ranks) < ranks) return too_little(job, capacity);
  const uint64_t fit = one ? now_most : now_ranks;
  if (fit >= ranks) return "is placed next";
  std::string more =
      "waits for " + cpus_text((ranks - fit) * cpus_of(*job.spec)) + " more cpus" +
      (need.memory_bytes > 0
           ? " with " + format_bytes((ranks - fit) * need.memory_bytes) + " of memory"
           : "") +
      (need.gpus > 0 ? " and " + gpus_text((ranks - fit) * need.gpus, need) : "") +
      (one ? " on one worker" : "");
  if (reservation.job == nullptr) return more;
  if (reservation.job != &job) {
    return more + "; parallel job " + to_string(reservation.job->id) + " has its turn before it";
  }
  std::set<std::string> names;
  for (WorkerId id : reservation.workers) names.insert(workers.at(id).info.name);
  return more + "; " + names_text(names) + (names.size() == 1 ? " is" : " are") +
         " reserved for it";
}

std::string Core::State::gang_unprepared(const Job& job) const {
  RangesText ranks;
  std::set<std::string> names;
  for (const auto& [rank, active] : job.active) {
    if (active.open.empty() || job.gang->ready.contains(rank)) continue;
    ranks.add(rank, rank);
    names.insert(workers.at(active.open.front().worker).info.name);
  }
  return std::string("waits for ") + (ranks.count == 1 ? "rank " : "ranks ") + ranks.text() +
         " to be prepared on " + names_text(names);
}

std::vector<WhyLine> Core::State::gang_why(const Job& job, TimeMs at) const {
  const Gang& gang = *job.gang;
  if (job.stopped || job.ranks.all_final()) return {};
  RangesText all;
  all.add(0, job.ranks.size() - 1);
  const auto line = [](const RangesText& ranks, std::string reason) {
    return std::vector<WhyLine>{{ranks.text(), ranks.count, RankState::waiting, std::move(reason)}};
  };
  if (gang.verdict) return line(all, verdict_why(job));
  const std::string last = gang.tries > 0 ? cause_of_last(gang) : "";
  const std::string after = last.empty() ? "" : " (" + last + ")";
  if (gang.open > 0 && !gang.started) return line(all, gang_unprepared(job) + after);
  if (gang.open > 0) {
    RangesText ended;
    for (const auto& [rank, outcome] : gang.succeeded) ended.add(rank, rank);
    if (ended.count == 0) return {};
    return line(ended, "ended well; final when the other ranks have ended well too");
  }
  if (gang.not_before != kNever && gang.not_before > at) {
    const TimeMs seconds = (gang.not_before - at + 999) / 1000;
    return line(all, "all ranks start again in " + std::to_string(seconds) + "s: " + last);
  }
  return line(all, gang_missing(job, at) + after);
}

}  // namespace pesc::coordinator
