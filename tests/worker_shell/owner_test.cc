// A whole worker on a machine that has an owner.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <time.h>

#include "tests/owner/fake_machine.h"
#include "tests/worker_shell/worker_fixture.h"

namespace pesc::worker {
namespace {

using testing::HasSubstr;

class WorkerOwner : public WorkerTest {
 protected:
  void SetUp() override { ASSERT_EQ(::mkfifo(gate().c_str(), 0600), 0); }

  std::string gate() const { return (state_.path() / "gate").string(); }
  Options options(owner::WhenPresent when) {
    Options options;
    // By signals, which show in the process's state.
    options.containment = containment::Mode::none;
    options.owner.emplace();
    options.owner->root = machine_.root;
    options.owner->policy.watching = true;
    options.owner->policy.when_present = when;
    options.owner->policy.resume_after_ms = 0;
    options.owner->policy.cpu_limit = options.owner->policy.memory_limit = 100;
    return options;
  }
  // A rank that tells its process, and waits to be let go.
  void run_one() {
    const std::string pid_file = (state_.path() / "pid").string();
    JobSpec spec = script(
        "trap 'echo saved > \"$PESC_CHECKPOINT_DIR/kept\"; exit 9' TERM\n"
        "echo $$ > " +
        pid_file +
        "\necho 'progress 0.5' >> \"$PESC_EVENTS\"\n"
        "read line < " +
        gate() + " & wait $!\n");
    fake_.lease(key_of(0), spec);
    fake_.wait_until([&] { return fake_.has_progress(0.5); });
    pid_ = std::stoi(read_file(pid_file));
  }
  bool is_frozen() const {
    const std::string stat = read_file("/proc/" + std::to_string(pid_) + "/stat");
    return stat.find(") T ") != stat.npos;
  }
  void wait_frozen(bool frozen) {
    fake_.wait_until([&] { return is_frozen() == frozen && fake_.busy.empty() != frozen; });
  }
  void log_in() { machine_.log_in("ana", "tty2", ::time(nullptr)); }
  void log_out() { machine_.put("run/utmp", ""); }
  void let_go() {
    const int fd = ::open(gate().c_str(), O_WRONLY);
    ASSERT_GE(fd, 0);
    ASSERT_EQ(::write(fd, "go\n", 3), 3);
    ::close(fd);
  }

  owner::FakeMachine machine_;
  int pid_ = 0;
};

TEST_F(WorkerOwner, ALoginFreezesWhatRunsAndALogoutLetsItGoOn) {
  open(options(owner::WhenPresent::freeze));
  run_one();
  EXPECT_EQ(fake_.busy, "");
  log_in();
  wait_frozen(true);
  EXPECT_EQ(fake_.busy, "its owner is here, its ranks are frozen");
  fake_.lease(key_of(1), script("exit 0"));
  const auto& given_back = fake_.wait_for_end(key_of(1));
  EXPECT_EQ(given_back.outcome.reason, EndReason::vacated);
  EXPECT_THAT(given_back.outcome.detail, HasSubstr("its owner is here"));
  log_out();
  wait_frozen(false);
  let_go();
  EXPECT_EQ(fake_.wait_for_end(key_of(0)).outcome.reason, EndReason::succeeded);
}

TEST_F(WorkerOwner, ThrottledRanksRunByTurns) {
  open(options(owner::WhenPresent::throttle));
  run_one();
  log_in();
  wait_frozen(true);
  EXPECT_THAT(fake_.busy, HasSubstr("throttled to 10 %"));
  fake_.wait_until([&] { return !is_frozen(); });
  let_go();
  EXPECT_EQ(fake_.wait_for_end(key_of(0)).outcome.reason, EndReason::succeeded);
}

TEST_F(WorkerOwner, VacatedRanksSaveAndLeave) {
  Options vacating = options(owner::WhenPresent::vacate);
  vacating.owner->policy.vacate_after_ms = 0;
  open(vacating);
  run_one();
  log_in();
  EXPECT_EQ(fake_.wait_for_end(key_of(0)).outcome.reason, EndReason::vacated);
  EXPECT_THAT(fake_.checkpoints, testing::SizeIs(1));
}

TEST_F(WorkerOwner, APersonsOrderPauses) {
  open(options(owner::WhenPresent::ignore));
  run_one();
  fake_.pause(true);
  wait_frozen(true);
  EXPECT_THAT(fake_.busy, HasSubstr("paused by an administrator"));
  fake_.stop(key_of(0), EndReason::vacated);
  EXPECT_EQ(fake_.wait_for_end(key_of(0)).outcome.reason, EndReason::vacated) << "a stop thaws";
}

TEST_F(WorkerOwner, AnOrderIsToldAgainAtEachAttach) {
  open(options(owner::WhenPresent::ignore));
  run_one();
  fake_.paused = true;
  fake_.hang_up();
  wait_frozen(true);
  fake_.paused = false;
  fake_.hang_up();
  wait_frozen(false);
  let_go();
  EXPECT_EQ(fake_.wait_for_end(key_of(0)).outcome.reason, EndReason::succeeded);
}

TEST_F(WorkerOwner, ABusyWorkerSaysSoAsItAttaches) {
  log_in();
  Options first = options(owner::WhenPresent::freeze);
  open(first);
  EXPECT_EQ(fake_.busy, "its owner is here, its ranks are frozen");
}

TEST_F(WorkerOwner, ThePauseFileIsInTheStateDirectory) {
  open(options(owner::WhenPresent::ignore));
  run_one();
  write_file(state_.path() / "worker" / "pause", "");
  wait_frozen(true);
  std::filesystem::remove(state_.path() / "worker" / "pause");
  wait_frozen(false);
  let_go();
  EXPECT_EQ(fake_.wait_for_end(key_of(0)).outcome.reason, EndReason::succeeded);
}

}  // namespace
}  // namespace pesc::worker
