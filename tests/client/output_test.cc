// What ranks wrote: as streams, and as strings with a bound. And in whose words it is told.
#include <algorithm>

#include "client/convert.h"
#include "client/state.h"
#include "client/transfer.h"
#include "model/ids.h"
#include "tests/client/support.h"

namespace pesc {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class OutputTest : public Embedded {};

TEST_F(OutputTest, LongerThanAStringIsStreamed) {
  constexpr uint64_t kBytes = kMaxOutputBytes + 1'000'003;
  std::string program = directory_.script(
      "long", "yes 123456789 | head -c " + std::to_string(kBytes) + "; echo err >&2");
  absl::StatusOr<JobHandle> job = submit(job_of(program));
  ASSERT_TRUE(job.ok()) << job.status();
  absl::StatusOr<JobResult> result = job->wait();
  ASSERT_TRUE(result.ok() && result->succeeded()) << result.status();

  absl::StatusOr<std::string> whole = result->output(0);
  EXPECT_EQ(whole.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(whole.status().message()), HasSubstr("stream_output"));

  uint64_t bytes = 0, largest = 0;
  bool right = true;
  auto check = [&](std::string_view piece) {
    for (char c : piece) right = right && c == "123456789\n"[bytes++ % 10];
    largest = std::max<uint64_t>(largest, piece.size());
    return absl::OkStatus();
  };
  EXPECT_TRUE(result->stream_output(0, check).ok());
  EXPECT_EQ(bytes, kBytes);
  EXPECT_TRUE(right);
  EXPECT_LE(largest, uint64_t{1} << 20);
  bytes = 5'000'000;
  EXPECT_TRUE(job->stream_output(0, check, bytes).ok());
  EXPECT_EQ(bytes, kBytes);
  EXPECT_TRUE(right);

  absl::StatusOr<std::string> first = job->read_output(0);
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_EQ(first->size(), kMaxOutputBytes);
  EXPECT_EQ(job->read_output(0, first->size())->size(), kBytes - kMaxOutputBytes);
  EXPECT_EQ(*job->read_output(0, 0, true), "err\n");
}

TEST_F(OutputTest, ASinkEndsItsStream) {
  absl::StatusOr<JobHandle> job = submit(job_of(directory_.script("who", "echo 0123456789")));
  ASSERT_TRUE(job.ok()) << job.status();
  absl::StatusOr<JobResult> result = job->wait();
  ASSERT_TRUE(result.ok()) << result.status();
  OutputSink full = [](std::string_view) { return absl::OutOfRangeError("full"); };
  EXPECT_EQ(result->stream_output(0, full), absl::OutOfRangeError("full"));
  EXPECT_EQ(job->stream_output(0, full), absl::OutOfRangeError("full"));
  OutputSink never = [](std::string_view) { return absl::InternalError("called"); };
  EXPECT_EQ(result->stream_output(1, never).code(), absl::StatusCode::kOutOfRange);
  EXPECT_TRUE(job->stream_output(0, never, 11).ok()) << "nothing is left from there on";
}

TEST_F(OutputTest, ARunningRankIsStreamedAsFarAsItIs) {
  std::string started = directory_.fifo("started"), gate = directory_.fifo("gate");
  absl::StatusOr<JobHandle> job = submit(job_of(directory_.script(
      "live", "echo first; echo up >" + started + "; read x <" + gate + "; echo second")));
  ASSERT_TRUE(job.ok()) << job.status();
  read_line(started);
  std::string seen;
  auto add = [&](std::string_view bytes) {
    seen += bytes;
    return absl::OkStatus();
  };
  while (seen != "first\n") {
    ASSERT_TRUE(job->stream_output(0, add, seen.size()).ok());
    ASSERT_TRUE(std::string("first\n").starts_with(seen)) << seen;
  }
  std::ofstream(gate) << "go\n";
  ASSERT_TRUE(job->wait().ok());
  EXPECT_TRUE(job->stream_output(0, add, seen.size()).ok());
  EXPECT_EQ(seen, "first\nsecond\n");
}

TEST_F(OutputTest, ARankThatIsStartedAgainIsReadFromItsBeginning) {
  std::string started = directory_.fifo("started"), gate = directory_.fifo("gate");
  Job again = job_of(directory_.script("again",
                                       "if [ $PESC_ATTEMPT = 2 ]; then echo two; exit; fi; "
                                       "echo the first; echo up >" +
                                           started + "; read x <" + gate + "; exit 1"));
  again.retries = 1;
  again.max_failures = UINT32_MAX;
  Client client = local();
  absl::StatusOr<JobHandle> job = client.submit(again);
  ASSERT_TRUE(job.ok()) << job.status();
  read_line(started);
  client::OutputReader reader(client.session(), *parse_job_id(job->id()), 0, false);
  std::string seen;
  auto add = [&](std::string_view bytes) {
    seen += bytes;
    return absl::OkStatus();
  };
  auto restarted = [&](uint32_t before, uint32_t attempt) {
    seen += "[" + std::to_string(before) + " " + std::to_string(attempt) + "]";
    return absl::OkStatus();
  };
  while (seen != "the first\n") {
    ASSERT_TRUE(reader.read(add, restarted).ok());
    ASSERT_TRUE(std::string("the first\n").starts_with(seen)) << seen;
  }
  std::ofstream(gate) << "go\n";
  ASSERT_TRUE(job->wait().ok());
  ASSERT_TRUE(reader.read(add, restarted).ok());
  EXPECT_EQ(seen, "the first\n[1 2]two\n");
  ASSERT_TRUE(reader.read(add, restarted).ok());
  EXPECT_EQ(seen, "the first\n[1 2]two\n") << "nothing comes twice";
  EXPECT_EQ(job->rank(0)->attempts, 2u);
  EXPECT_EQ(*job->read_output(0), "two\n");
}

TEST_F(OutputTest, WhatRunsHereIsThisMachine) {
  Client client = local();
  absl::StatusOr<JobHandle> job = client.submit(job_of("pesc-there-is-no-such-program"));
  ASSERT_TRUE(job.ok()) << job.status();
  ASSERT_TRUE(job->wait().ok());
  absl::StatusOr<std::vector<WhyLine>> why = client.why(job->id());
  ASSERT_TRUE(why.ok() && !why->empty());
  for (const std::string& text : {why->front().reason, job->rank(0)->detail}) {
    EXPECT_THAT(text, HasSubstr("this machine's PATH"));
    EXPECT_THAT(text, Not(HasSubstr("worker")));
  }
}

TEST_F(OutputTest, WhatAProgramSaysStays) {
  Client client = local();
  absl::StatusOr<JobHandle> job =
      client.submit(job_of(directory_.script("bad", "echo the worker died >&2; exit 3")));
  ASSERT_TRUE(job.ok()) << job.status();
  ASSERT_TRUE(job->wait().ok());
  EXPECT_THAT(client.why(job->id())->front().reason, HasSubstr("the worker died"));
}

TEST(ThisMachine, WordsAreWhole) {
  EXPECT_EQ(client::of_this_machine("the worker's disk is full"), "this machine's disk is full");
  EXPECT_EQ(client::of_this_machine("not found on this worker's PATH, this worker"),
            "not found on this machine's PATH, this machine");
  EXPECT_EQ(client::of_this_machine("the workers"), "the workers");
  EXPECT_EQ(client::of_this_machine("the worker is shutting down"),
            "the process that runs it is ending");
}

TEST_F(OutputTest, WhatAnInterruptedSaveLeftIsReplaced) {
  absl::StatusOr<JobHandle> job = submit(job_of(directory_.script("who", "echo $PESC_RANK"), 3));
  ASSERT_TRUE(job.ok()) << job.status();
  absl::StatusOr<JobResult> result = job->wait();
  ASSERT_TRUE(result.ok()) << result.status();
  const std::filesystem::path out = directory_ / "out";
  ASSERT_TRUE(result->save(out.string()).ok());
  std::filesystem::remove(out / ".pesc/fetched");  // as if none had been whole
  std::filesystem::create_directories(out / ".pesc/part/deep");
  std::ofstream(out / "rank-0/half") << "x";
  std::filesystem::remove_all(out / "rank-1");
  std::ofstream(out / "rank-1") << "a file";
  ASSERT_TRUE(result->save(out.string()).ok());
  EXPECT_FALSE(std::filesystem::exists(out / "rank-0/half"));
  EXPECT_EQ(read_file(out / "rank-1/output.txt"), "1\n");
  EXPECT_EQ(read_file(out / "output.txt"), "0\n1\n2\n");
  EXPECT_FALSE(std::filesystem::exists(out / ".pesc/part"));
}

TEST_F(OutputTest, ADirectoryInPlaceOfTheOutputIsNoText) {
  const std::string program =
      directory_.script("who",
                        "if [ $PESC_RANK = 1 ]; then mkdir \"$PESC_OUTPUT_DIR/output.txt\" && "
                        "echo x >\"$PESC_OUTPUT_DIR/output.txt/f\"; else echo $PESC_RANK; fi");
  absl::StatusOr<JobHandle> job = submit(job_of(program, 3));
  ASSERT_TRUE(job.ok()) << job.status();
  absl::StatusOr<JobResult> result = job->wait();
  ASSERT_TRUE(result.ok() && result->succeeded()) << result.status();
  const std::filesystem::path out = directory_ / "out";
  const absl::Status saved = result->save(out.string());
  ASSERT_TRUE(saved.ok()) << saved;
  EXPECT_EQ(read_file(out / "rank-1/output.txt/f"), "x\n");
  EXPECT_EQ(read_file(out / "output.txt"), "0\n2\n");
}

TEST_F(OutputTest, WhatAKilledFetchWroteHalfIsFetchedOnceMore) {
  Client client = local();
  absl::StatusOr<JobHandle> job =
      client.submit(job_of(directory_.script("who", "echo $PESC_RANK"), 3));
  ASSERT_TRUE(job.ok()) << job.status();
  ASSERT_TRUE(job->wait().ok());
  const std::filesystem::path out = directory_ / "out", fetched = out / ".pesc/fetched";
  const auto fetch = [&] {
    auto report = client::fetch(client.session(), *parse_job_id(job->id()), out.string(), {});
    EXPECT_TRUE(report.ok()) << report.status();
    return report.ok() ? report->ranks : UINT32_MAX;
  };
  EXPECT_EQ(fetch(), 3u);
  std::filesystem::resize_file(fetched, std::filesystem::file_size(fetched) - 20);
  EXPECT_EQ(fetch(), 1u);
  EXPECT_EQ(fetch(), 0u);
}

TEST_F(OutputTest, ALibraryNamesNoFlags) {
  absl::StatusOr<JobHandle> job = submit(job_of("true"));
  ASSERT_TRUE(job.ok()) << job.status();
  absl::StatusOr<JobResult> result = job->wait();
  ASSERT_TRUE(result.ok()) << result.status();
  std::ofstream(directory_ / "file") << "x";
  std::filesystem::create_directory(directory_ / "full");
  std::ofstream(directory_ / "full/x") << "x";
  for (const char* name : {"file", "full"}) {
    absl::Status saved = result->save((directory_ / name).string());
    EXPECT_EQ(saved.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(std::string(saved.message()), HasSubstr("name another one"));
    EXPECT_THAT(std::string(saved.message()), Not(HasSubstr("-o ")));
  }
}

}  // namespace
}  // namespace pesc
