#include "runtime/cli/job_options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>

namespace pesc::cli {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// Arguments that are files below the current directory travel, so each test has one of its own.
class JobOptionsTest : public ::testing::Test {
 protected:
  JobOptionsTest() : before_(std::filesystem::current_path()) {
    std::string pattern = (std::filesystem::temp_directory_path() / "pesc-cli-XXXXXX").string();
    directory_ = mkdtemp(pattern.data());
    std::filesystem::current_path(directory_);
  }
  ~JobOptionsTest() override {
    std::filesystem::current_path(before_);
    std::filesystem::remove_all(directory_);
  }

  Job make(JobOptions options) {
    if (options.command.empty()) options.command = {"true"};
    sent_.clear();
    absl::StatusOr<Job> job = make_job(options, sent_);
    EXPECT_TRUE(job.ok()) << job.status();
    return job.ok() ? *job : Job();
  }

  std::string refusal(JobOptions options) {
    if (options.command.empty()) options.command = {"true"};
    absl::StatusOr<Job> job = make_job(options, sent_);
    EXPECT_EQ(job.status().code(), absl::StatusCode::kInvalidArgument);
    return std::string(job.status().message());
  }

  std::vector<std::string> sent_;

 private:
  std::filesystem::path before_, directory_;
};

TEST_F(JobOptionsTest, AProgramThatIsBuiltNeedNotBeHere) {
  JobOptions options;
  options.command = {"./sim", "--steps", "5"};
  options.build = "cc sim.c -o sim";
  options.build_time_limit = "5m";
  Job job = make(options);
  EXPECT_EQ(job.build, "cc sim.c -o sim");
  EXPECT_EQ(job.build_time_limit, std::chrono::minutes(5));
  EXPECT_FALSE(job.send_program);
  EXPECT_THAT(sent_, IsEmpty());
  std::ofstream("sim") << "#!/bin/sh\n# it is here, and travels";
  EXPECT_TRUE(make(options).send_program);
  std::ofstream("sim") << "\177ELF: it was compiled here";
  EXPECT_FALSE(make(options).send_program);
  EXPECT_THAT(sent_, IsEmpty());
  options.build_time_limit = "soon";
  EXPECT_THAT(refusal(options), HasSubstr("--build-time-limit"));
}

TEST_F(JobOptionsTest, Defaults) {
  Job job = make({});
  EXPECT_EQ(job.program, "true");
  EXPECT_EQ(job.repetitions, 1u);
  EXPECT_EQ(job.inject, Inject::args);
  EXPECT_EQ(job.resources.cpus, 1);
  EXPECT_EQ(job.retries, 0u);
  EXPECT_EQ(job.time_limit.count(), 0);
  EXPECT_EQ(job.grace, Job().grace);
  EXPECT_EQ(job.output_limit_bytes, Job().output_limit_bytes);
  EXPECT_THAT(sent_, IsEmpty());
}

TEST_F(JobOptionsTest, Quantities) {
  Job job = make({.repetitions = "100000000",
                  .cpus = "0.5",
                  .memory = "2G",
                  .time_limit = "1h30m",
                  .grace = "250ms",
                  .output_limit = "1M",
                  .retries = "7",
                  .seed = "18446744073709551615"});
  EXPECT_EQ(job.repetitions, 100'000'000u);
  EXPECT_EQ(job.resources.cpus, 0.5);
  EXPECT_EQ(job.resources.memory_bytes, uint64_t{2} << 30);
  EXPECT_EQ(job.time_limit, std::chrono::minutes(90));
  EXPECT_EQ(job.grace, std::chrono::milliseconds(250));
  EXPECT_EQ(job.output_limit_bytes, uint64_t{1} << 20);
  EXPECT_EQ(job.retries, 7u);
  EXPECT_EQ(job.seed, UINT64_MAX);
}

TEST_F(JobOptionsTest, RefusalsNameTheFlagAndTheValue) {
  for (const char* text :
       {"0", "-1", "abc", "1e3", "", " 5", "100000001", "99999999999999999999"}) {
    EXPECT_THAT(refusal({.repetitions = text}),
                HasSubstr("--repetitions '" + std::string(text) + "'"));
  }
  EXPECT_THAT(refusal({.cpus = "nan"}), HasSubstr("--cpus"));
  EXPECT_THAT(refusal({.cpus = "1x"}), HasSubstr("--cpus"));
  EXPECT_THAT(refusal({.memory = "x"}), HasSubstr("--memory"));
  EXPECT_THAT(refusal({.memory = "8"}), HasSubstr("--memory '8': that is 8 B, too little"));
  EXPECT_THAT(refusal({.time_limit = "x"}), HasSubstr("--time-limit"));
  EXPECT_THAT(refusal({.inject = "all"}), HasSubstr("--inject"));
  EXPECT_THAT(refusal({.environment = {"=x"}}), HasSubstr("--env"));
  EXPECT_THAT(refusal({.environment = {"PESC_TEST_UNSET"}}), HasSubstr("--env"));
}

TEST_F(JobOptionsTest, ParametersByCommaThenOneByOne) {
  EXPECT_THAT(make({.parameter_list = "a,,b", .parameters = {"c,d"}}).parameters,
              ElementsAre("a", "", "b", "c,d"));
  EXPECT_THAT(make({}).parameters, IsEmpty());
}

TEST_F(JobOptionsTest, FilesAmongTheArgumentsTravel) {
  std::filesystem::create_directory("data");
  for (const char* name : {"data/x", "y", "tool", "given"}) std::ofstream(name) << name;
  Job job = make({.files = {"./given"},
                  .command = {"./tool", "data/x", "y", "y", "data", "-y", "given", "/etc/passwd",
                              "../nothing", "nothing"}});
  EXPECT_THAT(job.files, ElementsAre("./given", "data/x", "y"));
  EXPECT_THAT(sent_, ElementsAre("./tool", "data/x", "y"));
  EXPECT_TRUE(job.send_program);
  job = make({.no_auto_files = true, .command = {"./tool", "y"}});
  EXPECT_THAT(job.files, IsEmpty());
  EXPECT_FALSE(job.send_program);
}

TEST_F(JobOptionsTest, TheCommandIsWhatFollowsTheDashes) {
  JobOptions options;
  ASSERT_TRUE(take_command(std::vector<std::string>{"./x", "--rank"}, options).ok());
  EXPECT_THAT(options.command, ElementsAre("./x", "--rank"));
  EXPECT_FALSE(take_command(std::vector<std::string>{"y"}, options).ok());
  EXPECT_TRUE(take_command(std::nullopt, options).ok());
}

TEST_F(JobOptionsTest, WhatKeepsWorkFromBeingLost) {
  Job plain = make({});
  EXPECT_FALSE(plain.parallel);
  EXPECT_TRUE(plain.second_attempts);
  EXPECT_EQ(plain.max_failures, 0u);
  JobOptions options;
  options.parallel = options.same_worker = options.no_second_attempts = true;
  options.max_failures = "7";
  options.job_time_limit = "12h";
  options.checkpoint_every = "90s";
  Job job = make(options);
  EXPECT_TRUE(job.parallel);
  EXPECT_TRUE(job.same_worker);
  EXPECT_FALSE(job.second_attempts);
  EXPECT_EQ(job.max_failures, 7u);
  EXPECT_EQ(job.job_time_limit, std::chrono::hours(12));
  EXPECT_EQ(job.checkpoint_every, std::chrono::seconds(90));
  options.max_failures = "none";
  EXPECT_EQ(make(options).max_failures, UINT32_MAX);
  options.max_failures = "0";
  EXPECT_THAT(refusal(options), HasSubstr("--max-failures '0': give a number of ranks from 1"));
}

TEST_F(JobOptionsTest, ARefusalNamesTheFlag) {
  const auto said = [](const char* message) {
    return std::string(in_flags(absl::InvalidArgumentError(message)).message());
  };
  EXPECT_EQ(said("checkpoint_every: 1ms is too often"), "--checkpoint-every: 1ms is too often");
  EXPECT_EQ(said("same_worker: it is"), "--same-worker: it is");
  EXPECT_EQ(said("resources.cpus: use"), "--cpus: use");
  EXPECT_EQ(said("arguments: number 1"), "arguments: number 1");
  EXPECT_EQ(said("retries of it: no"), "retries of it: no");
  EXPECT_EQ(said("name"), "name");
  EXPECT_TRUE(in_flags(absl::OkStatus()).ok());
}

}  // namespace
}  // namespace pesc::cli
