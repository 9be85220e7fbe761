// The monitor on a loop: with a probe that is told what to say, and with the fake library and real
// programs.
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/worker/gpu/gpu_findings.h"
#include "runtime/worker/gpu/gpu_monitor.h"
#include "support.h"

extern char** environ;

namespace pesc::worker {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr uint64_t kNever = 3'600'000;
const std::string kOne = "GPU-one";

GpuSettings quiet_settings() {
  GpuSettings settings;
  settings.busy_interval_ms = settings.idle_interval_ms = kNever;
  settings.sees_all_processes = true;
  return settings;
}

class Monitor : public ::testing::Test {
 protected:
  std::unique_ptr<GpuMonitor> monitor(GpuSettings settings = quiet_settings()) {
    auto made = std::make_unique<GpuMonitor>(
        loop_, std::move(settings), std::make_unique<FakeProbe>(script_), processes_.parent_of());
    made->on_change([this] { ++changes_; });
    return made;
  }
  // Runs the loop until the condition holds; the test's own time limit ends a wait in vain.
  void run_until(const std::function<bool()>& condition) {
    while (!condition()) loop_.wait(loop_.timer().afterDelay(1 * kj::MILLISECONDS));
  }

  rpc::Loop loop_;
  std::shared_ptr<FakeProbe::Script> script_ = std::make_shared<FakeProbe::Script>();
  Processes processes_{{{100, 1}, {101, 100}}};
  int changes_ = 0;
};

TEST_F(Monitor, KnowsItsGpusOnceItHasStarted) {
  script_->say(driver_reading({gpu_reading(kOne)}));
  auto gpus = monitor();
  EXPECT_THAT(gpus->gpus(), IsEmpty());
  loop_.wait(gpus->start());
  ASSERT_THAT(gpus->gpus(), SizeIs(1));
  EXPECT_EQ(gpus->gpus()[0].uuid, kOne);
  EXPECT_EQ(changes_, 1);
  loop_.wait(gpus->start());
  EXPECT_EQ(script_->readings, 1u) << "it starts once";
}

TEST_F(Monitor, NoneAsksNobody) {
  GpuSettings settings = quiet_settings();
  settings.none = true;
  auto gpus = monitor(settings);
  loop_.wait(gpus->start());
  loop_.wait(gpus->read_now());
  EXPECT_EQ(script_->readings, 0u);
  EXPECT_THAT(gpus->gpus(), IsEmpty());
}

TEST_F(Monitor, AMachineWithoutADriverStarts) {
  auto gpus = monitor();
  loop_.wait(gpus->start());
  EXPECT_THAT(gpus->gpus(), IsEmpty());
  EXPECT_EQ(gpus->snapshot().trouble, "no driver");
}

TEST_F(Monitor, TellsChangesAndNotNoise) {
  script_->say(driver_reading({gpu_reading(kOne, 12 * kGiB, 500 * kMiB)}));
  auto gpus = monitor();
  loop_.wait(gpus->start());
  EXPECT_EQ(changes_, 1);
  script_->say(driver_reading({gpu_reading(kOne, 12 * kGiB, 510 * kMiB)}));
  loop_.wait(gpus->read_now());
  EXPECT_EQ(changes_, 1);
  EXPECT_EQ(gpus->gpus()[0].taken_bytes, 510 * kMiB) << "who asks is told";
  EXPECT_EQ(gpus->told()[0].taken_bytes, 500 * kMiB);
  script_->say(driver_reading({gpu_reading(kOne, 12 * kGiB, 540 * kMiB)}));
  loop_.wait(gpus->read_now());
  EXPECT_EQ(changes_, 2) << "small steps add up";
  GpuReading bad = gpu_reading(kOne);
  bad.failure = "broken";
  script_->say(driver_reading({bad}));
  loop_.wait(gpus->read_now());
  EXPECT_EQ(changes_, 3);
}

TEST_F(Monitor, WhatRanksHaveGoesWithTheNextMessage) {
  script_->say(driver_reading({gpu_reading(kOne)}));
  auto gpus = monitor();
  loop_.wait(gpus->start());
  gpus->attempt_started(attempt_key(1), 100, {kOne});
  const int told = changes_;
  script_->say(driver_reading({gpu_reading(kOne, 12 * kGiB, 800 * kMiB, {{101, 800 * kMiB}})}));
  loop_.wait(gpus->read_now());
  EXPECT_EQ(gpus->told()[0].ranks_bytes, 800 * kMiB);
  EXPECT_EQ(changes_, told) << "no message is sent for it alone";
}

TEST_F(Monitor, MeasuresAttempts) {
  script_->say(driver_reading({gpu_reading(kOne)}));
  auto gpus = monitor();
  int samples = 0;
  gpus->on_sample([&] { ++samples; });
  loop_.wait(gpus->start());
  gpus->attempt_started(attempt_key(1), 100, {kOne});
  for (uint64_t mib : {800, 1328, 200}) {
    script_->say(driver_reading({gpu_reading(kOne, 12 * kGiB, mib * kMiB, {{101, mib * kMiB}})}));
    loop_.wait(gpus->read_now());
  }
  EXPECT_EQ(samples, 4);
  EXPECT_EQ(gpus->usage().find(attempt_key(1))->now_bytes.at(kOne), 200 * kMiB);
  EXPECT_EQ(gpus->attempt_ended(attempt_key(1)), 1328 * kMiB);
  EXPECT_EQ(gpus->attempt_ended(attempt_key(1)), 0u);
}

TEST_F(Monitor, LooksMoreOftenWhileRanksRun) {
  script_->say(driver_reading({gpu_reading(kOne)}));
  GpuSettings settings = quiet_settings();
  settings.busy_interval_ms = 1;
  settings.full_interval_ms = kNever;
  auto gpus = monitor(settings);
  int samples = 0;
  gpus->on_sample([&] { ++samples; });
  loop_.wait(gpus->start());
  gpus->attempt_started(attempt_key(1), 100, {kOne});
  run_until([&] { return samples >= 4; });
  EXPECT_EQ(script_->full_readings, 1u) << "health is read less often";
  gpus->attempt_ended(attempt_key(1));
  loop_.wait(gpus->read_now());
}

TEST_F(Monitor, ADriverThatHangsHoldsNobodyUp) {
  script_->say(driver_reading({gpu_reading(kOne)}));
  script_->hang(true);
  GpuSettings settings = quiet_settings();
  settings.answer_limit_ms = 5;
  auto gpus = monitor(settings);
  loop_.wait(gpus->start());
  EXPECT_THAT(gpus->snapshot().trouble, HasSubstr("has not answered"));
  // It wakes up after all.
  script_->hang(false);
  run_until([&] { return !gpus->gpus().empty(); });
  EXPECT_THAT(gpus->gpus()[0].trouble, IsEmpty());
  // It hangs with GPUs that ranks use.
  script_->hang(true);
  loop_.wait(gpus->read_now());
  EXPECT_THAT(gpus->gpus()[0].trouble, HasSubstr("has not answered"));
  const int before = changes_;
  gpus.reset();  // and the worker ends all the same
  EXPECT_EQ(changes_, before);
  script_->hang(false);
}

TEST_F(Monitor, ADriverThatIsBackIsFound) {
  script_->say(driver_reading({gpu_reading(kOne)}));
  auto gpus = monitor();
  loop_.wait(gpus->start());
  script_->say(absl::UnavailableError("the driver went away"));
  loop_.wait(gpus->read_now());
  EXPECT_EQ(gpus->gpus().at(0).trouble, "the driver went away");
  script_->say(driver_reading({gpu_reading(kOne)}));
  const uint32_t before = script_->readings;
  run_until([&] { return gpus->gpus()[0].trouble.empty(); });
  EXPECT_EQ(script_->readings, before + 1) << "by itself, after a while";
}

TEST_F(Monitor, SettingsAreChecked) {
  EXPECT_TRUE(parse_gpu_settings({"auto"}).ok());
  EXPECT_TRUE(parse_gpu_settings({"none"})->none);
  EXPECT_THAT(parse_gpu_settings({"GPU-a", "MIG-b"})->only, SizeIs(2));
  EXPECT_THAT(std::string(parse_gpu_settings({"0"}).status().message()),
              HasSubstr("nvidia-smi -L"));
  EXPECT_FALSE(parse_gpu_settings({"auto", "GPU-a"}).ok());
  EXPECT_FALSE(parse_gpu_settings({"GPU-a", "GPU-a"}).ok());
  EXPECT_FALSE(parse_gpu_settings({}).ok());
}

// ---- the fake library and programs that use its GPUs

class Program {
 public:
  Program(const std::string& gpu, std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), GPU_PROGRAM);
    std::vector<char*> argv, env;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    std::string visible = "CUDA_VISIBLE_DEVICES=" + gpu;
    env.push_back(visible.data());
    for (char** at = environ; *at != nullptr; ++at) env.push_back(*at);
    env.push_back(nullptr);
    int out[2], error[2];
    EXPECT_EQ(::pipe2(out, O_CLOEXEC), 0);
    EXPECT_EQ(::pipe2(error, O_CLOEXEC), 0);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, out[1], 1);
    posix_spawn_file_actions_adddup2(&actions, error[1], 2);
    EXPECT_EQ(::posix_spawn(&pid_, GPU_PROGRAM, &actions, nullptr, argv.data(), env.data()), 0);
    posix_spawn_file_actions_destroy(&actions);
    ::close(out[1]);
    ::close(error[1]);
    out_ = out[0];
    error_ = error[0];
  }
  ~Program() {
    if (pid_ > 0) wait();
    ::close(out_);
    ::close(error_);
  }
  pid_t pid() const { return pid_; }
  int wait() {
    int status = 0;
    while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
    }
    pid_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }
  std::string error_text() { return rest_of(error_); }

 private:
  static std::string rest_of(int file) {
    std::string text;
    char buffer[512];
    for (ssize_t size; (size = ::read(file, buffer, sizeof buffer)) > 0;) {
      text.append(buffer, static_cast<size_t>(size));
    }
    return text;
  }
  pid_t pid_ = -1;
  int out_ = -1, error_ = -1;
};

class WithPrograms : public ::testing::Test {
 protected:
  WithPrograms() {
    EXPECT_EQ(::mkfifo(gate_.c_str(), 0600), 0);
    GpuSettings settings = quiet_settings();
    settings.nvml_library = FAKE_NVML;
    monitor_ = std::make_unique<GpuMonitor>(loop_, settings);
    loop_.wait(monitor_->start());
  }
  // Reads until the GPU has as many processes: programs take their time to begin.
  const GpuState& with_processes(const std::string& uuid, size_t count) {
    for (;;) {
      loop_.wait(monitor_->read_now());
      const GpuState* state = monitor_->snapshot().find(uuid);
      if (state != nullptr && state->processes.size() == count) return *state;
    }
  }
  void open_gate() {
    const int gate = ::open(gate_.c_str(), O_RDWR | O_NONBLOCK | O_CLOEXEC);
    ASSERT_EQ(::write(gate, "xx", 2), 2);
    opened_.push_back(gate);
  }
  ~WithPrograms() override {
    for (int gate : opened_) ::close(gate);
  }
  std::vector<uint64_t> record(const std::string& uuid) {
    std::ifstream file(driver_.path() + ".d/" + uuid + "/record");
    std::vector<uint64_t> numbers;
    for (uint64_t number; file >> number;) numbers.push_back(number);
    return numbers;
  }

  FakeDriver driver_{"gpu GPU-big memory=12G capability=8.6\ngpu GPU-small memory=2G\n"};
  const std::string gate_ = (driver_.directory() / "gate").string();
  std::vector<int> opened_;
  rpc::Loop loop_;
  std::unique_ptr<GpuMonitor> monitor_;
};

TEST_F(WithPrograms, MemoryOfRealProcessesIsSeen) {
  Program ours("GPU-big", {"--bytes", "1328M", "--until", gate_});
  monitor_->attempt_started(attempt_key(1), static_cast<uint32_t>(ours.pid()), {"GPU-big"});
  EXPECT_EQ(with_processes("GPU-big", 1).attempt_bytes.at(attempt_key(1)), 1328 * kMiB);
  Program theirs("GPU-big", {"--bytes", "2G", "--until", gate_});
  with_processes("GPU-big", 2);
  loop_.wait(monitor_->read_now());  // its memory may have been read before it was taken
  const GpuState& state = *monitor_->snapshot().find("GPU-big");
  EXPECT_EQ(state.gpu.taken_bytes, 2 * kGiB);
  EXPECT_EQ(state.used_bytes, 3376 * kMiB);
  EXPECT_EQ(monitor_->attempt_ended(attempt_key(1)), 1328 * kMiB);
  open_gate();
  EXPECT_EQ(ours.wait(), 0);
  EXPECT_EQ(theirs.wait(), 0);
  EXPECT_EQ(with_processes("GPU-big", 0).used_bytes, 0u);
  EXPECT_EQ(record("GPU-big"), (std::vector<uint64_t>{3376 * kMiB, 2, 2, 0}));
}

TEST_F(WithPrograms, TheSmallOneHasRoomForOne) {
  Program first("GPU-small", {"--bytes", "1328M", "--until", gate_});
  with_processes("GPU-small", 1);
  Program second("GPU-small", {"--bytes", "1328M"});
  EXPECT_EQ(second.wait(), 2);
  EXPECT_THAT(second.error_text(), HasSubstr("cudaErrorMemoryAllocation"));
  open_gate();
  EXPECT_EQ(first.wait(), 0);
  EXPECT_EQ(record("GPU-small"), (std::vector<uint64_t>{1328 * kMiB, 2, 2, 1}));
}

TEST_F(WithPrograms, OneThatIsKilledLeavesNothing) {
  Program program("GPU-small", {"--bytes", "1G", "--until", gate_});
  with_processes("GPU-small", 1);
  ASSERT_EQ(::kill(program.pid(), SIGKILL), 0);
  EXPECT_EQ(program.wait(), -SIGKILL);
  EXPECT_EQ(with_processes("GPU-small", 0).gpu.taken_bytes, 0u);
}

TEST_F(WithPrograms, WithoutAGpuThereIsNone) {
  Program program("", {"--bytes", "1M"});
  EXPECT_EQ(program.wait(), 3);
  EXPECT_THAT(program.error_text(), HasSubstr("no CUDA-capable device"));
}

TEST_F(WithPrograms, GpusThatDoNotReportAreMeasuredByWhatIsInUse) {
  driver_.say("gpu GPU-small memory=2G reports=unsupported\n");
  Program ours("GPU-small", {"--bytes", "1328M", "--until", gate_});
  monitor_->attempt_started(attempt_key(1), static_cast<uint32_t>(ours.pid()), {"GPU-small"});
  while (monitor_->snapshot().find("GPU-small")->used_bytes == 0) loop_.wait(monitor_->read_now());
  const GpuState& state = *monitor_->snapshot().find("GPU-small");
  EXPECT_FALSE(state.gpu.reports_memory);
  EXPECT_EQ(state.gpu.taken_bytes, 0u);
  EXPECT_EQ(monitor_->attempt_ended(attempt_key(1)), 1328 * kMiB);
  open_gate();
  EXPECT_EQ(ours.wait(), 0);
}

// ---- doctor

TEST(FindGpus, SaysWhatIsThere) {
  FakeDriver driver(
      "driver 535.129.03\n"
      "gpu GPU-big memory=12G used=1G capability=8.6 name=RTX_3060 temperature=44\n"
      "gpu GPU-old memory=2G capability=3.0 reports=unsupported\n"
      "gpu GPU-bad memory=2G capability=3.0\n"
      "fail nvmlDeviceGetMemoryInfo* 16 GPU-bad\n");
  const std::vector<GpuFinding> findings = find_gpus(FAKE_NVML, 10'000);
  ASSERT_THAT(findings, SizeIs(4));
  EXPECT_TRUE(findings[0].good);
  EXPECT_EQ(findings[0].text, "535.129.03, 3 GPUs");
  EXPECT_EQ(findings[1].subject, "GPU-big");
  EXPECT_EQ(findings[1].text,
            "RTX 3060, 12 GiB, compute capability 8.6, 1 GiB taken by others, 44 °C");
  EXPECT_TRUE(findings[2].good);
  EXPECT_THAT(findings[2].text, HasSubstr("one rank at a time"));
  EXPECT_FALSE(findings[3].good);
  EXPECT_THAT(findings[3].text, HasSubstr("not used: it must be reset"));
}

TEST(FindGpus, SaysWhatToDoWithoutADriver) {
  std::vector<GpuFinding> findings = find_gpus("/nonexistent/libnvidia-ml.so.1", 10'000);
  ASSERT_THAT(findings, SizeIs(1));
  EXPECT_FALSE(findings[0].good);
  EXPECT_THAT(findings[0].text, HasSubstr("install its driver"));
  FakeDriver driver("down 9\n");
  findings = find_gpus(FAKE_NVML, 10'000);
  ASSERT_THAT(findings, SizeIs(1));
  EXPECT_THAT(findings[0].text, HasSubstr("modprobe nvidia"));
  driver.say("");
  findings = find_gpus(FAKE_NVML, 10'000);
  ASSERT_THAT(findings, SizeIs(1));
  EXPECT_FALSE(findings[0].good);
  EXPECT_THAT(findings[0].text, HasSubstr("no GPU"));
}

TEST(FindGpus, DoesNotWaitForADriverThatHangs) {
  auto script = std::make_shared<FakeProbe::Script>();
  script->hang(true);
  const std::vector<GpuFinding> findings = find_gpus(std::make_unique<FakeProbe>(script), 5);
  script->hang(false);
  ASSERT_THAT(findings, SizeIs(1));
  EXPECT_THAT(findings[0].text, HasSubstr("has not answered"));
}

}  // namespace
}  // namespace pesc::worker
