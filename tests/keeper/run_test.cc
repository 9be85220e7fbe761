// How a rank's program is started, and what is told of its end.
#include <elf.h>
#include <gmock/gmock.h>
#include <sys/resource.h>

#include "harness.h"

namespace pesc::worker {
namespace {

using ::testing::HasSubstr;

class KeeperRun : public KeeperTest {};

TEST_F(KeeperRun, TellsExitCodeAndOutput) {
  KeptExit exit = run(request({"sh", "-c", "echo out; echo err >&2; exit 3"}));
  EXPECT_EQ(exit.outcome.reason, EndReason::exit_code);
  EXPECT_EQ(exit.outcome.exit_code, 3);
  EXPECT_EQ(exit.outcome.signal, 0);
  EXPECT_EQ(exit.standard_output, "out\n");
  EXPECT_EQ(exit.standard_error, "err\n");
  EXPECT_FALSE(exit.output_spilled);
  EXPECT_GT(exit.outcome.started_unix_ms, 1'600'000'000'000);
  EXPECT_GT(exit.outcome.max_rss_bytes, 0u);
}

TEST_F(KeeperRun, SucceedsWithZero) {
  KeptExit exit = run(request({"true"}));
  EXPECT_EQ(exit.outcome.reason, EndReason::succeeded);
  EXPECT_EQ(exit.outcome.exit_code, 0);
  EXPECT_EQ(exit.outcome.detail, "");
}

TEST_F(KeeperRun, TellsTheSignal) {
  KeptExit exit = run(request({"sh", "-c", "kill -SEGV $$"}));
  EXPECT_EQ(exit.outcome.reason, EndReason::signal);
  EXPECT_EQ(exit.outcome.signal, SIGSEGV);
  EXPECT_EQ(exit.outcome.exit_code, -1);
  EXPECT_THAT(exit.outcome.detail, HasSubstr("SIGSEGV"));
}

TEST_F(KeeperRun, PassesArgumentsAsTheyAre) {
  std::string odd("\xff\xfe", 2);
  KeptExit exit = run(act("arguments", {"a b", "", "new\nline", "$HOME `x` *", odd}));
  EXPECT_EQ(exit.standard_output,
            std::string("a b\0\0new\nline\0$HOME `x` *\0", 26) + odd + std::string("\0", 1));
}

TEST_F(KeeperRun, GivesTheEnvironmentAndNothingElse) {
  KeptExit exit = run(request({"/usr/bin/env"}));
  EXPECT_EQ(exit.standard_output, "PATH=/usr/bin:/bin\nANSWER=forty two\n");
}

TEST_F(KeeperRun, StartsInTheWorkingDirectoryEvenWithAnOddName) {
  std::filesystem::path odd = directory.path() / "a b\nc";
  std::filesystem::create_directory(odd);
  write_file(odd / "my program", "#!/bin/sh\npwd\n", 0755);
  LaunchRequest start = request({"./my program"});
  start.working_directory = odd;
  EXPECT_EQ(run(start).standard_output, std::filesystem::canonical(odd).string() + "\n");
}

TEST_F(KeeperRun, StandardInputIsEmptyAndNothingIsInherited) {
  EXPECT_EQ(run(act("descriptors")).standard_output, "0 1 2 stdin:0");
}

TEST_F(KeeperRun, SignalsAndLimitsAreTheDefault) {
  rlimit files{};
  ::getrlimit(RLIMIT_NOFILE, &files);
  EXPECT_EQ(run(act("state")).standard_output,
            "blocked:0 ignored:0 session:1 files:" + std::to_string(files.rlim_cur));
}

TEST_F(KeeperRun, MissingProgram) {
  KeptExit exit = run(request({"no-such-program"}));
  EXPECT_EQ(exit.outcome.reason, EndReason::cannot_start);
  EXPECT_EQ(exit.outcome.exit_code, 127);
  EXPECT_THAT(exit.outcome.detail, HasSubstr("no-such-program: not found on this worker's PATH"));
}

TEST_F(KeeperRun, MissingFile) {
  KeptExit exit = run(request({"./sim"}));
  EXPECT_EQ(exit.outcome.exit_code, 127);
  EXPECT_THAT(exit.outcome.detail, HasSubstr("./sim: not found"));
}

TEST_F(KeeperRun, NotExecutable) {
  write_file(directory.path() / "sim", "#!/bin/sh\n");
  KeptExit exit = run(request({"./sim"}));
  EXPECT_EQ(exit.outcome.reason, EndReason::cannot_start);
  EXPECT_EQ(exit.outcome.exit_code, 126);
  EXPECT_EQ(exit.outcome.detail, "./sim: not executable (chmod +x before submitting)");
}

TEST_F(KeeperRun, Directory) {
  std::filesystem::create_directory(directory.path() / "sim");
  KeptExit exit = run(request({"./sim"}));
  EXPECT_EQ(exit.outcome.exit_code, 126);
  EXPECT_THAT(exit.outcome.detail, HasSubstr("is a directory"));
}

TEST_F(KeeperRun, WrongArchitecture) {
  std::string program = read_file("/bin/true");
  ASSERT_GT(program.size(), sizeof(Elf64_Ehdr));
  auto& header = *reinterpret_cast<Elf64_Ehdr*>(program.data());
  bool here = header.e_machine == EM_S390;
  header.e_machine = here ? EM_PPC64 : EM_S390;
  write_file(directory.path() / "sim", program, 0755);
  KeptExit exit = run(request({"./sim"}));
  EXPECT_EQ(exit.outcome.exit_code, 126);
  EXPECT_THAT(exit.outcome.detail, HasSubstr("built for another architecture"));
  EXPECT_THAT(exit.outcome.detail, HasSubstr(here ? "ppc64" : "s390x"));
}

TEST_F(KeeperRun, MissingInterpreter) {
  write_file(directory.path() / "sim", "#!/usr/bin/no-such-language -x\n", 0755);
  KeptExit exit = run(request({"./sim"}));
  EXPECT_EQ(exit.outcome.exit_code, 127);
  EXPECT_EQ(exit.outcome.detail,
            "./sim: script interpreter /usr/bin/no-such-language named in its first line is not on "
            "this worker");
}

TEST_F(KeeperRun, WindowsLineEnds) {
  write_file(directory.path() / "sim", "#!/bin/sh\r\necho\r\n", 0755);
  EXPECT_THAT(run(request({"./sim"})).outcome.detail, HasSubstr("carriage return"));
}

TEST_F(KeeperRun, TextIsNotRunByAShell) {
  write_file(directory.path() / "sim", "echo hello\n", 0755);
  KeptExit exit = run(request({"./sim"}));
  EXPECT_EQ(exit.outcome.exit_code, 126);
  EXPECT_EQ(exit.standard_output, "");
  EXPECT_THAT(exit.outcome.detail, HasSubstr("#!/usr/bin/env"));
}

TEST_F(KeeperRun, MissingWorkingDirectory) {
  LaunchRequest start = request({"true"});
  start.working_directory = directory.path() / "absent";
  KeptExit exit = run(start);
  EXPECT_EQ(exit.outcome.reason, EndReason::cannot_start);
  EXPECT_THAT(exit.outcome.detail, HasSubstr("working directory"));
}

TEST_F(KeeperRun, RefusesWhatCannotBePassed) {
  EXPECT_THAT(run(request({"echo", std::string("a\0b", 3)})).outcome.detail, HasSubstr("NUL"));
  EXPECT_THAT(run(request({}, 1)).outcome.detail, HasSubstr("no program"));
}

// A bind holds where a mount namespace can be made, and is told where none can.
TEST_F(KeeperRun, ReadOnlyBinds) {
  write_file(directory.path() / "shared", "shared\n", 0666);
  std::filesystem::create_directories(directory.path() / "app");
  LaunchRequest start = request({"sh", "-c", "cat data && echo changed > data"});
  start.working_directory = directory.path() / "app";
  start.read_only_binds = {{directory.path() / "shared", directory.path() / "app" / "data"}};
  Kept kept(directory.path());
  kept.keeper->start(start);
  KeptExit exit = kept.wait_exit(start.key);
  std::string source = read_file(directory.path() / "shared");
  EXPECT_EQ(source, "shared\n");
  if (kept.binds_done[start.key]) {
    EXPECT_EQ(exit.standard_output, "shared\n");
    EXPECT_EQ(exit.outcome.reason, EndReason::exit_code);
    EXPECT_THAT(exit.standard_error, HasSubstr("Read-only"));
  } else {
    EXPECT_THAT(exit.standard_error, HasSubstr("data"));
  }
  EXPECT_EQ(read_file(directory.path() / "app" / "data"), "") << "seen outside the namespace";
}

TEST_F(KeeperRun, RunsAsAnotherUser) {
  if (::geteuid() != 0) return;  // only root can
  ::chmod(directory.path().c_str(), 0755);
  LaunchRequest start = request({"sh", "-c", "id -u; id -g; grep NoNewPrivs /proc/self/status"});
  start.run_as = true;
  start.uid = start.gid = 65534;
  EXPECT_EQ(run(start).standard_output, "65534\n65534\nNoNewPrivs:\t1\n");
}

TEST_F(KeeperRun, ManyAtOnceEachWithItsOwnOutput) {
  Kept kept(directory.path());
  for (uint32_t rank = 0; rank < 200; ++rank) {
    kept.keeper->start(request({"sh", "-c", "echo " + std::to_string(rank)}, rank));
  }
  kept.until([&] { return kept.exits.size() == 200; });
  for (const auto& [key, exit] : kept.exits) {
    EXPECT_EQ(exit.standard_output, std::to_string(key.rank) + "\n");
    EXPECT_EQ(exit.outcome.reason, EndReason::succeeded);
  }
  EXPECT_EQ(kept.started.size(), 200u);
}

}  // namespace
}  // namespace pesc::worker
