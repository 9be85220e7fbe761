// What a worker was told to stop, or was silent about for too long, may run on there for a while,
// and takes what it was given until it has ended. Not durable: after a restart it is not known what
// such attempts take, and a worker that has one gets nothing until it is gone.
#include <algorithm>
#include <utility>

#include "runtime/coordinator/core/state.h"

namespace pesc::coordinator {

// Its lease is over, and its worker has not said that it has ended.
void Core::State::note_ending(Worker& worker, const AttemptKey& key, const Lease& lease,
                              const Resources& asked) {
  if (restoring || bug == PlantedBug::revoked_takes_nothing || reporting == key) return;
  if (!worker.ending.try_emplace(key, Ending{lease.claim, asked, lease.update, true}).second)
    return;
  add_use(worker.capacity(), worker.use, lease.claim, asked);
}

// It is held, nobody here wants it, and what it takes is not known.
void Core::State::note_unsized(Worker& worker, const AttemptKey& key) {
  if (bug == PlantedBug::revoked_takes_nothing) return;
  if (!worker.ending.try_emplace(key, Ending{}).second) return;
  ++worker.unsized;
  reindex(worker);
}

void Core::State::forget_ending(Worker& worker, const AttemptKey& key) {
  const auto it = worker.ending.find(key);
  if (it == worker.ending.end()) return;
  const Ending ending = std::move(it->second);
  worker.ending.erase(it);
  if (ending.sized) {
    drop_use(worker.capacity(), worker.use, ending.claim, ending.asked);
  } else {
    --worker.unsized;
  }
  reindex(worker);
  if (worker.indexed) unblock(worker);
}

// After all that it holds was looked at. What it has not got the stop of may yet begin there.
void Core::State::forget_ended(Worker& worker, const std::vector<AttemptKey>& holding,
                               uint64_t last_update) {
  std::vector<AttemptKey> gone;
  for (auto& [key, ending] : worker.ending) {
    if (last_update == UINT64_MAX) ending.update = 0;  // it attaches: updates count anew
    const bool held = std::binary_search(holding.begin(), holding.end(), key);
    if (!held && ending.update <= last_update) gone.push_back(key);
  }
  for (const AttemptKey& key : gone) forget_ending(worker, key);
}

}  // namespace pesc::coordinator
