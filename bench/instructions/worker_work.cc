#include "bench/instructions/work.h"

#include <cstdio>
#include <cstdlib>
#include <deque>
#include <memory>
#include <variant>

#include "runtime/worker/core/core.h"

namespace pesc::bench {
namespace {

using namespace pesc::worker;

constexpr uint32_t kLeasedAtOnce = 8;

// The shell's part, without a shell: whatever is asked for has been done by the next event.
class Machine {
 public:
  Machine() : core_(config()) {}

  uint64_t run(uint32_t attempts) {
    auto spec = std::make_shared<JobSpec>();
    spec->name = spec->program = "work";
    spec->repetitions = attempts;
    step(Connected{});
    for (uint32_t rank = 0; rank < attempts;) {
      UpdateReceived update;
      update.number = ++updates_;
      for (uint32_t i = 0; i < kLeasedAtOnce && rank < attempts; ++i, ++rank) {
        update.leases.push_back({{JobId{77}, rank, 1}, spec, {}, false, 0, 1, {}});
      }
      step(update);
      while (!todo_.empty()) {
        const Event event = std::move(todo_.front());
        todo_.pop_front();
        step(event);
      }
    }
    if (!core_.holding().empty() || forgotten_ != attempts) {
      std::fprintf(stderr, "the core has not brought its attempts to an end\n");
      std::exit(1);
    }
    return actions_;
  }

 private:
  static CoreConfig config() {
    CoreConfig config;
    config.cpus_milli = 4000;
    return config;
  }

  void step(const Event& event) {
    now_ += 1;
    for (const Step& step = core_.step(event, now_); const Action& action : step.actions) {
      ++actions_;
      std::visit([this](const auto& one) { perform(one); }, action);
    }
  }

  void perform(const Prepare& action) { todo_.push_back(Prepared{action.key}); }
  void perform(const Start& action) {
    todo_.push_back(Started{action.key, 1'700'000'000'000 + now_});
    AttemptOutcome outcome;
    outcome.duration_ms = 5;
    todo_.push_back(Exited{action.key, outcome});
  }
  void perform(const Pack& action) {
    BlobRef output;
    output.digest.bytes[0] = 1;
    output.size_bytes = 4096;
    todo_.push_back(Packed{action.key, output, {}});
  }
  void perform(const SendReport& action) {
    if (action.finished.empty()) return;
    Acknowledged answer;
    for (const auto& finished : action.finished) answer.keys.push_back(finished.key);
    todo_.push_back(std::move(answer));
  }
  void perform(const Forget&) { ++forgotten_; }
  template <typename Other>
  void perform(const Other&) {}

  Core core_;
  TimeMs now_ = 1000;
  uint64_t updates_ = 0, actions_ = 0;
  uint32_t forgotten_ = 0;
  std::deque<Event> todo_;
};

}  // namespace

uint64_t worker_work(uint32_t attempts) { return Machine().run(attempts); }

}  // namespace pesc::bench
