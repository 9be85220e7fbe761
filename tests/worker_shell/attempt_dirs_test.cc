#include "runtime/worker/shell/attempt_dirs.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <pwd.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/worker_shell/support.h"

namespace pesc::worker {
namespace {

namespace fs = std::filesystem;

struct stat stat_of(const std::string& path) {
  struct stat info {};
  EXPECT_EQ(::lstat(path.c_str(), &info), 0) << path;
  return info;
}

TEST(AttemptDirs, MakesPrivateDirectoriesAndTheEventsFile) {
  TemporaryDirectory state;
  auto dirs = AttemptDirs::open(state.path(), std::nullopt);
  ASSERT_TRUE(dirs.ok()) << dirs.status();
  const AttemptPaths paths = (*dirs)->paths(key_of(7, 2));
  ASSERT_TRUE((*dirs)->make(paths).ok());
  for (const std::string& path :
       {paths.root, paths.app, paths.checkpoint, paths.output, paths.temporary}) {
    EXPECT_EQ(stat_of(path).st_mode & 07777, 0700u) << path;
    EXPECT_TRUE(fs::is_directory(path)) << path;
  }
  EXPECT_EQ(stat_of(paths.events).st_mode & 07777, 0600u);
  EXPECT_NE(paths.root.find("-7-2"), std::string::npos);
}

TEST(AttemptDirs, GivesThemToTheRanksUserButNotWhatHoldsThem) {
  const passwd* nobody = ::getpwnam("nobody");
  if (!is_root() || nobody == nullptr) return;  // only root can
  const uid_t uid = nobody->pw_uid;
  TemporaryDirectory state;
  auto dirs = AttemptDirs::open(state.path(), RankUser{"nobody", "/", uid, nobody->pw_gid});
  ASSERT_TRUE(dirs.ok()) << dirs.status();
  const AttemptPaths paths = (*dirs)->paths(key_of(1));
  ASSERT_TRUE((*dirs)->make(paths).ok());
  EXPECT_EQ(stat_of(paths.root).st_uid, 0u);
  EXPECT_EQ(stat_of(paths.root).st_mode & 07777, 0700u) << "closed while it is prepared";
  ASSERT_TRUE((*dirs)->open_to_ranks(paths).ok());
  EXPECT_EQ(stat_of(paths.root).st_mode & 07777, 0711u);
  (*dirs)->close_to_ranks(paths);
  EXPECT_EQ(stat_of(paths.root).st_mode & 07777, 0700u);
  for (const std::string& path :
       {paths.app, paths.checkpoint, paths.output, paths.temporary, paths.events}) {
    EXPECT_EQ(stat_of(path).st_uid, uid) << path;
    EXPECT_EQ(stat_of(path).st_mode & 0077, 0u) << path;
  }
}

TEST(AttemptDirs, MakingThemAgainLeavesNothingOfTheFirstTry) {
  TemporaryDirectory state;
  auto dirs = *AttemptDirs::open(state.path(), std::nullopt);
  const AttemptPaths paths = dirs->paths(key_of(1));
  ASSERT_TRUE(dirs->make(paths).ok());
  write_file(paths.app + "/left", "x");
  ASSERT_TRUE(dirs->make(paths).ok());
  EXPECT_FALSE(fs::exists(paths.app + "/left"));
}

TEST(AttemptDirs, DeletesWhatAProgramHasLocked) {
  TemporaryDirectory state;
  auto dirs = *AttemptDirs::open(state.path(), std::nullopt);
  const AttemptPaths paths = dirs->paths(key_of(1));
  ASSERT_TRUE(dirs->make(paths).ok());
  fs::create_directories(paths.app + "/a/b");
  write_file(paths.app + "/a/b/c", "x");
  ::chmod((paths.app + "/a/b").c_str(), 0);
  ::chmod((paths.app + "/a").c_str(), 0);
  dirs->discard(paths);
  EXPECT_FALSE(fs::exists(paths.root));
  dirs->empty_trash();
  EXPECT_TRUE(fs::is_empty(state.path() / "trash"));
}

// A program makes directories faster than anybody deletes them, and deeper than any path is long.
TEST(AttemptDirs, DeletesTreesDeeperThanItMayOpenFiles) {
  TemporaryDirectory state;
  auto dirs = *AttemptDirs::open(state.path(), std::nullopt);
  const AttemptPaths paths = dirs->paths(key_of(1));
  ASSERT_TRUE(dirs->make(paths).ok());
  int at = ::open(paths.app.c_str(), O_RDONLY | O_DIRECTORY);
  for (int depth = 0; depth < 3000; ++depth) {
    ASSERT_EQ(::mkdirat(at, "d", 0700), 0);
    const int file = ::openat(at, "deep-0", O_WRONLY | O_CREAT, 0600);  // as ours would be called
    ::close(file);
    const int next = ::openat(at, "d", O_RDONLY | O_DIRECTORY);
    ::fchmod(at, depth % 2 == 0 ? 0500 : 0);
    ::close(at);
    at = next;
  }
  ::close(at);
  dirs->discard(paths);
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  rlimit few = before;
  few.rlim_cur = 100;
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &few), 0);
  dirs->empty_trash();
  ::setrlimit(RLIMIT_NOFILE, &before);
  EXPECT_TRUE(fs::is_empty(state.path() / "trash"));
}

TEST(AttemptDirs, FollowsNoLinkWhenItDeletes) {
  TemporaryDirectory state;
  auto dirs = *AttemptDirs::open(state.path(), std::nullopt);
  const AttemptPaths paths = dirs->paths(key_of(1));
  ASSERT_TRUE(dirs->make(paths).ok());
  fs::create_directories(state.path() / "kept");
  write_file((state.path() / "kept/file").string(), "x");
  fs::create_directory_symlink(state.path() / "kept", paths.app + "/link");
  dirs->discard(paths);
  dirs->empty_trash();
  EXPECT_TRUE(fs::exists(state.path() / "kept/file"));
  EXPECT_TRUE(fs::is_empty(state.path() / "trash"));
  EXPECT_EQ(stat_of((state.path() / "trash").string()).st_mode & 07777, 0700u);
  EXPECT_TRUE(remove_tree(state.path() / "missing").ok());
}

TEST(AttemptDirs, DiscardsAllButTheKept) {
  TemporaryDirectory state;
  auto dirs = *AttemptDirs::open(state.path(), std::nullopt);
  for (uint32_t rank : {1, 2, 3}) ASSERT_TRUE(dirs->make(dirs->paths(key_of(rank))).ok());
  EXPECT_EQ(dirs->discard_others({key_of(2)}), 2u);
  EXPECT_TRUE(fs::exists(dirs->paths(key_of(2)).app));
  EXPECT_FALSE(fs::exists(dirs->paths(key_of(1)).root));
  // A worker that is killed now finds the trash full, and starts over.
  auto again = AttemptDirs::open(state.path(), std::nullopt);
  ASSERT_TRUE(again.ok());
  EXPECT_TRUE(fs::is_empty(state.path() / "trash"));
}

}  // namespace
}  // namespace pesc::worker
