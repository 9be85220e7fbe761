// A whole worker that builds jobs' programs, against a scripted coordinator.
#include <gmock/gmock.h>
#include <sys/stat.h>

#include "tests/worker_shell/worker_fixture.h"

namespace pesc::worker {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

AttemptKey key_in(uint64_t job, uint32_t rank, uint32_t attempt = 1) {
  return {JobId{(uint64_t{90} << 32) + job}, rank, attempt};
}

struct WorkerBuilds : WorkerTest {
  void SetUp() override {
    // Where a build may leave a trace, whoever it runs as.
    ASSERT_EQ(::chmod(state_.path().c_str(), 0711), 0);
    fs::create_directory(traces());
    ASSERT_EQ(::chmod(traces().c_str(), 0777), 0);
  }
  fs::path traces() const { return state_.path() / "traces"; }
  size_t builds() const { return read_file(traces() / "built").size(); }

  // A job of one source, which `lines` of shell make the program of.
  JobSpec built(const std::string& lines, const std::string& source = "echo rank $PESC_RANK") {
    JobSpec spec;
    spec.program = "./out/program";
    spec.repetitions = 100;
    spec.inject = Inject::env;
    spec.build = "printf x >>" + (traces() / "built").string() + "\n" + lines;
    spec.files = {input("source", source, FileKind::file)};
    spec.output_limit_bytes = 1 << 20;
    spec.grace_ms = 5'000;
    return spec;
  }
  static constexpr const char* kMake =
      "echo compiling; mkdir -p out; (echo '#!/bin/sh'; cat source) >out/program; "
      "chmod 755 out/program; ln -s out/program link";

  std::string output_of(const AttemptKey& key) {
    const auto& end = fake_.wait_for_end(key);
    EXPECT_EQ(end.outcome.reason, EndReason::succeeded) << end.outcome.detail;
    return end.output.empty() ? "" : read_file(unpacked(end.output) / "output.txt");
  }
};

TEST_F(WorkerBuilds, OnceForAllRanksAndJobsThatWantTheSame) {
  open();
  const JobSpec spec = built(kMake);
  JobSpec other = spec;
  other.name = "another";
  other.program = "./link";
  for (uint32_t rank = 0; rank < 12; ++rank) fake_.lease(key_in(1, rank), spec);
  for (uint32_t rank = 0; rank < 3; ++rank) fake_.lease(key_in(2, rank), other);
  for (uint32_t rank = 0; rank < 12; ++rank) {
    EXPECT_EQ(output_of(key_in(1, rank)), "rank " + std::to_string(rank) + "\n");
  }
  EXPECT_EQ(output_of(key_in(2, 2)), "rank 2\n");
  EXPECT_EQ(builds(), 1u);
  const fs::path zero = unpacked(fake_.ends.at(key_in(1, 0)).output);
  EXPECT_EQ(read_file(zero / "build.log"), "compiling\n");
  EXPECT_FALSE(fs::exists(unpacked(fake_.ends.at(key_in(1, 1)).output) / "build.log"));
  EXPECT_TRUE(fake_.ends.at(key_in(1, 1)).outcome.uncollected.empty()) << "inputs, not results";
  // What a rank does to its own copy is nobody else's.
  JobSpec spoils = spec;
  spoils.program = "sh";
  spoils.arguments = {"-c", "echo ruined >out/program"};
  fake_.lease(key_in(3, 0), spoils);
  fake_.wait_for_end(key_in(3, 0));
  fake_.lease(key_in(1, 20), spec);
  EXPECT_EQ(output_of(key_in(1, 20)), "rank 20\n");
  EXPECT_EQ(builds(), 1u);
}

TEST_F(WorkerBuilds, AgainForOtherSourcesAndAnotherEnvironment) {
  open();
  fake_.lease(key_in(1, 0), built(kMake, "echo one"));
  fake_.lease(key_in(2, 0), built(kMake, "echo two"));
  EXPECT_EQ(output_of(key_in(1, 0)), "one\n");
  EXPECT_EQ(output_of(key_in(2, 0)), "two\n");
  JobSpec spec = built(std::string(kMake) + "; echo \"echo $FLAG $PESC_RANK $PWD/\" >>out/program",
                       "echo three\n");
  spec.environment = {{"FLAG", "-O3"}};
  fake_.lease(key_in(3, 0), spec);
  EXPECT_THAT(output_of(key_in(3, 0)), HasSubstr("three\n-O3 /")) << "no rank in its environment";
  EXPECT_EQ(builds(), 3u);
}

TEST_F(WorkerBuilds, SurviveTheWorker) {
  open();
  const JobSpec spec = built(kMake);
  fake_.lease(key_in(1, 0), spec);
  EXPECT_EQ(output_of(key_in(1, 0)), "rank 0\n");
  loop_.wait(worker_->shutdown());
  worker_.reset();
  fake_.hang_up();
  const int before = fake_.attached;
  open();
  fake_.wait_until([&] { return fake_.attached > before; });
  fake_.lease(key_in(2, 0), spec);
  EXPECT_EQ(output_of(key_in(2, 0)), "rank 0\n");
  EXPECT_EQ(builds(), 1u);
}

TEST_F(WorkerBuilds, AFailedOneSaysWhyAndIsNotTriedForEachRank) {
  open();
  const JobSpec spec = built("echo 'sim.c:3: error: no such thing' >&2; echo stopped; exit 2");
  for (uint32_t rank = 0; rank < 10; ++rank) fake_.lease(key_in(1, rank), spec);
  for (uint32_t rank = 0; rank < 10; ++rank) {
    const auto& end = fake_.wait_for_end(key_in(1, rank));
    EXPECT_EQ(end.outcome.reason, EndReason::build_failed);
    EXPECT_EQ(end.outcome.exit_code, 2);
    EXPECT_EQ(end.outcome.detail, "exit code 2: sim.c:3: error: no such thing | stopped");
    EXPECT_EQ(read_file(unpacked(end.output) / "build.log"),
              "sim.c:3: error: no such thing\nstopped\n");
  }
  EXPECT_EQ(builds(), 1u);
  fake_.lease(key_in(1, 10), spec);  // it was on its way
  EXPECT_EQ(fake_.wait_for_end(key_in(1, 10)).outcome.reason, EndReason::build_failed);
  EXPECT_EQ(builds(), 1u);
  fake_.lease(key_in(2, 0), spec);  // submitted again: something may have been installed
  EXPECT_EQ(fake_.wait_for_end(key_in(2, 0)).outcome.reason, EndReason::build_failed);
  EXPECT_EQ(builds(), 2u);
}

TEST_F(WorkerBuilds, AMissingCompilerIsNamed) {
  open();
  JobSpec spec = built("");
  spec.build = "no-such-nvcc -O3 source -o program";
  fake_.lease(key_in(1, 0), spec);
  const auto& end = fake_.wait_for_end(key_in(1, 0));
  EXPECT_EQ(end.outcome.reason, EndReason::build_failed);
  EXPECT_EQ(end.outcome.exit_code, 127);
  EXPECT_THAT(end.outcome.detail, HasSubstr("no-such-nvcc"));
  EXPECT_THAT(end.outcome.detail, HasSubstr("not found"));
}

TEST_F(WorkerBuilds, AProgramThatIsNotMadeCannotStart) {
  open();
  fake_.lease(key_in(1, 0), built("true"));
  EXPECT_EQ(fake_.wait_for_end(key_in(1, 0)).outcome.reason, EndReason::cannot_start);
}

TEST_F(WorkerBuilds, OneThatHangsIsEndedWithAllItStarted) {
  open();
  JobSpec spec = built("echo begun; (sleep 600) & sleep 600");
  spec.build_time_limit_ms = 300;
  fake_.lease(key_in(1, 0), spec);
  const auto& end = fake_.wait_for_end(key_in(1, 0));
  EXPECT_EQ(end.outcome.reason, EndReason::build_failed);
  EXPECT_THAT(end.outcome.detail, HasSubstr("it took longer than 300ms"));
  EXPECT_THAT(end.outcome.detail, HasSubstr("begun"));
}

TEST_F(WorkerBuilds, OtherJobsGoOnMeanwhileAndItsLogCanBeRead) {
  open();
  const fs::path gate = traces() / "gate";
  ASSERT_EQ(::mkfifo(gate.c_str(), 0666), 0);
  ASSERT_EQ(::chmod(gate.c_str(), 0666), 0);
  const JobSpec spec = built("echo begun; read line <" + gate.string() + "; " + kMake);
  for (uint32_t rank = 0; rank < 20; ++rank) fake_.lease(key_in(1, rank), spec);
  fake_.wait_until([&] { return !fake_.trouble[key_in(1, 19)].empty(); });
  EXPECT_EQ(fake_.trouble[key_in(1, 19)], "its program is being built on its worker");
  while (fake_.read_log(key_in(1, 0), 3) != "begun\n") {
  }
  JobSpec other = script("echo meanwhile");
  other.inject = Inject::env;
  fake_.lease(key_in(2, 0), other);
  EXPECT_EQ(output_of(key_in(2, 0)), "meanwhile\n");
  EXPECT_FALSE(fake_.ends.contains(key_in(1, 0)));
  std::ofstream(gate) << "go\n";
  EXPECT_EQ(output_of(key_in(1, 19)), "rank 19\n");
  EXPECT_EQ(builds(), 1u);
}

TEST_F(WorkerBuilds, NobodyWantsItAnyMore) {
  open();
  const fs::path gate = traces() / "gate";
  const JobSpec spec =
      built("[ -e " + gate.string() + " ] || { echo begun; sleep 600 & wait; }; " + kMake);
  fake_.lease(key_in(1, 0), spec);
  fake_.lease(key_in(1, 1), spec);
  fake_.wait_until([&] { return !fake_.trouble[key_in(1, 1)].empty(); });
  while (fake_.read_log(key_in(1, 0), 3) != "begun\n") {
  }
  fake_.stop(key_in(1, 0), EndReason::cancelled);
  fake_.stop(key_in(1, 1), EndReason::cancelled);
  EXPECT_EQ(fake_.wait_for_end(key_in(1, 0)).outcome.reason, EndReason::cancelled);
  EXPECT_EQ(fake_.wait_for_end(key_in(1, 1)).outcome.reason, EndReason::cancelled);
  write_file(gate, "");
  fake_.lease(key_in(2, 0), spec);  // the old one is ending: this one has a build of its own
  EXPECT_EQ(output_of(key_in(2, 0)), "rank 0\n");
  EXPECT_EQ(builds(), 2u);
}

TEST_F(WorkerBuilds, WhatTheCacheHasLostIsBuiltAgain) {
  Options options;
  options.cache_limit_bytes = 300'000;
  open(options);
  const JobSpec spec = built(std::string(kMake) + "; head -c 200000 /dev/urandom >out/data");
  fake_.lease(key_in(1, 0), spec);
  EXPECT_EQ(output_of(key_in(1, 0)), "rank 0\n");
  for (uint64_t job = 2; job < 5; ++job) {
    JobSpec other = script("cat large | wc -c");
    other.files.push_back(
        input("large", std::string(250'000, static_cast<char>('a' + job)), FileKind::file));
    fake_.lease(key_in(job, 0), other);
    fake_.wait_for_end(key_in(job, 0));
  }
  fake_.lease(key_in(9, 0), spec);
  EXPECT_EQ(output_of(key_in(9, 0)), "rank 0\n");
  EXPECT_EQ(builds(), 2u);
}

TEST_F(WorkerBuilds, AsTheRanksUserWithSharedFilesAndAProgramThatTravels) {
  Options options;
  if (is_root()) options.run_as = "nobody";
  open(options);
  JobSpec spec = built(
      "cat tables >copied && cp script made && id -un >who && rm -f script && cp "
      "made script");
  spec.program = "./script";
  const std::string text = "#!/bin/sh\ncat tables copied who; cat sub/x\n";
  fake_.add_blob(text);
  spec.files.push_back({"script", FileKind::file, blob_of(text), 0755});
  spec.files.push_back(input("tables", "7 8 9\n", FileKind::shared_file));
  spec.files.push_back(input("sub/x", "below\n", FileKind::file));
  for (uint32_t rank = 0; rank < 2; ++rank) fake_.lease(key_in(1, rank), spec);
  for (uint32_t rank = 0; rank < 2; ++rank) {
    const std::string output = output_of(key_in(1, rank));
    EXPECT_EQ(output.substr(0, 12), "7 8 9\n7 8 9\n");
    EXPECT_THAT(output, HasSubstr(is_root() ? "nobody\n" : "\n"));
    EXPECT_THAT(output, HasSubstr("below\n"));
  }
}

}  // namespace
}  // namespace pesc::worker
