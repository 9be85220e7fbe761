// Programs that are built where they run, from C++.
#include "client/prepare.h"
#include "client/state.h"
#include "tests/client/support.h"

namespace pesc {
namespace {

using ::testing::HasSubstr;

class BuildTest : public Embedded {
 protected:
  Job job(const std::string& build, uint32_t repetitions = 3) {
    const std::filesystem::path source = directory_ / "sim.c";
    std::ofstream(source) << "#!/bin/sh\necho rank $PESC_RANK\n";
    Job job = job_of("./sim", repetitions);
    job.files = {source.string()};
    job.build = build;
    return job;
  }
};

TEST_F(BuildTest, OnceAndForAllRanks) {
  const std::string built = (directory_ / "built").string();
  Client client = local();
  absl::StatusOr<JobHandle> handle =
      client.submit(job("printf x >>" + built + "; cp sim.c sim && chmod +x sim && echo done"));
  ASSERT_TRUE(handle.ok()) << handle.status();
  absl::StatusOr<JobResult> result = handle->wait();
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_TRUE(result->succeeded()) << result->status().detail;
  EXPECT_EQ(*result->output(2), "rank 2\n");
  EXPECT_EQ(read_file(built), "x");
  ASSERT_TRUE(result->save((directory_ / "r").string()).ok());
  EXPECT_EQ(read_file(directory_ / "r/rank-0/build.log"), "done\n");
}

TEST_F(BuildTest, AFailureEndsTheJobWithItsReason) {
  Client client = local();
  Job description = job("echo 'sim.c:2: error' >&2; exit 3", 100);
  description.retries = 7;
  absl::StatusOr<JobHandle> handle = client.submit(description);
  ASSERT_TRUE(handle.ok()) << handle.status();
  absl::StatusOr<JobResult> result = handle->wait();
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_FALSE(result->succeeded());
  EXPECT_THAT(result->status().detail, HasSubstr("the build failed on"));
  EXPECT_THAT(result->status().detail, HasSubstr("exit code 3: sim.c:2: error"));
  EXPECT_GE(result->status().failed, 1u);
  bool seen = false;
  const auto ranks = result->ranks();
  ASSERT_TRUE(ranks.ok()) << ranks.status();
  for (const RankResult& rank : *ranks) {
    if (rank.state != State::failed) continue;
    seen = true;
    EXPECT_EQ(rank.reason, "build_failed");
    EXPECT_EQ(rank.exit_code, 3);
    auto log = client::read_build_log(client.session(), *parse_job_id(handle->id()), rank.rank);
    ASSERT_TRUE(log.ok()) << log.status();
    EXPECT_EQ(*log, "sim.c:2: error\n");
  }
  EXPECT_TRUE(seen);
  auto log = client::read_build_log(client.session(), *parse_job_id(handle->id()), std::nullopt);
  EXPECT_EQ(log.value_or(""), "sim.c:2: error\n");
}

TEST_F(BuildTest, WhatIsMadeNeedNotBeThere) {
  absl::StatusOr<client::PreparedJob> prepared = client::prepare(job("make"));
  ASSERT_TRUE(prepared.ok()) << prepared.status();
  EXPECT_EQ(prepared->spec.program, "./sim");
  EXPECT_EQ(prepared->spec.build, "make");
  EXPECT_EQ(prepared->spec.files.size(), 1u);
  Job wrong = job("make");
  wrong.program = (directory_ / "sim").string();
  EXPECT_THAT(std::string(client::prepare(wrong).status().message()), HasSubstr("cannot be read"));
  wrong = job("make");
  wrong.build_time_limit = std::chrono::milliseconds(-1);
  EXPECT_FALSE(client::prepare(wrong).ok());
  wrong = job("");
  EXPECT_FALSE(client::prepare(wrong).ok());
  // A program that was compiled here is not sent: the build makes that one.
  Job compiled = job("make");
  compiled.program = "./sim";
  const std::filesystem::path before = std::filesystem::current_path();
  std::filesystem::current_path(directory_ / "");
  std::ofstream("sim") << "\177ELF and so on";
  prepared = client::prepare(compiled);
  std::filesystem::remove("sim");
  std::filesystem::current_path(before);
  ASSERT_TRUE(prepared.ok()) << prepared.status();
  EXPECT_EQ(prepared->spec.program, "./sim");
  EXPECT_EQ(prepared->spec.files.size(), 1u);
  // One that is a script travels: the build may be of something else.
  Job there = job("make");
  there.program = directory_.script("sim", "exit 0");
  prepared = client::prepare(there);
  ASSERT_TRUE(prepared.ok()) << prepared.status();
  EXPECT_EQ(prepared->spec.files.size(), 2u);
}

}  // namespace
}  // namespace pesc
