// What all ranks of a job write, while they run and afterwards.
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "client/output.h"
#include "client/state.h"
#include "model/ids.h"
#include "tests/client/support.h"

namespace pesc {
namespace {

using client::JobOutput;

class JobOutputTest : public Embedded {
 protected:
  // Follows the job to its end; `each` is called after each piece, while ranks run.
  absl::Status follow(
      Client& client, const JobHandle& job, const std::function<void()>& each = [] {},
      bool standard_error = false) {
    JobOutput::Listener listener;
    listener.bytes = [this, each](uint32_t rank, std::string_view bytes) {
      EXPECT_FALSE(bytes.empty());
      seen_[rank] += bytes;
      each();
      return absl::OkStatus();
    };
    listener.restarted = [this](uint32_t rank, uint32_t before, uint32_t attempt) {
      seen_[rank] += "<" + std::to_string(before) + " " + std::to_string(attempt) + ">";
      return absl::OkStatus();
    };
    JobOutput output(client.session(), *parse_job_id(job.id()), standard_error,
                     std::move(listener));
    return output.follow();
  }
  JobHandle submitted(Client& client, const Job& job) {
    absl::StatusOr<JobHandle> handle = client.submit(job);
    EXPECT_TRUE(handle.ok()) << handle.status();
    return *std::move(handle);
  }
  std::map<uint32_t, std::string> seen_;
};

TEST_F(JobOutputTest, WholeLinesComeWhileTheirRanksRun) {
  const std::string gates[] = {directory_.fifo("gate0"), directory_.fifo("gate1")};
  const std::string program = directory_.script(
      "live", "echo first $PESC_RANK; printf 'half a '; read x <" +
                  gates[0].substr(0, gates[0].size() - 1) + "$PESC_RANK; echo line; echo last");
  LocalOptions options;
  options.slots = 2;
  Client client = local(options);
  JobHandle job = submitted(client, job_of(program, 2));
  int opened = 0;
  absl::Status status = follow(client, job, [&] {
    if (opened == 0 && seen_[0] == "first 0\n" && seen_[1] == "first 1\n") {
      std::ofstream(gates[1]) << "go\n";  // rank 0 waits on
      opened = 1;
    } else if (opened == 1 && seen_[1] == "first 1\nhalf a line\nlast\n") {
      EXPECT_EQ(seen_[0], "first 0\n");
      std::ofstream(gates[0]) << "go\n";
      opened = 2;
    }
  });
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(opened, 2);
  EXPECT_EQ(seen_[0], "first 0\nhalf a line\nlast\n");
  EXPECT_EQ(seen_[1], "first 1\nhalf a line\nlast\n");
}

TEST_F(JobOutputTest, ALineWithoutAnEndComesInPieces) {
  const std::string gate = directory_.fifo("gate");
  const std::string program = directory_.script(
      "long", "head -c 200000 /dev/zero | tr '\\0' x; read x <" + gate + "; echo; echo end");
  Client client = local();
  JobHandle job = submitted(client, job_of(program));
  bool opened = false;
  absl::Status status = follow(client, job, [&] {
    if (opened || seen_[0].size() < 3 * JobOutput::kLongestLine) return;
    EXPECT_EQ(seen_[0].size(), 3 * JobOutput::kLongestLine);
    std::ofstream(gate) << "go\n";
    opened = true;
  });
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(seen_[0], std::string(200'000, 'x') + "\nend\n");
}

TEST_F(JobOutputTest, ALineThatIsEndedByAReturnComesAtOnce) {
  const std::string gate = directory_.fifo("gate");
  const std::string program = directory_.script(
      "bar", "printf '10%%\\r20%%\\r30'; read x <" + gate + "; printf '%%\\r100%%\\r\\n'");
  Client client = local();
  JobHandle job = submitted(client, job_of(program));
  int pieces = 0;
  absl::Status status = follow(client, job, [&] {
    if (++pieces > 1) return;
    EXPECT_EQ(seen_[0], "10%\r20%\r");
    std::ofstream(gate) << "go\n";
  });
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(seen_[0], "10%\r20%\r30%\r100%\r\n");
}

TEST_F(JobOutputTest, ARankThatIsStartedAgainIsReadFromItsBeginning) {
  const std::string gate = directory_.fifo("gate");
  Job again = job_of(directory_.script("again",
                                       "if [ $PESC_ATTEMPT = 2 ]; then echo two; exit; fi; "
                                       "echo the first; read x <" +
                                           gate + "; exit 1"));
  again.retries = 1;
  again.max_failures = UINT32_MAX;
  Client client = local();
  JobHandle job = submitted(client, again);
  absl::Status status = follow(client, job, [&] {
    if (seen_[0] == "the first\n") std::ofstream(gate) << "go\n";
  });
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(seen_[0], "the first\n<1 2>two\n");
}

TEST_F(JobOutputTest, WhatRanksWriteThatAreRetriedComesToo) {
  const std::string gate = directory_.fifo("gate");
  const std::string program =
      directory_.script("retried",
                        "if [ $PESC_RANK = 1 ]; then echo good; exit; fi\n"
                        "if [ $PESC_ATTEMPT = 1 ]; then printf one; exit 1; fi\n"
                        "echo a; read x <" +
                            gate + "; echo b; read x <" + gate + "; printf two");
  Job bad = job_of(program, 2);
  bad.max_failures = UINT32_MAX;
  Client client = local();
  JobHandle job = submitted(client, bad);
  ASSERT_TRUE(job.wait().ok());
  bool retried = false;
  absl::Status status = follow(client, job, [&] {
    if (!std::exchange(retried, true)) {
      EXPECT_EQ(*client.retry(job.id()), 1u);
    }
    // Between these two it was asked which ranks are over: rank 0 is not.
    if (seen_[0] == "onea\n" || seen_[0] == "onea\nb\n") std::ofstream(gate) << "go\n";
  });
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(seen_[0], "onea\nb\ntwo");
  EXPECT_EQ(seen_[1], "good\n");
}

TEST_F(JobOutputTest, OfAJobThatIsOverAllComesOnce) {
  const std::string program = directory_.script(
      "mixed",
      "echo err $PESC_RANK >&2\n"
      "case $((PESC_RANK % 4)) in 0) echo rank $PESC_RANK;; 1) ;; 2) printf short;; *) "
      "head -c 900000 /dev/urandom | od -v -An -x;; esac");
  Client client = local();
  JobHandle job = submitted(client, job_of(program, 24));
  ASSERT_TRUE(job.wait().ok());
  ASSERT_TRUE(follow(client, job).ok());
  for (uint32_t rank = 0; rank < 24; ++rank) {
    EXPECT_TRUE(seen_[rank] == *job.read_output(rank)) << "rank " << rank;
    if (rank % 4 == 3) EXPECT_GT(seen_[rank].size(), 2'000'000u);
  }
  seen_.clear();
  ASSERT_TRUE(follow(
                  client, job, [] {}, true)
                  .ok());
  ASSERT_EQ(seen_.size(), 24u);
  for (uint32_t rank = 0; rank < 24; ++rank) {
    EXPECT_EQ(seen_[rank], "err " + std::to_string(rank) + "\n");
  }
}

TEST_F(JobOutputTest, AnErrorOfItsListenerEndsIt) {
  const std::string gate = directory_.fifo("gate");
  Client client = local();
  JobHandle job = submitted(
      client, job_of(directory_.script("live", "echo up; read x <" + gate + "; echo more")));
  JobOutput::Listener listener;
  int called = 0;
  listener.bytes = [&](uint32_t, std::string_view) {
    ++called;
    return absl::CancelledError("enough");
  };
  JobOutput output(client.session(), *parse_job_id(job.id()), false, std::move(listener));
  EXPECT_EQ(output.follow(), absl::CancelledError("enough"));
  EXPECT_EQ(called, 1);
  ASSERT_TRUE(job.cancel().ok());
  ASSERT_TRUE(job.wait().ok());
}

}  // namespace
}  // namespace pesc
