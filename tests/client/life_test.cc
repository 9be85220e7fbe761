// Who keeps what alive: handles, clients, callbacks, the host process.
#include <signal.h>
#include <sys/wait.h>

#include <atomic>
#include <fstream>
#include <thread>

#include "tests/client/support.h"

namespace pesc {
namespace {

class LifeTest : public Embedded {};

bool alive(pid_t pid) { return kill(pid, 0) == 0; }

TEST_F(LifeTest, NothingOutlivesTheLastHandle) {
  std::string started = directory_.fifo("started");
  std::string program =
      directory_.script("long", "echo $$ >" + started + "; exec tail -f /dev/null");
  Job job = job_of(program);
  job.grace = std::chrono::milliseconds(100);
  pid_t pid;
  {
    absl::StatusOr<JobHandle> handle = submit(job);
    ASSERT_TRUE(handle.ok()) << handle.status();
    pid = std::stoi(read_line(started));
    EXPECT_TRUE(alive(pid));
  }
  EXPECT_FALSE(alive(pid));
}

TEST_F(LifeTest, AnExitInTheMiddleLeavesNothingBehind) {
  std::string started = directory_.fifo("started");
  std::string program =
      directory_.script("long", "echo $$ >" + started + "; exec tail -f /dev/null");
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  pid_t child = fork();
  if (child == 0) {
    absl::StatusOr<JobHandle> handle = submit(job_of(program));
    if (!handle.ok()) _exit(1);
    pid_t pid = std::stoi(read_line(started));
    bool told = write(ends[1], &pid, sizeof pid) == sizeof pid;
    _exit(told ? 0 : 1);  // no destructor runs
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_EQ(status, 0);
  pid_t pid = 0;
  ASSERT_EQ(read(ends[0], &pid, sizeof pid), static_cast<ssize_t>(sizeof pid));
  // The keeper sees its parent's end by itself and ends the rank: the rank's own end is awaited.
  std::string wait = "tail -f /dev/null --pid=" + std::to_string(pid);
  EXPECT_EQ(system(wait.c_str()), 0);
  close(ends[0]);
  close(ends[1]);
}

TEST_F(LifeTest, HandlesDroppedInsideTheirOwnCallbacks) {
  for (int i = 0; i < 5; ++i) {
    auto handle = std::make_shared<std::optional<JobHandle>>();
    absl::StatusOr<JobHandle> job = submit(job_of("true", 3));
    ASSERT_TRUE(job.ok()) << job.status();
    handle->emplace(*std::move(job));
    job = absl::CancelledError("");
    auto over = std::make_shared<Flag>();
    (*handle)->on_finished([handle, over](const absl::StatusOr<JobResult>&) {
      handle->reset();  // the last one: the cluster ends, asked by its own callback
      over->set();
    });
    over->wait();
  }
}

TEST_F(LifeTest, ADroppedHandleIsNotCalledBack) {
  Client client = local();
  std::string gate = directory_.fifo("gate");
  std::string program = directory_.script("waits", "read x <" + gate);
  auto called = std::make_shared<std::atomic<int>>(0);
  std::string id;
  {
    absl::StatusOr<JobHandle> job = client.submit(job_of(program));
    ASSERT_TRUE(job.ok()) << job.status();
    id = job->id();
    job->on_finished([called](const absl::StatusOr<JobResult>&) { ++*called; });
    job->on_result([called](const RankResult&) { ++*called; });
  }
  std::ofstream(gate) << "go\n";
  absl::StatusOr<JobHandle> again = client.attach(id);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_TRUE(again->wait()->succeeded());  // the client kept it running
  EXPECT_EQ(*called, 0);
}

TEST_F(LifeTest, ResultsOutliveHandleAndClient) {
  absl::StatusOr<JobResult> result = absl::CancelledError("");
  {
    absl::StatusOr<JobHandle> job = submit(job_of(directory_.script("who", "echo here")));
    ASSERT_TRUE(job.ok()) << job.status();
    result = job->wait();
  }
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(*result->output(0), "here\n");
}

TEST_F(LifeTest, ManyHandlesInManyThreads) {
  std::string program = directory_.script("who", "echo $PESC_RANK");
  std::vector<std::thread> threads;
  std::atomic<int> succeeded = 0;
  for (int i = 0; i < 6; ++i) {
    threads.emplace_back([&] {
      for (int j = 0; j < 3; ++j) {
        std::atomic<int> results = 0;
        absl::StatusOr<JobHandle> job = submit(job_of(program, 4));
        ASSERT_TRUE(job.ok()) << job.status();
        job->on_result([&results](const RankResult&) { ++results; });
        JobHandle copy = *job;
        std::thread other([copy]() mutable {
          while (copy.next_result()->has_value()) continue;
        });
        absl::StatusOr<JobResult> result = job->wait();
        other.join();
        ASSERT_TRUE(result.ok()) << result.status();
        succeeded += static_cast<int>(result->status().succeeded);
        EXPECT_EQ(*result->output(2), "2\n");
        while (results < 4) std::this_thread::yield();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(succeeded, 6 * 3 * 4);
}

TEST_F(LifeTest, SeveralClustersAtOnce) {
  std::vector<LocalCluster> clusters;
  std::vector<JobHandle> jobs;
  for (int i = 0; i < 3; ++i) {
    absl::StatusOr<LocalCluster> cluster = LocalCluster::start({.workers = 2, .slots = 1});
    ASSERT_TRUE(cluster.ok()) << cluster.status();
    clusters.push_back(*std::move(cluster));
    absl::StatusOr<JobHandle> job = clusters.back().client().submit(job_of("true", 4));
    ASSERT_TRUE(job.ok()) << job.status();
    jobs.push_back(*std::move(job));
  }
  for (JobHandle& job : jobs) EXPECT_TRUE(job.wait()->succeeded());
  EXPECT_EQ(clusters[0].client().workers()->size(), 2u);
  EXPECT_EQ(clusters[0].client().jobs()->size(), 1u);
}

TEST_F(LifeTest, AStateDirectoryIsGoneOnWith) {
  std::string state = (directory_ / "kept").string();
  std::string program = directory_.script("who", "echo x >>" + (directory_ / "runs").string());
  std::string id;
  {
    Client client = local({.state_directory = state});
    absl::StatusOr<JobHandle> job = client.submit(job_of(program));
    ASSERT_TRUE(job.ok()) << job.status();
    id = job->id();
    ASSERT_TRUE(job->wait()->succeeded());
    EXPECT_FALSE(Client::local({.state_directory = state}).ok()) << "one at a time";
  }
  Client client = local({.state_directory = state});
  absl::StatusOr<JobHandle> job = client.attach(id);
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_TRUE(job->wait()->succeeded());
  EXPECT_EQ(read_file(directory_ / "runs"), "x\n");
}

std::atomic<int> g_child_signals = 0;

TEST_F(LifeTest, TheHostsSignalsAndChildrenAreItsOwn) {
  g_child_signals = 0;
  struct sigaction action {
  }, old{};
  action.sa_handler = [](int) { ++g_child_signals; };
  action.sa_flags = SA_RESTART | SA_NOCLDSTOP;
  ASSERT_EQ(sigaction(SIGCHLD, &action, &old), 0);
  {
    absl::StatusOr<JobHandle> job = submit(job_of("true", 5));
    ASSERT_TRUE(job.ok()) << job.status();
    pid_t child = fork();
    if (child == 0) _exit(42);
    ASSERT_TRUE(job->wait()->succeeded());
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child) << "somebody else reaped it";
    EXPECT_EQ(WEXITSTATUS(status), 42);
    EXPECT_EQ(waitpid(-1, &status, WNOHANG), -1) << "PESC gave the host children";
    EXPECT_EQ(errno, ECHILD);
    struct sigaction now {};
    sigaction(SIGCHLD, nullptr, &now);
    EXPECT_EQ(now.sa_handler, action.sa_handler);
    sigset_t mask;
    pthread_sigmask(SIG_SETMASK, nullptr, &mask);
    EXPECT_FALSE(sigismember(&mask, SIGINT));
  }
  EXPECT_EQ(g_child_signals, 1) << "the host's own child, and no other";
  sigaction(SIGCHLD, &old, nullptr);
}

}  // namespace
}  // namespace pesc
