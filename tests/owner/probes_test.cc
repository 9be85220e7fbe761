#include "runtime/worker/owner/probes.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>

#include "tests/owner/fake_machine.h"

extern char** environ;

namespace pesc::worker::owner {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

constexpr int64_t kNow = 1'800'000'000'000;

// ---- load ---------------------------------------------------------------------------------------

TEST(OwnerProbes, ReadsTheProcessors) {
  const auto ticks = parse_cpu("cpu  100 20 30 1000 50 6 7 8 9 10\ncpu0 1 1 1 1\n");
  ASSERT_TRUE(ticks);
  EXPECT_EQ(ticks->total, 1221u);
  EXPECT_EQ(ticks->busy, 163u)
      << "waiting for a disk is idle; what another machine took is nobody's";
  for (const char* text : {"", "cpu", "cpu0 1 2 3 4", "cpu  1 2", "cpu  a b c d", "intr 1 2 3 4"}) {
    EXPECT_FALSE(parse_cpu(text)) << text;
  }
}

TEST(OwnerProbes, ReadsTheMemory) {
  EXPECT_DOUBLE_EQ(
      *parse_memory_percent("MemTotal:  2000 kB\nMemFree: 5 kB\nMemAvailable: 500 kB\n"), 75.0);
  for (const char* text :
       {"", "MemTotal: 10 kB\n", "MemTotal: 0 kB\nMemAvailable: 0 kB\n",
        "MemTotal: 1 kB\nMemAvailable: 2 kB\n", "MemTotal: x kB\nMemAvailable: 2 kB\n"}) {
    EXPECT_FALSE(parse_memory_percent(text)) << text;
  }
}

TEST(OwnerProbes, TellsOwnUseFromOthers) {
  FakeMachine machine;
  CpuProbe probe(machine.root);
  std::optional<double> all, others;
  machine.cpu(1'000, 1'000);
  probe.read(500, all, others);
  EXPECT_FALSE(all) << "one reading is no share";
  machine.cpu(1'800, 1'200);
  probe.read(1'000, all, others);
  EXPECT_DOUBLE_EQ(*all, 80);
  EXPECT_DOUBLE_EQ(*others, 30);
  machine.cpu(1'900, 1'300);
  probe.read(200, all, others);
  EXPECT_DOUBLE_EQ(*others, 50) << "a keeper that was lost took its count with it";
  all = others = std::nullopt;
  probe.read(200, all, others);
  EXPECT_FALSE(all) << "no time has passed";
  machine.cpu(10, 10);
  probe.read(200, all, others);
  EXPECT_FALSE(all) << "back in time";
  std::filesystem::remove(machine.root / "proc/stat");
  probe.read(200, all, others);
  EXPECT_FALSE(all);
}

// Of children too that have ended and were waited for.
TEST(OwnerProbes, CountsWhatATreeOfProcessesHasUsed) {
  const uint64_t before = tree_cpu_ticks(::getpid());
  const char* argv[] = {"sh", "-c", "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done", nullptr};
  pid_t pid = 0;
  ASSERT_EQ(::posix_spawnp(&pid, "sh", nullptr, nullptr, const_cast<char**>(argv), environ), 0);
  ASSERT_EQ(::waitpid(pid, nullptr, 0), pid);
  size_t looked_at = 0;
  EXPECT_GT(tree_cpu_ticks(::getpid(), &looked_at), before);
  EXPECT_GE(looked_at, 1u);
  EXPECT_GT(own_cpu_ticks(), 0u);
}

// The child keeps 64 MiB of its own until its input ends.
TEST(OwnerProbes, MeasuresTheMemoryOfATreeOfProcesses) {
  int input[2], output[2];
  ASSERT_EQ(::pipe2(input, O_CLOEXEC), 0);
  ASSERT_EQ(::pipe2(output, O_CLOEXEC), 0);
  const uint64_t before = tree_use(::getpid()).own_bytes;
  const pid_t pid = ::fork();
  ASSERT_GE(pid, 0);
  if (pid == 0) {
    constexpr size_t kBytes = 64 << 20;
    void* const memory =
        ::mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory != MAP_FAILED) ::memset(memory, 1, kBytes);
    ::close(input[1]);
    char byte = memory == MAP_FAILED ? 'x' : '.';
    (void)!::write(output[1], &byte, 1);
    (void)!::read(input[0], &byte, 1);
    ::_exit(0);
  }
  char byte = 0;
  ASSERT_EQ(::read(output[0], &byte, 1), 1);
  EXPECT_EQ(byte, '.');
  EXPECT_GE(tree_use(::getpid()).own_bytes, before + (64u << 20));
  for (const int fd : {input[0], input[1], output[0], output[1]}) ::close(fd);
  EXPECT_EQ(::waitpid(pid, nullptr, 0), pid);
}

// ---- people -------------------------------------------------------------------------------------

TEST(OwnerProbes, ReadsLoginsThatAreThere) {
  FakeMachine machine;
  machine.device("tty2", kNow / 1000 - 60);
  machine.device("pts/3", kNow / 1000 - 5);
  machine.log_in("ana", "tty2", kNow / 1000 - 3'600);
  machine.log_in("rui", "pts/3", kNow / 1000 - 3'600);
  machine.log_in("gone", "pts/4", kNow / 1000, 0, DEAD_PROCESS);
  machine.log_in("reboot", "~", kNow / 1000, 0, BOOT_TIME);
  const std::vector<Presence> found = people(machine.root, kNow, std::nullopt);
  ASSERT_THAT(found, SizeIs(2));
  EXPECT_EQ(found[0].user, "ana");
  EXPECT_EQ(found[0].place, "tty2");
  EXPECT_EQ(found[0].idle_ms, 60'000u);
  EXPECT_EQ(found[1].idle_ms, 5'000u);
}

TEST(OwnerProbes, ALoginIsInputToo) {
  FakeMachine machine;
  machine.device("tty2", kNow / 1000 - 3'600);
  machine.log_in("ana", "tty2", kNow / 1000 - 10);
  machine.log_in("rui", "pts/9", kNow / 1000 - 20);  // a terminal that is not there
  const auto found = people(machine.root, kNow, std::nullopt);
  ASSERT_THAT(found, SizeIs(2));
  EXPECT_EQ(found[0].idle_ms, 10'000u);
  EXPECT_EQ(found[1].idle_ms, 20'000u);
}

TEST(OwnerProbes, LeavesOutWhatACrashLeftBehind) {
  FakeMachine machine;
  machine.log_in("ana", "tty2", kNow / 1000, 4242);
  EXPECT_THAT(people(machine.root, kNow, std::nullopt), IsEmpty());
  std::filesystem::create_directory(machine.root / "proc/4242");
  EXPECT_THAT(people(machine.root, kNow, std::nullopt), SizeIs(1));
}

TEST(OwnerProbes, ATornOrHostileUtmpHarmsNothing) {
  FakeMachine machine;
  machine.log_in(std::string(100, 'x'), "../../etc/passwd", kNow / 1000);
  machine.put("run/utmp2", "");
  std::ofstream(machine.root / "run/utmp", std::ios::app) << "half an entry";
  const auto found = people(machine.root, kNow, std::nullopt);
  ASSERT_THAT(found, SizeIs(1));
  EXPECT_EQ(found[0].user.size(), size_t{UT_NAMESIZE});
  EXPECT_EQ(found[0].place, "a session");
  std::filesystem::remove(machine.root / "run/utmp");
  EXPECT_THAT(people(machine.root, kNow, std::nullopt), IsEmpty());
}

struct SessionCase {
  const char* what;
  const char* text;
  bool person;
};

TEST(OwnerProbes, KnowsPeopleAmongSessions) {
  const SessionCase cases[] = {
      {"a desktop",
       "UID=1000\nUSER=ana\nACTIVE=1\nSTATE=active\nCLASS=user\nTYPE=wayland\nSEAT=seat0\n", true},
      {"ssh", "USER=ana\nACTIVE=1\nSTATE=active\nREMOTE=1\nCLASS=user\nTYPE=tty\n", true},
      {"a console", "USER=ana\nSTATE=active\nCLASS=user\nTYPE=tty\nTTY=tty3\n", true},
      {"a login screen", "USER=gdm\nSTATE=active\nCLASS=greeter\nTYPE=wayland\nSEAT=seat0\n",
       false},
      {"cron", "USER=ana\nSTATE=active\nREMOTE=0\nCLASS=user\nTYPE=unspecified\n", false},
      {"a manager", "USER=ana\nSTATE=active\nCLASS=manager\n", false},
      {"one that ends", "USER=ana\nSTATE=closing\nREMOTE=1\nCLASS=user\n", false},
      {"nonsense", "\n=\n\n#CLASS=user\nSTATE", false},
      {"nothing", "", false},
  };
  for (const SessionCase& one : cases) {
    EXPECT_EQ(parse_logind_session(one.text).has_value(), one.person) << one.what;
  }
}

TEST(OwnerProbes, ADesktopsIdleTimeIsThatOfItsKeyboard) {
  FakeMachine machine;
  machine.session("2",
                  "UID=1000\nUSER=ana\nACTIVE=1\nSTATE=active\nCLASS=user\nTYPE=x11\n"
                  "SEAT=seat0\nTTY=tty2\nREALTIME=" +
                      std::to_string((kNow - 3'600'000) * 1000) + "\n");
  machine.device("tty2", kNow / 1000 - 4'000);
  auto found = people(machine.root, kNow, std::nullopt);
  ASSERT_THAT(found, SizeIs(1));
  EXPECT_EQ(found[0].idle_ms, 0u) << "not seen: whoever is logged in counts as busy";
  found = people(machine.root, kNow, kNow - 7'000);
  ASSERT_THAT(found, SizeIs(2));
  EXPECT_EQ(found[0].idle_ms, 7'000u);
  EXPECT_EQ(found[1].place, "keyboard or mouse");
  found = people(machine.root, kNow, 0);
  ASSERT_THAT(found, SizeIs(1)) << "nobody has touched it yet";
  EXPECT_EQ(found[0].idle_ms, 3'600'000u);
  machine.session("2", "USER=ana\nACTIVE=0\nSTATE=online\nCLASS=user\nTYPE=x11\nSEAT=seat0\n");
  EXPECT_THAT(people(machine.root, kNow, std::nullopt), IsEmpty()) << "another one has the screen";
}

TEST(OwnerProbes, ASessionWithoutATerminalHasThoseOfItsUser) {
  FakeMachine machine;
  machine.device("pts/0", kNow / 1000 - 30);
  machine.device("pts/1", kNow / 1000 - 12);
  machine.session("5", "UID=" + std::to_string(::getuid()) +
                           "\nUSER=ana\nSTATE=active\nREMOTE=1\nCLASS=user\nTYPE=tty\n");
  const auto found = people(machine.root, kNow, std::nullopt);
  ASSERT_THAT(found, SizeIs(1));
  EXPECT_EQ(found[0].idle_ms, 12'000u);
}

TEST(OwnerProbes, AFifoAmongTheSessionsIsNotWaitedFor) {
  FakeMachine machine;
  ASSERT_EQ(::mkfifo((machine.root / "run/systemd/sessions/3").c_str(), 0600), 0);
  ASSERT_EQ(::mkfifo((machine.root / "run/systemd/sessions/3.ref").c_str(), 0600), 0);
  EXPECT_THAT(people(machine.root, kNow, std::nullopt), IsEmpty());
}

TEST(OwnerProbes, SaysWhatCanBeSeen) {
  FakeMachine machine;
  auto sights = what_is_seen(machine.root);
  ASSERT_THAT(sights, SizeIs(3));
  EXPECT_TRUE(sights[0].seen);
  EXPECT_THAT(sights[0].text, HasSubstr("utmp"));
  EXPECT_FALSE(sights[1].seen);
  machine.device("input/event0", 0);
  EXPECT_TRUE(what_is_seen(machine.root)[1].seen);
  std::filesystem::remove_all(machine.root / "run");
  std::filesystem::remove_all(machine.root / "proc");
  sights = what_is_seen(machine.root);
  EXPECT_FALSE(sights[0].seen);
  EXPECT_THAT(sights[0].text, HasSubstr("presence_command"));
  EXPECT_FALSE(sights[2].seen);
}

}  // namespace
}  // namespace pesc::worker::owner
