// A machine's keeper and the processes it is parent of: they run on while the worker's daemon is
// away, and their ends are kept until they are forgotten.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tests/sim/play.h"
#include "tests/sim/programs.h"

namespace pesc::sim {

struct Kept {
  std::shared_ptr<const JobSpec> spec;
  bool running = true;
  uint64_t process = 0;  // tells a planned end that another has overtaken
  AttemptOutcome outcome;
  TimeMs started = 0, begins_with_ms = 0;
  worker::Grant grant;
  uint64_t memory_bytes = 0, gpu_bytes = 0;  // what it comes to use
  bool corrupts = false;                     // all it saves from now on
  std::optional<Save> saved;                 // what its checkpoint_dir holds
};

class Keeper {
 public:
  Keeper(Play& play, const WorkerPlan& plan) : gpus(plan.gpus), play_(play), plan_(plan) {}

  // Not called while the daemon is away.
  std::function<void(const AttemptKey&, int64_t unix_ms)> on_started;
  std::function<void(const AttemptKey&, const AttemptOutcome&)> on_exited;
  std::function<void(const AttemptKey&, double fraction)> on_progress;
  std::function<void(const AttemptKey&)> on_marked;

  void start(const worker::Start& action, const std::optional<Save>& from);
  void stop(const AttemptKey& key, EndReason reason, uint64_t grace_ms, bool unless_begun);
  // The daemon is gone: what it gave ahead was never there.
  void forget_next() { next_.clear(); }
  void forget(const AttemptKey& key) { kept_.erase(key); }
  void lose_all();
  const std::map<AttemptKey, Kept>& kept() const { return kept_; }
  const Kept* find(const AttemptKey& key) const;
  TimeMs ran_ms(const Kept& kept) const;
  std::vector<AttemptKey> running() const;
  // The machine's, as they are now.
  std::vector<Gpu> gpus;
  // It is in trouble: some of what runs there fails.
  void fail_on_gpu(const std::string& uuid);

 private:
  struct Fate {
    TimeMs takes = 0;
    EndReason reason = EndReason::succeeded;
    bool hangs = false;
  };
  bool dies_at_once(const AttemptKey& key, Kept& kept, const JobPlan& job,
                    const std::optional<Save>& from);
  Fate draw(const AttemptKey& key, const Kept& kept, const JobPlan& job);
  // It needs more than it was given, or than there is.
  void outgrow(const AttemptKey& key, Kept& kept, Fate& fate);
  EndReason try_gpus(const AttemptKey& key, const Kept& kept) const;
  void measure(const Kept& kept, AttemptOutcome& outcome) const;
  void plan_saves(const AttemptKey& key, uint64_t process, const JobPlan& job, TimeMs until);
  void save(const AttemptKey& key, Kept& kept, const JobPlan& job);
  void plan_end(const AttemptKey& key, Kept& kept, TimeMs after_ms, AttemptOutcome outcome,
                bool saves = false);
  void end(const AttemptKey& key, uint64_t process, AttemptOutcome outcome, bool saves);
  uint32_t used_milli() const;
  void begin(const worker::Start& action, const std::optional<Save>& from);
  bool must_wait(const worker::Start& action) const;
  void begin_next();

  Play& play_;
  const WorkerPlan& plan_;
  uint64_t last_process_ = 0;
  std::map<AttemptKey, Kept> kept_;
  std::vector<std::pair<worker::Start, std::optional<Save>>> next_;  // begins when another ends
};

}  // namespace pesc::sim
