// The keeper's own life: starting, outliving its worker, ending with its parent.
#include <gmock/gmock.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <asio/local/stream_protocol.hpp>
#include <asio/read.hpp>
#include <asio/write.hpp>

#include "harness.h"

namespace pesc::worker {
namespace {

using ::testing::HasSubstr;

class KeeperLife : public KeeperTest {};

TEST_F(KeeperLife, OutlivesItsWorkerAndHandsEverythingOver) {
  std::string fifo = make_fifo();
  LaunchRequest runs = act("exit_on_term", {fifo}, 1);
  LaunchRequest ends = request({"sh", "-c", "echo kept; exit 5"}, 2);
  LaunchRequest forgotten = request({"true"}, 3);
  {
    Kept first(directory.path(), false);
    for (const LaunchRequest& start : {runs, ends, forgotten}) first.keeper->start(start);
    first.wait_ready(runs.key, fifo);
    first.wait_exit(ends.key);
    first.wait_exit(forgotten.key);
    first.keeper->forget(forgotten.key);
    EXPECT_FALSE(first.read_output(forgotten.key).found);
    EXPECT_TRUE(first.welcome->empty());
  }
  Kept second(directory.path(), false);
  second.until([&] { return second.welcome.has_value(); });
  ASSERT_EQ(second.welcome->size(), 2u);
  const KeptAttempt& running = second.welcome->at(0);
  const KeptAttempt& finished = second.welcome->at(1);
  EXPECT_EQ(running.key, runs.key);
  EXPECT_TRUE(running.running);
  EXPECT_EQ(running.lease, runs.lease);
  EXPECT_EQ(finished.key, ends.key);
  EXPECT_FALSE(finished.running);
  EXPECT_EQ(finished.exit.outcome.exit_code, 5);
  EXPECT_EQ(finished.exit.standard_output, "kept\n");
  // A start that is sent again is not done again.
  second.keeper->start(ends);
  EXPECT_EQ(second.wait_exit(ends.key).standard_output, "kept\n");
  second.keeper->shutdown(60'000);
  EXPECT_EQ(second.wait_exit(runs.key).outcome.reason, EndReason::vacated);
  second.until([&] { return second.lost.has_value(); });
}

TEST_F(KeeperLife, WithoutAWorkerForTooLongItEndsWhatRuns) {
  std::string fifo = make_fifo();
  LaunchRequest start = act("exit_on_term", {fifo});
  pid_t pid = 0;
  {
    Kept first(directory.path(), false, {}, 50);
    first.keeper->start(start);
    pid = first.wait_ready(start.key, fifo);
  }
  ProcessWatch program(pid);
  ASSERT_TRUE(program.wait());
  // What came of it is kept for the next one.
  Kept second(directory.path(), false);
  second.until([&] { return second.welcome.has_value(); });
  ASSERT_EQ(second.welcome->size(), 1u);
  KeptExit exit = second.welcome->front().exit;
  if (second.welcome->front().running) exit = second.wait_exit(start.key);
  EXPECT_EQ(exit.outcome.reason, EndReason::vacated);
  EXPECT_THAT(exit.outcome.detail, HasSubstr("no worker has asked for it"));
  second.keeper->shutdown(0);
  second.until([&] { return second.lost.has_value(); });
}

TEST_F(KeeperLife, AWorkerThatComesBackInTimeFindsItRunning) {
  std::string fifo = make_fifo();
  LaunchRequest start = act("exit_on_term", {fifo});
  {
    Kept first(directory.path(), false, {}, 3'600'000);
    first.keeper->start(start);
    first.wait_ready(start.key, fifo);
  }
  Kept second(directory.path(), false, {}, 50);
  second.until([&] { return second.welcome.has_value(); });
  // Another attempt's limit tells that time has passed.
  LaunchRequest other = request({"sh", "-c", "read x < " + make_fifo("never")}, 1);
  other.time_limit_ms = 200;
  other.grace_ms = 0;
  second.keeper->start(other);
  second.wait_exit(other.key);
  EXPECT_FALSE(second.exits.contains(start.key));
  second.keeper->shutdown(60'000);
  EXPECT_EQ(second.wait_exit(start.key).outcome.reason, EndReason::vacated);
  second.until([&] { return second.lost.has_value(); });
}

TEST_F(KeeperLife, ANewConnectionReplacesTheOld) {
  Kept first(directory.path());
  first.until([&] { return first.welcome.has_value(); });
  Kept second(directory.path());
  second.until([&] { return second.welcome.has_value(); });
  first.until([&] { return first.lost.has_value(); });
  LaunchRequest start = request({"true"});
  second.keeper->start(start);
  EXPECT_EQ(second.wait_exit(start.key).outcome.reason, EndReason::succeeded);
}

TEST_F(KeeperLife, AStaleSocketIsReplaced) {
  pid_t keeper = 0;
  {
    Kept first(directory.path(), false);
    LaunchRequest start = request({"sh", "-c", "read x < " + make_fifo("never")});
    first.keeper->start(start);
    keeper = parent_of(parent_of(first.wait_started(start.key)));
    ProcessWatch watch(keeper);
    ::kill(keeper, SIGKILL);
    ASSERT_TRUE(watch.wait());
  }
  EXPECT_TRUE(std::filesystem::exists(directory.path() / "keeper.sock"));
  LaunchRequest start = request({"echo", "again"});
  EXPECT_EQ(run(start).standard_output, "again\n");
}

TEST_F(KeeperLife, DiesWithItsParent) {
  std::string fifo = make_fifo();
  LaunchRequest start = act("ignore_term", {fifo});
  pid_t host = ::fork();
  if (host == 0) {
    Kept kept(directory.path(), true);
    kept.keeper->start(start);
    kept.wait_started(start.key);
    kept.until([] { return false; });
    ::_exit(1);
  }
  pid_t pid = wait_ready(fifo);
  ProcessWatch program(pid), keeper(parent_of(parent_of(pid)));
  ::kill(host, SIGKILL);
  ::waitpid(host, nullptr, 0);
  EXPECT_TRUE(program.wait());
  EXPECT_TRUE(keeper.wait());
}

TEST_F(KeeperLife, IsNoChildOfTheHostAndLeavesItsSignalsAlone) {
  struct sigaction before {
  }, after{};
  ::sigaction(SIGCHLD, nullptr, &before);
  Kept kept(directory.path());
  LaunchRequest start = request({"true"});
  kept.keeper->start(start);
  kept.wait_exit(start.key);
  ::sigaction(SIGCHLD, nullptr, &after);
  EXPECT_EQ(before.sa_handler, after.sa_handler);
  EXPECT_EQ(::waitpid(-1, nullptr, WNOHANG), -1);
  EXPECT_EQ(errno, ECHILD);
}

TEST_F(KeeperLife, WorksInAHostThatIgnoresItsChildren) {
  auto previous = ::signal(SIGCHLD, SIG_IGN);
  KeptExit exit = run(request({"sh", "-c", "true; exit 4"}));
  ::signal(SIGCHLD, previous);
  EXPECT_EQ(exit.outcome.exit_code, 4);
}

TEST_F(KeeperLife, ALongPathIsNoObstacle) {
  std::filesystem::path deep = directory.path() / std::string(120, 'd');
  std::filesystem::create_directory(deep);
  Kept kept(deep);
  LaunchRequest start = request({"true"});
  kept.keeper->start(start);
  EXPECT_EQ(kept.wait_exit(start.key).outcome.reason, EndReason::succeeded);
  struct stat info {};
  ASSERT_EQ(::stat((deep / "keeper.sock").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
}

TEST_F(KeeperLife, ANamedProgramIsUsedAndAMissingOneIsToldSo) {
  asio::io_context io;
  auto client = KeeperClient::open(io, {directory.path() / "keeper.sock", "/no/such/keeper", true},
                                   KeeperEvents{});
  ASSERT_FALSE(client.ok());
  EXPECT_THAT(std::string(client.status().message()), HasSubstr("/no/such/keeper"));
  EXPECT_FALSE(std::filesystem::exists(directory.path() / "keeper.sock"));
}

// Whatever comes in, the keeper serves the next one.
TEST_F(KeeperLife, NonsenseIsDropped) {
  Kept first(directory.path(), false);
  first.until([&] { return first.welcome.has_value(); });
  asio::io_context io;
  asio::local::stream_protocol::socket socket(io);
  socket.connect({(directory.path() / "keeper.sock").string()});
  std::string nonsense(4096, '\xee');
  asio::write(socket, asio::buffer(nonsense));
  char byte;
  std::error_code error;
  asio::read(socket, asio::buffer(&byte, 1), error);
  EXPECT_TRUE(error) << "the connection is closed";
  Kept second(directory.path(), false);
  LaunchRequest start = request({"true"});
  second.keeper->start(start);
  EXPECT_EQ(second.wait_exit(start.key).outcome.reason, EndReason::succeeded);
  second.keeper->shutdown(0);
  second.until([&] { return second.lost.has_value(); });
}

}  // namespace
}  // namespace pesc::worker
