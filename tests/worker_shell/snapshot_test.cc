// What is taken of a checkpoint_dir, and what is not.
#include "runtime/worker/shell/snapshot.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include "protocol/codec.h"
#include "tests/worker_shell/support.h"

namespace pesc::worker {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class SnapshotTest : public ::testing::Test {
 protected:
  void SetUp() override { fs::create_directory(from_); }

  absl::StatusOr<Snapshot> take(uid_t owner = ::geteuid()) {
    return take_snapshot(from_.string(), (dir_.path() / "snapshot").string(), owner);
  }
  HashedSnapshot hashed() {
    auto snapshot = take();
    EXPECT_TRUE(snapshot.ok()) << snapshot.status();
    auto result = hash(*std::move(snapshot));
    EXPECT_TRUE(result.ok()) << result.status();
    return result.ok() ? *std::move(result) : HashedSnapshot();
  }
  absl::StatusOr<HashedSnapshot> hash(Snapshot snapshot) {
    SnapshotHashing hashing(std::move(snapshot), cancelled_);
    for (steps_ = 1;; ++steps_) {
      if (auto result = hashing.step()) return *std::move(result);
    }
  }
  std::vector<std::string> names(const HashedSnapshot& hashed) const {
    std::vector<std::string> names;
    for (const CheckpointFile& file : hashed.manifest.files) names.push_back(file.path);
    return names;
  }
  static std::string large(char fill) { return std::string(3 << 20, fill); }

  TemporaryDirectory dir_;
  const fs::path from_ = dir_.path() / "checkpoint";
  const std::shared_ptr<std::atomic<bool>> cancelled_ = std::make_shared<std::atomic<bool>>(false);
  int steps_ = 0;
};

TEST_F(SnapshotTest, HasFilesDirectoriesAndLinksSorted) {
  fs::create_directory(from_ / "a");
  write_file(from_ / "a" / "state", "7");
  write_file(from_ / "a.b", "");
  fs::create_symlink("a/state", from_ / "newest");
  const HashedSnapshot result = hashed();
  EXPECT_THAT(names(result), ElementsAre("a", "a.b", "a/state", "newest"));
  EXPECT_EQ(result.manifest.files[3].target, "a/state");
  EXPECT_EQ(result.manifest.files[2].chunks, std::vector<BlobRef>{blob_of("7")});
  auto parsed = protocol::parse_manifest(result.manifest_bytes);
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(*parsed, result.manifest);
}

TEST_F(SnapshotTest, LargeFilesAreChunksAndEqualOnesAreOnePiece) {
  const std::string bytes(kCheckpointChunkBytes * 2 + 5, 'x');
  write_file(from_ / "one", bytes);
  write_file(from_ / "two", bytes);
  const HashedSnapshot result = hashed();
  ASSERT_EQ(result.manifest.files.size(), 2u);
  EXPECT_EQ(result.manifest.files[0].chunks.size(), 3u);
  EXPECT_EQ(result.manifest.files[0].chunks, result.manifest.files[1].chunks);
  EXPECT_EQ(result.manifest.files[0].chunks[2], blob_of("xxxxx"));
  EXPECT_EQ(result.pieces.size(), 2u);
}

TEST_F(SnapshotTest, EqualDirectoriesHaveEqualManifests) {
  write_file(from_ / "state", "7");
  const BlobRef first = hashed().manifest_blob;
  EXPECT_EQ(hashed().manifest_blob, first);
  write_file(from_ / "state", "8");
  EXPECT_NE(hashed().manifest_blob, first);
}

TEST_F(SnapshotTest, LeavesOutWhatIsNotReadyAndWhatIsNoFile) {
  write_file(from_ / "state", "7");
  write_file(from_ / "state.tmp", "half");
  ASSERT_EQ(::mkfifo((from_ / "pipe").c_str(), 0600), 0);
  EXPECT_THAT(names(hashed()), ElementsAre("state"));
}

TEST_F(SnapshotTest, LeavesOutOtherPeoplesFiles) {
  write_file(from_ / "state", "7");
  auto snapshot = take(::geteuid() + 1);
  ASSERT_TRUE(snapshot.ok());
  EXPECT_TRUE(snapshot->files.empty());
}

TEST_F(SnapshotTest, DoesNotFollowALinkInPlaceOfTheDirectory) {
  fs::remove(from_);
  fs::create_directory(dir_.path() / "elsewhere");
  fs::create_directory_symlink(dir_.path() / "elsewhere", from_);
  EXPECT_FALSE(take().ok());
}

TEST_F(SnapshotTest, AReplacedFileIsSavedAsItWas) {
  write_file(from_ / "state", large('1'));
  auto snapshot = take();
  ASSERT_TRUE(snapshot.ok());
  write_file(from_ / "state.tmp", large('2'));
  fs::rename(from_ / "state.tmp", from_ / "state");
  auto result = hash(*std::move(snapshot));
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->manifest.files[0].chunks, std::vector<BlobRef>{blob_of(large('1'))});
}

TEST_F(SnapshotTest, AFileWrittenInPlaceMeanwhileIsTornUnlessItWasCloned) {
  write_file(from_ / "state", large('1'));
  auto snapshot = take();
  ASSERT_TRUE(snapshot.ok());
  const bool linked = snapshot->files[0].linked;
  // Its time as a program's later write has it, whatever the step of the kernel's clock is.
  const int fd = ::open((from_ / "state").c_str(), O_WRONLY | O_CLOEXEC);
  ASSERT_EQ(::pwrite(fd, "2", 1, 0), 1);
  const timespec later[2] = {{4'000'000'000, 0}, {4'000'000'000, 0}};
  ASSERT_EQ(::futimens(fd, later), 0);
  ::close(fd);
  auto result = hash(*std::move(snapshot));
  if (linked) {
    EXPECT_TRUE(absl::IsAborted(result.status())) << result.status();
  } else {
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_EQ(result->manifest.files[0].chunks, std::vector<BlobRef>{blob_of(large('1'))});
  }
}

TEST_F(SnapshotTest, GivesUpWhenItIsNotWanted) {
  write_file(from_ / "state", large('1'));
  auto snapshot = take();
  ASSERT_TRUE(snapshot.ok());
  *cancelled_ = true;
  EXPECT_TRUE(absl::IsCancelled(hash(*std::move(snapshot)).status()));
  EXPECT_EQ(steps_, 1);
}

TEST_F(SnapshotTest, ALargeOneIsHashedInSlices) {
  {
    std::ofstream out(from_ / "state", std::ios::binary);
    const std::string block(1 << 20, 'x');
    for (int i = 0; i < 100; ++i) out << block;
  }
  EXPECT_EQ(hashed().manifest.files[0].chunks.size(), 25u);
  EXPECT_GE(steps_, 2);
}

TEST_F(SnapshotTest, AHoleOfManyGigabytesCostsNothing) {
  constexpr uint64_t kBytes = (400ull << 30) + 5;
  const int fd = ::open((from_ / "field").c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  ASSERT_EQ(::ftruncate(fd, kBytes), 0);
  ASSERT_EQ(::pwrite(fd, "7", 1, 100ll << 30), 1);
  ::close(fd);
  const HashedSnapshot result = hashed();
  ASSERT_EQ(result.manifest.files.size(), 1u);
  const std::vector<BlobRef>& chunks = result.manifest.files[0].chunks;
  ASSERT_EQ(chunks.size(), 102'401u);
  EXPECT_EQ(chunks[0], zero_chunk());
  EXPECT_EQ(chunks[25'600], blob_of("7" + std::string(kCheckpointChunkBytes - 1, '\0')));
  EXPECT_EQ(chunks[25'601], zero_chunk());
  EXPECT_EQ(chunks.back(), blob_of(std::string(5, '\0')));
  EXPECT_EQ(result.pieces.size(), 3u);
}

// A path can be longer than any call takes, and nobody could make it again.
TEST_F(SnapshotTest, APathThatCouldNotBeRestoredIsRefused) {
  const std::string name(200, 'a');
  int fd = ::open(from_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  for (int i = 0; i < 25; ++i) {
    ASSERT_EQ(::mkdirat(fd, name.c_str(), 0700), 0);
    const int below = ::openat(fd, name.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    ::close(fd);
    fd = below;
  }
  ::close(fd);
  auto snapshot = take();
  ASSERT_TRUE(absl::IsInvalidArgument(snapshot.status())) << snapshot.status();
  EXPECT_THAT(std::string(snapshot.status().message()), HasSubstr("too long to be restored"));
}

TEST_F(SnapshotTest, WhatTheCodecRefusesIsRefusedBeforeItIsOffered) {
  write_file(from_ / "state", "7");
  auto snapshot = take();
  ASSERT_TRUE(snapshot.ok());
  snapshot->files[0].entry.path = std::string(5'000, 'a');
  auto result = hash(*std::move(snapshot));
  ASSERT_TRUE(absl::IsInvalidArgument(result.status())) << result.status();
  EXPECT_THAT(std::string(result.status().message()), HasSubstr("could not be restored"));
}

TEST_F(SnapshotTest, ALeaseOfTheProgramIsNotWaitedFor) {
  write_file(from_ / "state", large('1'));
  auto snapshot = take();
  ASSERT_TRUE(snapshot.ok());
  const bool linked = snapshot->files[0].linked;
  const int fd = ::open((from_ / "state").c_str(), O_RDWR | O_CLOEXEC);
  ASSERT_EQ(::fcntl(fd, F_SETSIG, SIGURG), 0);  // the kernel's word that somebody wants it: ignored
  const bool leased = ::fcntl(fd, F_SETLEASE, F_WRLCK) == 0;  // not every file system has them
  const auto result = hash(*std::move(snapshot));
  EXPECT_EQ(result.ok(), !(leased && linked)) << result.status();
  if (!result.ok()) {
    EXPECT_THAT(std::string(result.status().message()), HasSubstr("lease"));
  }
  ::close(fd);
}

}  // namespace
}  // namespace pesc::worker
