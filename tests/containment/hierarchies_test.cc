#include "runtime/worker/containment/hierarchies.h"

#include <gtest/gtest.h>

namespace pesc::containment {
namespace {

TEST(Hierarchies, VersionTwoAlone) {
  const auto found = hierarchies("0::/system.slice/pesc-worker.service\n",
                                 "24 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
                                 "30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 "
                                 "rw,nsdelegate\n");
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].version, 2);
  EXPECT_EQ(found[0].directory, "/sys/fs/cgroup/system.slice/pesc-worker.service");
}

TEST(Hierarchies, BothVersionsAndSharedMounts) {
  const auto found =
      hierarchies("3:cpu,cpuacct:/a\n2:name=systemd:/s\n1:memory:/\n0::/u\n",
                  "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n"
                  "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
                  "33 31 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
                  "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n");
  ASSERT_EQ(found.size(), 3u);
  EXPECT_TRUE(found[0].has("cpu"));
  EXPECT_TRUE(found[0].has("cpuacct"));
  EXPECT_EQ(found[0].directory, "/sys/fs/cgroup/cpu,cpuacct/a");
  EXPECT_EQ(found[1].directory, "/sys/fs/cgroup/memory");
  EXPECT_EQ(found[2].version, 2);
  EXPECT_EQ(found[2].directory, "/sys/fs/cgroup/unified/u");
}

TEST(Hierarchies, InAContainerTheMountBeginsBelow) {
  const char* mounts =
      "50 40 0:30 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n";
  EXPECT_EQ(hierarchies("1:memory:/docker/abc/x\n", mounts).at(0).directory,
            "/sys/fs/cgroup/memory/x");
  EXPECT_EQ(hierarchies("1:memory:/docker/abc\n", mounts).at(0).directory, "/sys/fs/cgroup/memory");
  EXPECT_TRUE(hierarchies("1:memory:/docker/abcd\n", mounts).empty());
  EXPECT_TRUE(hierarchies("1:memory:/other\n", mounts).empty());
}

TEST(Hierarchies, WhatIsOutsideOfTheNamespaceIsNotOurs) {
  EXPECT_TRUE(
      hierarchies("0::/../../init.scope\n", "30 24 0:26 / /sys/fs/cgroup rw - cgroup2 c rw\n")
          .empty());
}

TEST(Hierarchies, ABlankInAPath) {
  EXPECT_EQ(hierarchies("0::/\n", "30 24 0:26 / /my\\040mount rw - cgroup2 c rw\n").at(0).directory,
            "/my mount");
}

TEST(Hierarchies, NonsenseIsPassedOver) {
  EXPECT_TRUE(hierarchies("", "").empty());
  EXPECT_TRUE(hierarchies("0\n:::\nx:y\n", "1 2 - cgroup2\n - \n\n").empty());
}

}  // namespace
}  // namespace pesc::containment
