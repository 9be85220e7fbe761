// A whole worker, with its real keeper, against a scripted coordinator, in one process.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <kj/debug.h>
#include <sys/stat.h>

#include <fstream>

#include "tests/worker_shell/worker_fixture.h"

namespace pesc::worker {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

TEST_F(WorkerTest, RunsARankAndBringsItsOutputBack) {
  open();
  JobSpec spec = script(
      "echo rank $PESC_RANK of $PESC_WORLD_SIZE reads $(cat data.csv)\n"
      "echo complaint >&2\necho result > \"$PESC_OUTPUT_DIR/result.txt\"\n"
      "[ -d \"$PESC_CHECKPOINT_DIR\" ] && [ -d \"$TMPDIR\" ] && [ \"$PWD\" = \"$PESC_APP_DIR\" "
      "]\n");
  spec.files.push_back(input("data.csv", "1,2,3", FileKind::file));
  fake_.lease(key_of(7), spec);
  const FakeCoordinator::End& end = fake_.wait_for_end(key_of(7));
  EXPECT_EQ(end.outcome.reason, EndReason::succeeded) << end.outcome.detail;
  const fs::path output = unpacked(end.output);
  EXPECT_EQ(read_file(output / "output.txt"), "rank 7 of 100 reads 1,2,3\n");
  EXPECT_EQ(read_file(output / "stderr.txt"), "complaint\n");
  EXPECT_EQ(read_file(output / "result.txt"), "result\n");
}

TEST_F(WorkerTest, RunsAProgramOfTheWorkersPathWithoutAnyFile) {
  open();
  JobSpec spec;
  spec.program = "sh";
  spec.arguments = {"-c", "echo $LANG $HOME | wc -w"};
  spec.inject = Inject::env;
  fake_.lease(key_of(0), spec);
  const auto& end = fake_.wait_for_end(key_of(0));
  EXPECT_EQ(end.outcome.reason, EndReason::succeeded) << end.outcome.detail;
  EXPECT_EQ(read_file(unpacked(end.output) / "output.txt"), "2\n");
}

TEST_F(WorkerTest, FetchesEachInputOnceHoweverManyRanksNeedIt) {
  open();
  const std::string large(3'000'000, 'L');
  JobSpec spec = script("wc -c < large; cat s*");
  spec.files.push_back(input("large", large, FileKind::shared_file));
  for (int i = 0; i < 20; ++i) {
    spec.files.push_back(
        input("s" + std::to_string(i), "small " + std::to_string(i) + "\n", FileKind::file));
  }
  for (uint32_t rank = 0; rank < 6; ++rank) fake_.lease(key_of(rank), spec);
  for (uint32_t rank = 0; rank < 6; ++rank) {
    const auto& end = fake_.wait_for_end(key_of(rank));
    ASSERT_EQ(end.outcome.reason, EndReason::succeeded) << end.outcome.detail;
    const std::string output = read_file(unpacked(end.output) / "output.txt");
    EXPECT_THAT(output, HasSubstr("3000000\n"));
    EXPECT_THAT(output, HasSubstr("small 19\n"));
  }
  EXPECT_EQ(fake_.reads[sha256(large)], 3) << "three pieces, once";
  EXPECT_EQ(fake_.reads[sha256("small 7\n")], 1);
}

TEST_F(WorkerTest, ARankCannotChangeASharedFileForOthers) {
  open();
  JobSpec spec = script(
      "cat prices; (echo ruined > prices) 2>/dev/null; chmod 666 prices 2>/dev/null; "
      "(echo ruined > prices) 2>/dev/null; exit 0");
  spec.files.push_back(input("prices", "10 20 30\n", FileKind::shared_file));
  for (uint32_t rank = 0; rank < 2; ++rank) {
    fake_.lease(key_of(rank), spec);
    const auto& end = fake_.wait_for_end(key_of(rank));
    ASSERT_EQ(end.outcome.reason, EndReason::succeeded) << end.outcome.detail;
    EXPECT_EQ(read_file(unpacked(end.output) / "output.txt"), "10 20 30\n");
  }
}

TEST_F(WorkerTest, AJobWithTheSameInputsGetsTheDirectoriesOfTheOneBefore) {
  open();
  const fs::path fifo = state_.path() / "go";
  ASSERT_EQ(::mkfifo(fifo.c_str(), 0666), 0);
  ::chmod(fifo.c_str(), 0666);
  // Rank 1 is there until rank 0 has been acknowledged.
  JobSpec spec;
  spec.program = "sh";
  spec.inject = Inject::env;
  spec.arguments = {"-c", "[ $PESC_RANK != 1 ] || read line < " + fifo.string() +
                              "\nstat -c %i .; ls -A; ls -A $PESC_OUTPUT_DIR; touch left"};
  spec.resources.cpus_milli = 100;
  for (uint32_t rank : {0, 1}) fake_.lease(key_of(rank), spec);
  const std::string first =
      read_file(unpacked(fake_.wait_for_end(key_of(0)).output) / "output.txt");
  std::ofstream(fifo) << "go\n";
  fake_.wait_for_end(key_of(1));
  AttemptKey next = key_of(0);
  ++next.job.value;
  fake_.lease(next, spec);
  const auto& end = fake_.wait_for_end(next);
  EXPECT_EQ(end.outcome.reason, EndReason::succeeded) << end.outcome.detail;
  EXPECT_EQ(read_file(unpacked(end.output) / "output.txt"), first) << "the same, and as empty";
}

TEST_F(WorkerTest, UploadsALargeOutputInPieces) {
  open();
  JobSpec spec = script("head -c 3000000 /dev/urandom > \"$PESC_OUTPUT_DIR/noise\"");
  fake_.lease(key_of(0), spec);
  const auto& end = fake_.wait_for_end(key_of(0));
  ASSERT_EQ(end.outcome.reason, EndReason::succeeded) << end.outcome.detail;
  EXPECT_EQ(fs::file_size(unpacked(end.output) / "noise"), 3'000'000u);
  EXPECT_GT(fake_.largest_write, 0u);
  EXPECT_LE(fake_.largest_write, 1u << 20);
}

// 20 MB that cannot be compressed, or in part.
constexpr const char* kLargeOutput = "head -c 20000000 /dev/urandom > \"$PESC_OUTPUT_DIR/noise\"";

TEST_F(WorkerTest, SendsALargeOutputWhileItIsPacked) {
  open();
  fake_.lease(key_of(0), script(kLargeOutput));
  fake_.wait_until([&] { return fake_.unnamed_uploads == 1; });
  EXPECT_TRUE(fs::is_empty(state_.path() / "worker" / "outbox")) << "nothing is written here";
  const auto& end = fake_.wait_for_end(key_of(0));
  ASSERT_EQ(end.outcome.reason, EndReason::succeeded) << end.outcome.detail;
  EXPECT_EQ(fs::file_size(unpacked(end.output) / "noise"), 20'000'000u);
  EXPECT_EQ(fake_.uploaded, 0);
}

TEST_F(WorkerTest, WhatBreaksWhileItIsSentIsPackedHere) {
  for (const bool older : {false, true}) {
    fake_.takes_unnamed = !older;
    fake_.unnamed_limit = 5'000'000;
    if (!older) open();
    fake_.lease(key_of(older), script(kLargeOutput));
    const auto& end = fake_.wait_for_end(key_of(older));
    ASSERT_EQ(end.outcome.reason, EndReason::succeeded) << end.outcome.detail;
    EXPECT_EQ(fs::file_size(unpacked(end.output) / "noise"), 20'000'000u);
    EXPECT_EQ(fake_.unnamed_uploads, 0);
    EXPECT_EQ(fake_.dropped_uploads, 1) << "the coordinator is told to drop it";
    EXPECT_EQ(fake_.uploaded, 1 + older);
  }
}

// What no record names goes with the session.
TEST_F(WorkerTest, WhatWasSentInAnEndedSessionIsPackedAgain) {
  open();
  fake_.reports_fail = true;
  fake_.lease(key_of(0), script(kLargeOutput));
  fake_.wait_until([&] { return fake_.unnamed_uploads == 1; });
  fake_.forget_blobs();
  fake_.reports_fail = false;
  fake_.hang_up();
  const auto& end = fake_.wait_for_end(key_of(0));
  ASSERT_EQ(end.outcome.reason, EndReason::succeeded) << end.outcome.detail;
  EXPECT_EQ(fs::file_size(unpacked(end.output) / "noise"), 20'000'000u);
  EXPECT_EQ(fake_.uploaded, 1);
}

// Neither its thread nor its program's directories outlive it.
TEST_F(WorkerTest, AnAttemptThatIsRevokedIsNotSentOn) {
  open();
  fake_.hold_writes = true;
  fake_.lease(key_of(0), script(kLargeOutput));
  fake_.wait_until([&] { return !fake_.held_writes.empty(); });
  fake_.stop(key_of(0), EndReason::revoked);
  loop_.wait(worker_->shutdown());
  worker_.reset();
  EXPECT_EQ(fake_.unnamed_uploads, 0);
}

TEST_F(WorkerTest, StopsARunningRankAndSaysWhy) {
  open();
  // It tells that it runs before it is stopped.
  JobSpec spec = script("echo 'progress 0.5 here' >> \"$PESC_EVENTS\"; sleep 600 & wait");
  fake_.lease(key_of(0), spec);
  fake_.wait_until([&] { return fake_.has_progress(0.5); });
  fake_.stop(key_of(0), EndReason::cancelled);
  EXPECT_EQ(fake_.wait_for_end(key_of(0)).outcome.reason, EndReason::cancelled);
}

TEST_F(WorkerTest, ShowsTheOutputOfARunningRank) {
  open();
  JobSpec spec = script("echo so far; echo 'progress 0.5' >> \"$PESC_EVENTS\"; sleep 600 & wait");
  fake_.lease(key_of(0), spec);
  fake_.wait_until([&] { return fake_.has_progress(0.5); });
  EXPECT_EQ(fake_.read_log(key_of(0), 1), "so far\n");
  fake_.stop(key_of(0), EndReason::revoked);
  EXPECT_EQ(fake_.wait_for_end(key_of(0)).outcome.reason, EndReason::revoked);
}

TEST_F(WorkerTest, NamesAProgramThatIsMissing) {
  open();
  JobSpec spec;
  spec.program = "no-such-program-anywhere";
  spec.environment = {{"PATH", "/usr/bin:/bin"}};  // a closed directory would make it 126
  fake_.lease(key_of(0), spec);
  const auto& end = fake_.wait_for_end(key_of(0));
  EXPECT_EQ(end.outcome.reason, EndReason::cannot_start);
  EXPECT_EQ(end.outcome.exit_code, 127);
  EXPECT_THAT(end.outcome.detail, HasSubstr("no-such-program-anywhere"));
}

TEST_F(WorkerTest, AFailureCarriesItsLastWords) {
  open();
  fake_.lease(key_of(0), script("echo first >&2; echo 'cannot read model.cfg' >&2; exit 3"));
  const auto& end = fake_.wait_for_end(key_of(0));
  EXPECT_EQ(end.outcome.reason, EndReason::exit_code);
  EXPECT_EQ(end.outcome.exit_code, 3);
  EXPECT_EQ(end.outcome.detail, "cannot read model.cfg");
}

TEST_F(WorkerTest, SaysWhenAProgramRefusesPescsArguments) {
  open();
  fake_.lease(key_of(0), script("echo \"run: unrecognized option '--app_dir'\" >&2; exit 2"));
  const auto& end = fake_.wait_for_end(key_of(0));
  EXPECT_TRUE(end.outcome.refused_arguments);
  // The advice is the coordinator's to give, once for the job.
  EXPECT_THAT(end.outcome.detail, HasSubstr("unrecognized option"));
}

TEST_F(WorkerTest, AFloodOfOutputHasABound) {
  open();
  fake_.lease(key_of(0), script("yes"));
  const auto& end = fake_.wait_for_end(key_of(0));
  EXPECT_EQ(end.outcome.reason, EndReason::output_limit);
  EXPECT_LE(fs::file_size(unpacked(end.output) / "output.txt"), 1u << 20);
}

TEST_F(WorkerTest, AnInputThatTheCoordinatorLacksFailsTheAttemptOnly) {
  open();
  JobSpec spec = script("true");
  spec.files.push_back({"gone", FileKind::file, blob_of("never uploaded"), 0644});
  fake_.lease(key_of(0), spec);
  EXPECT_EQ(fake_.wait_for_end(key_of(0)).outcome.reason, EndReason::inputs_unavailable);
  AttemptKey other = key_of(0);
  other.job.value += 1;
  fake_.lease(other, script("echo fine"));
  EXPECT_EQ(fake_.wait_for_end(other).outcome.reason, EndReason::succeeded);
}

TEST_F(WorkerTest, ReturnsWhatTheGlobsNameAndSaysWhatWasLeft) {
  open();
  JobSpec spec = script("echo a > a.csv; echo b > b.log");
  spec.collect = {"*.csv"};
  fake_.lease(key_of(0), spec);
  const auto& end = fake_.wait_for_end(key_of(0));
  EXPECT_EQ(read_file(unpacked(end.output) / "a.csv"), "a\n");
  EXPECT_EQ(end.outcome.uncollected, std::vector<std::string>{"b.log"});
}

TEST_F(WorkerTest, KeepsTryingToReachTheCoordinator) {
  refuse_dials_ = 2;
  open();
  EXPECT_EQ(dials_, 3);
  fake_.lease(key_of(0), script("echo here"));
  EXPECT_EQ(fake_.wait_for_end(key_of(0)).outcome.reason, EndReason::succeeded);
}

TEST_F(WorkerTest, ComesBackAfterALostConnectionWithWhatItHolds) {
  open();
  const std::string release = (state_.path() / "release").string();
  ASSERT_EQ(::mkfifo(release.c_str(), 0600), 0);
  fake_.lease(key_of(0), script("echo 'progress 0.5' >> \"$PESC_EVENTS\"; cat " + release));
  fake_.wait_until([&] { return fake_.has_progress(0.5); });
  fake_.hang_up();
  fake_.wait_until([&] { return fake_.attached == 2; });
  EXPECT_EQ(fake_.held_at_attach, std::vector<AttemptKey>{key_of(0)});
  write_file(release, "released\n");
  const auto& end = fake_.wait_for_end(key_of(0));
  EXPECT_EQ(end.outcome.reason, EndReason::succeeded);
  EXPECT_EQ(read_file(unpacked(end.output) / "output.txt"), "released\n");
}

TEST_F(WorkerTest, AnUploadOfAnEndedSessionSaysNothingInTheNext) {
  open();
  fake_.hold_uploads = true;
  fake_.lease(key_of(0), script("head -c 300000 /dev/urandom > \"$PESC_OUTPUT_DIR/noise\""));
  fake_.wait_until([&] { return fake_.held_uploads.size() == 1; });
  fake_.hang_up();
  fake_.wait_until([&] { return fake_.held_uploads.size() == 2; });
  fake_.held_uploads[0]->reject(KJ_EXCEPTION(FAILED, "the old one"));
  const int heard = fake_.reports;
  fake_.wait_until([&] { return fake_.reports >= heard + 4; });
  EXPECT_EQ(fake_.held_uploads.size(), 2u) << "the new session's is under way, and the only one";
  fake_.held_uploads[1]->fulfill();
  fake_.wait_for_end(key_of(0));
  EXPECT_EQ(fake_.reported[key_of(0)], 1);
}

TEST_F(WorkerTest, DeletesNothingBeforeItIsAcknowledged) {
  open();
  fake_.acknowledge = false;
  fake_.lease(key_of(0), script("echo kept"));
  fake_.wait_until([&] { return fake_.reported[key_of(0)] >= 2; });
  EXPECT_EQ(attempt_directories(), 1u);
  fake_.acknowledge = true;
  const int before = fake_.reported[key_of(0)];
  fake_.wait_until([&] { return fake_.reported[key_of(0)] > before; });
  loop_.wait(worker_->drain());
  EXPECT_EQ(attempt_directories(), 0u);
}

TEST_F(WorkerTest, GivesItsRanksBackWhenItIsToldToEnd) {
  open();
  fake_.lease(key_of(0), script("echo 'progress 0.5' >> \"$PESC_EVENTS\"; sleep 600 & wait"));
  fake_.wait_until([&] { return fake_.has_progress(0.5); });
  loop_.wait(worker_->vacate(30'000));
  EXPECT_EQ(fake_.ends.at(key_of(0)).outcome.reason, EndReason::vacated);
}

TEST_F(WorkerTest, DeletesWhatACrashLeft) {
  const fs::path leftover = state_.path() / "worker" / "attempts" / "0000000000000-1-1";
  fs::create_directories(leftover / "app");
  open();
  EXPECT_FALSE(fs::exists(leftover));
  EXPECT_THAT(fake_.warnings, testing::Contains("ranks run as the worker's own user"));
}

TEST_F(WorkerTest, RanksOfARootWorkerRunAsAnotherUser) {
  if (!is_root()) {
    Options options;
    options.state_dir = state_.path() / "other";
    options.run_as = "root";
    auto refused = Worker::open(loop_, options, {});
    EXPECT_TRUE(absl::IsFailedPrecondition(refused.status())) << refused.status();
    return;
  }
  fs::permissions(state_.path(), fs::perms(0711));
  Options options;
  options.run_as = "nobody";
  open(options);
  JobSpec spec = script(
      "id -un; cat prices; (echo ruined > prices) 2>/dev/null; "
      "ls ../../../identity.json ../.. 2>/dev/null; echo w > w; "
      "cat ../../../identity.json 2>/dev/null; exit 0");
  spec.files.push_back(input("prices", "10\n", FileKind::shared_file));
  spec.collect = {"w"};
  for (uint32_t rank = 0; rank < 2; ++rank) {
    fake_.lease(key_of(rank), spec);
    const auto& end = fake_.wait_for_end(key_of(rank));
    ASSERT_EQ(end.outcome.reason, EndReason::succeeded) << end.outcome.detail;
    const fs::path output = unpacked(end.output);
    EXPECT_EQ(read_file(output / "w"), "w\n");
    EXPECT_THAT(read_file(output / "output.txt"), testing::StartsWith("nobody\n10\n"));
    EXPECT_THAT(read_file(output / "output.txt"), testing::Not(HasSubstr("machine_id")));
  }
  EXPECT_THAT(fake_.warnings, testing::Not(testing::Contains(HasSubstr("own user"))));
  EXPECT_THAT(fake_.warnings, testing::Contains(HasSubstr("not kept from each other")));
}

TEST_F(WorkerTest, TwoCannotShareAStateDirectory) {
  open();
  Options options;
  options.state_dir = state_.path() / "worker";
  auto second = Worker::open(loop_, options, {});
  ASSERT_TRUE(absl::IsAlreadyExists(second.status())) << second.status();
  EXPECT_THAT(std::string(second.status().message()), HasSubstr("another pesc-worker uses"));
}

}  // namespace
}  // namespace pesc::worker
