// Why the ranks of a job do not run, as exactly as it is known.
#include <algorithm>
#include <utility>

#include "runtime/coordinator/core/state.h"
#include "runtime/coordinator/core/text.h"

namespace pesc::coordinator {
namespace {

constexpr size_t kMaxWhyLines = 100;
constexpr size_t kMaxWorkersNamed = 5;

// What the workers of a room have, all together, for one kind of rank.
struct Offer {
  const Worker* most_cpus = nullptr;
  const Worker* most_memory = nullptr;
  uint64_t usable = 0, used = 0, elsewhere = 0;
  bool cpus_free = false;
  std::string lacking;  // what some lack, beside cpus
  size_t named = 0;
  std::vector<std::string> unbuilt;   // on these its program could not be built
  std::vector<std::string> unusable;  // those that take no work, and why

  void add(const Worker& worker, const Need& need) {
    const WorkerInfo& info = worker.info;
    const uint32_t cpus = need.cpus_milli;
    if (!may_be_on(info.id, need)) return unbuilt.push_back(info.name);
    if (most_cpus == nullptr || info.cpus_milli > most_cpus->info.cpus_milli) most_cpus = &worker;
    if (most_memory == nullptr || info.memory_bytes > most_memory->info.memory_bytes) {
      most_memory = &worker;
    }
    if (const std::string what = lacks(worker.capacity(), need); !what.empty()) {
      if (named++ < kMaxWorkersNamed) {
        lacking += (lacking.empty() ? "" : "; ") + what + " on " + info.name;
      }
      return;
    }
    if (info.cpus_milli < cpus) return;
    usable += info.cpus_milli;
    used += worker.used_milli;
    cpus_free = cpus_free || worker.free_milli() >= int64_t(cpus);
  }
  static std::string list(const std::vector<std::string>& names, const char* between) {
    std::string text;
    for (size_t i = 0; i < names.size(); ++i) {
      if (!text.empty()) text += between;
      if (i == kMaxWorkersNamed) return text + std::to_string(names.size() - i) + " more";
      text += names[i];
    }
    return text;
  }
  // What keeps workers from it that are there.
  std::string unusable_text() const {
    if (unbuilt.empty()) return list(unusable, "; ");
    const std::string text = "the build failed on " + list(unbuilt, ", ");
    return unusable.empty() ? text : text + "; " + list(unusable, "; ");
  }
};

std::string too_small(const std::string& need, const Worker& worker, const std::string& has) {
  return "needs " + need + "; the largest worker attached (" + worker.info.name + ") has " + has;
}

std::string in_use(const Offer& offer, const Need& need) {
  std::string text = "waits for a free slot: " + cpus_text(offer.used) + " of " +
                     cpus_text(offer.usable) + " cpus in use";
  if (offer.cpus_free) {
    std::string more;
    const auto add = [&](const std::string& what) { more += (more.empty() ? "" : " and ") + what; };
    if (need.memory_bytes > 0) add(format_bytes(need.memory_bytes) + " of memory");
    if (need.disk_bytes > 0) add(format_bytes(need.disk_bytes) + " of disk");
    for (const auto& [name, milli] : need.named) add(format_milli(milli) + " of " + name);
    if (need.gpus > 0) {
      add(gpus_text(need.gpus, need) + (need.gpu_alone ? " that nothing else uses" : ""));
    }
    if (!more.empty()) text = "waits for " + more + " to be free beside free cpus";
  }
  const std::string unusable = offer.unusable_text();
  return unusable.empty() ? text : text + " (" + unusable + ")";
}

std::string tries_text(const ActiveRank& rank) {
  return "tried " + std::to_string(rank.tries) + (rank.tries == 1 ? " time" : " times");
}

std::string last_text(const ActiveRank& rank) {
  std::string last = std::string(to_string(rank.last_reason));
  if (!rank.last_detail.empty()) last += ": " + bounded(rank.last_detail, 200);
  return "; last: " + last;
}

TimeMs seconds_up(TimeMs ms) { return std::max<TimeMs>(ms + 999, 0) / 1000; }

}  // namespace

std::vector<WhyLine> Core::why(JobId id, TimeMs now) const {
  const Job* job = state_->find_job(id);
  return job == nullptr ? std::vector<WhyLine>() : state_->why(*job, now);
}

// Nothing: the worker takes work.
std::string Core::State::takes_no_work(const Worker& worker, TimeMs at) const {
  if (worker.paused && !worker.draining) return worker.info.name + " is paused";
  if (!worker.info.busy.empty() && !worker.draining) {
    return worker.info.name + " is busy: " + worker.info.busy;
  }
  if (worker.leaving && !worker.draining) return worker.info.name + " is being shut down";
  if (worker.draining) return worker.info.name + " is draining";
  if (worker.set_aside()) return worker.info.name + " is " + trouble(worker, at);
  if (worker.unsized > 0) return worker.info.name + " " + trouble(worker, at);
  if (!worker.responsive) {
    return worker.info.name + " has not been heard of for " +
           std::to_string(seconds_up(at - worker.last_seen)) + " s";
  }
  return "";
}

// What keeps a rank that could start from starting.
std::string Core::State::missing(const Job& job, TimeMs at) const {
  const std::string& room = job.spec->room;
  const uint32_t cpus = cpus_of(*job.spec);
  const Need need = need_of(job);
  const uint64_t memory = need.memory_learned ? 0 : need.memory_bytes;
  Offer offer;
  for (const auto& [id, worker] : workers) {
    if (!worker.attached) continue;
    if (!room.empty() && worker.info.room != room) {
      ++offer.elsewhere;
    } else if (std::string unusable = takes_no_work(worker, at); !unusable.empty()) {
      offer.unusable.push_back(std::move(unusable));
    } else {
      offer.add(worker, need);
    }
  }
  if (offer.most_cpus == nullptr) {
    if (!offer.unbuilt.empty()) {
      return "no worker that takes work can build the program: " + offer.unusable_text();
    }
    if (!offer.unusable.empty()) return "no worker takes work: " + offer.unusable_text();
    if (offer.elsewhere > 0) return "room '" + room + "' has no worker";
    return "no worker is attached";
  }
  const WorkerInfo& most_cpus = offer.most_cpus->info;
  if (most_cpus.cpus_milli < cpus) {
    return too_small(cpus_text(cpus) + " cpus", *offer.most_cpus, cpus_text(most_cpus.cpus_milli));
  }
  const WorkerInfo& most_memory = offer.most_memory->info;
  if (most_memory.memory_bytes < memory) {
    return too_small(format_bytes(memory) + " of memory", *offer.most_memory,
                     format_bytes(most_memory.memory_bytes));
  }
  if (offer.usable == 0 && !offer.lacking.empty()) {
    return "needs what no worker attached has: " + offer.lacking;
  }
  if (offer.usable == 0) {
    return "needs " + cpus_text(cpus) + " cpus and " + format_bytes(memory) +
           " of memory; no worker attached has both";
  }
  return in_use(offer, need);
}

// The reason of one rank that waits, given what keeps those from starting that could.
std::string Core::State::why_waits(const ActiveRank& rank, const std::string& startable,
                                   TimeMs at) const {
  if (rank.tries == 0) return startable;
  const TimeMs due = rank.not_before;
  if (due != kNever && due > at) {
    return tries_text(rank) + ", next try in " + std::to_string(seconds_up(due - at)) + "s" +
           last_text(rank);
  }
  return startable + " (" + tries_text(rank) + last_text(rank) + ")";
}

std::vector<WhyLine> Core::State::why(const Job& job, TimeMs at) const {
  std::vector<WhyLine> lines;
  if (job.gang) {
    lines = gang_why(job, at);
  } else if (job.ranks.counts().waiting > 0) {
    std::map<std::string, RangesText> reasons;
    const std::string startable = missing(job, at);
    for (uint32_t rank = 0; rank < job.ranks.started(); ++rank) {
      if (job.ranks.state(rank) != RankState::waiting) continue;
      const auto active = job.active.find(rank);
      std::string reason =
          active == job.active.end() ? startable : why_waits(active->second, startable, at);
      if (reasons.size() >= kMaxWhyLines && reasons.count(reason) == 0) reason = "other reasons";
      reasons[reason].add(rank, rank);
    }
    if (job.ranks.fresh() > 0) {
      reasons[startable].add(job.ranks.started(), job.ranks.size() - 1);
    }
    for (const auto& [reason, ranges] : reasons) {
      lines.push_back({ranges.text(), ranges.count, RankState::waiting, reason});
    }
  }
  why_leased(job, at, lines);
  std::stable_sort(lines.begin(), lines.end(),
                   [](const WhyLine& a, const WhyLine& b) { return a.count > b.count; });
  return lines;
}

// What is leased and does not move: on a worker that is silent, behind others on its worker, or on
// one whose owner has it. And what runs, and something is wrong with it.
void Core::State::why_leased(const Job& job, TimeMs at, std::vector<WhyLine>& lines) const {
  std::map<WorkerId, RangesText> silent, ahead, slowed;
  std::map<std::string, RangesText> troubled;
  for (const auto& [rank, active] : job.active) {
    if (active.open.size() != 1) continue;  // another attempt of it goes on
    const OpenAttempt& open = active.open.front();
    const auto worker = workers.find(open.worker);
    if (worker == workers.end()) continue;
    if (at - worker->second.last_seen > TimeMs(2 * config.heartbeat_ms)) {
      silent[open.worker].add(rank, rank);
    } else if (open.started == kNever) {
      ahead[open.worker].add(rank, rank);
    } else if (worker->second.attached &&
               (worker->second.paused || !worker->second.info.busy.empty())) {
      slowed[open.worker].add(rank, rank);
    } else if (!open.trouble.empty()) {
      const bool others = troubled.size() >= kMaxWhyLines && !troubled.contains(open.trouble);
      troubled[others ? "other reasons" : open.trouble].add(rank, rank);
    }
  }
  for (const auto& [id, ranges] : silent) {
    const Worker& worker = workers.at(id);
    const bool heard = worker.last_seen > 0;
    std::string reason = "worker " + worker.info.name + " has not been heard of " +
                         (heard ? "for " : "since the coordinator started, ") +
                         std::to_string(seconds_up(at - (heard ? worker.last_seen : restored_at))) +
                         (heard ? " s" : " s ago");
    if (worker.deadline != kNever) {
      reason += std::string("; its rank") + (ranges.count == 1 ? " is " : "s are ") +
                (job.stopped ? "given up" : "placed again") + " in " +
                std::to_string(seconds_up(worker.deadline - at)) + " s";
    }
    lines.push_back({ranges.text(), ranges.count, RankState::running, std::move(reason)});
  }
  for (const auto& [id, ranges] : ahead) {
    lines.push_back({ranges.text(), ranges.count, RankState::waiting,
                     "next on worker " + workers.at(id).info.name + ", when a cpu there is free"});
  }
  for (const auto& [id, ranges] : slowed) {
    const Worker& worker = workers.at(id);
    lines.push_back({ranges.text(), ranges.count, RankState::running,
                     "on worker " + worker.info.name + ", which is " +
                         (worker.paused ? "paused: its ranks are frozen until `pesc resume " +
                                              worker.info.name + "`"
                                        : "busy: " + worker.info.busy)});
  }
  for (const auto& [reason, ranges] : troubled) {
    lines.push_back({ranges.text(), ranges.count, RankState::running, reason});
  }
}

}  // namespace pesc::coordinator
