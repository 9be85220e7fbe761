#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "runtime/cli/report.h"

namespace pesc::cli {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(Tally, AJobWithoutTroubleSaysNothing) {
  AttemptTally tally;
  tally.ended["succeeded"] = 10;
  tally.useful_seconds = 12;
  EXPECT_EQ(failed_attempts_line(tally), "");
  EXPECT_THAT(tally_lines(tally), IsEmpty());
  EXPECT_EQ(redone_share(tally), 0);
  EXPECT_EQ(redone_share({}), 0);
}

TEST(Tally, EverythingThatHappenedIsSaid) {
  AttemptTally tally;
  tally.ended = {{"succeeded", 60}, {"worker_lost", 5}, {"exit_code", 1}};
  tally.useful_seconds = 90;
  tally.redone_seconds = 10;
  tally.checkpoints = 7;
  tally.second_attempts = 2;
  tally.second_won = 1;
  tally.gang_starts = 3;
  EXPECT_DOUBLE_EQ(redone_share(tally), 0.1);
  EXPECT_THAT(tally_lines(tally),
              ElementsAre("attempts that did not count: 1 exit_code, 5 worker_lost",
                          "work done again: 10.000 s, 10.0 % of all work", "checkpoints saved: 7",
                          "second attempts of slow ranks: 2, of which 1 came first",
                          "starts of all ranks together: 3"));
}

}  // namespace
}  // namespace pesc::cli
