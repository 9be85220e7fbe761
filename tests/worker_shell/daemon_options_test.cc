#include "runtime/worker/shell/daemon_options.h"

#include <gtest/gtest.h>

#include "tests/worker_shell/support.h"

namespace pesc::worker {
namespace {

std::string error_of(const std::vector<std::string>& arguments) {
  auto options = parse_daemon_options(arguments);
  EXPECT_FALSE(options.ok());
  EXPECT_TRUE(absl::IsInvalidArgument(options.status())) << options.status();
  return std::string(options.status().message());
}

TEST(DaemonOptions, FlagsWinOverTheFile) {
  TemporaryDirectory directory;
  const std::string config = (directory.path() / "worker.toml").string();
  write_file(config, "coordinator = \"lab:7341\"\ncpus = 2.5\nroom = \"a\"\nmemory = \"2GiB\"\n");
  auto options = parse_daemon_options({"--config", config, "--room", "b", "--state", "/x"});
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_EQ(options->coordinator, "lab:7341");
  EXPECT_EQ(options->worker.room, "b");
  EXPECT_EQ(options->worker.cpus_milli, 2500u);
  EXPECT_EQ(options->worker.memory_bytes, uint64_t{2} << 30);
  EXPECT_EQ(options->worker.state_dir, "/x");
}

TEST(DaemonOptions, RefusesWhatItDoesNotKnowByName) {
  EXPECT_NE(error_of({"--cpuz", "3"}).find("--cpuz"), std::string::npos);
  EXPECT_NE(error_of({"--cpus", "many"}).find("cpus"), std::string::npos);
  EXPECT_NE(error_of({"--cpus", "-1"}).find("--cpus"), std::string::npos);
  EXPECT_NE(error_of({"--memory", "lots"}).find("--memory"), std::string::npos);
  EXPECT_NE(error_of({"--log-level", "loud"}).find("loud"), std::string::npos);
  TemporaryDirectory directory;
  const std::string config = (directory.path() / "worker.toml").string();
  write_file(config, "coordinater = \"lab\"\n");
  EXPECT_NE(error_of({"--config", config}).find("\"coordinater\" is not known"), std::string::npos);
  write_file(config, "cpuss = 2\n");
  EXPECT_NE(error_of({"--config", config}).find("\"cpuss\" is not known"), std::string::npos)
      << "and not that it must be a text";
  write_file(config, "memory = 12\n");
  EXPECT_NE(error_of({"--config", config}).find("\"memory\" must be a text"), std::string::npos);
  write_file(config, "cpus = \"two\"\n");
  EXPECT_NE(error_of({"--config", config}).find("\"cpus\" must be a number"), std::string::npos);
  write_file(config, "room = [\n");
  EXPECT_NE(error_of({"--config", config}).find("worker.toml:"), std::string::npos);
  EXPECT_NE(error_of({"--config", "/no/such/file"}).find("/no/such/file"), std::string::npos);
}

TEST(DaemonOptions, ContainmentIsOneOfFour) {
  using containment::Mode;
  EXPECT_EQ(parse_daemon_options({})->worker.containment, Mode::automatic);
  EXPECT_EQ(parse_daemon_options({"--containment", "cgroup2"})->worker.containment, Mode::cgroup2);
  EXPECT_EQ(parse_daemon_options({"--containment", "none"})->worker.containment, Mode::none);
  EXPECT_NE(error_of({"--containment", "docker"}).find("none of auto, cgroup2"), std::string::npos);
}

TEST(DaemonOptions, GpusAreAutoNoneOrUuids) {
  auto options = parse_daemon_options({});
  ASSERT_TRUE(options.ok()) << options.status();
  ASSERT_TRUE(options->worker.gpus);
  EXPECT_FALSE(options->worker.gpus->none);
  EXPECT_TRUE(parse_daemon_options({"--gpus", "none"})->worker.gpus->none);
  EXPECT_EQ(parse_daemon_options({"--gpus", "GPU-a,MIG-b"})->worker.gpus->only,
            (std::vector<std::string>{"GPU-a", "MIG-b"}));
  EXPECT_NE(error_of({"--gpus", "0"}).find("--gpus: '0' is no GPU"), std::string::npos);
  TemporaryDirectory directory;
  const std::string config = (directory.path() / "worker.toml").string();
  write_file(config, "nvml_library = \"/x/libnvidia-ml.so.1\"\ngpus = [\"GPU-a\"]\n");
  options = parse_daemon_options({"--config", config});
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_EQ(options->worker.gpus->only, std::vector<std::string>{"GPU-a"});
  EXPECT_EQ(options->worker.gpus->nvml_library, "/x/libnvidia-ml.so.1");
  options = parse_daemon_options({"--config", config, "--gpus", "auto"});
  EXPECT_TRUE(options->worker.gpus->only.empty());
  EXPECT_EQ(options->worker.gpus->nvml_library, "/x/libnvidia-ml.so.1");
  for (const char* wrong : {"gpus = 1", "gpus = [1]", "gpus = []", "gpus = \"all\"",
                            "gpus = [\"auto\", \"GPU-a\"]", "nvml_library = 1"}) {
    write_file(config, wrong);
    EXPECT_NE(error_of({"--config", config}).find("worker.toml: the key"), std::string::npos)
        << wrong;
  }
}

TEST(DaemonOptions, TheDetachedLimitIsADuration) {
  auto options = parse_daemon_options({"--detached-limit", "12h"});
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_EQ(options->worker.detached_limit_ms, 12u * 3'600'000);
  EXPECT_EQ(parse_daemon_options({"--detached-limit", "0"})->worker.detached_limit_ms, 0u);
  EXPECT_EQ(parse_daemon_options({})->worker.detached_limit_ms, 7ull * 24 * 3'600'000);
  EXPECT_NE(error_of({"--detached-limit", "soon"}).find("--detached-limit"), std::string::npos);
  EXPECT_NE(error_of({"--detached-limit", "1s"}).find("from 1m"), std::string::npos);
}

TEST(DaemonOptions, BlobsArePassedOnWhenThatIsAskedFor) {
  TemporaryDirectory directory;
  const std::string config = (directory.path() / "worker.toml").string();
  EXPECT_FALSE(parse_daemon_options({})->worker.pass_on);
  EXPECT_TRUE(parse_daemon_options({"--pass-on"})->worker.pass_on);
  write_file(config, "pass_on = true\n");
  EXPECT_TRUE(parse_daemon_options({"--config", config})->worker.pass_on);
  EXPECT_FALSE(parse_daemon_options({"--config", config, "--no-pass-on"})->worker.pass_on);
  write_file(config, "pass_on = \"yes\"\n");
  EXPECT_NE(error_of({"--config", config}).find("true or false"), std::string::npos);
}

TEST(DaemonOptions, ReadsTheOwnersTable) {
  TemporaryDirectory directory;
  const std::string config = (directory.path() / "worker.toml").string();
  auto options = parse_daemon_options({});
  ASSERT_TRUE(options.ok());
  EXPECT_FALSE(options->worker.owner->policy.watching);
  EXPECT_FALSE(options->worker.idle_priority) << "the machine is the worker's alone";
  write_file(config, "cpus = 2\n[owner]\ncpu_limit = 50\n");
  options = parse_daemon_options({"--config", config});
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_TRUE(options->worker.owner->policy.watching);
  EXPECT_EQ(options->worker.owner->policy.cpu_limit, 50u);
  EXPECT_TRUE(options->worker.idle_priority);
  write_file(config, "idle_priority = false\n[owner]\n");
  EXPECT_FALSE(parse_daemon_options({"--config", config})->worker.idle_priority);
  write_file(config, "idle_priority = true\n");
  EXPECT_TRUE(parse_daemon_options({"--config", config})->worker.idle_priority);
  write_file(config, "[owner]\nenabled = false\n");
  EXPECT_FALSE(parse_daemon_options({"--config", config})->worker.idle_priority);
  write_file(config, "idle_priority = \"often\"\n");
  EXPECT_NE(error_of({"--config", config}).find("true, false or \"auto\""), std::string::npos);
  write_file(config, "owner = \"ana\"\n");
  EXPECT_NE(error_of({"--config", config}).find("write [owner]"), std::string::npos);
  write_file(config, "[owner]\ncpu_limmit = 50\n");
  EXPECT_NE(error_of({"--config", config}).find("\"owner.cpu_limmit\" is not known"),
            std::string::npos);
}

TEST(DaemonOptions, PausingIsNoWorkerToRun) {
  EXPECT_EQ(parse_daemon_options({"--pause"})->set_pause, true);
  EXPECT_EQ(parse_daemon_options({"--resume", "--state", "/x"})->set_pause, false);
  EXPECT_EQ(parse_daemon_options({})->set_pause, std::nullopt);
  EXPECT_NE(error_of({"--pause", "--resume"}).find("--"), std::string::npos);
}

TEST(DaemonOptions, VersionAndHelpRunNothing) {
  auto version = parse_daemon_options({"--version"});
  ASSERT_TRUE(version.ok());
  EXPECT_EQ(version->exit_code, 0);
  EXPECT_EQ(version->text.rfind("pesc-worker ", 0), 0u);
  auto help = parse_daemon_options({"--help"});
  ASSERT_TRUE(help.ok());
  EXPECT_NE(help->text.find("--join-file"), std::string::npos);
}

}  // namespace
}  // namespace pesc::worker
