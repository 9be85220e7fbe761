#include "runtime/worker/keeper/oom_watch.h"

#include "harness.h"

namespace pesc::keeper {
namespace {

using std::chrono::seconds;

class OomWatchTest : public ::testing::Test {
 protected:
  void count(int kills) {
    worker::write_file(file_, "nr_free_pages 12345\noom_kill_disable 9\noom_kill " +
                                  std::to_string(kills) + "\nunevictable 0\n");
  }
  worker::TemporaryDirectory directory_;
  const std::filesystem::path file_ = directory_.path() / "vmstat";
  OomWatch watch_{file_.string()};
  const OomWatch::Clock::time_point start_ = OomWatch::Clock::now();
};

TEST_F(OomWatchTest, SeesTheCounterGrow) {
  count(3);
  watch_.look(start_);
  EXPECT_FALSE(watch_.killed_lately());
  count(4);
  EXPECT_TRUE(watch_.killed_lately());
  watch_.look(start_ + OomWatch::kEvery);
  EXPECT_TRUE(watch_.killed_lately()) << "less than two looks ago";
  watch_.look(start_ + 2 * OomWatch::kEvery - seconds(1));
  watch_.look(start_ + 2 * OomWatch::kEvery);
  EXPECT_FALSE(watch_.killed_lately()) << "that was another's end";
}

TEST_F(OomWatchTest, WhatHappenedInAPauseIsNotOurs) {
  count(3);
  watch_.look(start_);
  count(4);
  watch_.look(start_ + seconds(3600));
  EXPECT_FALSE(watch_.killed_lately());
}

TEST_F(OomWatchTest, WithoutACounterNothingIsBlamed) {
  watch_.look(start_);
  EXPECT_FALSE(watch_.killed_lately());
}

}  // namespace
}  // namespace pesc::keeper
