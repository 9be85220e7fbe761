#include "runtime/cli/progress_line.h"

#include <gtest/gtest.h>

namespace pesc::cli {
namespace {

using std::chrono::milliseconds;

Progress at(uint32_t succeeded, uint32_t running = 0, uint32_t failed = 0, uint32_t all = 20) {
  Progress progress;
  progress.status.repetitions = all;
  progress.status.succeeded = succeeded;
  progress.status.running = running;
  progress.status.failed = failed;
  return progress;
}

TEST(ProgressLine, CountsRateAndTimeToGo) {
  ProgressLine line;
  ProgressLine::Time start{};
  EXPECT_EQ(line.text(at(0), start), "0/20 ranks");
  EXPECT_EQ(line.text(at(1, 2), start + milliseconds(400)), "1/20 ranks, 2 running")
      << "too early for a rate";
  EXPECT_EQ(line.text(at(7, 2, 1), start + milliseconds(2'000)),
            "8/20 ranks, 2 running, 1 failed, 4.0/s, ETA 3.0s");
  EXPECT_EQ(line.text(at(19, 0, 1), start + milliseconds(4'000)), "20/20 ranks, 1 failed, 5.0/s");
}

TEST(ProgressLine, WhatWasThereBeforeIsNoRate) {
  ProgressLine line;
  ProgressLine::Time start{};
  line.text(at(10), start);
  EXPECT_EQ(line.text(at(10), start + milliseconds(1'000)), "10/20 ranks");
  EXPECT_EQ(line.text(at(12), start + milliseconds(2'000)), "12/20 ranks, 1.0/s, ETA 8.0s");
  // Ranks that are tried again are taken back: never a rate below nothing.
  EXPECT_EQ(line.text(at(9), start + milliseconds(3'000)), "9/20 ranks");
}

TEST(ProgressLine, CancelledRanksAreCounted) {
  ProgressLine line;
  Progress progress = at(2);
  progress.status.cancelled = 18;
  EXPECT_EQ(line.text(progress, {}), "20/20 ranks, 18 cancelled");
}

TEST(Bar, FillsTheWidthAndNoMore) {
  EXPECT_EQ(with_bar(0.5, "10/20 ranks", 80), "[###############...............]  50% 10/20 ranks");
  EXPECT_EQ(with_bar(1, "20/20 ranks", 31), "[##########] 100% 20/20 ranks");
  EXPECT_EQ(with_bar(1, "20/20 ranks", 20), "20/20 ranks");
  EXPECT_EQ(with_bar(1, "20/20 ranks", 6), "20/20");
  EXPECT_EQ(with_bar(1, "20/20 ranks", 0), "");
}

class Notes : public ::testing::Test {
 protected:
  std::optional<std::string> at(int seconds) {
    notes_.update(status_);
    return notes_.take(RetryNotes::Time() + std::chrono::hours(1) + std::chrono::seconds(seconds));
  }
  RetryNotes notes_;
  JobStatus status_;
};

TEST_F(Notes, NothingFailedNothingSaid) {
  EXPECT_EQ(at(0), std::nullopt);
  status_.tally.ended = {{"succeeded", 5}, {"revoked", 1}, {"cancelled", 1}};
  status_.tally.gang_starts = 1;
  EXPECT_EQ(at(1), std::nullopt);
  EXPECT_EQ(notes_.due(), std::nullopt);
}

TEST_F(Notes, AtOnceThenEveryTenSeconds) {
  status_.tally.ended = {{"succeeded", 5}, {"exit_code", 1}};
  EXPECT_EQ(at(0), "1 attempt has failed and is tried again (1 exit_code)");
  EXPECT_EQ(at(60), std::nullopt) << "nothing new";
  status_.tally.ended["exit_code"] = 2;
  EXPECT_EQ(at(61), "2 attempts have failed and are tried again (2 exit_code)");
  status_.tally.ended["worker_lost"] = 1;
  EXPECT_EQ(at(70), std::nullopt);
  ASSERT_TRUE(notes_.due());
  EXPECT_EQ(at(71), "3 attempts have failed and are tried again (2 exit_code, 1 worker_lost)");
}

TEST_F(Notes, WhatFailedForGoodIsNotTriedAgain) {
  status_.tally.ended["exit_code"] = 2;
  status_.failed = 2;
  EXPECT_EQ(at(0), std::nullopt);
  status_.tally.ended["exit_code"] = 5;
  EXPECT_EQ(at(20), "5 attempts have failed (5 exit_code): 3 tried again, 2 ranks failed for good");
  status_.tally.ended["exit_code"] = 6;
  status_.detail = "stopped early";
  EXPECT_EQ(at(40), std::nullopt);
}

TEST_F(Notes, AGangStartsAgain) {
  status_.tally.ended["exit_code"] = 1;
  status_.tally.gang_starts = 2;
  EXPECT_EQ(at(0),
            "1 attempt has failed and is tried again (1 exit_code); all ranks start together again "
            "(start 2)");
}

}  // namespace
}  // namespace pesc::cli
