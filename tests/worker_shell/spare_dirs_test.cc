#include "runtime/worker/shell/spare_dirs.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/worker_shell/support.h"

namespace pesc::worker {
namespace {

namespace fs = std::filesystem;

class TidyTest : public testing::Test {
 protected:
  void SetUp() override {
    auto cache = Cache::open(state_.path(), 1 << 20);
    ASSERT_TRUE(cache.ok()) << cache.status();
    cache_ = *cache;
    auto dirs = AttemptDirs::open(state_.path(), std::nullopt);
    ASSERT_TRUE(dirs.ok()) << dirs.status();
    dirs_ = *dirs;
    spec_.files = {file("model.cfg", "alpha = 1\n", FileKind::file),
                   file("prices.csv", "1,2,3\n", FileKind::shared_file)};
    dir_.paths = dirs_->paths(key_of(0));
    place(SharedMode::checked);
  }

  FileRef file(const std::string& path, const std::string& bytes, FileKind kind) {
    EXPECT_TRUE(cache_->store().put(bytes).ok());
    return {path, kind, blob_of(bytes), 0644};
  }

  void place(SharedMode mode) {
    ASSERT_TRUE(dirs_->make(dir_.paths).ok());
    auto placed = place_inputs(spec_, dir_.paths, *dirs_, *cache_, mode);
    ASSERT_TRUE(placed.ok()) << placed.status();
    dir_.placed = *placed;
    dirs_->mark(dir_.paths);
  }

  bool tidied() const { return tidy(dir_, *dirs_); }
  std::string app(const char* name) const { return dir_.paths.app + "/" + name; }

  TemporaryDirectory state_;
  std::shared_ptr<Cache> cache_;
  std::shared_ptr<AttemptDirs> dirs_;
  JobSpec spec_;
  SpareDir dir_;
};

TEST_F(TidyTest, WhatAnAttemptLeavesIsGoneAndItsInputsStay) {
  write_file(app("core"), "x");
  ASSERT_EQ(::symlink("/etc", app("link").c_str()), 0);
  write_file(dir_.paths.output + "/result.bin", "result");
  write_file(dir_.paths.checkpoint + "/state", "step 3");
  write_file(dir_.paths.temporary + "/scratch", "");
  write_file(dir_.paths.events, "progress 0.5\ncheckpoint\n");
  write_file(dir_.paths.root + "/stdout", "long");
  ASSERT_TRUE(tidied());
  EXPECT_EQ(read_file(app("model.cfg")), "alpha = 1\n");
  EXPECT_EQ(read_file(app("prices.csv")), "1,2,3\n");
  EXPECT_TRUE(fs::exists("/etc")) << "a link goes, not what it points to";
  EXPECT_FALSE(fs::exists(dir_.paths.root + "/stdout"));
  EXPECT_EQ(fs::file_size(dir_.paths.events), 0u);
  size_t entries = 0;
  for (const auto& entry : fs::recursive_directory_iterator(dir_.paths.root)) {
    entries += entry.path().empty() ? 0 : 1;
  }
  EXPECT_EQ(entries, 7u) << "four directories, the events and two inputs";
}

TEST_F(TidyTest, WhatIsDoneInADirectoryLeavesATraceWhateverTheClock) {
  const uid_t owner = ::geteuid();
  for (const std::string& path : {dir_.paths.app, dir_.paths.output, dir_.paths.temporary}) {
    EXPECT_TRUE(dirs_->is_untouched(path, owner)) << path;
    write_file(path + "/new", "");
    EXPECT_FALSE(dirs_->is_untouched(path, owner)) << path;
    EXPECT_FALSE(dirs_->is_untouched(path, owner + 1)) << path;
  }
  ASSERT_TRUE(tidied());
  for (const std::string& path : {dir_.paths.app, dir_.paths.output, dir_.paths.root}) {
    EXPECT_TRUE(dirs_->is_untouched(path, owner)) << path;
  }
  ASSERT_EQ(::chmod(dir_.paths.output.c_str(), 0755), 0);
  EXPECT_FALSE(dirs_->is_untouched(dir_.paths.output, owner));
}

TEST_F(TidyTest, NotWhenAnInputWasWrittenInTheInstantOfItsPlacement) {
  write_file(app("model.cfg"), "alpha = 2\n");
  EXPECT_FALSE(tidied());
}

TEST_F(TidyTest, NotWhenAnInputWasReplaced) {
  const std::string bytes = read_file(app("model.cfg"));
  fs::remove(app("model.cfg"));
  write_file(app("model.cfg"), bytes);
  EXPECT_FALSE(tidied());
}

TEST_F(TidyTest, NotWhenASharedOneWasReplaced) {
  fs::remove(app("prices.csv"));
  write_file(app("prices.csv"), "9,9,9\n");
  EXPECT_FALSE(tidied());
}

TEST_F(TidyTest, NotWhenAnInputIsGoneOrHasAnotherMode) {
  ASSERT_EQ(::chmod(app("model.cfg").c_str(), 0755), 0);
  EXPECT_FALSE(tidied());
  ASSERT_EQ(::chmod(app("model.cfg").c_str(), 0644), 0);
  fs::remove(app("model.cfg"));
  EXPECT_FALSE(tidied());
}

TEST_F(TidyTest, NotWithADirectoryOrManyFiles) {
  fs::create_directory(dir_.paths.output + "/sub");
  EXPECT_FALSE(tidied());
  fs::remove(dir_.paths.output + "/sub");
  ASSERT_TRUE(tidied());
  for (int i = 0; i < 100; ++i) write_file(dir_.paths.output + "/" + std::to_string(i), "");
  EXPECT_FALSE(tidied());
}

TEST_F(TidyTest, ForAnotherJobTheTimesOfDirectoriesProveNothing) {
  dirs_->mark(dir_.paths);
  struct stat before {};
  ASSERT_EQ(::stat(dir_.paths.output.c_str(), &before), 0);
  write_file(dir_.paths.output + "/planted", "x");
  const timespec times[] = {before.st_atim, before.st_mtim};
  ASSERT_EQ(::utimensat(AT_FDCWD, dir_.paths.output.c_str(), times, 0), 0);
  ASSERT_TRUE(tidied());
  EXPECT_TRUE(fs::exists(dir_.paths.output + "/planted")) << "else this shows nothing";
  ASSERT_TRUE(tidy(dir_, *dirs_, true));
  EXPECT_FALSE(fs::exists(dir_.paths.output + "/planted"));
}

TEST_F(TidyTest, NotWhenADirectoryIsAnotherThanBefore) {
  ASSERT_EQ(::chmod(dir_.paths.output.c_str(), 0755), 0);
  EXPECT_FALSE(tidied());
  ASSERT_EQ(::chmod(dir_.paths.output.c_str(), 0700), 0);
  ASSERT_TRUE(tidied());
  fs::remove(dir_.paths.temporary);
  EXPECT_FALSE(tidied());
  const fs::path elsewhere = state_.path() / "elsewhere";
  fs::create_directory(elsewhere);
  write_file(elsewhere / "precious", "x");
  fs::create_symlink(elsewhere, dir_.paths.temporary);
  EXPECT_FALSE(tidied());
  EXPECT_TRUE(fs::exists(elsewhere / "precious"));
}

TEST_F(TidyTest, NotWhenTheEventsAreAnotherFile) {
  const fs::path precious = state_.path() / "precious";
  write_file(precious, "x");
  fs::remove(dir_.paths.events);
  fs::create_hard_link(precious, dir_.paths.events);
  EXPECT_FALSE(tidied());
  fs::remove(dir_.paths.events);
  fs::create_symlink(precious, dir_.paths.events);
  EXPECT_FALSE(tidied());
  fs::remove(dir_.paths.events);
  ASSERT_EQ(::mkfifo(dir_.paths.events.c_str(), 0600), 0);
  EXPECT_FALSE(tidied()) << "and it does not block";
  EXPECT_EQ(read_file(precious), "x");
}

TEST_F(TidyTest, NotWithInputsInDirectories) {
  spec_.files.push_back(file("sub/deep.cfg", "x", FileKind::file));
  dir_.paths = dirs_->paths(key_of(1));
  place(SharedMode::checked);
  EXPECT_FALSE(tidied());
}

// Other ranks link to the copy meanwhile.
TEST_F(TidyTest, ALinkToRootsCopyMayHaveOthers) {
  if (!is_root()) return;  // only root's copies are linked
  dir_.paths = dirs_->paths(key_of(1));
  place(SharedMode::root_link);
  fs::create_hard_link(app("prices.csv"), state_.path() / "another");
  EXPECT_TRUE(tidied());
  fs::remove(app("prices.csv"));
  write_file(app("prices.csv"), "9,9,9\n");
  EXPECT_FALSE(tidied());
}

TEST(SpareDirs, OnlyForTheSameJob) {
  SpareDirs spares(10);
  SpareDir dir;
  dir.paths.root = "a";
  EXPECT_TRUE(spares.keep(JobId{1}, dir).empty());
  EXPECT_FALSE(spares.take(JobId{2}));
  ASSERT_TRUE(spares.take(JobId{1}));
  EXPECT_FALSE(spares.take(JobId{1}));
  EXPECT_EQ(spares.size(), 0u);
}

TEST(SpareDirs, TheOldestJobsGoWhenThereAreTooMany) {
  SpareDirs spares(3);
  for (const uint64_t job : {1, 1, 2}) EXPECT_TRUE(spares.keep(JobId{job}, {}).empty());
  EXPECT_EQ(spares.keep(JobId{2}, {}).size(), 2u);
  EXPECT_EQ(spares.size(), 2u);
  EXPECT_EQ(spares.drop(JobId{2}).size(), 2u);
  EXPECT_TRUE(spares.drop(JobId{2}).empty());
  EXPECT_EQ(spares.size(), 0u);
}

}  // namespace
}  // namespace pesc::worker
