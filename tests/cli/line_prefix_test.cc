// Several ranks' lines in one text.
#include "runtime/cli/line_prefix.h"

#include <gtest/gtest.h>

namespace pesc::cli {
namespace {

TEST(LinePrefix, StandsBeforeEachLine) {
  LinePrefix lines;
  EXPECT_EQ(lines.add(7, "a\nb\n"), "[7] a\n[7] b\n");
  EXPECT_EQ(lines.add(12, "\n\nc\n"), "[12] \n[12] \n[12] c\n");
  EXPECT_EQ(lines.end(), "");
}

TEST(LinePrefix, ALineInPiecesHasOne) {
  LinePrefix lines;
  EXPECT_EQ(lines.add(7, "a"), "[7] a");
  EXPECT_EQ(lines.add(7, ""), "");
  EXPECT_EQ(lines.add(7, "b\nc"), "b\n[7] c");
  EXPECT_EQ(lines.add(7, "\n"), "\n");
}

TEST(LinePrefix, AnotherRanksLineEndsOneThatWasBegun) {
  LinePrefix lines;
  EXPECT_EQ(lines.add(0, "a"), "[0] a");
  EXPECT_EQ(lines.add(1, ""), "") << "which says nothing, interrupts nothing";
  EXPECT_EQ(lines.add(1, "b"), "\n[1] b");
  EXPECT_EQ(lines.add(0, "c\n"), "\n[0] c\n");
  EXPECT_EQ(lines.add(1, "d"), "[1] d");
  EXPECT_EQ(lines.end(), "\n");
  EXPECT_EQ(lines.add(1, "e\n"), "[1] e\n");
}

TEST(LinePrefix, StandsBeforeEachStateOfAProgressBar) {
  LinePrefix lines;
  EXPECT_EQ(lines.add(7, "10%\r20%\r"), "[7] 10%\r[7] 20%\r");
  EXPECT_EQ(lines.add(7, "30%\r"), "[7] 30%\r") << "over the one before";
  EXPECT_EQ(lines.add(7, "\nb\r\n"), "\n[7] b\r\n") << "in pieces and whole, one end";
  EXPECT_EQ(lines.end(), "");
}

TEST(LinePrefix, AnotherRanksLineStandsBelowAProgressBar) {
  LinePrefix lines;
  EXPECT_EQ(lines.add(0, "10%\r"), "[0] 10%\r");
  EXPECT_EQ(lines.add(1, "a\n"), "\n[1] a\n");
  EXPECT_EQ(lines.add(0, "20%\r"), "[0] 20%\r");
  EXPECT_EQ(lines.end(), "\n");
  EXPECT_EQ(lines.end(), "");
}

}  // namespace
}  // namespace pesc::cli
