#include "runtime/worker/shell/identity.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include "runtime/common/state_dir.h"
#include "runtime/worker/shell/run_as.h"
#include "tests/worker_shell/support.h"

namespace pesc::worker {
namespace {

const Machine kHere{"machine-1", "boot-1", "lab-07"};

TEST(Identity, IsMadeOnceAndKept) {
  TemporaryDirectory state;
  auto first = load_or_create_worker_identity(state.path(), kHere);
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_EQ(first->clone_warning, "");
  struct stat info {};
  ASSERT_EQ(::stat((state.path() / "identity.json").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 07777, 0600u);
  Machine rebooted = kHere;
  rebooted.boot_id = "boot-2";
  auto second = load_or_create_worker_identity(state.path(), rebooted);
  ASSERT_TRUE(second.ok());
  EXPECT_EQ(second->id, first->id);
}

TEST(Identity, ACopiedStateDirectoryGetsAnotherAndSaysSo) {
  TemporaryDirectory state;
  auto first = load_or_create_worker_identity(state.path(), kHere);
  ASSERT_TRUE(first.ok());
  auto clone = load_or_create_worker_identity(state.path(), {"machine-1", "boot-1", "lab-08"});
  ASSERT_TRUE(clone.ok());
  EXPECT_NE(clone->id, first->id);
  EXPECT_NE(clone->clone_warning.find("lab-07"), std::string::npos) << clone->clone_warning;
  auto after = load_or_create_worker_identity(state.path(), {"machine-1", "boot-1", "lab-08"});
  ASSERT_TRUE(after.ok());
  EXPECT_EQ(after->id, clone->id);
  EXPECT_EQ(after->clone_warning, "");
}

TEST(Identity, RefusesAFileThatIsNone) {
  TemporaryDirectory state;
  write_file(state.path() / "identity.json", "{\"id\": 7}");
  auto identity = load_or_create_worker_identity(state.path(), kHere);
  ASSERT_FALSE(identity.ok());
  EXPECT_NE(std::string(identity.status().message()).find("delete it"), std::string::npos);
}

TEST(Identity, ThereIsSomethingToOffer) {
  EXPECT_GE(available_cpus_milli(), 1000u);
  EXPECT_GT(available_memory_bytes(), uint64_t{1} << 20);
}

TEST(Identity, WhatIsPromisedBeyondIsSaid) {
  TemporaryDirectory state;
  const uint32_t cpus = available_cpus_milli();
  const uint64_t memory = available_memory_bytes();
  EXPECT_TRUE(promised_too_much(cpus, memory, 0, state.path()).empty());
  EXPECT_TRUE(promised_too_much(0, 0, 0, state.path()).empty()) << "all that there is";
  const auto texts = promised_too_much(cpus + 62'000, memory + 1, UINT64_MAX, state.path());
  ASSERT_EQ(texts.size(), 3u);
  EXPECT_NE(texts[0].find("cpus and has"), std::string::npos) << texts[0];
  EXPECT_NE(texts[1].find("of memory and has"), std::string::npos) << texts[1];
  EXPECT_NE(texts[2].find("16 EiB of free disk and has"), std::string::npos) << texts[2];
}

TEST(StateDir, IsMadeWithItsModeAndLockedOnce) {
  TemporaryDirectory base;
  auto path = common::make_state_dir(base.path() / "a" / "state", 0700);
  ASSERT_TRUE(path.ok()) << path.status();
  struct stat info {};
  ASSERT_EQ(::stat(path->c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 07777, 0700u);
  auto lock = common::lock_state_dir(*path, "pesc-worker");
  ASSERT_TRUE(lock.ok()) << lock.status();
  auto second = common::lock_state_dir(*path, "pesc-worker");
  ASSERT_TRUE(absl::IsAlreadyExists(second.status()));
  EXPECT_NE(std::string(second.status().message()).find("another pesc-worker uses"),
            std::string::npos);
  lock->reset();
  EXPECT_TRUE(common::lock_state_dir(*path, "pesc-worker").ok());
}

TEST(StateDir, RefusesAFile) {
  TemporaryDirectory base;
  write_file(base.path() / "file", "");
  auto path = common::make_state_dir(base.path() / "file", 0700);
  EXPECT_TRUE(absl::IsFailedPrecondition(path.status())) << path.status();
}

TEST(RunAs, UnknownUsersAndTheUnprivilegedAreRefused) {
  auto unknown = resolve_rank_user("no-such-user-here");
  EXPECT_TRUE(absl::IsNotFound(unknown.status())) << unknown.status();
  auto none = resolve_rank_user("");
  ASSERT_TRUE(none.ok());
  EXPECT_FALSE(none->has_value());
  auto other = resolve_rank_user(is_root() ? "nobody" : "root");
  if (is_root()) {
    ASSERT_TRUE(other.ok()) << other.status();
    EXPECT_NE((*other)->uid, 0u);
  } else {
    EXPECT_TRUE(absl::IsFailedPrecondition(other.status())) << other.status();
  }
}

TEST(RunAs, AStateDirectoryThatTheUserCannotReachIsRefused) {
  TemporaryDirectory base;  // mode 0700
  const RankUser somebody{"somebody", "/", 54321, 54321};
  absl::Status status = check_reachable(somebody, base.path() / "state");
  ASSERT_TRUE(absl::IsFailedPrecondition(status)) << status;
  EXPECT_NE(std::string(status.message()).find("cannot enter " + base.path().string()),
            std::string::npos);
}

}  // namespace
}  // namespace pesc::worker
