// Following a job: signals, a job that does not move. Times are parameters: nothing here waits for
// the clock.
#include "runtime/cli/watcher.h"

#include <signal.h>
#include <unistd.h>

#include <thread>

#include "runtime/cli/report.h"
#include "tests/client/support.h"

namespace pesc::cli {
namespace {

class WatcherTest : public Embedded {
 protected:
  WatcherTest() : client_(local()) { block_signals(); }

  // One that no worker can take.
  JobHandle waiting_job() {
    Job job = job_of("true");
    job.room = "nowhere";
    absl::StatusOr<JobHandle> handle = client_.submit(job);
    EXPECT_TRUE(handle.ok()) << handle.status();
    return *std::move(handle);
  }

  Client client_;
};

void send(std::initializer_list<int> signals) {
  for (int signal : signals) ASSERT_EQ(kill(getpid(), signal), 0);
}

TEST_F(WatcherTest, TwoSignalsAtOnceAreOneInterrupt) {
  JobHandle job = waiting_job();
  Watched watched = watch(client_, job,
                          {.on_stalled =
                               [] {
                                 send({SIGINT, SIGTERM});
                               },
                           .stalled_after_ms = 1,
                           .same_interrupt_ms = 3'600'000});
  EXPECT_EQ(watched.end, WatchEnd::interrupted);
  ASSERT_TRUE(watched.result.ok()) << "it left instead of waiting: " << watched.result.status();
  EXPECT_EQ(watched.result->status().state, State::cancelled);
}

TEST_F(WatcherTest, TwoInterruptsLeaveAtOnce) {
  // A rank that does not end when it is told to: only the second interrupt ends the wait.
  std::string started = directory_.fifo("started");
  Job stubborn = job_of(directory_.script(
      "stubborn", "trap '' TERM; echo up >" + started + "; while :; do sleep 1; done"));
  stubborn.grace = std::chrono::hours(1);
  absl::StatusOr<JobHandle> job = client_.submit(stubborn);
  ASSERT_TRUE(job.ok()) << job.status();
  read_line(started);
  send({SIGINT, SIGTERM});
  Watched watched = watch(client_, *job, {.same_interrupt_ms = 0});
  EXPECT_EQ(watched.end, WatchEnd::interrupted);
  EXPECT_FALSE(watched.result.ok());
}

TEST_F(WatcherTest, AWatchThatOnlyWatchesLeavesTheJobAlone) {
  JobHandle job = waiting_job();
  Watched watched = watch(
      client_, job,
      {.cancel_on_interrupt = false, .on_stalled = [] { send({SIGINT}); }, .stalled_after_ms = 1});
  EXPECT_EQ(watched.end, WatchEnd::interrupted);
  EXPECT_EQ(job.status()->state, State::waiting);
}

TEST_F(WatcherTest, AJobThatDoesNotMoveSaysWhatItWaitsFor) {
  JobHandle job = waiting_job();
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  int before = dup(STDERR_FILENO);
  dup2(ends[1], STDERR_FILENO);
  std::string said;
  std::thread reader([&] {
    char c;
    while (said.find("still waiting: ") == std::string::npos && read(ends[0], &c, 1) == 1)
      said += c;
    send({SIGINT});
  });
  Watched watched =
      watch(client_, job,
            {.on_stalled = [&] { say_why_it_waits(client_, job.id()); }, .stalled_after_ms = 1});
  dup2(before, STDERR_FILENO);
  for (int fd : {ends[1], before}) close(fd);
  reader.join();
  close(ends[0]);
  EXPECT_THAT(said, testing::HasSubstr("still waiting: "));
  EXPECT_EQ(watched.result->status().state, State::cancelled);
}

}  // namespace
}  // namespace pesc::cli
