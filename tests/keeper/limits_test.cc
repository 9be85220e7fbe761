// What holds a rank to its limits is really in force, whichever it is that is found here.
#include <gmock/gmock.h>
#include <sys/vfs.h>

#include <algorithm>
#include <thread>

#include "harness.h"
#include "runtime/worker/containment/containment.h"

namespace pesc::worker {
namespace {

using containment::Mode;
using ::testing::HasSubstr;

constexpr uint64_t kMiB = 1 << 20;

class KeeperLimits : public KeeperTest, public ::testing::WithParamInterface<Mode> {
 protected:
  KeeperLimits() { ::chmod(directory.path().c_str(), 0755); }
  std::unique_ptr<Kept> keep() {
    return std::make_unique<Kept>(directory.path(), true, std::filesystem::path(), 0, GetParam());
  }
  // What can be had here, as `pesc doctor` says it.
  static containment::Features features() {
    return containment::Containment(GetParam()).features();
  }
  LaunchRequest act_within(const std::string& name, std::vector<std::string> arguments,
                           uint32_t rank = 0) {
    LaunchRequest request = act(name, std::move(arguments), rank);
    request.grace_ms = 0;
    return request;
  }
};

INSTANTIATE_TEST_SUITE_P(Modes, KeeperLimits,
                         ::testing::Values(Mode::automatic, Mode::cgroup2, Mode::cgroup1,
                                           Mode::none),
                         [](const auto& info) {
                           return std::string(containment::to_string(info.param));
                         });

TEST_P(KeeperLimits, TheKeeperFindsWhatIsFoundHere) {
  auto kept = keep();
  kept->until([&] { return kept->welcome.has_value(); });
  EXPECT_EQ(kept->contained_by, containment::Containment(GetParam()).description());
}

TEST_P(KeeperLimits, WhatTakesMoreMemoryIsEndedAndNothingElse) {
  auto kept = keep();
  const std::string fifo = make_fifo();
  const LaunchRequest neighbour = act("exit_on_term", {fifo}, 1);
  kept->keeper->start(neighbour);
  kept->wait_ready(neighbour.key, fifo);
  LaunchRequest hungry = act_within("allocate_and_stay", {"256"});
  hungry.memory_limit_bytes = 64 * kMiB;
  kept->keeper->start(hungry);
  const KeptExit exit = kept->wait_exit(hungry.key);
  EXPECT_EQ(exit.outcome.reason, EndReason::out_of_memory) << exit.outcome.detail;
  EXPECT_EQ(exit.outcome.signal, SIGKILL);
  EXPECT_THAT(exit.outcome.detail, HasSubstr("limit of 64.0 MiB"));
  if (features().memory != 0) {
    // Libraries are somebody else's, and so is a sanitizer's runtime.
    EXPECT_LE(exit.outcome.max_rss_bytes, 96 * kMiB);
    EXPECT_THAT(exit.outcome.detail, HasSubstr("the kernel killed"));
  }
  EXPECT_FALSE(kept->exits.contains(neighbour.key));
  kept->keeper->stop(neighbour.key, EndReason::vacated, 60'000);
  EXPECT_EQ(kept->wait_exit(neighbour.key).outcome.exit_code, 0) << "it was there to handle it";
  EXPECT_FALSE(kept->lost.has_value());
}

TEST_P(KeeperLimits, AChildThatTakesTooMuchEndsTheRank) {
  auto kept = keep();
  LaunchRequest hungry = act_within("allocate_in_a_child", {"256"});
  hungry.memory_limit_bytes = 64 * kMiB;
  kept->keeper->start(hungry);
  const AttemptOutcome outcome = kept->wait_exit(hungry.key).outcome;
  // Where the kernel only ends the child, before it is looked at: that is the rank's end as well.
  EXPECT_EQ(outcome.reason, EndReason::out_of_memory) << outcome.detail;
}

TEST_P(KeeperLimits, WithinItsLimitItIsLeftAlone) {
  auto kept = keep();
  LaunchRequest modest = act_within("allocate", {"48"});
  modest.memory_limit_bytes = 256 * kMiB;
  modest.cpus_milli = 1000;
  modest.process_limit = 64;
  kept->keeper->start(modest);
  const AttemptOutcome outcome = kept->wait_exit(modest.key).outcome;
  EXPECT_EQ(outcome.reason, EndReason::succeeded) << outcome.detail;
  EXPECT_GE(outcome.max_rss_bytes, 48 * kMiB);
  EXPECT_LE(outcome.max_rss_bytes, 256 * kMiB);
}

TEST_P(KeeperLimits, ThePeakIsTheWholeTreesAtOneTime) {
  auto kept = keep();
  LaunchRequest family = act_within("allocate_in_children", {"3", "40"});
  family.memory_limit_bytes = 1024 * kMiB;
  kept->keeper->start(family);
  const AttemptOutcome outcome = kept->wait_exit(family.key).outcome;
  EXPECT_EQ(outcome.reason, EndReason::succeeded) << outcome.detail;
  EXPECT_GE(outcome.max_rss_bytes, 120 * kMiB);
  EXPECT_LE(outcome.max_rss_bytes, 320 * kMiB);
}

TEST_P(KeeperLimits, EightThreadsOnOneCpuTakeOneCpu) {
  auto kept = keep();
  LaunchRequest greedy = act_within("spin", {"8", "2000"});
  greedy.cpus_milli = 1000;
  kept->keeper->start(greedy);
  const KeptExit exit = kept->wait_exit(greedy.key);
  EXPECT_EQ(exit.outcome.reason, EndReason::succeeded) << exit.outcome.detail;
  EXPECT_LE(std::stod(exit.standard_output), 1.2);
  EXPECT_LE(exit.outcome.cpu_ms, exit.outcome.duration_ms * 12 / 10);
  EXPECT_GE(exit.outcome.cpu_ms, 50u) << "and it is measured";
}

TEST_P(KeeperLimits, AThrottledOneTakesATenthAndItsTimeCountsAsLess) {
  auto kept = keep();
  LaunchRequest start = act_within("spin", {"2", "2000"});
  start.cpus_milli = 1000;
  kept->keeper->start(start);
  kept->wait_started(start.key);
  kept->keeper->throttle(start.key, 10);
  const KeptExit exit = kept->wait_exit(start.key);
  EXPECT_LE(std::stod(exit.standard_output), 0.4);
  EXPECT_LE(exit.outcome.duration_ms, 1'000u);
}

TEST_P(KeeperLimits, AThrottleThatIsTakenBackIsGone) {
  auto kept = keep();
  LaunchRequest start = act_within("spin", {"1", "1500"});
  kept->keeper->start(start);
  kept->wait_started(start.key);
  kept->keeper->throttle(start.key, 10);
  kept->keeper->throttle(start.key, 100);
  kept->read_output(start.key);
  const KeptExit exit = kept->wait_exit(start.key);
  EXPECT_GE(exit.outcome.duration_ms, 1'400u);
}

TEST_P(KeeperLimits, AForkBombIsHeld) {
  auto kept = keep();
  LaunchRequest bomb = act_within("multiply", {"1500"});
  bomb.process_limit = 40;
  if (::geteuid() == 0) {
    // A user that has no other processes, and may not come into every directory this is built in.
    namespace fs = std::filesystem;
    fs::permissions(directory.path(), fs::perms(0711));
    bomb.argv[0] = directory.path() / "bomb";
    fs::copy_file(own_program(), bomb.argv[0]);
    fs::permissions(bomb.argv[0], fs::perms(0755));
    bomb.working_directory = "/";
    bomb.run_as = true;
    bomb.uid = bomb.gid = 1'000'000 + static_cast<uint32_t>(::getpid());
  }
  kept->keeper->start(bomb);
  const KeptExit exit = kept->wait_exit(bomb.key);
  if (exit.outcome.reason == EndReason::succeeded) {
    const int made = std::stoi(exit.standard_output);
    EXPECT_GE(made, 10);
    EXPECT_LE(made, features().processes != 0
                        ? 40
                        : 40 * static_cast<int>(std::thread::hardware_concurrency()));
    EXPECT_EQ(exit.outcome.detail.find("outlived") != std::string::npos, true);
  } else {
    EXPECT_EQ(features().processes, 0);
    EXPECT_NE(::geteuid(), 0u);
    EXPECT_EQ(exit.outcome.reason, EndReason::signal);
    EXPECT_THAT(exit.outcome.detail, HasSubstr("more than 40 processes"));
  }
}

TEST_P(KeeperLimits, AFrozenOneIsEndedWithoutAThaw) {
  auto kept = keep();
  const std::string fifo = make_fifo();
  const LaunchRequest start = act("ignore_term", {fifo});
  kept->keeper->start(start);
  const pid_t pid = kept->wait_ready(start.key, fifo);
  kept->keeper->freeze(start.key, true);
  kept->read_output(start.key);
  kept->keeper->stop(start.key, EndReason::cancelled, 0);
  EXPECT_EQ(kept->wait_exit(start.key).outcome.reason, EndReason::cancelled);
  EXPECT_TRUE(is_gone(pid));
}

TEST_P(KeeperLimits, AFrozenOneDoesNothing) {
  auto kept = keep();
  LaunchRequest start = act_within("spin", {"1", "300"});
  kept->keeper->start(start);
  kept->wait_started(start.key);
  kept->keeper->freeze(start.key, true);
  // Another attempt's end tells that time has passed.
  LaunchRequest other = act_within("spin", {"1", "1500"}, 1);
  kept->keeper->start(other);
  EXPECT_EQ(kept->wait_exit(other.key).outcome.reason, EndReason::succeeded);
  EXPECT_FALSE(kept->exits.contains(start.key));
  kept->keeper->freeze(start.key, false);
  const KeptExit exit = kept->wait_exit(start.key);
  EXPECT_EQ(exit.outcome.reason, EndReason::succeeded);
  EXPECT_LT(exit.outcome.duration_ms, 1'000u);
}

TEST_P(KeeperLimits, TheIdleClassReachesTheProgram) {
  auto kept = keep();
  LaunchRequest start = act_within("priority", {});
  start.idle_priority = true;
  kept->keeper->start(start);
  EXPECT_EQ(kept->wait_exit(start.key).standard_output, "policy:5 io:3");
}

TEST_P(KeeperLimits, WhatIsWrittenToADiskIsCounted) {
  struct statfs file_system {};
  ASSERT_EQ(::statfs(directory.path().c_str(), &file_system), 0);
  constexpr long kTmpfs = 0x01021994;
  auto kept = keep();
  LaunchRequest start = act_within("write_disk", {(directory.path() / "file").string(), "8"});
  kept->keeper->start(start);
  const AttemptOutcome outcome = kept->wait_exit(start.key).outcome;
  EXPECT_EQ(outcome.exit_code, 0);
  EXPECT_GE(outcome.written_bytes, file_system.f_type == kTmpfs ? 0 : 8 * kMiB);
}

// Keeper and shim are killed at the same moment: what the program had started, in a session of its
// own, knows of neither.
TEST_P(KeeperLimits, WhatAKilledKeeperLeftIsEndedByTheNext) {
  const std::string fifo = make_fifo();
  const LaunchRequest start = act("leave_daemon", {fifo});
  pid_t daemon = 0;
  {
    auto kept = keep();
    kept->keeper->start(start);
    const pid_t pid = kept->wait_ready(start.key, fifo);
    daemon = std::stoi(kept->read_output(start.key).data);
    const pid_t shim = parent_of(pid), keeper = parent_of(shim);
    ProcessWatch keeper_watch(keeper), shim_watch(shim);
    ::kill(shim, SIGSTOP);
    ::kill(keeper, SIGKILL);
    ::kill(shim, SIGKILL);
    kept->until([&] { return kept->lost.has_value(); });
    ASSERT_TRUE(keeper_watch.wait() && shim_watch.wait());
  }
  ProcessWatch daemon_watch(daemon);
  EXPECT_FALSE(is_gone(daemon)) << "nobody has noticed yet";
  auto next = keep();
  next->until([&] { return next->welcome.has_value(); });
  if (features().freeze == 0 && features().kill == 0) {
    // Only a cgroup guarantees it, as `pesc doctor` says.
    ::kill(daemon, SIGKILL);
  }
  EXPECT_TRUE(daemon_watch.wait());
}

TEST_P(KeeperLimits, ManyShortOnesLeaveNothingBehind) {
  auto kept = keep();
  constexpr uint32_t kMany = 200;
  for (uint32_t rank = 0; rank < kMany; ++rank) {
    LaunchRequest start = request({"true"}, rank);
    start.memory_limit_bytes = (rank % 3) * 64 * kMiB;
    start.cpus_milli = 500 + 500 * (rank % 2);
    start.process_limit = 64;
    kept->keeper->start(start);
  }
  for (uint32_t rank = 0; rank < kMany; ++rank) {
    const KeptExit exit = kept->wait_exit({{42}, rank, 1});
    ASSERT_EQ(exit.outcome.reason, EndReason::succeeded) << exit.outcome.detail;
  }
  const std::string described = kept->contained_by;
  kept->keeper->shutdown(0);
  kept->until([&] { return kept->lost.has_value(); });
  EXPECT_THAT(described, HasSubstr("memory="));
}

}  // namespace
}  // namespace pesc::worker
