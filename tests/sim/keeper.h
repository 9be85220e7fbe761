// A machine's keeper and the processes it is parent of: they run on while the worker's daemon is
// away, and their ends are kept until they are forgotten.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>

#include "tests/sim/play.h"

namespace pesc::sim {

struct Kept {
  std::shared_ptr<const JobSpec> spec;
  bool running = true;
  uint64_t process = 0;  // tells a planned end that another has overtaken
  AttemptOutcome outcome;
};

class Keeper {
 public:
  Keeper(Play& play, const WorkerPlan& plan) : play_(play), plan_(plan) {}

  // Not called while the daemon is away.
  std::function<void(const AttemptKey&, int64_t unix_ms)> on_started;
  std::function<void(const AttemptKey&, const AttemptOutcome&)> on_exited;
  std::function<void(const AttemptKey&, double fraction)> on_progress;

  void start(const AttemptKey& key, const std::shared_ptr<const JobSpec>& spec);
  void stop(const AttemptKey& key, EndReason reason, uint64_t grace_ms);
  void forget(const AttemptKey& key) { kept_.erase(key); }
  void lose_all() { kept_.clear(); }
  const std::map<AttemptKey, Kept>& kept() const { return kept_; }

 private:
  void plan_end(const AttemptKey& key, Kept& kept, TimeMs after_ms, AttemptOutcome outcome);
  uint32_t used_milli() const;

  Play& play_;
  const WorkerPlan& plan_;
  uint64_t last_process_ = 0;
  std::map<AttemptKey, Kept> kept_;
};

}  // namespace pesc::sim
