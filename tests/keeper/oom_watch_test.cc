#include "runtime/worker/keeper/oom_watch.h"

#include "harness.h"

namespace pesc::keeper {
namespace {

using std::chrono::seconds;

class OomWatchTest : public ::testing::Test {
 protected:
  void count(int kills) {
    worker::write_file(file_, "nr_free_pages 12345\noom_kill_disable 9\noom_kill " +
                                  std::to_string(kills) + "\nunevictable 0\n");
  }
  worker::TemporaryDirectory directory_;
  const std::filesystem::path file_ = directory_.path() / "vmstat";
  OomWatch watch_{file_.string()};
  const OomWatch::Clock::time_point start_ = OomWatch::Clock::now();
};

TEST_F(OomWatchTest, SeesTheCounterGrow) {
  count(3);
  watch_.look(start_);
  EXPECT_FALSE(watch_.killed_lately());
  count(4);
  EXPECT_TRUE(watch_.killed_lately());
  watch_.look(start_ + OomWatch::kEvery);
  EXPECT_TRUE(watch_.killed_lately()) << "less than two looks ago";
  watch_.look(start_ + 2 * OomWatch::kEvery - seconds(1));
  watch_.look(start_ + 2 * OomWatch::kEvery);
  EXPECT_FALSE(watch_.killed_lately()) << "that was another's end";
}

TEST_F(OomWatchTest, WhatHappenedInAPauseIsNotOurs) {
  count(3);
  watch_.look(start_);
  count(4);
  watch_.look(start_ + seconds(3600));
  EXPECT_FALSE(watch_.killed_lately());
}

TEST_F(OomWatchTest, WithoutACounterNothingIsBlamed) {
  watch_.look(start_);
  EXPECT_FALSE(watch_.killed_lately());
}

TEST(CgroupOomKills, AreReadInBothVersions) {
  worker::TemporaryDirectory two, one;
  worker::write_file(two.path() / "memory.events", "low 0\noom 5\noom_kill 2\noom_group_kill 0\n");
  EXPECT_EQ(cgroup_oom_kills(two.path().string()), 2u);
  worker::write_file(one.path() / "memory.oom_control",
                     "oom_kill_disable 0\nunder_oom 0\noom_kill 7\n");
  EXPECT_EQ(cgroup_oom_kills(one.path().string()), 7u);
}

}  // namespace
}  // namespace pesc::keeper

namespace pesc::worker {
namespace {

class KeeperMemory : public KeeperTest {};

// A cgroup's directory as the kernel shows it; the process is not really put into it.
TEST_F(KeeperMemory, AKillInItsCgroupIsOutOfMemory) {
  const std::filesystem::path group = directory.path() / "group";
  std::filesystem::create_directory(group);
  write_file(group / "cgroup.procs", "");
  write_file(group / "memory.events", "oom_kill 1\n");
  LaunchRequest start = request(
      {"sh", "-c", "echo 'oom_kill 2' > " + (group / "memory.events").string() + "; kill -9 $$"});
  start.cgroup = group.string();
  const KeptExit exit = run(start);
  EXPECT_EQ(exit.outcome.reason, EndReason::out_of_memory) << exit.outcome.detail;
  EXPECT_EQ(exit.outcome.signal, SIGKILL);
}

TEST_F(KeeperMemory, AKillWithoutOneIsASignal) {
  const std::filesystem::path group = directory.path() / "group";
  std::filesystem::create_directory(group);
  write_file(group / "cgroup.procs", "");
  write_file(group / "memory.events", "oom_kill 1\n");
  LaunchRequest start = request({"sh", "-c", "exit 3"});
  start.cgroup = group.string();
  EXPECT_EQ(run(start).outcome.reason, EndReason::exit_code);
}

}  // namespace
}  // namespace pesc::worker
