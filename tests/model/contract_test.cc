#include "model/contract.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <set>

namespace pesc {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

AttemptPlace place() {
  AttemptPlace result;
  result.app_dir = "/w/app";
  result.checkpoint_dir = "/w/check";
  result.output_dir = "/w/out";
  result.temporary_dir = "/w/tmp";
  result.events_file = "/w/events";
  return result;
}

JobSpec spec() {
  JobSpec result;
  result.program = "./sim";
  result.arguments = {"--alpha", "{rank}/{world_size}"};
  result.parameters = {"0.05", "a b"};
  result.repetitions = 20;
  result.seed = 42;
  return result;
}

const AttemptKey kKey{JobId{1}, 7, 2};
const BaseEnvironment kBase{"/usr/bin", "/home/x", "C.UTF-8"};

TEST(Command, ArgumentsComeLastAndParametersLastOfAll) {
  const Command command = make_command(spec(), kKey, place(), kBase);
  EXPECT_THAT(
      command.argv,
      ElementsAre("./sim", "--alpha", "7/20", "--app_dir", "/w/app", "--checkpoint_dir", "/w/check",
                  "--output_dir", "/w/out", "--rank", "7", "--world_size", "20", "--master_addr",
                  "127.0.0.1", "--master_port", "9000", "--parameters", "0.05", "a b"));
  EXPECT_THAT(
      command.environment,
      ElementsAre("HOME=/home/x", "LANG=C.UTF-8", "PATH=/usr/bin", "PESC_APP_DIR=/w/app",
                  "PESC_ATTEMPT=2", "PESC_CHECKPOINT_DIR=/w/check", "PESC_EVENTS=/w/events",
                  "PESC_JOB=0000000000001", "PESC_MASTER_ADDR=127.0.0.1", "PESC_MASTER_PORT=9000",
                  "PESC_OUTPUT_DIR=/w/out", "PESC_PARAMETERS=0.05\na b", "PESC_RANK=7",
                  "PESC_SEED=" + std::to_string(rank_seed(42, 7)), "PESC_WORLD_SIZE=20",
                  "PYTHONUNBUFFERED=1", "TMPDIR=/w/tmp"));
}

TEST(Command, AGangHasTheVariablesThatItsLibrariesRead) {
  JobSpec job = spec();
  job.parallel = true;
  AttemptPlace where = place();
  where.master_addr = "10.0.0.7";
  where.master_port = 23'456;
  where.local_rank = 1;
  where.local_world_size = 4;
  const Command command = make_command(job, kKey, where, kBase);
  EXPECT_THAT(command.environment,
              ::testing::IsSupersetOf({"RANK=7", "WORLD_SIZE=20", "LOCAL_RANK=1",
                                       "LOCAL_WORLD_SIZE=4", "MASTER_ADDR=10.0.0.7",
                                       "MASTER_PORT=23456", "PESC_MASTER_PORT=23456"}));
  EXPECT_THAT(command.argv, ::testing::IsSupersetOf({"--master_addr", "10.0.0.7", "23456"}));
  where.network_interface = "eth1";
  EXPECT_THAT(make_command(job, kKey, where, kBase).environment,
              ::testing::IsSupersetOf(
                  {"GLOO_SOCKET_IFNAME=eth1", "TP_SOCKET_IFNAME=eth1", "NCCL_SOCKET_IFNAME=eth1"}));
  job.environment.emplace_back("GLOO_SOCKET_IFNAME", "ib0");  // who says so knows better
  EXPECT_THAT(make_command(job, kKey, where, kBase).environment,
              ::testing::Contains("GLOO_SOCKET_IFNAME=ib0"));
  job.inject = Inject::none;
  EXPECT_THAT(make_command(job, kKey, where, kBase).environment,
              ::testing::Not(::testing::AnyOf(::testing::Contains("RANK=7"),
                                              ::testing::Contains("TP_SOCKET_IFNAME=eth1"))));
}

TEST(Command, NoParametersNoFlag) {
  JobSpec job = spec();
  job.parameters.clear();
  const Command command = make_command(job, kKey, place(), kBase);
  EXPECT_THAT(command.argv, Not(Contains("--parameters")));
  EXPECT_THAT(command.environment, Contains("PESC_PARAMETERS="));
}

TEST(Command, InjectEnv) {
  JobSpec job = spec();
  job.inject = Inject::env;
  const Command command = make_command(job, kKey, place(), kBase);
  EXPECT_THAT(command.argv, ElementsAre("./sim", "--alpha", "7/20"));
  EXPECT_THAT(command.environment, Contains("PESC_RANK=7"));
  EXPECT_THAT(command.environment, Contains("PESC_EVENTS=/w/events"));
}

TEST(Command, InjectNoneGivesOnlyTheBaseAndPlaceholders) {
  JobSpec job = spec();
  job.inject = Inject::none;
  const Command command = make_command(job, kKey, place(), kBase);
  EXPECT_THAT(command.argv, ElementsAre("./sim", "--alpha", "7/20"));
  EXPECT_THAT(command.environment, ElementsAre("HOME=/home/x", "LANG=C.UTF-8", "PATH=/usr/bin",
                                               "PYTHONUNBUFFERED=1", "TMPDIR=/w/tmp"));
}

TEST(Command, LaterEntriesWinAndEachNameComesOnce) {
  JobSpec job = spec();
  job.environment = {{"LANG", "pt_BR"}, {"A", "1"}, {"A", "2"}, {"PESC_RANK", "99"}};
  const Command command = make_command(job, kKey, place(), kBase);
  EXPECT_THAT(command.environment, Contains("LANG=pt_BR"));
  EXPECT_THAT(command.environment, Contains("A=2"));
  EXPECT_THAT(command.environment, Contains("PESC_RANK=7"));
  std::set<std::string> names;
  for (const std::string& entry : command.environment) {
    EXPECT_TRUE(names.insert(entry.substr(0, entry.find('='))).second) << entry;
  }
}

TEST(Command, AnEmptyBaseStillHasAPath) {
  const Command command = make_command(spec(), kKey, place(), {});
  EXPECT_THAT(command.environment, Contains("PATH=/usr/local/bin:/usr/bin:/bin"));
  EXPECT_THAT(command.environment, Not(Contains("HOME=")));
}

TEST(Placeholders, Replaced) {
  const auto expand = [](const char* text) {
    return expand_placeholders(text, spec(), 7, place());
  };
  EXPECT_EQ(expand("{rank}-{world_size}"), "7-20");
  EXPECT_EQ(expand("{app_dir} {checkpoint_dir} {output_dir}"), "/w/app /w/check /w/out");
  EXPECT_EQ(expand("{master_addr}:{master_port}"), "127.0.0.1:9000");
  EXPECT_EQ(expand("{seed}"), std::to_string(rank_seed(42, 7)));
  EXPECT_EQ(expand("--x={parameters[1]}"), "--x=a b");
  EXPECT_EQ(expand("{parameters[1]}{parameters[0]}"), "a b0.05");
  EXPECT_EQ(expand("out{rank}.csv"), "out7.csv");
}

TEST(Placeholders, EscapedOrUnknown) {
  const auto expand = [](const char* text) {
    return expand_placeholders(text, spec(), 7, place());
  };
  EXPECT_EQ(expand(""), "");
  EXPECT_EQ(expand("{{rank}}"), "{rank}");
  EXPECT_EQ(expand("{{{rank}}}"), "{7}");
  EXPECT_EQ(expand("{Rank} {} { rank } {x"), "{Rank} {} { rank } {x");
  EXPECT_EQ(expand("}"), "}");
  EXPECT_EQ(expand("{"), "{");
  EXPECT_EQ(expand("{\"a\": [1, {\"b\": {rank}} ]}"), "{\"a\": [1, {\"b\": 7} ]}");
  EXPECT_EQ(expand("{parameters[9]}{parameters[]}{parameters[-1]}{parameters[1}"),
            "{parameters[9]}{parameters[]}{parameters[-1]}{parameters[1}");
  EXPECT_EQ(expand("${HOME} {x}{rank}"), "${HOME} {x}7");
  // A value is not expanded again.
  JobSpec job = spec();
  job.parameters = {"{rank}"};
  EXPECT_EQ(expand_placeholders("{parameters[0]}", job, 7, place()), "{rank}");
}

TEST(Placeholders, ClosingBracesAreEscapesOnlyWhereOpenedSo) {
  const auto expand = [](const char* text) {
    return expand_placeholders(text, spec(), 7, place());
  };
  EXPECT_EQ(expand(R"({"a":{"b":1}})"), R"({"a":{"b":1}})");
  EXPECT_EQ(expand(R"({"a":{"b":{"c":{rank}}}})"), R"({"a":{"b":{"c":7}}})");
  EXPECT_EQ(expand("}}"), "}}");
  EXPECT_EQ(expand("{{x}} }}"), "{x} }}");
  EXPECT_EQ(expand("{{\"a\":{{{rank}}}}}"), "{\"a\":{7}}");
  EXPECT_EQ(expand("{{"), "{");
}

TEST(Placeholders, AParameterOfItsOwnForEachRank) {
  JobSpec job = spec();
  job.parameters = {"red", "green", "dark blue"};
  EXPECT_EQ(expand_placeholders("--c={parameters[rank]}", job, 0, place()), "--c=red");
  EXPECT_EQ(expand_placeholders("--c={parameters[rank]}", job, 2, place()), "--c=dark blue");
  EXPECT_EQ(expand_placeholders("{parameters[rank]}", job, 3, place()), "{parameters[rank]}");
  EXPECT_EQ(expand_placeholders("{{parameters[rank]}}", job, 1, place()), "{parameters[rank]}");
}

TEST(Seed, IsSplitMix64) {
  // The reference implementation's first outputs for seed 1234567.
  EXPECT_EQ(rank_seed(1234567, 0), 6457827717110365317ull);
  EXPECT_EQ(rank_seed(1234567, 1), 3203168211198807973ull);
  EXPECT_EQ(rank_seed(1234567, 2), 9817491932198370423ull);
  std::set<uint64_t> seen;
  for (uint64_t seed = 0; seed < 10; ++seed) {
    for (uint32_t rank = 0; rank < 1'000; ++rank) seen.insert(rank_seed(seed, rank));
  }
  EXPECT_EQ(seen.size(), 10'000u);
}

TEST(Event, Progress) {
  EXPECT_EQ(parse_event_line("progress 0.42 fitting model 3"),
            (RankEvent{RankEvent::Kind::progress, 0.42, "fitting model 3"}));
  EXPECT_EQ(parse_event_line("progress 1\r\n"), (RankEvent{RankEvent::Kind::progress, 1, ""}));
  EXPECT_EQ(parse_event_line("progress 1.0000000002")->value, 1.0);
  EXPECT_EQ(parse_event_line("progress\t+5e-1 x\x1b[31m")->text, "x [31m");
  EXPECT_LE(parse_event_line("progress 0 " + std::string(9'000, 'x'))->text.size(), 256u);
}

TEST(Event, MetricAndCheckpoint) {
  EXPECT_EQ(parse_event_line("metric price 10.4506"),
            (RankEvent{RankEvent::Kind::metric, 10.4506, "price"}));
  EXPECT_EQ(parse_event_line("checkpoint")->kind, RankEvent::Kind::checkpoint);
}

TEST(Event, AnythingElseIsNoEvent) {
  for (const char* line :
       {"", " ", "hello", "progress", "progress x", "progress 42", "progress -1", "progress nan",
        "progress inf", "progress 0,5", "progress 0.5x", "metric", "metric a", "metric a b",
        "metric a nan", "metric a 1 2", "checkpoint now", "checkpoints", "Progress 0.5"}) {
    EXPECT_FALSE(parse_event_line(line)) << line;
  }
}

TEST(Glob, Matches) {
  for (auto [pattern, path] :
       std::vector<std::pair<const char*, const char*>>{{"*.csv", "a.csv"},
                                                        {"*", ""},
                                                        {"a?c", "abc"},
                                                        {"a?c",
                                                         "a\xc3\xa9"
                                                         "c"},
                                                        {"[a-c]x", "bx"},
                                                        {"[!a-c]x", "dx"},
                                                        {"[^a-c]x", "\xc3\xa9x"},
                                                        {"[]]x", "]x"},
                                                        {"[a-]x", "-x"},
                                                        {"a[", "a["},
                                                        {"\\*", "*"},
                                                        {"**", "a/b/c"},
                                                        {"**/x", "x"},
                                                        {"**/x", "a/b/x"},
                                                        {"a/**/x", "a/x"},
                                                        {"a/**/x", "a/b/c/x"},
                                                        {"a/**", "a/b/c"},
                                                        {"a/**", "a/"},
                                                        {"*/*.png", "plots/1.png"},
                                                        {"**.png", "a/b.png"},
                                                        {"[\xc3\xa0-\xc3\xbf]", "\xc3\xa9"},
                                                        {"a\xff?", "a\xff\xfe"},
                                                        {"***", "a/b"}}) {
    EXPECT_TRUE(glob_match(pattern, path)) << pattern << " " << path;
  }
}

TEST(Glob, DoesNotMatch) {
  for (auto [pattern, path] : std::vector<std::pair<const char*, const char*>>{{"*.csv", "a/b.csv"},
                                                                               {"*", "a/b"},
                                                                               {"a?c", "a/c"},
                                                                               {"a[/]c", "a/c"},
                                                                               {"a[!x]c", "a/c"},
                                                                               {"[a-c]x", "dx"},
                                                                               {"**/x", "ax"},
                                                                               {"a/**/x", "a/bx"},
                                                                               {"", "a"},
                                                                               {"a", ""},
                                                                               {"a", "ab"},
                                                                               {"ab", "a"},
                                                                               {"\\*", "a"},
                                                                               {"a/**", "a"},
                                                                               {"*.csv", "a.csvx"},
                                                                               {"?", ""}}) {
    EXPECT_FALSE(glob_match(pattern, path)) << pattern << " " << path;
  }
}

TEST(Glob, IsNotExponential) {
  std::string pattern, deep;
  for (int i = 0; i < 60; ++i) pattern += "*a";
  for (int i = 0; i < 60; ++i) deep += "**/a*";
  // Each would take longer than the universe lasts when tried by backtracking.
  EXPECT_FALSE(glob_match(pattern + "b", std::string(2'000, 'a')));
  EXPECT_FALSE(glob_match(deep + "b", std::string(2'000, 'a')));
}

}  // namespace
}  // namespace pesc
