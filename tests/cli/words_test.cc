// Suggestions, completion and statistics.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "runtime/cli/cli.h"
#include "runtime/cli/completion.h"
#include "runtime/cli/placeholder_notes.h"
#include "runtime/cli/report.h"
#include "runtime/cli/suggest.h"

namespace pesc::cli {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;

TEST(Suggestion, TheNearestOrNone) {
  const std::vector<std::string> words = {"run", "rm", "submit", "--repetitions", "--retries"};
  EXPECT_EQ(suggestion("runn", words), " (did you mean 'run'?)");
  EXPECT_EQ(suggestion("sumbit", words), " (did you mean 'submit'?)");
  EXPECT_EQ(suggestion("--repetition", words), " (did you mean '--repetitions'?)");
  EXPECT_EQ(suggestion("--retr", words), " (did you mean '--retries'?)");
  EXPECT_EQ(suggestion("frobnicate", words), "");
  EXPECT_EQ(suggestion("x", words), "");
  EXPECT_EQ(suggestion("", words), "");
}

TEST(PlaceholderNotes, OnlyForNamesThatAreClose) {
  EXPECT_THAT(
      placeholder_notes({"--seed={rnak}", "{rnak}"}),
      ElementsAre("'{rnak}' is no placeholder of PESC's and is passed as it is (did you mean "
                  "'{rank}'?)"));
  EXPECT_THAT(placeholder_notes({"{parameter[0]}"}),
              ElementsAre(HasSubstr("did you mean '{parameters[0]}'?")));
  EXPECT_THAT(placeholder_notes({"{parameters}"}),
              ElementsAre(HasSubstr("did you mean '{parameters[rank]}'?")));
  EXPECT_THAT(placeholder_notes({"{outputdir}", "{wordl_size}"}),
              ElementsAre(HasSubstr("'{output_dir}'"), HasSubstr("'{world_size}'")));
}

TEST(PlaceholderNotes, NotForWhatProgramsUseBracesFor) {
  EXPECT_THAT(placeholder_notes({"{rank}", "{parameters[rank]}", "{parameters[12]}", "{{rnak}}",
                                 "{x}", "{i}", "{}", "{ print $1 }", "{\"a\":{\"b\":1}}", "{a,b}",
                                 "{1..5}", "s/{name}/x/", "no braces"}),
              ElementsAre());
}

TEST(Completion, KnowsCommandsAndFlags) {
  CLI::App app;
  Common common;
  Commands commands;
  add_run_commands(app, common, commands);
  add_job_commands(app, common, commands);
  std::optional<std::string> bash = completion_script(app, "bash");
  ASSERT_TRUE(bash);
  EXPECT_THAT(*bash, HasSubstr("run submit jobs status"));
  EXPECT_THAT(*bash, HasSubstr("--repetitions"));
  EXPECT_THAT(*bash, HasSubstr("complete -o filenames -F _pesc pesc"));
  std::optional<std::string> zsh = completion_script(app, "zsh");
  ASSERT_TRUE(zsh);
  EXPECT_THAT(*zsh, HasSubstr("bashcompinit"));
  EXPECT_FALSE(completion_script(app, "fish"));
}

RankResult rank(State state, double seconds, const char* worker) {
  RankResult result;
  result.state = state;
  result.seconds = seconds;
  result.worker = worker;
  return result;
}

TEST(Statistics, OfTheRanksThatRan) {
  JobStatus status;
  status.submitted_unix_ms = 1'000;
  status.finished_unix_ms = 6'000;
  Statistics s = statistics_of(status,
                               {rank(State::succeeded, 1, "a"), rank(State::succeeded, 2, "b"),
                                rank(State::failed, 6, "a"), rank(State::succeeded, 3, "a"),
                                rank(State::cancelled, 100, "c"), rank(State::running, 100, "c")},
                               99'000);
  EXPECT_EQ(s.ranks, 4u);
  EXPECT_EQ(s.min_seconds, 1);
  EXPECT_EQ(s.median_seconds, 2.5);
  EXPECT_EQ(s.mean_seconds, 3);
  EXPECT_EQ(s.max_seconds, 6);
  EXPECT_EQ(s.sequential_seconds, 12);
  EXPECT_EQ(s.elapsed_seconds, 5);
  EXPECT_DOUBLE_EQ(s.speed_up, 2.4);
  EXPECT_THAT(s.ranks_per_worker, ElementsAre(Pair("a", 3), Pair("b", 1)));
}

TEST(Statistics, OfAJobThatHasRunNothing) {
  JobStatus status;
  status.submitted_unix_ms = 1'000;
  Statistics s = statistics_of(status, {rank(State::waiting, 0, "")}, 3'000);
  EXPECT_EQ(s.ranks, 0u);
  EXPECT_EQ(s.elapsed_seconds, 2);
  EXPECT_EQ(s.speed_up, 0);
}

TEST(ChooseJob, AName) {
  std::vector<JobStatus> jobs(3);
  jobs[0].id = "0sx0000000003", jobs[0].name = "b";
  jobs[1].id = "0sx0000000002", jobs[1].name = "a";
  jobs[2].id = "0sx0000000001", jobs[2].name = "a";
  EXPECT_EQ(choose_job(jobs, "last", Several::refuse)->id, jobs[0].id);
  EXPECT_EQ(choose_job(jobs, "b", Several::refuse)->id, jobs[0].id);
  EXPECT_EQ(choose_job(jobs, "0001", Several::refuse)->id, jobs[2].id);
  absl::StatusOr<ChosenJob> newest = choose_job(jobs, "a", Several::newest);
  ASSERT_TRUE(newest.ok());
  EXPECT_EQ(newest->id, jobs[1].id);
  EXPECT_EQ(newest->note, "2 jobs are named 'a': this is the newest, 0sx0000000002");
  const absl::Status refused = choose_job(jobs, "a", Several::refuse).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("0sx0000000002"));
  EXPECT_THAT(std::string(refused.message()), HasSubstr("last"));
  EXPECT_EQ(choose_job(jobs, "0sx", Several::newest).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(choose_job(jobs, "none", Several::newest).status().code(), absl::StatusCode::kNotFound);
}

TEST(Json, BytesThatAreNoUtf8AreShownNotRefused) {
  JobStatus status;
  status.name = "a\xff\"b";
  EXPECT_THAT(json_of(status), HasSubstr("\"name\":\"a\xef\xbf\xbd\\\"b\""));
  EXPECT_THAT(json_of(std::vector<JobStatus>{}), "[]");
}

}  // namespace
}  // namespace pesc::cli
