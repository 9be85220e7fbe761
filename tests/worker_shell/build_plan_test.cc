// What tells one build from another, and what its failure is told by.
#include "runtime/worker/shell/build_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "runtime/worker/shell/build_index.h"
#include "tests/worker_shell/support.h"

namespace pesc::worker {
namespace {

namespace fs = std::filesystem;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

JobSpec spec_of(const std::string& build) {
  JobSpec spec;
  spec.program = "./sim";
  spec.build = build;
  spec.files = {{"sim.c", FileKind::file, blob_of("int main"), 0644},
                {"Makefile", FileKind::file, blob_of("all:"), 0644}};
  return spec;
}

TEST(BuildKey, SaysAllThatABuildIsMadeOf) {
  const JobSpec spec = spec_of("make");
  const Digest key = build_key(spec, "gcc 12", 806);
  EXPECT_EQ(build_key(spec, "gcc 12", 806), key);
  EXPECT_NE(build_key(spec, "gcc 13", 806), key);
  EXPECT_NE(build_key(spec, "gcc 12", 900), key);
  EXPECT_NE(build_key(spec_of("make sim"), "gcc 12", 806), key);
  JobSpec other = spec;
  other.files[0].blob = blob_of("int main()");
  EXPECT_NE(build_key(other, "gcc 12", 806), key) << "its sources";
  other = spec;
  other.files[0].path = "sin.c";
  EXPECT_NE(build_key(other, "gcc 12", 806), key);
  other = spec;
  other.environment = {{"CFLAGS", "-g"}};
  EXPECT_NE(build_key(other, "gcc 12", 806), key);
}

TEST(BuildKey, IsTheSameForAllWhoWantTheSame) {
  JobSpec one = spec_of("make"), other = spec_of("make");
  other.name = "another";
  other.program = "./tool";
  other.arguments = {"--model", "7"};
  other.repetitions = 1000;
  other.seed = 5;
  other.retries = 3;
  std::swap(other.files[0], other.files[1]);
  EXPECT_EQ(build_key(one, "gcc", 0), build_key(other, "gcc", 0));
}

TEST(Toolchain, IsWhatTheCommandNamesOnThePath) {
  TemporaryDirectory directory;
  const fs::path tool = directory.path() / "my-nvcc";
  const std::string path = "/usr/bin:/bin:" + directory.path().string();
  const std::string without = toolchain_print("CFLAGS=-g my-nvcc -O3 sim.cu -o sim && strip", path);
  write_file(tool, "#!/bin/sh\n");
  EXPECT_EQ(toolchain_print("my-nvcc sim.cu", path).find("my-nvcc"), std::string::npos)
      << "it is not executable";
  fs::permissions(tool, fs::perms::owner_all);
  const std::string with = toolchain_print("CFLAGS=-g my-nvcc -O3 sim.cu -o sim && strip", path);
  EXPECT_THAT(with, HasSubstr(tool.string()));
  EXPECT_NE(with, without);
  EXPECT_THAT(with, HasSubstr("sh /"));
  EXPECT_EQ(toolchain_print("make", path).find("my-nvcc"), std::string::npos) << "not named";
  write_file(tool, "#!/bin/sh\necho newer\n");
  EXPECT_NE(toolchain_print("CFLAGS=-g my-nvcc -O3 sim.cu -o sim && strip", path), with);
}

TEST(BuildEnvironment, IsARanksWithTheCapability) {
  const AttemptPaths paths{"/s/a", "/s/a/app", "/s/a/c", "/s/a/o", "/s/a/tmp", "/s/a/events"};
  JobSpec spec = spec_of("make");
  spec.environment = {{"CFLAGS", "-g"}};
  const auto environment = build_environment(spec, {"/bin", "/home/u", "C.UTF-8"}, paths, 806,
                                             {"CUDA_VISIBLE_DEVICES=GPU-a"});
  for (const char* variable :
       {"CFLAGS=-g", "HOME=/home/u", "TMPDIR=/s/a/tmp", "PESC_APP_DIR=/s/a/app",
        "PESC_COMPUTE_CAPABILITY=86", "CUDA_VISIBLE_DEVICES=GPU-a"}) {
    EXPECT_THAT(environment, Contains(variable));
  }
  EXPECT_THAT(environment, Not(Contains(HasSubstr("PESC_RANK")))) << "it is nobody's alone";
  EXPECT_THAT(build_environment(spec, {"/bin", "", ""}, paths, 1200, {}),
              Contains("PESC_COMPUTE_CAPABILITY=120"));
  spec.environment = {{"PATH", "/opt/tools"}};
  EXPECT_THAT(build_environment(spec, {"/bin", "", ""}, paths, 0, {}), Contains("PATH=/opt/tools"));
}

TEST(BuildLog, EndsWithWhatMatters) {
  EXPECT_EQ(last_lines("a\nb\n\nsim.cu(12): error\n1 error detected\nmake: *** [sim] Error 2\n\n"),
            "sim.cu(12): error | 1 error detected | make: *** [sim] Error 2");
  EXPECT_EQ(last_lines("sh: 1: nvcc: not found\n"), "sh: 1: nvcc: not found");
  EXPECT_EQ(last_lines(" \n\n"), "");
  EXPECT_LE(last_lines(std::string(5000, 'x') + "\n" + std::string(5000, 'y')).size(), 600u);
}

struct Trees : testing::Test {
  TemporaryDirectory directory;
  std::unique_ptr<blob::Store> store =
      *blob::Store::open({.directory = directory.path() / "store"});
  std::atomic<bool> cancelled = false;
  fs::path app = directory.path() / "app";
  void SetUp() override { fs::create_directories(app / "out"); }
  absl::StatusOr<BuiltTree> take(const JobSpec& spec, uint64_t most = 1 << 20) {
    return take_tree(app.string(), ::geteuid(), spec, *store, most, cancelled);
  }
};

TEST_F(Trees, AreFilesDirectoriesAndLinks) {
  write_file(app / "sim.c", "int main");
  write_file(app / "out/sim", "binary");
  write_file(app / "data", "shared");
  fs::permissions(app / "out/sim", fs::perms(0755));
  fs::permissions(app / "sim.c", fs::perms(0644));
  fs::permissions(app / "out", fs::perms(0755));
  fs::create_symlink("out/sim", app / "sim");
  fs::create_symlink("/etc/passwd", app / "out/users");
  ASSERT_EQ(::mkfifo((app / "pipe").c_str(), 0600), 0);
  JobSpec spec = spec_of("make");
  spec.files.push_back({"data", FileKind::shared_file, blob_of("shared"), 0644});
  const auto tree = take(spec);
  ASSERT_TRUE(tree.ok()) << tree.status();
  const std::vector<FileRef> files = {{"out", FileKind::directory, {}, 0755},
                                      {"out/sim", FileKind::file, blob_of("binary"), 0755},
                                      {"sim.c", FileKind::file, blob_of("int main"), 0644}};
  EXPECT_EQ(tree->files, files);
  const std::vector<std::pair<std::string, std::string>> links = {{"out/users", "/etc/passwd"},
                                                                  {"sim", "out/sim"}};
  EXPECT_EQ(tree->links, links);
  EXPECT_TRUE(store->contains(blob_of("binary").digest));
  EXPECT_FALSE(store->contains(blob_of(read_file("/etc/passwd")).digest)) << "never followed";
  const JobSpec placed = with_built(spec, *tree);
  EXPECT_EQ(placed.files.size(), 4u);
  EXPECT_EQ(placed.files.back().path, "data");

  auto index = BuildIndex::open(directory.path());
  ASSERT_TRUE(index.ok()) << index.status();
  const Digest key = sha256("key");
  EXPECT_FALSE((*index)->load(key));
  ASSERT_TRUE((*index)->save(key, *tree).ok());
  EXPECT_EQ((*index)->load(key), *tree);
  std::string bytes = read_file(directory.path() / "builds" / to_hex(key));
  bytes[bytes.size() / 2] ^= 1;
  write_file(directory.path() / "builds" / to_hex(key), bytes);
  EXPECT_FALSE((*index)->load(key)) << "damaged";
  (*index)->drop(key);
  EXPECT_FALSE(fs::exists(directory.path() / "builds" / to_hex(key)));
}

TEST_F(Trees, AreBounded) {
  write_file(app / "large", std::string(5000, 'x'));
  EXPECT_THAT(std::string(take(spec_of("make"), 1000).status().message()), HasSubstr("cache"));
  cancelled = true;
  EXPECT_FALSE(take(spec_of("make")).ok());
}

TEST_F(Trees, ManyBuildsPushOutTheOldest) {
  auto index = *BuildIndex::open(directory.path());
  for (size_t i = 0; i < 2 * BuildIndex::kMaxBuilds; ++i) {
    const fs::path path = directory.path() / "builds" / to_hex(sha256(std::to_string(i)));
    write_file(path, "");
    if (i == 7) fs::last_write_time(path, fs::file_time_type::clock::now() - std::chrono::hours(1));
  }
  const Digest seventh = sha256("7"), eighth = sha256("8");
  ASSERT_TRUE(index->save(seventh, {}).ok()) << "full, and no more than that";
  ASSERT_TRUE(index->load(seventh));
  fs::last_write_time(directory.path() / "builds" / to_hex(seventh),
                      fs::file_time_type::clock::now() - std::chrono::hours(1));
  ASSERT_TRUE(index->save(sha256("new"), {}).ok());
  ASSERT_TRUE(index->save(sha256("newer"), {}).ok());
  EXPECT_FALSE(fs::exists(directory.path() / "builds" / to_hex(seventh))) << "the oldest";
  EXPECT_TRUE(fs::exists(directory.path() / "builds" / to_hex(eighth)));
  EXPECT_TRUE(index->load(sha256("newer")));
}

}  // namespace
}  // namespace pesc::worker
