// A shim that has ended its attempt takes the next one, which is as if it had one of its own.
#include <gmock/gmock.h>

#include <algorithm>
#include <set>
#include <thread>
#include <utility>

#include "harness.h"
#include "runtime/worker/keeper/raw_syscalls.h"

namespace pesc::worker {
namespace {

using ::testing::HasSubstr;

constexpr bool kReused = PESC_SHARES_MEMORY != 0;
constexpr uint64_t kMiB = 1 << 20;

class KeeperReuse : public KeeperTest {
 protected:
  // The shim is the program's parent.
  LaunchRequest tell_parent(uint32_t rank) { return request({"sh", "-c", "echo $PPID"}, rank); }
  pid_t parent_in(const KeptExit& exit) {
    EXPECT_EQ(exit.outcome.reason, EndReason::succeeded) << exit.outcome.detail;
    return exit.standard_output.empty() ? 0 : std::stoi(exit.standard_output);
  }
  pid_t run_in(Kept& kept, uint32_t rank) {
    const LaunchRequest start = tell_parent(rank);
    kept.keeper->start(start);
    return parent_in(kept.wait_exit(start.key));
  }
};

TEST_F(KeeperReuse, OneAfterTheOtherHaveTheSameShim) {
  Kept kept(directory.path());
  const pid_t first = run_in(kept, 0);
  EXPECT_EQ(run_in(kept, 1) == first, kReused);
  EXPECT_EQ(run_in(kept, 2) == first, kReused);
}

// Figures and output are the attempt's own, whatever its shim has done before.
TEST_F(KeeperReuse, UsageIsOfTheAttempt) {
  Kept kept(directory.path());
  const pid_t shim = run_in(kept, 0);
  const LaunchRequest large = act("allocate", {"200"}, 1);
  kept.keeper->start(large);
  EXPECT_GE(kept.wait_exit(large.key).outcome.max_rss_bytes, 200 * kMiB);
  const LaunchRequest busy = act("spin", {"1", "300"}, 2);
  kept.keeper->start(busy);
  EXPECT_GE(kept.wait_exit(busy.key).outcome.cpu_ms, 100u);
  const LaunchRequest small = tell_parent(3);
  kept.keeper->start(small);
  const KeptExit exit = kept.wait_exit(small.key);
  EXPECT_EQ(parent_in(exit) == shim, kReused);
  EXPECT_GT(exit.outcome.max_rss_bytes, 0u);
  EXPECT_LT(exit.outcome.max_rss_bytes, 100 * kMiB);
  EXPECT_LT(exit.outcome.cpu_ms, 100u);
  EXPECT_EQ(exit.standard_output, std::to_string(parent_in(exit)) + "\n");
  EXPECT_EQ(exit.standard_error, "");
}

TEST_F(KeeperReuse, WhatAnAttemptLeftIsGoneBeforeTheNext) {
  Kept kept(directory.path());
  const pid_t shim = run_in(kept, 0);
  const LaunchRequest leaves = act("leave_daemon", {}, 1);
  kept.keeper->start(leaves);
  const KeptExit left = kept.wait_exit(leaves.key);
  EXPECT_THAT(left.outcome.detail, HasSubstr("1 process outlived it"));
  const LaunchRequest looks = request({"sh", "-c",
                                       "echo $PPID; test -e /proc/" + left.standard_output +
                                           " && echo the daemon is there; exit 0"},
                                      2);
  kept.keeper->start(looks);
  const KeptExit exit = kept.wait_exit(looks.key);
  EXPECT_EQ(parent_in(exit) == shim, kReused);
  EXPECT_EQ(exit.standard_output, std::to_string(parent_in(exit)) + "\n");
  EXPECT_EQ(exit.outcome.detail, "") << "no survivors of its own";
}

TEST_F(KeeperReuse, ProgramsInheritNothingOfIt) {
  Kept kept(directory.path());
  run_in(kept, 0);
  const LaunchRequest lists = act("descriptors", {}, 1);
  kept.keeper->start(lists);
  EXPECT_EQ(kept.wait_exit(lists.key).standard_output, "0 1 2 stdin:0");
  const LaunchRequest shows = act("state", {}, 2);
  kept.keeper->start(shows);
  EXPECT_THAT(kept.wait_exit(shows.key).standard_output,
              HasSubstr("blocked:0 ignored:0 session:1"));
}

TEST_F(KeeperReuse, AProgramThatCannotBeStartedIsToldEachTime) {
  Kept kept(directory.path());
  run_in(kept, 0);
  for (uint32_t rank = 1; rank < 3; ++rank) {
    const LaunchRequest start = request({"./absent"}, rank);
    kept.keeper->start(start);
    const KeptExit exit = kept.wait_exit(start.key);
    EXPECT_EQ(exit.outcome.reason, EndReason::cannot_start);
    EXPECT_EQ(exit.outcome.exit_code, 127);
  }
  EXPECT_GT(run_in(kept, 3), 0);
}

// The keeper's word to end an attempt that ended by itself at that moment.
TEST_F(KeeperReuse, AStopThatComesLateDoesNotTouchTheNext) {
  Kept kept(directory.path());
  const pid_t shim = run_in(kept, 0);
  if (kReused) ::kill(shim, SIGUSR1);
  EXPECT_EQ(run_in(kept, 1) == shim, kReused);
  kept.keeper->stop({{42}, 1, 1}, EndReason::cancelled, 0);
  EXPECT_EQ(run_in(kept, 2) == shim, kReused);
}

TEST_F(KeeperReuse, ASigtermToOneThatWaitsEndsThatOne) {
  Kept kept(directory.path());
  const pid_t shim = run_in(kept, 0);
  ProcessWatch watch(shim);
  if (kReused) ::kill(shim, SIGTERM);
  EXPECT_NE(run_in(kept, 1), shim);
  EXPECT_TRUE(watch.wait());
}

TEST_F(KeeperReuse, OneThatWasKilledIsReplaced) {
  Kept kept(directory.path());
  pid_t shim = run_in(kept, 0);
  for (uint32_t rank = 1; rank < 20; ++rank) {
    ProcessWatch watch(shim);
    if (kReused) ::kill(shim, SIGKILL);
    // At once, and when the keeper can know.
    if (rank % 2 == 0) {
      ASSERT_TRUE(watch.wait());
    }
    const pid_t next = run_in(kept, rank);
    EXPECT_NE(next, shim);
    shim = next;
  }
}

// It has been given an attempt, which nobody has taken yet.
TEST_F(KeeperReuse, OneThatIsKilledBeforeItTakesTheAttemptIsReplaced) {
  if (!kReused) return;
  Kept kept(directory.path());
  const pid_t shim = run_in(kept, 0);
  ::kill(shim, SIGSTOP);
  const LaunchRequest start = tell_parent(1);
  kept.keeper->start(start);
  kept.read_output(start.key);  // the keeper has done what it was told
  ::kill(shim, SIGKILL);
  EXPECT_NE(parent_in(kept.wait_exit(start.key)), shim);
}

TEST_F(KeeperReuse, AStopBeforeTheAttemptIsTakenHolds) {
  if (!kReused) return;
  for (const int signal : {SIGCONT, SIGKILL}) {
    Kept kept(directory.path());
    const pid_t shim = run_in(kept, 0);
    ::kill(shim, SIGSTOP);
    const LaunchRequest start =
        request({"sh", "-c", "read x < " + make_fifo(std::to_string(signal))}, 1);
    kept.keeper->start(start);
    kept.keeper->stop(start.key, EndReason::cancelled, 0);
    kept.read_output(start.key);
    ::kill(shim, signal);
    EXPECT_EQ(kept.wait_exit(start.key).outcome.reason, EndReason::cancelled);
    EXPECT_GT(run_in(kept, 2), 0);
    kept.keeper->shutdown(0);
    kept.until([&] { return kept.lost.has_value(); });
  }
}

TEST_F(KeeperReuse, ThoseThatWaitEndWithTheKeeper) {
  for (const bool killed : {true, false}) {
    Kept kept(directory.path());
    // Two at a time, so that one of them could hold what tells the other.
    const std::string fifo = make_fifo(killed ? "first" : "second");
    const LaunchRequest holds = act("exit_on_term", {fifo}, 0);
    kept.keeper->start(holds);
    const pid_t first = parent_of(kept.wait_ready(holds.key, fifo)), keeper = parent_of(first);
    const pid_t second = run_in(kept, 1);
    kept.keeper->stop(holds.key, EndReason::cancelled, 60'000);
    kept.wait_exit(holds.key);
    ProcessWatch first_watch(first), second_watch(second);
    if (killed) {
      ::kill(keeper, SIGKILL);
    } else {
      kept.keeper->shutdown(0);
    }
    kept.until([&] { return kept.lost.has_value(); });
    EXPECT_TRUE(first_watch.wait());
    EXPECT_TRUE(second_watch.wait());
  }
}

TEST_F(KeeperReuse, NoMoreWaitThanCanBeOfUse) {
  Kept kept(directory.path());
  constexpr size_t kMore = 4;
  const size_t most = std::thread::hardware_concurrency() + kMore;
  const auto many = static_cast<uint32_t>(most + 10);
  const std::string fifo = make_fifo();
  std::vector<pollfd> watched;
  std::set<pid_t> shims;
  for (uint32_t rank = 0; rank < many; ++rank) {
    const LaunchRequest start = act("exit_on_term", {fifo}, rank);
    kept.keeper->start(start);
    const pid_t shim = parent_of(kept.wait_ready(start.key, fifo));
    shims.insert(shim);
    watched.push_back({static_cast<int>(::syscall(SYS_pidfd_open, shim, 0)), POLLIN, 0});
  }
  EXPECT_EQ(shims.size(), many);
  for (uint32_t rank = 0; rank < many; ++rank) {
    kept.keeper->stop({{42}, rank, 1}, EndReason::cancelled, 60'000);
  }
  for (uint32_t rank = 0; rank < many; ++rank) kept.wait_exit({{42}, rank, 1});
  size_t ended = 0;
  while (ended<many - most&& ::poll(watched.data(), watched.size(), 60'000)> 0) {
    for (pollfd& entry : watched) {
      if (entry.revents == 0) continue;
      ++ended;
      ::close(std::exchange(entry.fd, -1));
    }
  }
  EXPECT_GE(ended, many - most);
  for (const pollfd& entry : watched) {
    if (entry.fd >= 0) ::close(entry.fd);
  }
  EXPECT_GT(run_in(kept, many), 0);
}

}  // namespace
}  // namespace pesc::worker
