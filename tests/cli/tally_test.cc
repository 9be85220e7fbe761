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

TEST(Tally, NoShareOfWorkThatIsNotDoneYet) {
  AttemptTally tally;
  tally.redone_seconds = 10;
  EXPECT_THAT(tally_lines(tally), ElementsAre("work done again: 10.000 s"));
}

TEST(StatisticsLines, OfNoRankAreNoNumbers) {
  Statistics none;
  none.elapsed_seconds = 2;
  EXPECT_THAT(statistics_lines(none),
              ElementsAre("no rank has run to its end yet", "elapsed: 2.000 s"));
  Statistics some;
  some.ranks = 2;
  some.min_seconds = some.median_seconds = some.mean_seconds = some.max_seconds = 1;
  some.sequential_seconds = some.elapsed_seconds = 2;
  some.speed_up = 1;
  some.ranks_per_worker = {{"one", 2}};
  EXPECT_THAT(statistics_lines(some),
              ElementsAre("ranks that ran to their end: 2",
                          "seconds of a rank: min 1.000, median 1.000, mean 1.000, max 1.000",
                          "one after the other: 2.000 s; elapsed: 2.000 s; speed-up 1.00",
                          "         2 ranks on one"));
}

TEST(Advice, NamesNoCommandThatCannotWorkHere) {
  EXPECT_EQ(advice_after_stop(true, "ID", "results"),
            "once that is mended, the same command with --resume -o results runs them again");
  EXPECT_EQ(advice_after_stop(false, "ID", "results"),
            "`pesc why ID` says what they died of; once that is mended, `pesc retry ID` runs them "
            "again");
}

}  // namespace
}  // namespace pesc::cli
