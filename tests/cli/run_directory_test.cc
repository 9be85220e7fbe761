#include "runtime/cli/run_directory.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>

#include "runtime/cli/report.h"

namespace pesc::cli {
namespace {

namespace fs = std::filesystem;

class RunDirectoryTest : public ::testing::Test {
 protected:
  RunDirectoryTest() {
    std::string pattern = (fs::temp_directory_path() / "pesc-run-XXXXXX").string();
    path_ = mkdtemp(pattern.data());
    fs::create_directories(path_ / ".pesc/state/coordinator");
  }
  ~RunDirectoryTest() override { fs::remove_all(path_); }

  void touch(const fs::path& path, int64_t unix_s) {
    if (!fs::exists(path)) std::ofstream(path) << "x";
    timespec times[2] = {{unix_s, 0}, {unix_s, 0}};
    ASSERT_EQ(utimensat(AT_FDCWD, path.c_str(), times, 0), 0);
  }
  // Nothing in the state is younger.
  void last_alive(int64_t unix_s) {
    touch(path_ / ".pesc/state/coordinator/journal", unix_s);
    touch(path_ / ".pesc/state/coordinator/older", unix_s - 100);
    touch(path_ / ".pesc/state/coordinator", unix_s - 1);
  }

  fs::path path_;
};

TEST_F(RunDirectoryTest, PausesAreFromTheLastSignOfLifeAndAddUp) {
  RunDirectory directory(path_.string());
  last_alive(1'000);
  EXPECT_EQ(directory.add_pause(1'060'000), 60'000u);
  last_alive(2'000);
  EXPECT_EQ(directory.add_pause(2'005'000), 65'000u);
  EXPECT_EQ(RunDirectory(path_.string()).add_pause(1'000'000), 65'000u) << "a clock set back";
}

TEST_F(RunDirectoryTest, WithoutAStateThereWasNoPause) {
  fs::remove_all(path_ / ".pesc/state");
  EXPECT_EQ(RunDirectory(path_.string()).add_pause(5'000), 0u);
}

TEST(Elapsed, WithoutThePauses) {
  JobStatus status;
  status.submitted_unix_ms = 10'000;
  status.finished_unix_ms = 80'000;
  EXPECT_EQ(elapsed_ms(status, 99'000, 0), 70'000u);
  EXPECT_EQ(elapsed_ms(status, 99'000, 60'000), 10'000u);
  EXPECT_EQ(elapsed_ms(status, 99'000, 90'000), 0u);
  status.finished_unix_ms = 0;
  EXPECT_EQ(elapsed_ms(status, 99'000, 60'000), 29'000u);
  RankResult rank;
  rank.state = State::succeeded;
  rank.seconds = 58;
  EXPECT_EQ(statistics_of(status, {rank}, 99'000, 60'000).elapsed_seconds, 29);
  EXPECT_EQ(statistics_of(status, {rank}, 99'000, 60'000).speed_up, 2);
}

}  // namespace
}  // namespace pesc::cli
