// A worker core under test: every step is followed by the check of its invariants.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "runtime/worker/core/core.h"

namespace pesc::worker {

inline AttemptKey key_of(uint32_t rank, uint32_t attempt = 1) { return {JobId{7}, rank, attempt}; }

inline std::shared_ptr<const JobSpec> spec_of(uint32_t cpus_milli = 1000) {
  auto spec = std::make_shared<JobSpec>();
  spec->program = "true";
  spec->repetitions = 100;
  spec->resources.cpus_milli = cpus_milli;
  spec->grace_ms = 1234;
  return spec;
}

inline AttemptOutcome outcome_of(EndReason reason = EndReason::succeeded) {
  AttemptOutcome outcome;
  outcome.reason = reason;
  outcome.duration_ms = 5'000;
  return outcome;
}

inline BlobRef blob_of(uint64_t size_bytes) {
  return {sha256("blob of " + std::to_string(size_bytes)), size_bytes};
}

class Machine {
 public:
  explicit Machine(CoreConfig config = {.cpus_milli = 2000}) : core(config) {}

  // Returns the actions; they are also kept in `last`.
  const std::vector<Action>& operator()(const Event& event) {
    last = core.step(event, now).actions;
    EXPECT_EQ(core.check_invariants(), "");
    return last;
  }
  template <class T>
  std::vector<T> got() const {
    std::vector<T> found;
    for (const Action& action : last) {
      if (const T* one = std::get_if<T>(&action)) found.push_back(*one);
    }
    return found;
  }
  template <class T>
  std::vector<AttemptKey> keys() const {
    std::vector<AttemptKey> found;
    for (const T& one : got<T>()) found.push_back(one.key);
    return found;
  }
  // The ended attempts that the last step's reports carry.
  std::vector<SendReport::Finished> reported() const {
    std::vector<SendReport::Finished> found;
    for (const SendReport& report : got<SendReport>()) {
      found.insert(found.end(), report.finished.begin(), report.finished.end());
    }
    return found;
  }
  AttemptState state(const AttemptKey& key) const {
    for (const AttemptView& view : core.attempts()) {
      if (view.key == key) return view.state;
    }
    ADD_FAILURE() << to_string(key) << " is not held";
    return AttemptState::finished;
  }
  bool holds(const AttemptKey& key) const {
    for (const AttemptKey& held : core.holding()) {
      if (held == key) return true;
    }
    return false;
  }
  void lease(std::vector<AttemptKey> keys, uint32_t cpus_milli = 1000) {
    UpdateReceived update{.number = ++number};
    for (const AttemptKey& key : keys) update.leases.push_back({key, spec_of(cpus_milli)});
    (*this)(update);
  }
  void stop(AttemptKey key, EndReason reason) { (*this)(UpdateReceived{0, {}, {{key, reason}}}); }
  void run(AttemptKey key) {
    lease({key});
    (*this)(Prepared{key});
    (*this)(Started{key, 1});
  }
  void end(AttemptKey key, BlobRef output = {}) {
    (*this)(Exited{key, outcome_of()});
    (*this)(Packed{key, output, {}});
  }
  void wait(TimeMs ms) {
    now += ms;
    (*this)(TimerFired{});
  }

  Core core;
  TimeMs now = 1'000'000;
  uint64_t number = 0;
  std::vector<Action> last;
};

}  // namespace pesc::worker
