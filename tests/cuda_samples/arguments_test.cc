#include "common/arguments.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "common/failure.h"
#include "dijkstra/options.h"
#include "option_pricing/price.h"
#include "pesc/rank.h"
#include "two_gpus/iterate.h"

namespace samples {
namespace {

using testing::HasSubstr;

// The words as a program gets them.
class Line {
 public:
  explicit Line(std::vector<std::string> words) : words_(std::move(words)) {
    words_.insert(words_.begin(), "program");
    for (std::string& word : words_) pointers_.push_back(word.data());
    pointers_.push_back(nullptr);
  }
  int argc() const { return static_cast<int>(words_.size()); }
  char** argv() { return pointers_.data(); }

 private:
  std::vector<std::string> words_;
  std::vector<char*> pointers_;
};

dijkstra::Options parsed(const std::vector<std::string>& words) {
  Line line(words);
  dijkstra::Options options;
  EXPECT_TRUE(dijkstra::parse_options(line.argc(), line.argv(), &options));
  return options;
}

// What is said to them; they must be refused as bad usage.
std::string refused(const std::vector<std::string>& words) {
  Line line(words);
  dijkstra::Options options;
  try {
    (void)dijkstra::parse_options(line.argc(), line.argv(), &options);
  } catch (const Failure& failure) {
    EXPECT_EQ(failure.code(), kUsage);
    return failure.what();
  }
  return "nothing: it was taken";
}

TEST(Arguments, BothWaysOfGivingAValue) {
  const dijkstra::Options options =
      parsed({"--vertices", "10", "--degree=3", "--verify", "--seed", "18446744073709551615"});
  EXPECT_EQ(options.graph.vertices, 10U);
  EXPECT_EQ(options.graph.degree, 3U);
  EXPECT_EQ(options.graph.seed, UINT64_MAX);
  EXPECT_TRUE(options.verify);
  EXPECT_FALSE(options.cpu);
}

TEST(Arguments, TheSeedIsTheRanksWhenNoneIsGiven) {
  EXPECT_EQ(parsed({}).graph.seed, pesc_seed());
  EXPECT_EQ(parsed({"--seed", "0"}).graph.seed, 0U);
}

TEST(Arguments, NumbersOutOfRangeAreRefused) {
  EXPECT_THAT(refused({"--vertices", "0"}),
              HasSubstr("--vertices takes a whole number from 1 to 4294967294, not '0'"));
  for (const char* bad : {"-1", "+1", "1e6", " 1", "1 ", "0x10", "", "4294967295", "1.0", "10M",
                          "99999999999999999999"}) {
    EXPECT_THAT(refused({"--vertices", bad}), HasSubstr("--vertices takes a whole number")) << bad;
  }
  EXPECT_THAT(refused({"--seed", "18446744073709551616"}), HasSubstr("--seed takes"));
  EXPECT_THAT(refused({"--max-weight", "0"}), HasSubstr("--max-weight takes"));
}

TEST(Arguments, ASourceThatIsNoVertexIsRefused) {
  EXPECT_THAT(refused({"--vertices", "5", "--source", "5"}),
              HasSubstr("--source 5 is not a vertex: there are 5, the first is 0"));
  EXPECT_EQ(parsed({"--vertices", "5", "--source", "4"}).source, 4U);
}

TEST(Arguments, UnknownOnesAndMissingValuesAreRefused) {
  EXPECT_THAT(refused({"--vertex", "5"}), HasSubstr("unknown argument '--vertex'"));
  EXPECT_THAT(refused({"5"}), HasSubstr("unknown argument '5'"));
  EXPECT_THAT(refused({"-v"}), HasSubstr("unknown argument '-v'"));
  EXPECT_THAT(refused({"--"}), HasSubstr("unknown argument '--'"));
  EXPECT_THAT(refused({"--vertices"}), HasSubstr("--vertices needs a value"));
  EXPECT_THAT(refused({"--verify=yes"}), HasSubstr("--verify takes no value"));
}

TEST(Arguments, PescsOwnAreNoneOfTheProgramsBusiness) {
  const dijkstra::Options options = parsed({"--vertices",
                                            "7",
                                            "-a",
                                            ".",
                                            "-c",
                                            "x",
                                            "-o",
                                            "y",
                                            "-r",
                                            "3",
                                            "-w",
                                            "9",
                                            "-d",
                                            "host",
                                            "-t",
                                            "9001",
                                            "--app_dir",
                                            ".",
                                            "--checkpoint_dir=x",
                                            "--output_dir",
                                            "y",
                                            "--rank=4",
                                            "--world_size",
                                            "9",
                                            "--master_addr",
                                            "host",
                                            "--master_port",
                                            "9001",
                                            "--parameters",
                                            "--vertices",
                                            "nonsense"});
  EXPECT_EQ(options.graph.vertices, 7U);
  EXPECT_EQ(pesc_rank(), 4);
  EXPECT_EQ(pesc_parameter_count(), 2);
}

TEST(Arguments, ParametersEndTheProgramsOwn) {
  EXPECT_EQ(parsed({"--vertices", "7", "-p", "--vertices", "nonsense"}).graph.vertices, 7U);
}

TEST(Arguments, TheLastWordMayBeAFlagOfPescs) {
  EXPECT_EQ(parsed({"--vertices", "7", "--rank"}).graph.vertices, 7U);
}

TEST(Arguments, HelpNamesAllOfThem) {
  Arguments arguments("p", "about");
  std::uint64_t number = 5;
  std::string choice = "a";
  bool flag = false;
  arguments.number("number", &number, 0, 9, "a number");
  arguments.choice("choice", &choice, {"a", "b"}, "a choice");
  arguments.flag("flag", &flag, "a flag");
  EXPECT_THAT(arguments.help(), HasSubstr("  --number N               a number (default: 5)\n"));
  EXPECT_THAT(arguments.help(), HasSubstr("--choice a|b"));
  EXPECT_THAT(arguments.help(), HasSubstr("  --flag                   a flag\n"));
}

TEST(Arguments, RealNumbersAndChoices) {
  const auto refusal = [](const std::vector<std::string>& words) -> std::string {
    Line line(words);
    option_pricing::Options options;
    try {
      (void)option_pricing::parse_options(line.argc(), line.argv(), &options);
    } catch (const Failure& failure) {
      return failure.what();
    }
    return "nothing: it was taken";
  };
  for (const char* bad : {"nan", "inf", "-1", "", "1x", "1e10"}) {
    EXPECT_THAT(refusal({"--spot", bad}), HasSubstr("--spot takes a number from")) << bad;
  }
  EXPECT_THAT(refusal({"--style", "bermudan"}),
              HasSubstr("--style is one of european|asian, not 'bermudan'"));
  EXPECT_THAT(refusal({"--merge", ""}), HasSubstr("--merge is empty"));
  Line line({"--style", "asian", "--steps", "12", "--strike", "0"});
  option_pricing::Options options;
  ASSERT_TRUE(option_pricing::parse_options(line.argc(), line.argv(), &options));
  EXPECT_TRUE(options.contract.asian);
  EXPECT_EQ(options.contract.steps, 12U);
}

TEST(Arguments, APlateNeedsTwoRows) {
  Line line({"--height", "1"});
  two_gpus::Options options;
  EXPECT_THROW((void)two_gpus::parse_options(line.argc(), line.argv(), &options), Failure);
}

}  // namespace
}  // namespace samples
