#include "runtime/worker/shell/inputs.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "blob/pack.h"
#include "runtime/worker/shell/packing.h"
#include "tests/worker_shell/support.h"

namespace pesc::worker {
namespace {

namespace fs = std::filesystem;

class InputsTest : public testing::Test {
 protected:
  void SetUp() override {
    auto cache = Cache::open(state_.path(), 1 << 20);
    ASSERT_TRUE(cache.ok()) << cache.status();
    cache_ = *cache;
    auto dirs = AttemptDirs::open(state_.path(), std::nullopt);
    ASSERT_TRUE(dirs.ok());
    dirs_ = *dirs;
    paths_ = dirs_->paths(key_of(0));
    ASSERT_TRUE(dirs_->make(paths_).ok());
  }

  FileRef file(const std::string& path, const std::string& bytes, FileKind kind,
               uint32_t mode = 0644) {
    EXPECT_TRUE(cache_->store().put(bytes).ok());
    return {path, kind, blob_of(bytes), mode};
  }

  PlacedInputs place(SharedMode mode) {
    auto placed = place_inputs(spec_, paths_, *dirs_, *cache_, mode);
    EXPECT_TRUE(placed.ok()) << placed.status();
    return placed.ok() ? *placed : PlacedInputs();
  }

  absl::StatusOr<PackedOutput> pack(const PlacedInputs& placed) {
    PackOrder order;
    order.spec = std::make_shared<const JobSpec>(spec_);
    order.paths = paths_;
    order.placed = placed;
    order.exit.standard_output = "printed\n";
    order.outbox_file = (state_.path() / "packed").string();
    return pack_attempt(order);
  }

  // What the packed blob holds, unpacked.
  fs::path unpacked(const PackedOutput& output) {
    const fs::path target = state_.path() / "unpacked";
    remove_tree(target).IgnoreError();
    fs::create_directory(target);
    bool given = false;
    absl::Status status = blob::unpack(
        [&]() -> absl::StatusOr<std::string> {
          return std::exchange(given, true)
                     ? std::string()
                     : (output.file.empty() ? output.bytes : read_file(output.file));
        },
        target);
    EXPECT_TRUE(status.ok()) << status;
    return target;
  }

  TemporaryDirectory state_;
  std::shared_ptr<Cache> cache_;
  std::shared_ptr<AttemptDirs> dirs_;
  AttemptPaths paths_;
  JobSpec spec_;
};

TEST_F(InputsTest, FilesAreTheAttemptsOwnWithTheirModeAndPlace) {
  spec_.files = {file("bin/tool", "#!/bin/sh\n", FileKind::file, 0755),
                 file("data.csv", "1,2\n", FileKind::file, 0640),
                 {"empty/dir", FileKind::directory, {}, 0755}};
  place(SharedMode::checked);
  EXPECT_EQ(read_file(paths_.app + "/data.csv"), "1,2\n");
  EXPECT_TRUE(fs::is_directory(paths_.app + "/empty/dir"));
  struct stat info {};
  ASSERT_EQ(::stat((paths_.app + "/bin/tool").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0755u);
  EXPECT_EQ(info.st_nlink, 1u);
  // Written through by a rank, the blob is what it was.
  write_file(paths_.app + "/data.csv", "ruined");
  EXPECT_EQ(*cache_->store().read(blob_of("1,2\n").digest, 0, 100), "1,2\n");
}

TEST_F(InputsTest, APathThatLeadsOutIsRefused) {
  spec_.files = {file("../outside", "x", FileKind::file)};
  auto placed = place_inputs(spec_, paths_, *dirs_, *cache_, SharedMode::checked);
  EXPECT_TRUE(absl::IsInvalidArgument(placed.status())) << placed.status();
  EXPECT_FALSE(fs::exists(paths_.root + "/outside"));
}

TEST_F(InputsTest, RootsLinkIsOneFileThatNobodyMayWrite) {
  spec_.program = "./run";
  spec_.files = {file("prices.csv", "10\n", FileKind::shared_file),
                 file("run", "#!/bin/sh\n", FileKind::file, 0755)};
  place(SharedMode::root_link);
  struct stat info {};
  ASSERT_EQ(::stat((paths_.app + "/prices.csv").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0444u);
  EXPECT_EQ(info.st_uid, ::geteuid());
  EXPECT_GE(info.st_nlink, 2u);
  ASSERT_EQ(::stat((paths_.app + "/run").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0555u);
  EXPECT_GE(info.st_nlink, 2u);
}

TEST_F(InputsTest, BindsArePlaceholdersOverWhichTheCopyIsMounted) {
  spec_.files = {file("in/prices.csv", "10\n", FileKind::shared_file)};
  PlacedInputs placed = place(SharedMode::bind);
  ASSERT_EQ(placed.binds.size(), 1u);
  EXPECT_EQ(read_file(placed.binds[0].first), "10\n");
  EXPECT_EQ(placed.binds[0].second, paths_.app + "/in/prices.csv");
  EXPECT_EQ(fs::file_size(placed.binds[0].second), 0u);
}

TEST_F(InputsTest, ACheckedCopyThatWasChangedIsFetchedAgain) {
  spec_.files = {file("prices.csv", "10\n", FileKind::shared_file)};
  PlacedInputs placed = place(SharedMode::checked);
  EXPECT_EQ(read_file(paths_.app + "/prices.csv"), "10\n");
  ASSERT_EQ(placed.checks.size(), 1u);
  const SharedUse& use = placed.checks[0];
  EXPECT_TRUE(cache_->verify_shared_copy(use.path, use.digest, use.print));
  // Touched, but the bytes are the same: no reason to fetch gigabytes again.
  ::chmod(use.path.c_str(), 0644);
  EXPECT_TRUE(cache_->verify_shared_copy(use.path, use.digest, use.print));
  write_file(paths_.app + "/prices.csv", "99\n");
  EXPECT_FALSE(cache_->verify_shared_copy(use.path, use.digest, use.print));
  EXPECT_FALSE(fs::exists(use.path));
  EXPECT_FALSE(cache_->contains(use.digest));
}

TEST_F(InputsTest, ArchivesAreUnpackedAndFilesWinOverThem) {
  // An archive made by the packer itself.
  const fs::path source = state_.path() / "source";
  fs::create_directories(source / "lib");
  write_file(source / "lib/module", "from the archive");
  write_file(source / "config", "from the archive");
  blob::PackRequest request;
  request.output_dir = source;
  std::string archive;
  ASSERT_TRUE(blob::pack(request, [&](std::string_view bytes) {
                archive.append(bytes);
                return absl::OkStatus();
              }).ok());
  spec_.files = {file("config", "given", FileKind::file),
                 file("lib.tar.zst", archive, FileKind::archive)};
  place(SharedMode::checked);
  EXPECT_EQ(read_file(paths_.app + "/lib/module"), "from the archive");
  EXPECT_EQ(read_file(paths_.app + "/config"), "given");
  EXPECT_FALSE(fs::exists(paths_.app + "/lib.tar.zst"));
}

TEST_F(InputsTest, CollectReturnsResultsAndChangedInputsButNotUnchangedOnes) {
  spec_.collect = {"*.txt"};
  spec_.files = {file("same.txt", "input\n", FileKind::file),
                 file("changed.txt", "before", FileKind::file)};
  PlacedInputs placed = place(SharedMode::checked);
  write_file(paths_.app + "/changed.txt", "after!");  // the same size
  write_file(paths_.app + "/new.txt", "result");
  write_file(paths_.app + "/left.dat", "result");
  auto output = pack(placed);
  ASSERT_TRUE(output.ok()) << output.status();
  const fs::path target = unpacked(*output);
  EXPECT_EQ(read_file(target / "changed.txt"), "after!");
  EXPECT_EQ(read_file(target / "new.txt"), "result");
  EXPECT_FALSE(fs::exists(target / "same.txt"));
  EXPECT_EQ(read_file(target / "output.txt"), "printed\n");
  EXPECT_TRUE(fs::exists(target / "stderr.txt"));
  EXPECT_EQ(output->uncollected, std::vector<std::string>{"left.dat"});
}

TEST_F(InputsTest, SmallOutputsStayInMemoryLargeOnesGoToAFile) {
  auto small = pack({});
  ASSERT_TRUE(small.ok()) << small.status();
  EXPECT_TRUE(small->file.empty());
  EXPECT_EQ(blob_of(small->bytes), small->blob);
  std::string noise;  // does not compress
  for (uint32_t i = 0; noise.size() < 300'000; ++i) {
    const Digest digest = sha256(std::to_string(i));
    noise.append(digest.bytes.begin(), digest.bytes.end());
  }
  write_file(paths_.output + "/noise", noise);
  auto large = pack({});
  ASSERT_TRUE(large.ok()) << large.status();
  EXPECT_TRUE(large->bytes.empty());
  EXPECT_EQ(blob_of(read_file(large->file)), large->blob);
  EXPECT_EQ(read_file(unpacked(*large) / "noise"), noise);
}

TEST_F(InputsTest, ReadsWhatTheProgramHasLocked) {
  write_file(paths_.output + "/result", "42");
  ::chmod((paths_.output + "/result").c_str(), 0);
  auto output = pack({});
  ASSERT_TRUE(output.ok()) << output.status();
  EXPECT_EQ(read_file(unpacked(*output) / "result"), "42");
}

TEST(LastLine, IsTheLastThatSaysSomething) {
  EXPECT_EQ(last_line(""), "");
  EXPECT_EQ(last_line("\n \n"), "");
  EXPECT_EQ(last_line("first\n  second \n\n  \n"), "second");
  EXPECT_EQ(last_line("only"), "only");
  EXPECT_EQ(last_line(std::string(1000, 'x')).size(), 300u);
  std::string accents;
  for (int i = 0; i < 200; ++i) accents += "é";
  EXPECT_EQ(last_line("x" + accents).size(), 299u);  // not in the middle of one
  EXPECT_EQ(last_line("a\tb\x1b[0m"), "a b [0m");
}

TEST(CompleteOutcome, NamesTheRefusedArgumentAndTheLastWords) {
  KeptExit exit;
  exit.outcome.reason = EndReason::exit_code;
  exit.outcome.exit_code = 2;
  exit.outcome.duration_ms = 20;
  exit.standard_error = "usage: tool\ntool: error: unrecognized arguments: --rank 0\n";
  AttemptOutcome outcome = complete_outcome(exit, {}, Inject::args);
  EXPECT_TRUE(outcome.refused_arguments);
  EXPECT_NE(outcome.detail.find("unrecognized arguments"), std::string::npos);
  EXPECT_FALSE(complete_outcome(exit, {}, Inject::env).refused_arguments);
  exit.outcome.duration_ms = 5'000;
  EXPECT_FALSE(complete_outcome(exit, {}, Inject::args).refused_arguments);
  exit.outcome.reason = EndReason::cannot_start;
  exit.outcome.detail = "./x: no such file";
  EXPECT_EQ(complete_outcome(exit, {}, Inject::args).detail, "./x: no such file");
}

}  // namespace
}  // namespace pesc::worker
