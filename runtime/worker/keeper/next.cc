// Attempts that begin when another of their job ends: a slot is filled again without waiting until
// the worker has heard of the end and has answered. How the worker counts along: core/slots.cc.
#include <algorithm>
#include <iterator>
#include <utility>

#include "runtime/worker/keeper/keeper.h"

namespace pesc::keeper {

bool Keeper::must_wait(const std::shared_ptr<Attempt>& attempt) {
  if (attempt->most_of_job() == 0) return false;
  const auto of_job = jobs_.find(attempt->key().job);
  if (of_job == jobs_.end() || of_job->second.running < attempt->most_of_job()) return false;
  of_job->second.next.push_back(attempt);
  return true;
}

// After the end of one of them was told: the worker must hear of that first.
void Keeper::begin_next(JobId job) {
  for (;;) {
    const auto of_job = jobs_.find(job);
    if (of_job == jobs_.end()) return;
    auto& [running, next] = of_job->second;
    if (next.empty() || running >= next.front()->most_of_job()) return;
    const std::shared_ptr<Attempt> attempt = std::move(next.front());
    next.pop_front();
    begin(attempt);  // its entry may be gone by now
  }
}

bool Keeper::is_waiting(const Attempt& attempt) const {
  const auto of_job = jobs_.find(attempt.key().job);
  if (of_job == jobs_.end()) return false;
  const auto& next = of_job->second.next;
  return std::any_of(next.begin(), next.end(),
                     [&](const auto& waiting) { return waiting.get() == &attempt; });
}

void Keeper::take_back(Attempt& attempt, EndReason reason) {
  std::erase_if(jobs_.at(attempt.key().job).next,
                [&](const auto& waiting) { return waiting.get() == &attempt; });
  attempt.refuse(reason, "stopped before it was started");
}

std::vector<std::shared_ptr<Attempt>> Keeper::take_all_waiting() {
  std::vector<std::shared_ptr<Attempt>> all;
  for (auto& [job, of_job] : jobs_) {
    std::move(of_job.next.begin(), of_job.next.end(), std::back_inserter(all));
    of_job.next.clear();
  }
  return all;
}

// The worker that gave them is gone, and with it what it knew of them: to the next one, and to the
// coordinator, they were never here.
void Keeper::forget_waiting() {
  for (const auto& attempt : take_all_waiting()) {
    --running_;
    attempts_.erase(attempt->key());
  }
}

void Keeper::refuse_waiting(EndReason reason, const std::string& detail) {
  for (const auto& attempt : take_all_waiting()) attempt->refuse(reason, detail);
}

}  // namespace pesc::keeper
