#include "runtime/worker/owner/policy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace pesc::worker::owner {
namespace {

using testing::HasSubstr;

constexpr uint32_t kDay = 24 * 60;

Config watching() {
  Config config;
  config.watching = true;
  return config;
}

// A policy over a clock of the test's.
struct Machine {
  explicit Machine(Config config) : policy(std::move(config)) {}

  const Verdict& after(TimeMs ms, const Sample& sample) {
    now += ms;
    return policy.step(sample, now);
  }
  // The same for so long, looked at twice a second.
  const Verdict& during(TimeMs ms, const Sample& sample) {
    for (TimeMs passed = 0; passed < ms; passed += 500) after(500, sample);
    return policy.verdict();
  }

  Policy policy;
  TimeMs now = 1'000'000;
};

Sample load(double cpu_others, double memory = 20) {
  Sample sample;
  sample.cpu_others = cpu_others;
  sample.cpu_all = 100;
  sample.memory = memory;
  return sample;
}

Sample somebody(uint64_t idle_ms = 0, const std::string& user = "ana") {
  Sample sample;
  sample.people = {{user, "tty2", idle_ms}};
  return sample;
}

Sample said(CommandVerdict verdict) {
  Sample sample;
  sample.command = verdict;
  if (verdict == CommandVerdict::failed) sample.command_error = "it ended with exit code 3";
  return sample;
}

// ---- load ---------------------------------------------------------------------------------------

TEST(OwnerLoad, AboveTheLimitNoNewRanksAndThoseThatRunRunOn) {
  Machine m(watching());
  EXPECT_EQ(m.during(10'000, load(50)), Verdict{});
  const Verdict& busy = m.during(10'000, load(90));
  EXPECT_EQ(busy.busy, "others have its processors more than 70 % in use");
  EXPECT_EQ(busy.mode, Mode::run);
}

TEST(OwnerLoad, AMomentsBurstIsNoReason) {
  Machine m(watching());
  m.during(10'000, load(10));
  EXPECT_EQ(m.after(500, load(100)), Verdict{});
  EXPECT_EQ(m.during(5'000, load(10)), Verdict{});
}

TEST(OwnerLoad, DoesNotFlapAroundTheLimit) {
  Machine m(watching());
  m.during(10'000, load(72));
  int changes = 0;
  std::string last = m.policy.verdict().busy;
  ASSERT_NE(last, "");
  for (int i = 0; i < 1'000; ++i) {
    const std::string& now = m.during(3'000, load(i % 2 == 0 ? 67 : 73)).busy;
    changes += now != last;
    last = now;
  }
  EXPECT_EQ(changes, 0);
  EXPECT_EQ(m.during(12'000, load(40)).busy, last) << "not before it has been well for a while";
  EXPECT_EQ(m.during(20'000, load(40)), Verdict{});
}

TEST(OwnerLoad, PescsOwnRanksCountOnlyWhereTheyAreToldTo) {
  Config config = watching();
  Machine others(config);
  EXPECT_EQ(others.during(20'000, load(5)), Verdict{}) << "the machine is at 100 %, by ranks";
  config.cpu_counts = CpuCounts::all;
  Machine all(config);
  EXPECT_EQ(all.during(20'000, load(5)).busy, "its processors are more than 70 % in use");
}

TEST(OwnerLoad, ALimitOf100IsNone) {
  Config config = watching();
  config.cpu_limit = config.memory_limit = config.gpu_memory_limit = 100;
  Machine m(config);
  Sample sample = load(100, 100);
  sample.gpus = {{"GPU-1", 100}};
  EXPECT_EQ(m.during(20'000, sample), Verdict{});
}

TEST(OwnerLoad, FullMemoryTakesNoNewRanks) {
  Machine m(watching());
  EXPECT_EQ(m.after(500, load(0, 91)).busy, "its memory is more than 90 % in use");
  EXPECT_NE(m.during(60'000, load(0, 87)).busy, "") << "just below";
  EXPECT_EQ(m.during(20'000, load(0, 80)), Verdict{});
}

TEST(OwnerLoad, WhatIsNotKnownChangesNothing) {
  Machine m(watching());
  EXPECT_EQ(m.during(10'000, Sample{}), Verdict{});
  m.during(10'000, load(95));
  EXPECT_NE(m.during(60'000, Sample{}).busy, "");
}

TEST(OwnerLoad, AGpuThatOthersUseTakesNoNewRanks) {
  Machine m(watching());
  Sample sample;
  sample.gpus = {{"GPU-1", 71}, {"GPU-2", 69}};
  EXPECT_THAT(m.after(500, sample).full_gpus, testing::ElementsAre("GPU-1"));
  EXPECT_EQ(m.policy.verdict().busy, "") << "ranks without a GPU may come";
  sample.gpus = {{"GPU-1", 66}, {"GPU-2", 69}};
  EXPECT_THAT(m.after(500, sample).full_gpus, testing::ElementsAre("GPU-1")) << "just below";
  sample.gpus = {{"GPU-1", 64}};
  EXPECT_THAT(m.after(500, sample).full_gpus, testing::IsEmpty());
}

// ---- people -------------------------------------------------------------------------------------

struct PresenceCase {
  WhenPresent when;
  std::optional<uint64_t> vacate_after_ms;
  Mode at_once, later;
};

TEST(OwnerPresence, DoesWhatTheConfigurationSays) {
  const PresenceCase cases[] = {
      {WhenPresent::throttle, std::nullopt, Mode::throttle, Mode::throttle},
      {WhenPresent::throttle, 60'000, Mode::throttle, Mode::vacate},
      {WhenPresent::freeze, std::nullopt, Mode::freeze, Mode::freeze},
      {WhenPresent::freeze, 60'000, Mode::freeze, Mode::vacate},
      {WhenPresent::vacate, 60'000, Mode::throttle, Mode::vacate},
      {WhenPresent::vacate, 0, Mode::vacate, Mode::vacate},
      {WhenPresent::ignore, 60'000, Mode::run, Mode::run},
  };
  for (const PresenceCase& one : cases) {
    Config config = watching();
    config.when_present = one.when;
    config.vacate_after_ms = one.vacate_after_ms;
    Machine m(config);
    const Verdict& first = m.after(500, somebody());
    EXPECT_EQ(first.mode, one.at_once);
    EXPECT_EQ(first.busy.empty(), one.when == WhenPresent::ignore);
    EXPECT_EQ(first.throttle_percent, one.at_once == Mode::throttle ? 10u : 100u);
    EXPECT_EQ(m.during(59'000, somebody()).mode, one.at_once);
    EXPECT_EQ(m.during(2'000, somebody()).mode, one.later);
  }
}

TEST(OwnerPresence, IsToldWithoutNames) {
  Machine m(watching());
  EXPECT_EQ(m.after(0, somebody()).busy, "its owner is here, its ranks are throttled to 10 %");
  EXPECT_EQ(m.policy.seen(), "ana at tty2") << "for the machine's own log";
}

TEST(OwnerPresence, EndsWhenNothingWasTypedForAWhile) {
  Machine m(watching());
  EXPECT_EQ(m.after(500, somebody(14 * 60'000)).mode, Mode::throttle);
  EXPECT_EQ(m.after(500, somebody(15 * 60'000)).mode, Mode::throttle) << "it may be a moment only";
  EXPECT_EQ(m.during(16'000, somebody(15 * 60'000)), Verdict{});
  EXPECT_EQ(m.after(500, somebody(0)).mode, Mode::throttle) << "back, and at once";
}

TEST(OwnerPresence, ALogoutAndALoginFlapNothing) {
  Machine m(watching());
  m.after(500, somebody());
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(m.during(10'000, Sample{}).mode, Mode::throttle);
    EXPECT_EQ(m.during(1'000, somebody()).mode, Mode::throttle);
  }
  EXPECT_EQ(m.during(16'000, Sample{}), Verdict{});
}

TEST(OwnerPresence, SomeUsersAreNobody) {
  Config config = watching();
  config.ignore_users = {"backup"};
  Machine m(config);
  EXPECT_EQ(m.after(500, somebody(0, "backup")), Verdict{});
  Sample both = somebody(0, "backup");
  both.people.push_back({"ana", "pts/1", 5});
  EXPECT_EQ(m.after(500, both).mode, Mode::throttle);
}

TEST(OwnerPresence, ACommandCanTell) {
  Machine m(watching());
  EXPECT_EQ(m.after(500, said(CommandVerdict::absent)), Verdict{});
  EXPECT_EQ(m.after(500, said(CommandVerdict::present)).mode, Mode::throttle);
  EXPECT_EQ(m.during(16'000, said(CommandVerdict::absent)), Verdict{});
}

// Neither a black hole that nobody can explain, nor a worker that runs over its owner.
TEST(OwnerPresence, ACommandThatFailsBeginsNothingAndSaysSo) {
  Machine m(watching());
  const Verdict& failed = m.after(500, said(CommandVerdict::failed));
  EXPECT_THAT(failed.busy, HasSubstr("presence_command fails: it ended with exit code 3"));
  EXPECT_EQ(failed.mode, Mode::run) << "what it said last holds";
  m.after(500, said(CommandVerdict::present));
  EXPECT_EQ(m.during(60'000, said(CommandVerdict::failed)).mode, Mode::throttle);
}

// ---- hours --------------------------------------------------------------------------------------

TEST(OwnerHours, AreReadAsTheyAreWritten) {
  struct Case {
    const char* text;
    std::vector<Span> spans;
  };
  const Case cases[] = {
      {"Mon 08:00-12:00", {{8 * 60, 12 * 60}}},
      {"mon-tue 19:00-07:00", {{19 * 60, kDay + 7 * 60}, {kDay + 19 * 60, 2 * kDay + 7 * 60}}},
      {"Sat", {{5 * kDay, 6 * kDay}}},
      {"Sun 20:00-06:00", {{6 * kDay + 20 * 60, 6 * 60}}},
      {"Sun,Mon 00:00-24:00", {{0, kDay}, {6 * kDay, 0}}},
      {"Sat-Mon 01:00-02:00",
       {{60, 120}, {5 * kDay + 60, 5 * kDay + 120}, {6 * kDay + 60, 6 * kDay + 120}}},
  };
  for (const Case& one : cases) {
    auto spans = parse_hours(one.text);
    ASSERT_TRUE(spans.ok()) << one.text << ": " << spans.status();
    EXPECT_EQ(*spans, one.spans) << one.text;
  }
  EXPECT_EQ(parse_hours("daily 22:00-06:00")->size(), 7u);
}

TEST(OwnerHours, OfNoWeekAreRefused) {
  for (const char* text :
       {"", "19:00-07:00", "Mon-", "Mon,", "Moon 19:00-07:00", "Mon 7:00-19:00", "Mon 19:00",
        "Mon 24:00-07:00", "Mon 19:60-20:00", "Mon 25:00-26:00", "Mon 08:00-08:00",
        "Mon  08:00-09:00", "Mon 08:00-09:00 x", "Mon–Fri 08:00-09:00"}) {
    auto spans = parse_hours(text);
    ASSERT_FALSE(spans.ok()) << text;
    EXPECT_THAT(std::string(spans.status().message()), HasSubstr("is no time of the week"));
  }
  EXPECT_THAT(std::string(parse_hours("Mon 08:00-08:00").status().message()),
              HasSubstr("00:00-24:00"));
}

// By the clock on the wall: an hour that comes twice, or never, is as long as it is there.
TEST(OwnerHours, HoldAcrossMidnightAndTheWeeksEnd) {
  std::vector<Span> hours = *parse_hours("Fri 19:00-07:00");
  EXPECT_FALSE(within(hours, 4 * kDay + 18 * 60 + 59));
  EXPECT_TRUE(within(hours, 4 * kDay + 19 * 60));
  EXPECT_TRUE(within(hours, 5 * kDay));
  EXPECT_TRUE(within(hours, 5 * kDay + 6 * 60 + 59));
  EXPECT_FALSE(within(hours, 5 * kDay + 7 * 60));
  hours = *parse_hours("Sun 20:00-06:00");
  EXPECT_TRUE(within(hours, 6 * kDay + 23 * 60));
  EXPECT_TRUE(within(hours, 5 * 60));
  EXPECT_FALSE(within(hours, 6 * 60));
  EXPECT_FALSE(within(hours, 3 * kDay));
  EXPECT_TRUE(within(*parse_hours("Sun"), 7 * kDay - 1));
  EXPECT_TRUE(within({}, 0)) << "none are named: always";
}

TEST(OwnerHours, OutsideThemRanksGo) {
  Config config = watching();
  config.hours = *parse_hours("daily 22:00-06:00");
  Machine m(config);
  Sample sample;
  sample.minute_of_week = 23 * 60;
  EXPECT_EQ(m.after(500, sample), Verdict{});
  sample.minute_of_week = kDay + 6 * 60;
  EXPECT_EQ(m.after(500, sample).busy, "outside its hours, its ranks go elsewhere");
  EXPECT_EQ(m.policy.verdict().mode, Mode::vacate);
  config.outside_hours = OutsideHours::freeze;
  Machine frozen(config);
  EXPECT_EQ(frozen.after(500, sample).mode, Mode::freeze);
}

// ---- pausing ------------------------------------------------------------------------------------

TEST(OwnerPause, FreezesWithOrWithoutAWatchedOwner) {
  for (const bool watched : {false, true}) {
    Config config;
    config.watching = watched;
    Machine m(config);
    Sample sample;
    sample.paused_by_order = true;
    EXPECT_EQ(m.after(500, sample).mode, Mode::freeze);
    EXPECT_THAT(m.policy.verdict().busy, HasSubstr("paused by an administrator"));
    sample.paused_by_order = false;
    sample.paused_here = true;
    EXPECT_EQ(m.after(500, sample).mode, Mode::freeze);
    EXPECT_THAT(m.policy.verdict().busy, HasSubstr("pesc-worker --resume"));
    EXPECT_EQ(m.after(500, Sample{}), Verdict{}) << "a person has said so: at once";
  }
}

TEST(OwnerPause, WithoutAWatchedOwnerNothingElseCounts) {
  Machine m{Config{}};
  Sample sample = somebody();
  sample.cpu_others = sample.memory = 100;
  EXPECT_EQ(m.during(20'000, sample), Verdict{});
}

TEST(OwnerPause, TheStrongestOfSeveralReasonsWins) {
  Config config = watching();
  config.hours = *parse_hours("Mon");
  Machine m(config);
  Sample sample = somebody();
  sample.paused_here = true;
  sample.minute_of_week = 3 * kDay;
  const Verdict& verdict = m.after(500, sample);
  EXPECT_EQ(verdict.mode, Mode::vacate);
  EXPECT_EQ(verdict.throttle_percent, 100u);
  EXPECT_THAT(verdict.busy, HasSubstr("paused at the machine itself"));
}

}  // namespace
}  // namespace pesc::worker::owner
