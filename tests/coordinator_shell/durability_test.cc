// What survives: restarts, a full disk, a second coordinator, retention; and who gets in.
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness.h"
#include "rpc/connection.h"
#include "runtime/coordinator/shell/clock.h"
#include "runtime/coordinator/shell/daemon_config.h"
#include "runtime/coordinator/shell/revoke.h"

namespace pesc::coordinator::testing {
namespace {

constexpr JobId kJob{0x0ab00000'00000001};
constexpr JobId kOther{0x0ab00001'00000002};

class Durability : public ::testing::Test, public Lab {
 protected:
  void SetUp() override { ASSERT_EQ(open(), absl::OkStatus()); }
};

TEST_F(Durability, ARestartKeepsEverything) {
  {
    FakeUser ann = user();
    FakeWorker worker = this->worker(7, 1);
    ASSERT_EQ(worker.attach(), absl::OkStatus());
    ASSERT_EQ(ann.submit(kJob, simple_spec(4)), absl::OkStatus());
    worker.succeed("first");
    const Lease lease = worker.next_lease();
    ASSERT_EQ(worker.report(lease.key, FakeWorker::failure(1, "bad luck"), ""), absl::OkStatus());
  }
  const auto outcome = [&] {
    auto before = user().ranks(kJob, 0, 1);
    return protocol::decode((*before)->getRanks()[0].getOutcome()).value();
  }();
  close();
  ASSERT_EQ(open(), absl::OkStatus());

  FakeUser ann = user();
  auto status = ann.status(kJob);
  ASSERT_TRUE(status.ok()) << status.status();
  EXPECT_EQ((*status)->getStatus().getSucceeded(), 1u);
  EXPECT_EQ((*status)->getStatus().getFailed(), 1u);
  auto ranks = ann.ranks(kJob, 0, 2);
  EXPECT_EQ(protocol::decode((*ranks)->getRanks()[0].getOutcome()).value(), outcome);
  EXPECT_TRUE(ann.has_blob("first"));
  auto news = ann.follow(kJob, 0, 0);
  EXPECT_EQ((*news)->getFinished()[1].getRank(), 1u) << "commit order";
}

TEST_F(Durability, ARunningRankIsAdoptedAfterARestart) {
  FakeUser(user()).submit(kJob, simple_spec(1)).IgnoreError();
  std::vector<AttemptKey> holding;
  {
    FakeWorker worker = this->worker();
    ASSERT_EQ(worker.attach(), absl::OkStatus());
    worker.next_lease();
    holding = worker.inbox->holding;
  }
  close();
  ASSERT_EQ(open(), absl::OkStatus());
  FakeWorker worker = this->worker();
  worker.inbox->holding = holding;
  ASSERT_EQ(worker.attach(), absl::OkStatus());
  ASSERT_EQ(worker.report(holding[0], FakeWorker::success("kept"), "kept"), absl::OkStatus());
  EXPECT_EQ(user().follow_to_the_end(kJob), std::vector<uint32_t>{0});
  auto ranks = user().ranks(kJob, 0, 1);
  EXPECT_EQ((*ranks)->getRanks()[0].getAttempts(), 1u) << "no running rank is started again";
}

// A child commits and dies without a farewell; all that it was answered must be there.
TEST(DurabilityOfAKilledProcess, AcknowledgedIsDurable) {
  TemporaryDirectory dir;
  int pipe_ends[2];
  ASSERT_EQ(pipe(pipe_ends), 0);
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    rpc::Loop loop;
    Options options;
    options.state_dir = dir / "state";
    auto coordinator = Coordinator::open(loop, options);
    if (!coordinator.ok()) _exit(1);
    FakeUser ann(loop, (*coordinator)->user_session({rpc::Role::user, "ann"}));
    for (uint32_t i = 0; i < 5; ++i) {
      if (!ann.submit(JobId{kJob.value + i}, simple_spec(i + 1)).ok()) _exit(2);
    }
    if (write(pipe_ends[1], "x", 1) != 1) _exit(3);
    pause();
    _exit(4);
  }
  ::close(pipe_ends[1]);
  char byte = 0;
  ASSERT_EQ(read(pipe_ends[0], &byte, 1), 1);
  ::close(pipe_ends[0]);
  ASSERT_EQ(kill(child, SIGKILL), 0);
  ASSERT_EQ(waitpid(child, nullptr, 0), child);

  rpc::Loop loop;
  Options options;
  options.state_dir = dir / "state";
  auto coordinator = Coordinator::open(loop, options);
  ASSERT_TRUE(coordinator.ok()) << coordinator.status();
  FakeUser ann(loop, (*coordinator)->user_session({rpc::Role::user, "ann"}));
  EXPECT_EQ(ann.jobs().size(), 5u);
}

TEST_F(Durability, AFullDiskRefusesWorkAndItGoesOnByItself) {
  FakeUser ann = user();
  ASSERT_EQ(ann.submit(kJob, simple_spec(1)), absl::OkStatus());
  FakeWorker worker = this->worker();
  ASSERT_EQ(worker.attach(), absl::OkStatus());
  const AttemptKey key = worker.next_lease().key;

  // Not one page of the journal fits: writes fail as on a full disk.
  signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  rlimit tight = before;
  tight.rlim_cur = 4096;
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &tight), 0);
  const absl::Status full = ann.submit(kOther, simple_spec(1));
  const absl::Status still = ann.submit(kOther, simple_spec(1));
  const bool closed = worker.inbox->gone;
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);

  EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted) << full;
  EXPECT_NE(full.message().find("disk is full"), absl::string_view::npos) << full;
  EXPECT_EQ(still.code(), absl::StatusCode::kResourceExhausted) << still;
  EXPECT_TRUE(closed) << "the workers' sessions end with the state they belong to";

  // It tries by itself; a user who tries again sees when.
  while (ann.submit(kOther, simple_spec(1)).code() == absl::StatusCode::kResourceExhausted) {
    loop.wait(loop.timer().afterDelay(10 * kj::MILLISECONDS));
  }
  EXPECT_EQ(ann.jobs(), (std::vector<JobId>{kOther, kJob}));
  FakeWorker again = this->worker();
  again.inbox->holding = {key};
  ASSERT_EQ(again.attach(), absl::OkStatus());
  EXPECT_EQ(again.report(key, FakeWorker::success("out"), "out"), absl::OkStatus());
}

TEST_F(Durability, OneCoordinatorAtATime) {
  rpc::Loop* same = &loop;
  auto second = Coordinator::open(*same, options);
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.status().code(), absl::StatusCode::kAlreadyExists);
  EXPECT_NE(second.status().message().find("process " + std::to_string(getpid())),
            absl::string_view::npos)
      << second.status();
  close();
  EXPECT_EQ(open(), absl::OkStatus());
}

TEST_F(Durability, FinishedJobsAgeOut) {
  int64_t finished = 0;
  {
    FakeWorker worker = this->worker();
    ASSERT_EQ(worker.attach(), absl::OkStatus());
    FakeUser ann = user();
    ASSERT_EQ(ann.submit(kJob, simple_spec(1)), absl::OkStatus());
    worker.succeed("old");
    ASSERT_EQ(ann.submit(kOther, simple_spec(1)), absl::OkStatus());
    finished = (*ann.status(kJob))->getStatus().getFinishedUnixMs();
  }
  close();
  while (unix_ms() <= finished) {
  }
  options.retention_ms = 0;
  ASSERT_EQ(open(), absl::OkStatus());
  FakeUser again = user();
  while (again.status(kJob).ok()) let_others();  // the removal is on its way
  EXPECT_EQ(again.jobs(), std::vector<JobId>{kOther}) << "a job that has not ended stays";
}

TEST_F(Durability, TheOldestGoWhenOutputsAreTooLarge) {
  {
    FakeWorker worker = this->worker();
    ASSERT_EQ(worker.attach(), absl::OkStatus());
    FakeUser ann = user();
    for (uint64_t i = 0; i < 3; ++i) {
      ASSERT_EQ(ann.submit(JobId{kJob.value + i}, simple_spec(1)), absl::OkStatus());
      worker.succeed(std::string(1000, char('a' + i)));
      ann.follow_to_the_end(JobId{kJob.value + i});
      const int64_t now = unix_ms();
      while (unix_ms() == now) {  // one is older than the other
      }
    }
  }
  close();
  options.retention_bytes = 2'000;
  ASSERT_EQ(open(), absl::OkStatus());
  FakeUser again = user();
  while (again.status(kJob).ok()) let_others();
  EXPECT_EQ(again.jobs(), (std::vector<JobId>{JobId{kJob.value + 2}, JobId{kJob.value + 1}}));
}

TEST(StateDirectory, AFileInItsPlaceIsRefused) {
  TemporaryDirectory dir;
  std::fclose(std::fopen((dir / "f").c_str(), "w"));
  rpc::Loop loop;
  Options options;
  options.state_dir = dir / "f";
  EXPECT_EQ(Coordinator::open(loop, options).status().code(),
            absl::StatusCode::kFailedPrecondition);
  options.state_dir = dir / "deep/er";
  EXPECT_TRUE(Coordinator::open(loop, options).ok());
  EXPECT_EQ(std::filesystem::status(dir / "deep/er").permissions(),
            std::filesystem::perms::owner_all);
}

// ---- who gets in
// ----------------------------------------------------------------------------------

class Listening : public Durability {
 protected:
  void SetUp() override {
    setenv("XDG_STATE_HOME", (dir / "xdg").c_str(), 1);
    Durability::SetUp();
    const auto bound = coordinator->listen({"127.0.0.1", 0});
    ASSERT_TRUE(bound.ok()) << bound.status();
    address_ = *bound;
  }
  void TearDown() override { unsetenv("XDG_STATE_HOME"); }

  auto login(const std::string& token) {
    connection_ = loop.wait(rpc::connect(loop, address_, ""));
    auto request = connection_->bootstrap().castAs<protocol::Front>().loginRequest();
    request.setToken(token);
    return outcome_of(loop,
                      kj::Promise<capnp::Response<protocol::Front::LoginResults>>(request.send()));
  }
  std::string token(rpc::Role role) {
    return rpc::read_join_file(rpc::pointer_path(address_.port, role)).value().token;
  }

  rpc::Address address_;
  std::unique_ptr<rpc::Connection> connection_;
};

TEST_F(Listening, StrangersGetNothingButAnError) {
  for (const std::string guess : {"", "guess"}) {
    const auto refused = login(guess);
    ASSERT_FALSE(refused.ok());
    EXPECT_EQ(refused.status().code(), absl::StatusCode::kUnauthenticated);
  }
  auto worker = login(token(rpc::Role::worker));
  ASSERT_TRUE(worker.ok()) << worker.status();
  EXPECT_TRUE((*worker)->hasWorker());
  EXPECT_FALSE((*worker)->hasUser()) << "a worker's token is no user's";
  auto admin = login(token(rpc::Role::user));
  ASSERT_TRUE(admin.ok()) << admin.status();
  EXPECT_TRUE((*admin)->hasUser());
  EXPECT_FALSE((*admin)->hasWorker());
  EXPECT_TRUE((*admin)->getAdmin());
}

TEST_F(Listening, JoinFilesLetOthersIn) {
  auto admin = login(token(rpc::Role::admin));
  ASSERT_TRUE(admin.ok());
  auto request = (*admin)->getUser().makeTokenRequest();
  request.setRole("user");
  request.setName("bob");
  const std::string json = loop.wait(request.send()).getJoinFile().cStr();
  const auto join = rpc::parse_join_file(json, "test");
  ASSERT_TRUE(join.ok()) << join.status();
  EXPECT_EQ(join->address, rpc::to_string(address_));
  EXPECT_EQ(join->name, "bob");
  auto bob = login(join->token);
  ASSERT_TRUE(bob.ok()) << bob.status();
  EXPECT_FALSE((*bob)->getAdmin());
  auto escalate = (*bob)->getUser().makeTokenRequest();
  escalate.setRole("admin");
  EXPECT_EQ(status_of(loop, escalate).code(), absl::StatusCode::kPermissionDenied);
}

TEST_F(Listening, ATokenCanBeTakenBack) {
  std::string bob;
  {
    auto admin = login(token(rpc::Role::admin));
    ASSERT_TRUE(admin.ok());
    auto request = (*admin)->getUser().makeTokenRequest();
    request.setRole("user");
    request.setName("bob");
    bob = rpc::parse_join_file(loop.wait(request.send()).getJoinFile().cStr(), "test")->token;
  }
  ASSERT_TRUE(login(bob).ok());
  const auto dir = options.state_dir;
  EXPECT_EQ(revoke_tokens(dir, "user:bob").code(), absl::StatusCode::kAlreadyExists)
      << "it must have been stopped";
  connection_ = nullptr;
  close();
  EXPECT_EQ(revoke_tokens(dir, "user:bill").code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(revoke_tokens(dir, "worker:bob").code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(revoke_tokens(dir, "bob").code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(revoke_tokens(dir / "other", "user:bob").code(), absl::StatusCode::kNotFound);
  ASSERT_EQ(revoke_tokens(dir, "user:bob"), absl::OkStatus());
  ASSERT_EQ(open(), absl::OkStatus());
  address_ = *coordinator->listen({"127.0.0.1", 0});
  EXPECT_EQ(login(bob).status().code(), absl::StatusCode::kUnauthenticated);
  EXPECT_TRUE(login(token(rpc::Role::admin)).ok());
}

TEST_F(Listening, TokensAreKeptAndPointersGoAtTheEnd) {
  const std::string before = token(rpc::Role::admin);
  const std::filesystem::path pointer = rpc::pointer_path(address_.port, rpc::Role::user);
  EXPECT_TRUE(std::filesystem::exists(pointer));
  close();
  EXPECT_FALSE(std::filesystem::exists(pointer));
  ASSERT_EQ(open(), absl::OkStatus());
  const auto bound = coordinator->listen({"127.0.0.1", 0});
  ASSERT_TRUE(bound.ok());
  address_ = *bound;
  EXPECT_EQ(token(rpc::Role::admin), before);
}

TEST_F(Listening, AWorkerWhoseConnectionBreaksIsAway) {
  auto login_worker = login(token(rpc::Role::worker));
  ASSERT_TRUE(login_worker.ok());
  {
    FakeWorker worker(loop, (*login_worker)->getWorker());
    ASSERT_EQ(worker.attach(), absl::OkStatus());
  }
  auto attached = [&] {
    FakeUser root = user("root", rpc::Role::admin);
    auto response = loop.wait(root.session().workersRequest().send());
    return response.getWorkers()[0].getState() == "attached";
  };
  EXPECT_TRUE(attached());
  login_worker = absl::CancelledError("");
  connection_ = nullptr;
  while (attached()) let_others();
}

// ---- the daemon's settings
// ------------------------------------------------------------------------

TEST(DaemonSettings, FlagsWinOverTheFileAndUnknownKeysAreNamed) {
  TemporaryDirectory dir;
  auto write = [&](const std::string& text) {
    std::FILE* file = std::fopen((dir / "c.toml").c_str(), "w");
    std::fputs(text.c_str(), file);
    std::fclose(file);
    return read_settings(dir / "c.toml");
  };
  auto file = write("listen = \"0.0.0.0:99\"\nretention_days = 3\nretention_bytes = \"2GiB\"\n");
  ASSERT_TRUE(file.ok()) << file.status();
  struct DaemonSettings flags;
  flags.listen = "127.0.0.1:77";
  auto config = understand(merge(*file, flags));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->listen.port, 77);
  EXPECT_EQ(config->options.retention_ms, 3ull * 24 * 3600 * 1000);
  EXPECT_EQ(config->options.retention_bytes, 2ull << 30);

  const absl::Status unknown = write("lisen = 1\n").status();
  EXPECT_EQ(unknown.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(unknown.message().find("\"lisen\""), absl::string_view::npos) << unknown;
  EXPECT_NE(unknown.message().find("retention_days"), absl::string_view::npos) << unknown;
  EXPECT_FALSE(write("listen = [").ok());
  EXPECT_FALSE(write("listen = [1]").ok());
  EXPECT_FALSE(read_settings(dir / "missing.toml").ok());
  flags.retention_days = "many";
  EXPECT_FALSE(understand(flags).ok());
}

TEST(DaemonSettings, SeveralHeartbeatsFitIntoALease) {
  struct DaemonSettings flags;
  EXPECT_EQ(understand(flags)->options.core.lease_ms, 60'000u);
  flags.lease = "4s";
  auto config = understand(flags);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->options.core.lease_ms, 4'000u);
  EXPECT_EQ(config->options.core.heartbeat_ms, 1'000u);
  flags.lease = "1h";
  EXPECT_EQ(understand(flags)->options.core.heartbeat_ms, 5'000u);
  for (const char* bad : {"0", "999ms", "2d", "soon"}) {
    flags.lease = bad;
    EXPECT_FALSE(understand(flags).ok()) << bad;
  }
}

}  // namespace
}  // namespace pesc::coordinator::testing
