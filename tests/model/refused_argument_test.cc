#include <gtest/gtest.h>

#include <string>

#include "model/contract.h"

namespace pesc {
namespace {

class Complaint : public ::testing::TestWithParam<const char*> {};

TEST_P(Complaint, IsUnderstood) {
  EXPECT_EQ(injected_argument_refused(GetParam()), "--inject env");
  EXPECT_EQ(injected_argument_refused("starting\n" + std::string(GetParam()) + "\nusage: x [-h]\n"),
            "--inject env");
}

INSTANTIATE_TEST_SUITE_P(
    Libraries, Complaint,
    ::testing::Values(
        // getopt_long, getopt (GNU, BSD), argp
        "./sim: unrecognized option '--app_dir'", "./sim: invalid option -- '-'",
        "./sim: invalid option -- 'a'", "sim: illegal option -- -",
        "sim: unrecognized option `--app_dir'", "ls: unrecognized option '--app_dir'",
        "./sim: unrecognized option: app_dir", "sim: unrecognized option: --app_dir=/x",
        // shells
        "bash: --app_dir: invalid option", "sh: 0: Illegal option --",
        "./s.sh: line 3: --app_dir: unknown option",
        // Python: argparse, optparse, click, absl, a bare int(sys.argv[1])
        "sim.py: error: unrecognized arguments: --app_dir /x --checkpoint_dir /y",
        "sim.py: error: no such option: --app_dir", "Error: No such option: --app_dir",
        "Error: Got unexpected extra arguments (--app_dir /x)",
        "FATAL Flags parsing error: Unknown command line flag 'app_dir'. Did you mean: x ?",
        "ValueError: invalid literal for int() with base 10: '--app_dir'",
        // R: optparse, getopt, R itself
        "Error in getopt(spec = spec, opt = args) : long flag \"app_dir\" is invalid",
        "WARNING: unknown option '--app_dir'",
        // Java: the JVM, commons-cli, picocli, JCommander, a bare parseInt
        "Unrecognized option: --app_dir",
        "org.apache.commons.cli.UnrecognizedOptionException: Unrecognized option: --app_dir",
        "Unknown option: '--app_dir'", "Unknown options: '--app_dir', '/x', '--rank', '7'",
        "Unmatched arguments from index 0: '--app_dir', '/x'",
        "Was passed main parameter '--app_dir' but no main parameter was defined in your arg class",
        "java.lang.NumberFormatException: For input string: \"--app_dir\""));

INSTANTIATE_TEST_SUITE_P(
    MoreLibraries, Complaint,
    ::testing::Values(
        // C++: Abseil, gflags, Boost.Program_options, CLI11, cxxopts, Qt, TCLAP
        "ERROR: Unknown command line flag 'app_dir'", "ERROR: unknown command line flag 'app_dir'",
        "unrecognised option '--app_dir'",
        "The following arguments were not expected: --app_dir /x --rank 7",
        "The following argument was not expected: --app_dir",
        "Option \xe2\x80\x98"
        "app_dir\xe2\x80\x99 does not exist",
        "Option 'app_dir' does not exist", "Unknown option 'app_dir'.",
        "Unknown options: app_dir, rank.",
        // Rust, Go, Perl, Ruby, Node, Julia, find, date
        "error: unexpected argument '--app_dir' found",
        "error: Found argument '--app_dir' which wasn't expected, or isn't valid in this context",
        "flag provided but not defined: -app_dir", "Error: unknown flag: --app_dir",
        "Unknown option: app_dir",
        "sim.rb: invalid option: --app_dir (OptionParser::InvalidOption)",
        "node: bad option: --app_dir", "ERROR: unknown option `--app_dir`",
        "find: unknown predicate `--app_dir'", "date: extra operand '--rank'",
        // by hand
        "Unknown argument: --app_dir", "Invalid argument: --app_dir",
        "error: --app_dir is not a valid option", "Option --checkpoint_dir is not recognized",
        "Unexpected parameter --app_dir\r"));

class OrdinaryText : public ::testing::TestWithParam<const char*> {};

TEST_P(OrdinaryText, IsNoComplaint) {
  EXPECT_EQ(injected_argument_refused(GetParam()), std::nullopt) << GetParam();
}

INSTANTIATE_TEST_SUITE_P(
    Each, OrdinaryText,
    ::testing::Values(
        "", "\n\n", "rank 7 of 20 starts", "invalid rank", "unknown parameters in model.cfg",
        "Segmentation fault", "--rank 7 --world_size 20",
        "usage: sim [--app_dir DIR] [--rank N] [--parameters P ...]",
        "sim: error: argument --rank: invalid int value: 'x'",
        "TypeError: fit() got an unexpected keyword argument 'rank'",
        "invalid argument: --rank must be positive", "open(/w/output_dir/x): Invalid argument",
        "cannot open /w/app_dir/x: invalid option string", "sim: unrecognized option '--alpha'",
        "sim: invalid option -- 'z'", "ERROR: Unknown command line flag 'alpha'",
        "error: unexpected argument '--alpha' found", "Unknown option: alpha",
        "ValueError: invalid literal for int() with base 10: 'abc'",
        "unrecognized option '--rank_file'", "unknown option '--my-rank'",
        "unknown option 'x' in line 3: the rank of the matrix is 4",
        "the matrix has invalid rank 'rank'", "warning: unused parameter x [-Wunused-parameter]",
        "Error: option prices have an unexpected rank"));

TEST(RefusedArgument, OtherLinesDoNotAddUp) {
  EXPECT_EQ(injected_argument_refused("unrecognized option\n--app_dir\n"), std::nullopt);
}

TEST(RefusedArgument, LooksAtTheEndOfALongText) {
  const std::string noise(1 << 20, 'x');
  EXPECT_EQ(injected_argument_refused(noise + "\nsim: unrecognized option '--app_dir'\n"),
            "--inject env");
  EXPECT_EQ(injected_argument_refused(noise), std::nullopt);
  std::string adjectives;
  while (adjectives.size() < 60'000) adjectives += "unknown option --";
  EXPECT_EQ(injected_argument_refused(adjectives), std::nullopt);
}

}  // namespace
}  // namespace pesc
