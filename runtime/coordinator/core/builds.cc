// Jobs whose program the workers build. A worker where that fails may lack what another one has: so
// none of the job goes there any more, and others try; until it has failed wherever it could run.
#include <algorithm>

#include "runtime/coordinator/core/state.h"

namespace pesc::coordinator {
namespace {

// Sources that are wrong are wrong everywhere: after so many workers nobody expects better of the
// next.
constexpr size_t kMaxFailedBuilds = 8;
constexpr size_t kMaxNamed = 5;
constexpr size_t kMaxLook = 1000;  // active ranks
constexpr size_t kMaxDetail = 1000;

}  // namespace

// Why the job ends with this failure; nothing: it goes on, elsewhere. The failure is not in the
// job's state yet.
std::optional<std::string> Core::State::cannot_be_built(const Job& job, const AttemptKey& key,
                                                        const AttemptOutcome& outcome) const {
  if (outcome.reason != EndReason::build_failed || job.stopped) return std::nullopt;
  const std::vector<OpenAttempt>& open = job.active.at(key.rank).open;
  const auto own = std::find_if(open.begin(), open.end(),
                                [&](const OpenAttempt& o) { return o.attempt == key.attempt; });
  if (own == open.end()) return std::nullopt;
  std::set<WorkerId> failed = job.build_failed_on;
  failed.insert(own->worker);
  if (job.built && others_may_build(job, failed)) return std::nullopt;
  if (job.built || failed.size() < kMaxFailedBuilds) {
    const bool hope = job.gang ? !plan_on_empty_workers(job, true, own->worker).empty()
                               : another_could_take(job, own->worker);
    if (hope) return std::nullopt;
    size_t looked = 0;
    for (const auto& [rank, active] : job.active) {
      if (job.gang || ++looked > kMaxLook) break;
      for (const OpenAttempt& other : active.open) {
        if (!failed.contains(other.worker)) return std::nullopt;  // it may be building there
      }
    }
  }
  std::string names;
  size_t named = 0;
  for (WorkerId id : failed) {
    if (named == kMaxNamed) {
      names += " and " + std::to_string(failed.size() - named) + " more";
      break;
    }
    names += (named++ == 0 ? "" : ", ") + workers.at(id).info.name;
  }
  return bounded("the build failed on " +
                     (failed.size() == 1 ? names : "every worker that was tried (" + names + ")") +
                     ": " + outcome.detail + "; `pesc logs " + to_string(job.id) +
                     " --build` shows its log",
                 kMaxDetail);
}

// Some worker known, there or not, that has not failed yet. Where it was built it can run: such a
// job waits.
bool Core::State::others_may_build(const Job& job, const std::set<WorkerId>& failed) const {
  const Need need = need_of(job);
  return std::any_of(workers.begin(), workers.end(), [&](const auto& entry) {
    const WorkerInfo& info = entry.second.info;
    if (failed.contains(entry.first)) return false;
    if (!job.spec->room.empty() && job.spec->room != info.room) return false;
    if (info.cpus_milli == 0) return true;  // not seen since the coordinator started
    return need.cpus_milli <= info.cpus_milli && could_hold(entry.second, need);
  });
}

// Durable: part of an attempt's end.
void Core::State::note_build(Job& job, const AttemptOutcome& outcome, WorkerId worker) {
  if (job.spec->build.empty()) return;
  if (outcome.started_unix_ms != 0) job.built = true;
  if (outcome.reason != EndReason::build_failed) return;
  if (job.build_failed_on.insert(worker).second) dequeue(job);  // it waits for others now
}

}  // namespace pesc::coordinator
