// The whole monitor over a fake machine: what it is told by, and what it makes of it.
#include "runtime/worker/owner/monitor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <time.h>

#include <fstream>

#include "tests/owner/fake_machine.h"

namespace pesc::worker::owner {
namespace {

using testing::HasSubstr;

class OwnerMonitor : public testing::Test {
 protected:
  void start() {
    settings_.root = machine_.root;
    if (settings_.pause_file.empty()) settings_.pause_file = machine_.root / "pause";
    monitor_ = std::make_unique<Monitor>(loop_, settings_, [this](const Verdict&) {
      if (waiting_) (*waiting_)->fulfill();
      waiting_.reset();
    });
    monitor_->start();
  }
  void watch_owner() {
    settings_.policy.watching = true;
    settings_.policy.resume_after_ms = 0;
  }
  // A minute is the guard against a hang.
  void until(Mode mode) {
    while (monitor_->verdict().mode != mode) {
      auto paf = kj::newPromiseAndFulfiller<void>();
      waiting_ = kj::mv(paf.fulfiller);
      bool late = false;
      loop_.wait(paf.promise.exclusiveJoin(
          loop_.timer().afterDelay(60 * kj::SECONDS).then([&late] { late = true; })));
      ASSERT_FALSE(late) << "still " << to_string(monitor_->verdict().mode);
    }
  }
  static int64_t now_s() { return ::time(nullptr); }
  // As the program does that a terminal or a screen belongs to.
  void take_input(const std::string& path) {
    std::ifstream device(machine_.root / "dev" / path);
    char key = 0;
    ASSERT_TRUE(device.get(key));
  }

  FakeMachine machine_;
  Settings settings_;
  rpc::Loop loop_;
  std::unique_ptr<Monitor> monitor_;
  std::optional<kj::Own<kj::PromiseFulfiller<void>>> waiting_;
};

TEST_F(OwnerMonitor, IsToldOfALogin) {
  watch_owner();
  start();
  EXPECT_EQ(monitor_->verdict(), Verdict{});
  machine_.log_in("ana", "tty2", now_s());
  until(Mode::throttle);
  EXPECT_THAT(monitor_->verdict().busy, HasSubstr("its owner is here"));
  machine_.put("run/utmp", "");
  until(Mode::run);
}

TEST_F(OwnerMonitor, IsToldOfASessionAndOfItsEnd) {
  watch_owner();
  settings_.policy.when_present = WhenPresent::freeze;
  start();
  machine_.session("1", "USER=ana\nSTATE=active\nREMOTE=1\nCLASS=user\nREALTIME=" +
                            std::to_string(now_s() * 1'000'000) + "\n");
  until(Mode::freeze);
  std::filesystem::remove(machine_.root / "run/systemd/sessions/1");
  until(Mode::run);
}

TEST_F(OwnerMonitor, SeesALoginInAUtmpThatIsMadeLater) {
  watch_owner();
  std::filesystem::remove(machine_.root / "run/utmp");
  start();
  machine_.put("run/other", FakeMachine::entry("ana", "tty2", now_s(), 0, USER_PROCESS));
  std::filesystem::rename(machine_.root / "run/other", machine_.root / "run/utmp");
  until(Mode::throttle);
  machine_.put("run/utmp", "");
  until(Mode::run);
}

TEST_F(OwnerMonitor, IsToldOfTypingAtATerminal) {
  watch_owner();
  machine_.device("pts/7", now_s() - 7'200);
  machine_.log_in("ana", "pts/7", now_s() - 7'200);
  start();
  EXPECT_EQ(monitor_->verdict(), Verdict{}) << "nothing was typed for two hours";
  take_input("pts/7");
  until(Mode::throttle);
}

TEST_F(OwnerMonitor, IsToldOfHandsOnTheKeyboardBeforeALogin) {
  watch_owner();
  machine_.device("input/event3", now_s() - 7'200);
  start();
  EXPECT_EQ(monitor_->verdict(), Verdict{});
  take_input("input/event3");
  until(Mode::throttle);
}

TEST_F(OwnerMonitor, AnAccelerometerIsNobodysHands) {
  watch_owner();
  machine_.device("input/event4", 0);
  std::filesystem::create_directories(machine_.root / "sys/class/input/event4/device/capabilities");
  machine_.put("sys/class/input/event4/device/capabilities/key", "0\n");
  start();
  take_input("input/event4");
  machine_.put("pause", "");  // noticed after that
  until(Mode::freeze);
  std::filesystem::remove(machine_.root / "pause");
  until(Mode::run);
}

TEST_F(OwnerMonitor, ThePauseFileNeedsNoWatchedOwner) {
  start();
  machine_.put("pause", "");
  until(Mode::freeze);
  std::filesystem::remove(machine_.root / "pause");
  until(Mode::run);
}

TEST_F(OwnerMonitor, APauseFileThatIsThereAtTheStartHolds) {
  machine_.put("pause", "");
  start();
  EXPECT_EQ(monitor_->verdict().mode, Mode::freeze);
}

// The file may be in a directory where everybody may write: whatever it is, it is only looked for.
TEST_F(OwnerMonitor, ThePauseFileIsNeverOpened) {
  std::filesystem::create_symlink("/no/such/place", machine_.root / "pause");
  start();
  EXPECT_EQ(monitor_->verdict().mode, Mode::freeze);
}

TEST_F(OwnerMonitor, AnOrderPauses) {
  start();
  monitor_->order_pause(true);
  until(Mode::freeze);
  monitor_->order_pause(false);
  until(Mode::run);
}

TEST_F(OwnerMonitor, ACommandTellsWhoIsHere) {
  watch_owner();
  const std::string here = (machine_.root / "here").string();
  settings_.presence_command = {"test", "-e", here};
  settings_.presence_every_ms = 20;
  start();
  machine_.put("here", "");
  until(Mode::throttle);
  std::filesystem::remove(here);
  until(Mode::run);
}

struct CommandTest : testing::Test {
  std::pair<CommandVerdict, std::string> run(std::vector<std::string> argv, uint64_t limit_ms) {
    PresenceCommand command(loop.io(), std::move(argv), limit_ms);
    auto paf = kj::newPromiseAndFulfiller<void>();
    std::pair<CommandVerdict, std::string> result;
    command.run([&](CommandVerdict verdict, std::string error) {
      result = {verdict, std::move(error)};
      paf.fulfiller->fulfill();
    });
    loop.wait(kj::mv(paf.promise));
    return result;
  }
  rpc::Loop loop;
};

TEST_F(CommandTest, ExitCodesAreAnswers) {
  EXPECT_EQ(run({"true"}, 10'000).first, CommandVerdict::present);
  EXPECT_EQ(run({"false"}, 10'000).first, CommandVerdict::absent);
}

TEST_F(CommandTest, EverythingElseIsSaid) {
  auto [verdict, error] = run({"sh", "-c", "exit 3"}, 10'000);
  EXPECT_EQ(verdict, CommandVerdict::failed);
  EXPECT_THAT(error, HasSubstr("ended with exit code 3"));
  std::tie(verdict, error) = run({"sh", "-c", "kill -9 $$"}, 10'000);
  EXPECT_EQ(verdict, CommandVerdict::failed);
  EXPECT_THAT(error, HasSubstr("killed by signal 9"));
  std::tie(verdict, error) = run({"/no/such/program"}, 10'000);
  EXPECT_EQ(verdict, CommandVerdict::failed);
  EXPECT_THAT(error, HasSubstr("cannot be started"));
  std::tie(verdict, error) = run({"sh", "-c", "sleep 600 & wait"}, 50);
  EXPECT_EQ(verdict, CommandVerdict::failed);
  EXPECT_THAT(error, HasSubstr("took longer than"));
}

TEST_F(CommandTest, OneThatRunsIsEndedWithItsOwner) {
  auto command =
      std::make_unique<PresenceCommand>(loop.io(), std::vector<std::string>{"sleep", "600"});
  command->run([](CommandVerdict, const std::string&) { ADD_FAILURE() << "it has not ended"; });
  EXPECT_TRUE(command->running());
  command.reset();
  loop.io().poll();
}

TEST(OwnerClock, MinutesOfTheWeekAreLocal) {
  const int64_t monday_noon_utc = 1'767'614'400;  // 2026-01-05 12:00:00Z
  ::setenv("TZ", "UTC", 1);
  EXPECT_EQ(local_minute_of_week(monday_noon_utc * 1000), 12u * 60);
  ::setenv("TZ", "<+13>-13", 1);
  EXPECT_EQ(local_minute_of_week(monday_noon_utc * 1000), 24u * 60 + 60);
  ::setenv("TZ", "<-13>13", 1);
  EXPECT_EQ(local_minute_of_week(monday_noon_utc * 1000), 7u * 24 * 60 - 60);
  ::unsetenv("TZ");
}

}  // namespace
}  // namespace pesc::worker::owner
