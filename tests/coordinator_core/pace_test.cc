// Second attempts of ranks on slow workers: an idle faster one ends them sooner, though it begins
// now.
#include "tests/coordinator_core/harness.h"

namespace pesc::coordinator {
namespace {

using ::testing::IsEmpty;

constexpr TimeMs kSlowMs = 100'000, kFastMs = 20'000;

// Ranks take 100 s on worker 1, which has one cpu, and 20 s on worker 2, which has four. Plays on
// until the first second attempt is leased, or the job is done.
struct Second {
  AttemptLeased lease;
  TimeMs left_ms = 0;  // of the first attempt
};
std::vector<Second> play(Harness& h, const JobSpec& spec) {
  h.attach(1, worker_info(1, 1));
  h.attach(2, worker_info(2, 4));
  h.submit(1, spec).IgnoreError();
  std::map<AttemptKey, TimeMs> begun;
  std::vector<Second> seconds;
  while (h.now < 5'000'000 && h.view(1).counts.succeeded < spec.repetitions) {
    h.at(h.now + 1'000);
    const auto look = [&] {
      for (const AttemptLeased& leased : h.records<AttemptLeased>()) {
        if (!leased.second) continue;
        const TimeMs began = begun.at({leased.key.job, leased.key.rank, 1});
        seconds.push_back({leased, began + kSlowMs - h.now});
      }
    };
    look();
    for (uint64_t worker : {1, 2}) {
      for (const AttemptKey& key : h.held(worker)) {
        const TimeMs began = begun.try_emplace(key, h.now).first->second;
        const TimeMs takes = worker == 1 ? kSlowMs : kFastMs;
        if (h.now - began < takes) continue;
        h.end(worker, key, EndReason::succeeded, uint64_t(takes));
        look();
      }
      h.report(worker, h.held(worker));
      look();
    }
    if (!seconds.empty()) break;
  }
  return seconds;
}

TEST(Pace, ARankOnASlowWorkerIsTriedOnAnIdleFasterOneWhenThatGainsClearly) {
  uint32_t tried = 0;
  for (uint32_t ranks = 108; ranks < 130; ++ranks) {
    Harness h;
    for (const Second& second : play(h, spec_of(ranks))) {
      EXPECT_EQ(second.lease.worker, worker_id(2));
      EXPECT_EQ(h.view(1).counts.waiting, 0u);
      EXPECT_GE(second.left_ms, kFastMs * 5 / 4 - 1'000) << ranks << " ranks";
      ++tried;
    }
  }
  EXPECT_GT(tried, 10u);
  EXPECT_LT(tried, 22u) << "where the slow one is about to end, nothing is gained";
}

TEST(Pace, NotWhereNobodyWantsSecondAttempts) {
  Harness h;
  JobSpec spec = spec_of(108);
  spec.second_attempts = false;
  EXPECT_THAT(play(h, spec), IsEmpty());
}

}  // namespace
}  // namespace pesc::coordinator
