// How attempts are ended, and that nothing of them stays.
#include <gmock/gmock.h>
#include <sched.h>

#include "harness.h"

namespace pesc::worker {
namespace {

using ::testing::HasSubstr;

class KeeperEnd : public KeeperTest {};

TEST_F(KeeperEnd, TimeLimitWithAProgramThatIgnoresSigterm) {
  std::string fifo = make_fifo();
  LaunchRequest start = act("ignore_term", {fifo});
  start.time_limit_ms = 300;
  start.grace_ms = 50;
  Kept kept(directory.path());
  kept.keeper->start(start);
  pid_t pid = kept.wait_ready(start.key, fifo);
  KeptExit exit = kept.wait_exit(start.key);
  EXPECT_EQ(exit.outcome.reason, EndReason::time_limit);
  EXPECT_EQ(exit.outcome.signal, SIGKILL);
  EXPECT_GE(exit.outcome.duration_ms, 350u);
  EXPECT_THAT(exit.outcome.detail, HasSubstr("300 ms"));
  EXPECT_TRUE(is_gone(pid));
}

TEST_F(KeeperEnd, AStoppedProgramThatExitsWithZeroIsStillStopped) {
  std::string fifo = make_fifo();
  LaunchRequest start = act("exit_on_term", {fifo});
  Kept kept(directory.path());
  kept.keeper->start(start);
  kept.wait_ready(start.key, fifo);
  kept.keeper->stop(start.key, EndReason::cancelled, 60'000);
  KeptExit exit = kept.wait_exit(start.key);
  EXPECT_EQ(exit.outcome.reason, EndReason::cancelled);
  EXPECT_EQ(exit.outcome.exit_code, 0);
}

TEST_F(KeeperEnd, AStopThatComesWithTheStartHolds) {
  LaunchRequest start = request({"sh", "-c", "read x < " + make_fifo("never")});
  Kept kept(directory.path());
  kept.keeper->start(start);
  kept.keeper->stop(start.key, EndReason::revoked, 60'000);
  EXPECT_EQ(kept.wait_exit(start.key).outcome.reason, EndReason::revoked);
}

TEST_F(KeeperEnd, TheRestOfTheTreeHasItsGrace) {
  // The shell dies of SIGTERM at once; what it runs uses its grace to write down its work.
  std::string fifo = make_fifo();
  std::string script =
      "(trap 'echo saved > saved; exit' TERM; echo $$ > ready; read x < never) & wait";
  make_fifo("never");
  LaunchRequest start = request({"sh", "-c", script});
  Kept kept(directory.path());
  kept.keeper->start(start);
  kept.wait_ready(start.key, fifo);
  kept.keeper->stop(start.key, EndReason::vacated, 60'000);
  EXPECT_EQ(kept.wait_exit(start.key).outcome.reason, EndReason::vacated);
  EXPECT_EQ(read_file(directory.path() / "saved"), "saved\n");
}

TEST_F(KeeperEnd, ADaemonThatOutlivesTheProgramIsEnded) {
  LaunchRequest start = act("leave_daemon");
  KeptExit exit = run(start);
  EXPECT_EQ(exit.outcome.reason, EndReason::exit_code);
  EXPECT_EQ(exit.outcome.exit_code, 7);
  EXPECT_THAT(exit.outcome.detail, HasSubstr("1 process outlived it"));
  pid_t daemon = std::stoi(exit.standard_output);
  EXPECT_TRUE(is_gone(daemon));
}

// It has forked twice into a session of its own, ignores SIGTERM and holds the output open: the
// end is told all the same, and nothing of it stays.
TEST_F(KeeperEnd, ATimeLimitEndsWhatHasLeftTheSession) {
  std::string fifo = make_fifo();
  LaunchRequest start = act("leave_daemon", {fifo});
  start.time_limit_ms = 300;
  start.grace_ms = 50;
  Kept kept(directory.path());
  kept.keeper->start(start);
  pid_t pid = kept.wait_ready(start.key, fifo);
  pid_t daemon = std::stoi(kept.read_output(start.key).data);
  KeptExit exit = kept.wait_exit(start.key);
  EXPECT_EQ(exit.outcome.reason, EndReason::time_limit);
  EXPECT_TRUE(is_gone(pid));
  EXPECT_TRUE(is_gone(daemon));
}

TEST_F(KeeperEnd, ACancelEndsWhatHasLeftTheSession) {
  std::string fifo = make_fifo();
  LaunchRequest start = act("leave_daemon", {fifo});
  Kept kept(directory.path());
  kept.keeper->start(start);
  kept.wait_ready(start.key, fifo);
  pid_t daemon = std::stoi(kept.read_output(start.key).data);
  kept.keeper->stop(start.key, EndReason::cancelled, 50);
  EXPECT_EQ(kept.wait_exit(start.key).outcome.reason, EndReason::cancelled);
  EXPECT_TRUE(is_gone(daemon));
}

TEST_F(KeeperEnd, AForkBombIsEnded) {
  std::string fifo = make_fifo();
  LaunchRequest start = act("bomb", {fifo});
  Kept kept(directory.path());
  kept.keeper->start(start);
  pid_t pid = kept.wait_ready(start.key, fifo);
  kept.keeper->stop(start.key, EndReason::cancelled, 0);
  EXPECT_EQ(kept.wait_exit(start.key).outcome.reason, EndReason::cancelled);
  EXPECT_TRUE(is_gone(pid));
}

TEST_F(KeeperEnd, FrozenTimeDoesNotCount) {
  std::string fifo = make_fifo();
  LaunchRequest start = act("exit_on_term", {fifo});
  start.time_limit_ms = 2'000;
  Kept kept(directory.path(), true, {}, 0, containment::Mode::none);
  kept.keeper->start(start);
  pid_t pid = kept.wait_ready(start.key, fifo);
  kept.keeper->freeze(start.key, true);
  kept.read_output(start.key);
  while (stat_field(pid, 0) != "T") ::sched_yield();
  // Another attempt's limit tells that time has passed.
  LaunchRequest other = request({"sh", "-c", "read x < " + make_fifo("never")}, 1);
  other.time_limit_ms = 2'200;
  other.grace_ms = 0;
  kept.keeper->start(other);
  EXPECT_EQ(kept.wait_exit(other.key).outcome.reason, EndReason::time_limit);
  EXPECT_FALSE(kept.exits.contains(start.key));
  EXPECT_EQ(stat_field(pid, 0), "T");
  kept.keeper->stop(start.key, EndReason::vacated, 60'000);
  KeptExit exit = kept.wait_exit(start.key);
  EXPECT_EQ(exit.outcome.reason, EndReason::vacated);
  EXPECT_EQ(exit.outcome.exit_code, 0) << "thawed, it handled SIGTERM";
  EXPECT_LT(exit.outcome.duration_ms, 2'000u);
}

TEST_F(KeeperEnd, AKilledShimTakesItsTreeWithIt) {
  std::string fifo = make_fifo();
  LaunchRequest start = act("leave_daemon", {fifo});
  Kept kept(directory.path());
  kept.keeper->start(start);
  pid_t pid = kept.wait_ready(start.key, fifo);
  kept.wait_started(start.key);
  pid_t daemon = std::stoi(kept.read_output(start.key).data);
  ProcessWatch daemon_watch(daemon), program_watch(pid);
  ::kill(parent_of(pid), SIGKILL);
  KeptExit exit = kept.wait_exit(start.key);
  EXPECT_EQ(exit.outcome.reason, EndReason::signal);
  EXPECT_THAT(exit.outcome.detail, HasSubstr("watched over it"));
  EXPECT_TRUE(program_watch.wait());
  EXPECT_TRUE(daemon_watch.wait());
}

TEST_F(KeeperEnd, AKilledKeeperTakesEverythingWithIt) {
  std::string fifo = make_fifo();
  LaunchRequest start = act("leave_daemon", {fifo});
  Kept kept(directory.path());
  kept.keeper->start(start);
  pid_t pid = kept.wait_ready(start.key, fifo);
  kept.wait_started(start.key);
  pid_t daemon = std::stoi(kept.read_output(start.key).data);
  ProcessWatch daemon_watch(daemon), program_watch(pid);
  ::kill(parent_of(parent_of(pid)), SIGKILL);
  EXPECT_TRUE(program_watch.wait());
  EXPECT_TRUE(daemon_watch.wait());
  kept.until([&] { return kept.lost.has_value(); });
  EXPECT_TRUE(absl::IsUnavailable(*kept.lost));
}

TEST_F(KeeperEnd, ShutdownEndsAllAndThenTheKeeper) {
  std::string fifo = make_fifo();
  LaunchRequest start = act("exit_on_term", {fifo});
  Kept kept(directory.path(), false);
  kept.keeper->start(start);
  pid_t pid = kept.wait_ready(start.key, fifo);
  ProcessWatch keeper(parent_of(parent_of(pid)));
  kept.keeper->shutdown(60'000);
  EXPECT_EQ(kept.wait_exit(start.key).outcome.reason, EndReason::vacated);
  kept.until([&] { return kept.lost.has_value(); });
  EXPECT_TRUE(keeper.wait());
  EXPECT_TRUE(is_gone(pid));
}

}  // namespace
}  // namespace pesc::worker
