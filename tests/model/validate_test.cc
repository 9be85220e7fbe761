#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "model/job_spec.h"

namespace pesc {
namespace {

using ::testing::HasSubstr;

FileRef file(std::string path, FileKind kind = FileKind::file) {
  FileRef result{std::move(path), kind, {}, 0644};
  if (kind != FileKind::directory) result.blob = {sha256("x"), 1};
  return result;
}

JobSpec good_spec() {
  JobSpec spec;
  spec.name = "sweep";
  spec.program = "./sim";
  spec.arguments = {"--alpha", "{rank}", "{parameters[0]}", "{\"json\": 1}"};
  spec.parameters = {"0.05", ""};
  spec.repetitions = 10;
  spec.files = {file("sim"),
                file("data/a b.csv", FileKind::shared_file),
                file("model", FileKind::directory),
                file("model/x\n\xff"),
                file("in.tar", FileKind::archive),
                file("model.cfg")};
  spec.collect = {"*.csv", "plots/**/*.png"};
  spec.environment = {{"OMP_NUM_THREADS", "1"}};
  return spec;
}

TEST(Validate, AcceptsAWholeJob) { EXPECT_EQ(validate(good_spec()), absl::OkStatus()); }

TEST(Validate, AcceptsProgramsOfTheWorker) {
  for (const char* program : {"python3", "/usr/bin/env", "a program"}) {
    JobSpec spec;
    spec.program = program;
    EXPECT_EQ(validate(spec), absl::OkStatus()) << program;
  }
}

TEST(Validate, AcceptsAProgramThatAnArchiveMayHold) {
  JobSpec spec;
  spec.program = "./bin/sim";
  EXPECT_FALSE(validate(spec).ok());
  spec.files = {file("tree.tar.zst", FileKind::archive)};
  EXPECT_EQ(validate(spec), absl::OkStatus());
}

struct Refusal {
  const char* field;
  std::function<void(JobSpec&)> spoil;
};

class Refused : public ::testing::TestWithParam<Refusal> {};

TEST_P(Refused, NamesTheFieldAndTheRemedy) {
  JobSpec spec = good_spec();
  GetParam().spoil(spec);
  const absl::Status status = validate(spec);
  ASSERT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  const std::string message(status.message());
  EXPECT_EQ(message.rfind(GetParam().field, 0), 0u) << message;
  EXPECT_THAT(message, HasSubstr(": "));
  EXPECT_EQ(message.find('\n'), std::string::npos) << message;
  EXPECT_EQ(message.find('\0'), std::string::npos);
}

const std::string kNul("a\0b", 3);

INSTANTIATE_TEST_SUITE_P(
    Each, Refused,
    ::testing::Values(
        Refusal{"name:", [](JobSpec& s) { s.name = std::string(300, 'x'); }},
        Refusal{"name:", [](JobSpec& s) { s.name = "a\nb"; }},
        Refusal{"room:", [](JobSpec& s) { s.room = "a\x1b[31m"; }},
        Refusal{"program:", [](JobSpec& s) { s.program = ""; }},
        Refusal{"program:", [](JobSpec& s) { s.program = kNul; }},
        Refusal{"program:", [](JobSpec& s) { s.program = "../sim"; }},
        Refusal{"program:", [](JobSpec& s) { s.program = "./"; }},
        Refusal{"program:", [](JobSpec& s) { s.program = std::string(5'000, 'x'); }},
        Refusal{"program:",
                [](JobSpec& s) {
                  s.program = "./model";
                  std::erase_if(s.files, [](auto& f) { return f.kind == FileKind::archive; });
                }},
        Refusal{"repetitions:", [](JobSpec& s) { s.repetitions = 0; }},
        Refusal{"repetitions:", [](JobSpec& s) { s.repetitions = kMaxRepetitions + 1; }},
        Refusal{"arguments:", [](JobSpec& s) { s.arguments = {kNul}; }},
        Refusal{"arguments:", [](JobSpec& s) { s.arguments.resize(kMaxArguments + 1); }},
        Refusal{"arguments:",
                [](JobSpec& s) { s.arguments = {std::string(kMaxArgumentBytes + 1, 'x')}; }},
        Refusal{"arguments:", [](JobSpec& s) { s.arguments = {"{parameters[2]}"}; }},
        Refusal{"arguments:",
                [](JobSpec& s) {
                  s.parameters.assign(s.repetitions - 1, "v");
                  s.arguments = {"{parameters[rank]}"};
                }},
        Refusal{
            "arguments:",
            [](JobSpec& s) { s.arguments.assign(20, std::string(kMaxArgumentBytes - 1, 'x')); }},
        Refusal{"arguments:",
                [](JobSpec& s) {
                  s.parameters = {std::string(50'000, 'x')};
                  s.arguments = {"{parameters[0]}{parameters[0]}{parameters[0]}"};
                }},
        Refusal{"parameters:", [](JobSpec& s) { s.parameters = {"a\nb"}; }},
        Refusal{"parameters:",
                [](JobSpec& s) { s.parameters.assign(3, std::string(40'000, 'x')); }}));

INSTANTIATE_TEST_SUITE_P(
    More, Refused,
    ::testing::Values(
        Refusal{"files:", [](JobSpec& s) { s.files.push_back(file("../x")); }},
        Refusal{"files:", [](JobSpec& s) { s.files.push_back(file("/etc/passwd")); }},
        Refusal{"files:", [](JobSpec& s) { s.files.push_back(file("a//b")); }},
        Refusal{"files:", [](JobSpec& s) { s.files.push_back(file("")); }},
        Refusal{"files:", [](JobSpec& s) { s.files.push_back(file("sim")); }},
        Refusal{"files:", [](JobSpec& s) { s.files.push_back(file("sim/x")); }},
        Refusal{"files:", [](JobSpec& s) { s.files[0].mode = 04755; }},
        Refusal{"files:", [](JobSpec& s) { s.files[0].blob = {}; }},
        Refusal{"files:", [](JobSpec& s) { s.files[0].blob.size_bytes = UINT64_MAX; }},
        Refusal{"files:", [](JobSpec& s) { s.files[0].kind = static_cast<FileKind>(9); }},
        Refusal{"files:",
                [](JobSpec& s) {
                  s.files[2].blob = {sha256("x"), 1};
                }},
        Refusal{"files:", [](JobSpec& s) { s.files.resize(kMaxFiles + 1); }},
        Refusal{"collect:", [](JobSpec& s) { s.collect = {"../*"}; }},
        Refusal{"collect:", [](JobSpec& s) { s.collect = {"/var/**"}; }},
        Refusal{"collect:", [](JobSpec& s) { s.collect = {""}; }},
        Refusal{"collect:", [](JobSpec& s) { s.collect.assign(2'000, "x"); }},
        Refusal{"inject:", [](JobSpec& s) { s.inject = static_cast<Inject>(3); }},
        Refusal{"environment:",
                [](JobSpec& s) {
                  s.environment = {{"", "x"}};
                }},
        Refusal{"environment:",
                [](JobSpec& s) {
                  s.environment = {{"A=B", "x"}};
                }},
        Refusal{"environment:",
                [](JobSpec& s) {
                  s.environment = {{"A", kNul}};
                }},
        Refusal{"environment:",
                [](JobSpec& s) {
                  s.environment = {{"A", std::string(200'000, 'x')}};
                }},
        Refusal{"resources.cpus:", [](JobSpec& s) { s.resources.cpus_milli = 0; }},
        Refusal{"resources.cpus:", [](JobSpec& s) { s.resources.cpus_milli = kMaxCpusMilli + 1; }},
        Refusal{"resources.memory_bytes:",
                [](JobSpec& s) { s.resources.memory_bytes = UINT64_MAX; }},
        Refusal{"retries:", [](JobSpec& s) { s.retries = UINT32_MAX; }},
        Refusal{"time_limit:", [](JobSpec& s) { s.time_limit_ms = UINT64_MAX; }},
        Refusal{"job_time_limit:", [](JobSpec& s) { s.job_time_limit_ms = UINT64_MAX; }},
        Refusal{"checkpoint_every: 999ms is too often",
                [](JobSpec& s) { s.checkpoint_every_ms = 999; }},
        Refusal{"checkpoint_every:", [](JobSpec& s) { s.checkpoint_every_ms = UINT64_MAX; }},
        Refusal{"same_worker: it is for parallel jobs", [](JobSpec& s) { s.same_worker = true; }},
        Refusal{"build: it is blank", [](JobSpec& s) { s.build = " \n"; }},
        Refusal{"build: it contains a NUL", [](JobSpec& s) { s.build = std::string("a\0b", 3); }},
        Refusal{"build: longer", [](JobSpec& s) { s.build.assign(kMaxArgumentBytes + 1, 'x'); }},
        Refusal{"build_time_limit: nothing", [](JobSpec& s) { s.build_time_limit_ms = 5; }},
        Refusal{"build_time_limit: longer",
                [](JobSpec& s) {
                  s.build = "make";
                  s.build_time_limit_ms = UINT64_MAX;
                }},
        Refusal{"repetitions: a parallel job has at most 10000",
                [](JobSpec& s) {
                  s.parallel = true;
                  s.repetitions = 10'001;
                }},
        Refusal{"grace:", [](JobSpec& s) { s.grace_ms = UINT64_MAX; }},
        Refusal{"output_limit_bytes:", [](JobSpec& s) { s.output_limit_bytes = UINT64_MAX; }}));

TEST(Validate, BracesThatAreNoPlaceholdersCostNothing) {
  JobSpec spec = good_spec();
  std::string many;
  while (many.size() < 50'000) many += "{x}";
  spec.arguments = {many};
  EXPECT_EQ(validate(spec), absl::OkStatus());
}

TEST(Validate, WhatIsBuiltNeedNotTravel) {
  JobSpec spec = good_spec();
  spec.program = "./b/sim";
  spec.files.clear();
  EXPECT_NE(validate(spec), absl::OkStatus());
  spec.build = "cmake -B b && cmake --build b";
  EXPECT_EQ(validate(spec), absl::OkStatus());
  spec.program = "../sim";
  EXPECT_NE(validate(spec), absl::OkStatus()) << "no build makes that";
}

TEST(Validate, ALineBreakInAParameterNeedsNoEnvironment) {
  JobSpec spec = good_spec();
  spec.parameters = {"a\nb"};
  spec.inject = Inject::none;
  EXPECT_EQ(validate(spec), absl::OkStatus());
}

TEST(Paths, Normalised) {
  EXPECT_EQ(normalise_relative_path("a//b/./c").value(), "a/b/c");
  EXPECT_EQ(normalise_relative_path("./a/").value(), "a");
  EXPECT_EQ(normalise_relative_path("..a/...").value(), "..a/...");
  EXPECT_EQ(normalise_relative_path("a b\n\xff").value(), "a b\n\xff");
}

TEST(Paths, Refused) {
  for (const std::string& path :
       {std::string(), std::string("/"), std::string("/a"), std::string("a/../b"),
        std::string(".."), std::string("."), std::string("./."), kNul, std::string(5'000, 'a'),
        std::string(256, 'a')}) {
    const auto result = normalise_relative_path(path);
    ASSERT_FALSE(result.ok()) << path;
    EXPECT_LT(result.status().message().size(), 400u);
  }
}

}  // namespace
}  // namespace pesc
