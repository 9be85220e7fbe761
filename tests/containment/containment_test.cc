#include "runtime/worker/containment/containment.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "fake_host.h"

namespace pesc::containment {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr const char* kName = "pesc-77-100-5000";
constexpr uint64_t kMiB = 1 << 20;

// A service of its own, as systemd delegates it, with the worker and its keeper in the leaf.
class Delegated : public ::testing::Test {
 protected:
  Delegated() {
    host.own_cgroups = "0::/unit/supervisor\n";
    host.mounts = "30 24 0:26 / /cg rw - cgroup2 cgroup2 rw\n";
    host.add_version2("/cg/unit", "cpu io memory pids", false);
    host.add_version2("/cg/unit/supervisor", "", false, "99\n100\n");
  }
  std::string at(const std::string& file) const {
    return std::string("/cg/unit/") + kName + "/0/" + file;
  }
  FakeHost host;
};

TEST_F(Delegated, EverythingByVersionTwo) {
  Containment containment(Mode::automatic, host);
  EXPECT_EQ(containment.description(),
            "memory=cgroup2 cpu=cgroup2 processes=cgroup2 freeze=cgroup2 kill=cgroup2");
  EXPECT_THAT(containment.lacking(), IsEmpty());
  Group* group = containment.take({100 * kMiB, 1500, 64, false});
  ASSERT_NE(group, nullptr);
  EXPECT_EQ(host.text(at("memory.max")), std::to_string(100 * kMiB));
  EXPECT_EQ(host.text(at("memory.swap.max")), "0");
  EXPECT_EQ(host.text(at("memory.oom.group")), "1");
  EXPECT_EQ(host.text(at("cpu.max")), "150000 100000");
  EXPECT_EQ(host.text(at("pids.max")), "64");
  EXPECT_TRUE(group->holds_memory());
  EXPECT_TRUE(group->holds_processes());
  EXPECT_FALSE(group->kills_one_by_one());
  EXPECT_EQ(group->version2(), std::string("/cg/unit/") + kName + "/0");
  EXPECT_THAT(group->tasks(), IsEmpty());
  EXPECT_EQ(group->kill_file(), at("cgroup.kill"));
}

TEST_F(Delegated, NothingIsTouchedButItsOwn) {
  {
    Containment containment(Mode::automatic, host);
    Group* one = containment.take({kMiB, 1000, 64, true});
    containment.take({0, 500, 0, false});
    containment.give_back(one, true);
    containment.relax();
    containment.tighten();
  }
  for (const std::string& made : host.made) {
    EXPECT_TRUE(made.starts_with(std::string("/cg/unit/") + kName)) << made;
  }
  for (const auto& [path, text] : host.written) {
    EXPECT_TRUE(path.starts_with(std::string("/cg/unit/") + kName + "/") ||
                path == "/cg/unit/cgroup.subtree_control")
        << path;
  }
  EXPECT_FALSE(host.has(std::string("/cg/unit/") + kName)) << "removed in the end";
  EXPECT_EQ(host.text("/cg/unit/supervisor/cgroup.procs"), "99\n100\n");
}

TEST_F(Delegated, AShortOneLeavesItsDirectoryToTheNext) {
  Containment containment(Mode::automatic, host);
  Group* first = containment.take({100 * kMiB, 1000, 64, false});
  containment.give_back(first, true);
  host.written.clear();
  Group* second = containment.take({100 * kMiB, 1000, 64, false});
  EXPECT_EQ(second, first);
  EXPECT_THAT(host.written, IsEmpty()) << "its limits are there already";
  containment.give_back(second, true);
  Group* third = containment.take({0, 1000, 64, false});
  EXPECT_EQ(host.text(at("memory.max")), "max");
  EXPECT_FALSE(third->holds_memory());
  containment.give_back(third, false);
  EXPECT_FALSE(host.has(std::string("/cg/unit/") + kName + "/0"));
}

TEST_F(Delegated, OneThatLeftMuchBehindIsNotUsedAgain) {
  Containment containment(Mode::automatic, host);
  Group* group = containment.take({100 * kMiB, 0, 0, false});
  host.set(at("memory.current"), std::to_string(60 * kMiB));
  containment.give_back(group, true);
  EXPECT_FALSE(host.has(std::string("/cg/unit/") + kName + "/0"));
}

TEST_F(Delegated, OneThatIsNotEmptyIsRemovedLater) {
  Containment containment(Mode::automatic, host);
  Group* group = containment.take({});
  host.set(at("cgroup.procs"), "200\n");
  containment.give_back(group, false);
  EXPECT_TRUE(host.has(std::string("/cg/unit/") + kName + "/0"));
  host.set(at("cgroup.procs"), "");
  containment.give_back(containment.take({}), false);
  EXPECT_FALSE(host.has(std::string("/cg/unit/") + kName + "/0"));
}

TEST_F(Delegated, UsageIsOfThisAttempt) {
  Containment containment(Mode::automatic, host);
  const Limits limits{100 * kMiB, 0, 0, false};
  Group* group = containment.take(limits);
  host.set(at("cpu.stat"), "usage_usec 5000\nuser_usec 1\n");
  host.set(at("memory.events"), "low 0\noom 2\noom_kill 1\n");
  host.set(at("memory.peak"), "90000000\n");
  host.set(at("memory.stat"), "anon 0\nfile 30000000\nshmem 10000000\n");
  Usage usage = group->usage();
  EXPECT_EQ(usage.cpu_us, 5000u);
  EXPECT_EQ(usage.oom_kills, 1u);
  EXPECT_EQ(usage.peak_bytes, 70'000'000u) << "what is kept of files is not the rank's need";
  containment.give_back(group, true);
  group = containment.take(limits);
  host.set(at("cpu.stat"), "usage_usec 5300\nuser_usec 1\n");
  usage = group->usage();
  EXPECT_EQ(usage.cpu_us, 300u);
  EXPECT_EQ(usage.oom_kills, 0u);
  EXPECT_EQ(usage.peak_bytes, 0u) << "the mark is the former one's: nothing is known";
  containment.give_back(group, true);
  group = containment.take(limits);
  group->pass_over(700);
  containment.give_back(group, true);
  group = containment.take(limits);
  host.set(at("cpu.stat"), "usage_usec 6040\nuser_usec 1\n");
  EXPECT_EQ(group->usage().cpu_us, 40u) << "what was not read was not this one's";
}

TEST_F(Delegated, WithoutALimitItIsMeasuredAllTheSame) {
  Containment containment(Mode::automatic, host);
  Group* group = containment.take({0, 1000, 64, false});
  host.set(at("memory.peak"), "90000000\n");
  host.set(at("memory.events"), "oom_kill 1\n");
  EXPECT_FALSE(group->holds_memory());
  EXPECT_TRUE(group->counts_memory());
  EXPECT_EQ(group->usage().peak_bytes, 90'000'000u);
  EXPECT_EQ(group->usage().oom_kills, 0u) << "told once";
}

TEST_F(Delegated, IdleOnesAreIdleTowardsAllOthers) {
  Containment containment(Mode::automatic, host);
  containment.take({0, 1000, 0, true});
  EXPECT_EQ(host.text(at("cpu.idle")), "1");
  EXPECT_EQ(host.text(std::string("/cg/unit/") + kName + "/cpu.idle"), "1");
}

TEST_F(Delegated, WhoHasMoreCpusWeighsMore) {
  Containment containment(Mode::automatic, host);
  Group* group = containment.take({0, 1000, 0, false});
  EXPECT_EQ(host.text(at("cpu.weight")), "") << "as the kernel makes it";
  containment.give_back(group, true);
  group = containment.take({0, 4000, 0, false});
  EXPECT_EQ(host.text(at("cpu.weight")), "400");
  containment.give_back(group, true);
  containment.take({0, 1000, 0, false});
  EXPECT_EQ(host.text(at("cpu.weight")), "100");
}

TEST_F(Delegated, AThrottledOneHasLessForAWhile) {
  Containment containment(Mode::automatic, host);
  Group* group = containment.take({0, 2000, 0, false});
  group->set_cpus(200);
  EXPECT_EQ(host.text(at("cpu.max")), "20000 100000");
  group->set_cpus(1);
  EXPECT_EQ(host.text(at("cpu.max")), "1000 100000") << "the kernel takes no less";
  group->set_cpus(2000);
  EXPECT_EQ(host.text(at("cpu.max")), "200000 100000");
}

// systemd starts the next worker in the unit's own cgroup, which must not divide at that moment.
TEST_F(Delegated, WithoutAWorkerItsCgroupTakesProcessesAgain) {
  Containment containment(Mode::automatic, host);
  Group* group = containment.take({100 * kMiB, 1000, 64, false});
  containment.relax();
  EXPECT_EQ(host.text("/cg/unit/cgroup.subtree_control"), "");
  EXPECT_FALSE(group->holds_memory());
  EXPECT_FALSE(group->holds_cpu());
  EXPECT_FALSE(group->holds_processes());
  containment.tighten();
  EXPECT_TRUE(group->holds_memory());
  EXPECT_EQ(host.text(at("memory.max")), std::to_string(100 * kMiB));
  EXPECT_EQ(host.text(at("cpu.max")), "100000 100000");
  EXPECT_EQ(host.text(at("pids.max")), "64");
}

TEST_F(Delegated, WhatADeadKeeperLeftIsEndedAndRemoved) {
  const std::string dead = "/cg/unit/pesc-77-55-4000", alive = "/cg/unit/pesc-77-56-4000",
                    elsewhere = "/cg/unit/pesc-78-55-4000", other = "/cg/unit/pesc-oom";
  host.alive.insert(56);
  for (const std::string& left : {dead, alive, elsewhere, other}) {
    host.add_version2(left, "", false);
    host.add_version2(left + "/3", "", false, "321\n");
  }
  Containment containment(Mode::automatic, host);
  EXPECT_FALSE(host.has(dead));
  for (const std::string& left : {alive, elsewhere, other}) {
    EXPECT_TRUE(host.has(left)) << left;
    EXPECT_EQ(host.text(left + "/3/cgroup.procs"), "321\n");
  }
}

// A login's scope: the shell is in it as well.
TEST(Containment, WhereOthersAreThereIsNoLimitButAnEnd) {
  FakeHost host;
  host.own_cgroups = "0::/scope\n";
  host.mounts = "30 24 0:26 / /cg rw - cgroup2 cgroup2 rw\n";
  host.add_version2("/cg/scope", "cpu memory pids", false, "7\n100\n");
  Containment containment(Mode::automatic, host);
  EXPECT_EQ(containment.description(),
            "memory=none cpu=none processes=none freeze=cgroup2 kill=cgroup2");
  EXPECT_THAT(containment.lacking(), HasSubstr("no memory controller"));
  Group* group = containment.take({kMiB, 1000, 64, false});
  ASSERT_NE(group, nullptr);
  EXPECT_FALSE(group->holds_memory());
  EXPECT_FALSE(group->holds_cpu());
}

TEST(Containment, WithoutPermissionThereIsNone) {
  FakeHost host;
  host.own_cgroups = "0::/user\n";
  host.mounts = "30 24 0:26 / /cg rw - cgroup2 cgroup2 rw\n";
  host.add_version2("/cg/user", "cpu memory pids", false, "100\n");
  host.refused.insert("/cg/user");
  Containment containment(Mode::automatic, host);
  EXPECT_FALSE(containment.features().any());
  EXPECT_THAT(containment.lacking(), HasSubstr("/cg/user"));
  EXPECT_THAT(containment.lacking(), HasSubstr("Permission denied"));
  EXPECT_EQ(containment.take({kMiB, 1000, 64, false}), nullptr);
}

TEST(Containment, WhatCannotBeEnteredIsNotUsed) {
  FakeHost host;
  host.own_cgroups = "0::/user\n";
  host.mounts = "30 24 0:26 / /cg rw - cgroup2 cgroup2 rw\n";
  host.add_version2("/cg/user", "cpu memory pids", false);
  host.may_enter = false;
  Containment containment(Mode::automatic, host);
  EXPECT_FALSE(containment.features().any());
  EXPECT_FALSE(host.has(std::string("/cg/user/") + kName));
}

class Hybrid : public ::testing::Test {
 protected:
  Hybrid() {
    host.own_cgroups = "5:freezer:/\n4:memory:/mine\n3:pids:/\n2:cpu:/\n0::/\n";
    host.mounts =
        "1 0 0:1 / /cg/cpu rw - cgroup cgroup rw,cpu\n"
        "2 0 0:2 / /cg/memory rw - cgroup cgroup rw,memory\n"
        "3 0 0:3 / /cg/pids rw - cgroup cgroup rw,pids\n"
        "4 0 0:4 / /cg/freezer rw - cgroup cgroup rw,freezer\n"
        "5 0 0:5 / /cg/unified rw - cgroup2 cgroup2 rw\n";
    host.add_version1("/cg/cpu", "cpu");
    host.add_version1("/cg/memory/mine", "memory");
    host.add_version1("/cg/pids", "pids");
    host.add_version1("/cg/freezer", "freezer");
    host.add_version2("/cg/unified", "", true, "1\n100\n");
  }
  std::string memory(const std::string& file) const {
    return std::string("/cg/memory/mine/") + kName + "/0/" + file;
  }
  FakeHost host;
};

TEST_F(Hybrid, EachVersionDoesWhatItCan) {
  Containment containment(Mode::automatic, host);
  EXPECT_EQ(containment.description(),
            "memory=cgroup1 cpu=cgroup1 processes=cgroup1 freeze=cgroup2 kill=cgroup2");
  Group* group = containment.take({100 * kMiB, 1000, 64, false});
  EXPECT_EQ(host.text(memory("memory.limit_in_bytes")), std::to_string(100 * kMiB));
  EXPECT_EQ(host.text(memory("memory.memsw.limit_in_bytes")), std::to_string(100 * kMiB));
  EXPECT_EQ(host.text(std::string("/cg/cpu/") + kName + "/0/cpu.cfs_quota_us"), "100000");
  EXPECT_EQ(host.text(std::string("/cg/pids/") + kName + "/0/pids.max"), "64");
  EXPECT_EQ(host.text(std::string("/cg/cpu/") + kName + "/cpu.shares"), "4096");
  EXPECT_EQ(group->tasks().size(), 2u);
  EXPECT_EQ(group->late_procs(), std::string("/cg/cpu/") + kName + "/0/cgroup.procs");
  EXPECT_TRUE(group->kills_one_by_one());
  EXPECT_FALSE(host.has(std::string("/cg/freezer/") + kName)) << "version 2 freezes";
}

TEST_F(Hybrid, AfterAnIdleOneTheWeightIsBack) {
  Containment containment(Mode::automatic, host);
  const std::string directory = std::string("/cg/cpu/") + kName;
  containment.give_back(containment.take({0, 2000, 0, true}), true);
  EXPECT_EQ(host.text(directory + "/cpu.idle"), "1");
  host.set(directory + "/cpu.shares", "1024");
  containment.take({0, 2000, 0, false});
  EXPECT_EQ(host.text(directory + "/cpu.idle"), "0");
  EXPECT_EQ(host.text(directory + "/cpu.shares"), "4096");
  EXPECT_EQ(host.text(directory + "/0/cpu.shares"), "2048");
}

TEST_F(Hybrid, OnlyWhatBoundsSomethingIsEntered) {
  Containment containment(Mode::automatic, host);
  EXPECT_EQ(containment.take({0, 0, 64, false})->tasks().size(), 1u);
  EXPECT_THAT(containment.take({})->tasks(), IsEmpty());
}

TEST_F(Hybrid, ALimitGoesUpAndDown) {
  Containment containment(Mode::automatic, host);
  for (const uint64_t bytes : {100 * kMiB, 300 * kMiB, 50 * kMiB, uint64_t{0}, 10 * kMiB}) {
    Group* group = containment.take({bytes, 0, 0, false});
    const std::string expected = bytes == 0 ? "-1" : std::to_string(bytes);
    EXPECT_EQ(host.text(memory("memory.limit_in_bytes")), expected);
    EXPECT_EQ(host.text(memory("memory.memsw.limit_in_bytes")), expected);
    EXPECT_EQ(group->holds_memory(), bytes != 0);
    containment.give_back(group, true);
  }
}

TEST_F(Hybrid, VersionOneAloneFreezesByItsFreezer) {
  Containment containment(Mode::cgroup1, host);
  EXPECT_EQ(containment.description(),
            "memory=cgroup1 cpu=cgroup1 processes=cgroup1 freeze=cgroup1 kill=none");
  Group* group = containment.take({});
  EXPECT_EQ(group->version2(), "");
  EXPECT_EQ(group->freezer_state(), std::string("/cg/freezer/") + kName + "/0/freezer.state");
  EXPECT_EQ(group->tasks().size(), 1u) << "the freezer's, which also finds what is left";
}

TEST_F(Hybrid, VersionTwoAloneLeavesVersionOneAlone) {
  Containment containment(Mode::cgroup2, host);
  EXPECT_EQ(containment.description(),
            "memory=none cpu=none processes=none freeze=cgroup2 kill=cgroup2");
}

TEST_F(Hybrid, WhatIsLeftInVersionOneIsEndedToo) {
  const std::string left = "/cg/freezer/pesc-77-55-4000";
  host.add_version1(left, "freezer");
  host.add_version1(left + "/0", "freezer");
  host.set(left + "/0/cgroup.procs", "321\n");
  Containment containment(Mode::cgroup1, host);
  EXPECT_EQ(host.killed, std::vector<int64_t>{321});
  EXPECT_FALSE(host.has(left));
}

TEST(Containment, NoneIsNone) {
  FakeHost host;
  Containment containment(Mode::none, host);
  EXPECT_FALSE(containment.features().any());
  EXPECT_EQ(containment.take({kMiB, 1000, 64, false}), nullptr);
}

// ---- the daemon's own place

class Supervisor : public ::testing::Test {
 protected:
  Supervisor() {
    host.own_cgroups = "0::/unit\n";
    host.mounts = "30 24 0:26 / /cg rw - cgroup2 cgroup2 rw\n";
  }
  FakeHost host;
};

TEST_F(Supervisor, ADaemonAloneInItsUnitGoesIntoTheLeaf) {
  host.add_version2("/cg/unit", "memory", false, "100\n");
  EXPECT_TRUE(enter_supervisor(Mode::automatic, host));
  EXPECT_EQ(host.text("/cg/unit/supervisor/cgroup.procs"), "100\n");
}

TEST_F(Supervisor, AmongOthersItStays) {
  host.add_version2("/cg/unit", "memory", false, "7\n100\n");
  EXPECT_FALSE(enter_supervisor(Mode::automatic, host));
  EXPECT_FALSE(host.has("/cg/unit/supervisor"));
}

TEST_F(Supervisor, WhereTheServiceManagerHasPutItThereItStays) {
  host.own_cgroups = "0::/unit/supervisor\n";
  host.add_version2("/cg/unit", "memory", false);
  host.add_version2("/cg/unit/supervisor", "", false, "100\n");
  EXPECT_FALSE(enter_supervisor(Mode::automatic, host));
}

TEST_F(Supervisor, TheRootOfAllMayHaveBoth) {
  host.add_version2("/cg/unit", "memory", true, "100\n");
  EXPECT_FALSE(enter_supervisor(Mode::automatic, host));
}

TEST_F(Supervisor, OnlyWhenVersionTwoIsWanted) {
  host.add_version2("/cg/unit", "memory", false, "100\n");
  EXPECT_FALSE(enter_supervisor(Mode::none, host));
  EXPECT_FALSE(enter_supervisor(Mode::cgroup1, host));
}

TEST(Modes, NamesGoBothWays) {
  for (Mode mode : {Mode::automatic, Mode::cgroup2, Mode::cgroup1, Mode::none}) {
    EXPECT_EQ(parse_mode(to_string(mode)), mode);
  }
  EXPECT_EQ(parse_mode("docker"), std::nullopt);
}

}  // namespace
}  // namespace pesc::containment
