#include "model/text.h"

#include <gtest/gtest.h>

namespace pesc {
namespace {

TEST(Text, ATerminalObeysNothingThatAProgramWrote) {
  EXPECT_EQ(for_terminal("plain, ünïcode 漢字 😀\tand\n"), "plain, ünïcode 漢字 😀\tand\n");
  EXPECT_EQ(for_terminal("\x1b[31mred\x1b]0;title\x07\r\x7f"),
            "\\x1b[31mred\\x1b]0;title\\x07\\x0d\\x7f");
  EXPECT_EQ(for_terminal("\xc2\x9b"
                         "31m"),
            "\\xc2\\x9b31m");
  EXPECT_EQ(for_terminal("\xc2\xa0"), "\xc2\xa0");
  EXPECT_EQ(for_terminal("\x9b"
                         "31m \xff \xe6\xbc"),
            "\\x9b31m \\xff \\xe6\\xbc");
  EXPECT_EQ(for_terminal(std::string("\0", 1)), "\\x00");
  EXPECT_EQ(for_terminal(""), "");
}

}  // namespace
}  // namespace pesc
