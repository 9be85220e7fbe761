// Standard output and error: small, large, without end.
#include <gmock/gmock.h>

#include "harness.h"

namespace pesc::worker {
namespace {

using ::testing::HasSubstr;

class KeeperOutput : public KeeperTest {};

std::string repeat(const std::string& text, int count) {
  std::string result;
  for (int i = 0; i < count; ++i) result += text;
  return result;
}

TEST_F(KeeperOutput, ExactlyWhatFitsStaysInMemory) {
  KeptExit exit = run(act("write_many", {"4096"}));
  EXPECT_EQ(exit.standard_output, repeat("0123456789abcde\n", 4096));
  EXPECT_FALSE(exit.output_spilled);
  EXPECT_FALSE(std::filesystem::exists(directory.path() / "stdout"));
}

TEST_F(KeeperOutput, WhatDoesNotFitIsWhollyInTheFiles) {
  KeptExit exit = run(act("write_many", {"300000"}));
  EXPECT_TRUE(exit.output_spilled);
  EXPECT_TRUE(exit.error_spilled);
  EXPECT_EQ(exit.standard_output, "");
  EXPECT_TRUE(read_file(directory.path() / "stdout") == repeat("0123456789abcde\n", 300000));
  EXPECT_TRUE(read_file(directory.path() / "stderr") == repeat("01234567", 300000));
}

TEST_F(KeeperOutput, AFloodEndsAtItsBound) {
  LaunchRequest start = act("flood");
  start.output_limit_bytes = 1'000'000;
  start.grace_ms = 20;
  KeptExit exit = run(start);
  EXPECT_EQ(exit.outcome.reason, EndReason::output_limit);
  EXPECT_THAT(exit.outcome.detail, HasSubstr("standard output went past the bound of 1000000"));
  EXPECT_EQ(std::filesystem::file_size(directory.path() / "stdout"), 1'000'000u);
}

TEST_F(KeeperOutput, AShortProgramThatWroteTooMuchIsToldSo) {
  LaunchRequest start = act("write_many", {"100"});
  start.output_limit_bytes = 1000;
  KeptExit exit = run(start);
  EXPECT_EQ(exit.outcome.reason, EndReason::output_limit);
  EXPECT_EQ(exit.standard_output.size(), 1000u);
}

TEST_F(KeeperOutput, AFullDiskHasItsOwnReason) {
  std::filesystem::create_symlink("/dev/full", directory.path() / "stdout");
  LaunchRequest start = act("write_many", {"300000"});
  KeptExit refused = run(start);
  EXPECT_NE(refused.outcome.reason, EndReason::succeeded) << "links are not followed";
  EXPECT_THAT(refused.outcome.detail, HasSubstr("cannot be written"));
}

TEST_F(KeeperOutput, IsReadWhileTheProgramRuns) {
  std::string fifo = make_fifo();
  LaunchRequest start =
      request({"sh", "-c", "echo early; echo problem >&2; echo 1 > ready; read x < go; echo late"});
  std::string go = make_fifo("go");
  Kept kept(directory.path());
  kept.keeper->start(start);
  kept.wait_ready(start.key, fifo);
  EXPECT_EQ(kept.read_output(start.key).data, "early\n") << "what is in the pipe counts";
  EXPECT_EQ(kept.read_output(start.key, 2).data, "problem\n");
  EXPECT_EQ(kept.read_output(start.key, 1, 3).data, "ly\n");
  EXPECT_FALSE(kept.read_output({{1}, 2, 3}).found);
  std::ofstream(go) << "x\n";
  EXPECT_EQ(kept.wait_exit(start.key).standard_output, "early\nlate\n");
  EXPECT_EQ(kept.read_output(start.key, 1, 6).data, "late\n");
}

}  // namespace
}  // namespace pesc::worker
