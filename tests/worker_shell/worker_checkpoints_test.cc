// Checkpoints and gangs of a whole worker.
#include <gmock/gmock.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <atomic>

#include "runtime/common/state_dir.h"
#include "runtime/worker/shell/clock.h"
#include "runtime/worker/shell/ports.h"
#include "tests/worker_shell/worker_fixture.h"

namespace pesc::worker {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class WorkerCheckpointsTest : public WorkerTest {
 protected:
  CheckpointManifest manifest_of(const FakeCoordinator::Saved& saved) {
    auto manifest = protocol::parse_manifest(fake_.blob(saved.manifest.digest));
    EXPECT_TRUE(manifest.ok()) << manifest.status();
    return manifest.ok() ? *manifest : CheckpointManifest();
  }
  // A checkpoint that the coordinator has.
  CheckpointRef add_checkpoint(const std::string& name, const std::string& bytes,
                               uint32_t mode = 0640) {
    CheckpointFile file;
    file.path = name;
    file.mode = mode;
    file.modified_unix_ms = 1'000'000'000'000;
    for (size_t at = 0; at < bytes.size(); at += kCheckpointChunkBytes) {
      const std::string chunk = bytes.substr(at, kCheckpointChunkBytes);
      fake_.add_blob(chunk);
      file.chunks.push_back(blob_of(chunk));
    }
    const std::string manifest = protocol::serialize_manifest({{file}});
    fake_.add_blob(manifest);
    return {1, blob_of(manifest)};
  }
  std::string fifo(const std::string& name) {
    const std::string path = (state_.path() / name).string();
    EXPECT_EQ(::mkfifo(path.c_str(), 0666), 0);
    return path;
  }
  JobSpec retried(JobSpec spec) {
    spec.retries = 1;
    return spec;
  }
};

TEST_F(WorkerCheckpointsTest, IsSavedAtTheProgramsWord) {
  open();
  const std::string release = fifo("release");
  fake_.lease(key_of(0), script("echo 41 > \"$PESC_CHECKPOINT_DIR/state\"\n"
                                "head -c 9000000 /dev/zero > \"$PESC_CHECKPOINT_DIR/field\"\n"
                                "echo checkpoint >> \"$PESC_EVENTS\"; cat " +
                                release));
  fake_.wait_until([&] { return fake_.checkpoints.size() == 1; });
  const CheckpointManifest manifest = manifest_of(fake_.checkpoints[0]);
  ASSERT_EQ(manifest.files.size(), 2u);
  EXPECT_EQ(manifest.files[0].path, "field");
  ASSERT_EQ(manifest.files[0].chunks.size(), 3u);
  EXPECT_TRUE(fake_.has_blob(manifest.files[0].chunks[2].digest));
  EXPECT_EQ(fake_.uploaded, 2) << "the two first chunks are the same";
  EXPECT_EQ(fake_.blob(manifest.files[1].chunks[0].digest), "41\n");
  write_file(release, "go\n");
  fake_.wait_for_end(key_of(0));
  EXPECT_EQ(fake_.checkpoints.size(), 1u) << "a success needs none";
}

TEST_F(WorkerCheckpointsTest, ASuccessorBeginsFromIt) {
  open();
  JobSpec spec = script(
      "cat \"$PESC_CHECKPOINT_DIR/state\"; stat -c '%a %Y' "
      "\"$PESC_CHECKPOINT_DIR/state\"; echo more >> "
      "\"$PESC_CHECKPOINT_DIR/state\"");
  fake_.lease(key_of(0, 2), spec, {.checkpoint = add_checkpoint("state", "41\n")});
  const auto& end = fake_.wait_for_end(key_of(0, 2));
  ASSERT_EQ(end.outcome.reason, EndReason::succeeded) << end.outcome.detail;
  EXPECT_EQ(read_file(unpacked(end.output) / "output.txt"), "41\n640 1000000000\n");
}

TEST_F(WorkerCheckpointsTest, ALargeOneIsRestoredWhole) {
  open();
  std::string bytes;
  while (bytes.size() < 2 * kCheckpointChunkBytes + 1'000) {
    const Digest digest = sha256(std::to_string(bytes.size()));
    bytes.append(digest.bytes.begin(), digest.bytes.end());
  }
  JobSpec spec = script("sha256sum < \"$PESC_CHECKPOINT_DIR/field\"");
  fake_.lease(key_of(0, 2), spec, {.checkpoint = add_checkpoint("field", bytes)});
  const auto& end = fake_.wait_for_end(key_of(0, 2));
  ASSERT_EQ(end.outcome.reason, EndReason::succeeded) << end.outcome.detail;
  EXPECT_THAT(read_file(unpacked(end.output) / "output.txt"),
              testing::StartsWith(to_hex(sha256(bytes))));
}

TEST_F(WorkerCheckpointsTest, WhatAFailureLeftIsSavedBeforeItIsReported) {
  open();
  fake_.lease(
      key_of(0),
      retried(script(
          "echo 7 > \"$PESC_CHECKPOINT_DIR/state\"; echo checkpoint >> $PESC_EVENTS; exit 3")));
  EXPECT_EQ(fake_.wait_for_end(key_of(0)).outcome.reason, EndReason::exit_code);
  EXPECT_EQ(fake_.checkpoints.size(), 1u);
}

TEST_F(WorkerCheckpointsTest, TheLastWordBeforeAFailureIsHeard) {
  open();
  fake_.lease(key_of(0), retried(script("echo 7 > \"$PESC_CHECKPOINT_DIR/state\"; echo checkpoint "
                                        ">> \"$PESC_EVENTS\"; kill -9 $$")));
  EXPECT_EQ(fake_.wait_for_end(key_of(0)).outcome.signal, 9);
  EXPECT_EQ(fake_.checkpoints.size(), 1u);
}

TEST_F(WorkerCheckpointsTest, AVacatedProgramSavesWithinItsGraceAndIsUploadedAfter) {
  open();
  fake_.lease(key_of(0), script("trap 'echo 8 > \"$PESC_CHECKPOINT_DIR/state\"; exit 1' TERM\n"
                                "echo 'progress 0.5' >> \"$PESC_EVENTS\"; sleep 600 & wait"));
  fake_.wait_until([&] { return fake_.has_progress(0.5); });
  loop_.wait(worker_->vacate(30'000));
  EXPECT_EQ(fake_.ends.at(key_of(0)).outcome.reason, EndReason::vacated);
  ASSERT_EQ(fake_.checkpoints.size(), 1u);
  EXPECT_EQ(fake_.blob(manifest_of(fake_.checkpoints[0]).files[0].chunks[0].digest), "8\n");
}

TEST_F(WorkerCheckpointsTest, OneThatChangedNothingIsNotOffered) {
  open();
  JobSpec spec = retried(script("exit 3"));
  fake_.lease(key_of(0, 2), spec, {.checkpoint = add_checkpoint("state", "41\n")});
  fake_.wait_for_end(key_of(0, 2));
  EXPECT_TRUE(fake_.checkpoints.empty());
}

TEST_F(WorkerCheckpointsTest, ARefusedOneIsTriedAgain) {
  open();
  fake_.refuse_checkpoints = 2;
  fake_.lease(
      key_of(0),
      retried(script(
          "echo 7 > \"$PESC_CHECKPOINT_DIR/state\"; echo checkpoint >> $PESC_EVENTS; exit 3")));
  fake_.wait_for_end(key_of(0));
  EXPECT_EQ(fake_.checkpoints.size(), 1u);
}

TEST_F(WorkerCheckpointsTest, ManyAtOnceAllArrive) {
  Options options;
  options.cpus_milli = 20'000;
  open(options);
  const JobSpec spec =
      retried(script("head -c 300000 /dev/urandom > \"$PESC_CHECKPOINT_DIR/state\"; echo "
                     "checkpoint >> $PESC_EVENTS; exit 3"));
  for (uint32_t rank = 0; rank < 20; ++rank) fake_.lease(key_of(rank), spec);
  for (uint32_t rank = 0; rank < 20; ++rank) fake_.wait_for_end(key_of(rank));
  EXPECT_EQ(fake_.checkpoints.size(), 20u);
}

TEST_F(WorkerCheckpointsTest, ASparseFileIsSavedAndRestoredWithItsHoles) {
  open();
  const JobSpec spec = retried(
      script("cd \"$PESC_CHECKPOINT_DIR\"\n"
             "if [ -e field ]; then\n"
             "  stat -c %s field; dd if=field bs=1M skip=1000 count=1 2>/dev/null | head -c 3\n"
             "  test $(stat -c %b field) -lt 10000; exit\n"
             "fi\n"
             "truncate -s 300G field\n"
             "echo 41 | dd of=field conv=notrunc bs=1M seek=1000 2>/dev/null\n"
             "echo checkpoint >> \"$PESC_EVENTS\"; exit 3"));
  fake_.lease(key_of(0), spec);
  fake_.wait_for_end(key_of(0));
  ASSERT_EQ(fake_.checkpoints.size(), 1u);
  EXPECT_EQ(manifest_of(fake_.checkpoints[0]).files[0].chunks.size(), 76'800u);
  fake_.lease(key_of(0, 2), spec, {.checkpoint = {1, fake_.checkpoints[0].manifest}});
  const auto& end = fake_.wait_for_end(key_of(0, 2));
  EXPECT_EQ(end.outcome.reason, EndReason::succeeded) << "it takes as much disk as it has bytes";
  EXPECT_EQ(read_file(unpacked(end.output) / "output.txt"), "322122547200\n41\n");
}

TEST_F(WorkerCheckpointsTest, WhyOneIsNotSavedIsToldUntilOneIs) {
  open();
  const std::string release = fifo("release");
  // The second cannot be restored: its path is too long.
  fake_.lease(key_of(0), script("cd \"$PESC_CHECKPOINT_DIR\"; n=$(printf '%0200d' 0)\n"
                                "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16; do\n"
                                "  mkdir $n; cd $n; done\n"
                                "echo checkpoint >> \"$PESC_EVENTS\"; cat " +
                                release +
                                "\ncd \"$PESC_CHECKPOINT_DIR\"; rm -r $n; echo 7 > state\n"
                                "echo checkpoint >> \"$PESC_EVENTS\"; cat " +
                                release));
  fake_.wait_until([&] { return !fake_.trouble[key_of(0)].empty(); });
  EXPECT_THAT(fake_.trouble[key_of(0)], testing::StartsWith("checkpoint not saved: "));
  EXPECT_THAT(fake_.trouble[key_of(0)], HasSubstr("too long to be restored"));
  EXPECT_TRUE(fake_.checkpoints.empty());
  write_file(release, "go\n");
  fake_.wait_until([&] { return fake_.trouble[key_of(0)].empty(); });
  EXPECT_EQ(fake_.checkpoints.size(), 1u);
  write_file(release, "go\n");
  fake_.wait_for_end(key_of(0));
}

// Its upload waits for ever; the attempt, and the worker, do not.
TEST_F(WorkerCheckpointsTest, ACancelledRanksSaveIsNotWaitedFor) {
  open();
  fake_.hold_uploads = true;
  fake_.lease(key_of(0), retried(script("head -c 9000000 /dev/urandom > "
                                        "\"$PESC_CHECKPOINT_DIR/field\"\n"
                                        "echo checkpoint >> \"$PESC_EVENTS\"; exec sleep 600")));
  fake_.wait_until([&] { return fake_.held_uploads.size() == 1; });
  fake_.stop(key_of(0), EndReason::cancelled);
  EXPECT_EQ(fake_.wait_for_end(key_of(0)).outcome.reason, EndReason::cancelled);
  loop_.wait(worker_->drain());
  fake_.hold_uploads = false;
  fake_.held_uploads[0]->fulfill();
  loop_.wait(worker_->shutdown());
  worker_.reset();
  EXPECT_EQ(fake_.uploaded, 1) << "the other pieces are not sent";
  EXPECT_TRUE(fake_.checkpoints.empty());
}

// A worker whose machine sleeps when a test says so: its clock goes on, its timers do not.
class WorkerSleepsTest : public WorkerCheckpointsTest {
 protected:
  static constexpr uint64_t kHour = 3'600'000;

  void open() {
    Options options;
    options.now_ms = [this] { return boot_ms() + slept_ms_; };
    WorkerTest::open(options);
  }
  uint64_t saved_ms(size_t number) {
    fake_.wait_until([&] {
      // The next rests in proportion to what the last took, which may be long here: its clock goes
      // faster meanwhile, by less than a timer may be late.
      if (number > 0) slept_ms_ += 500;
      return fake_.checkpoints.size() > number;
    });
    return fake_.checkpoints[number].saved_ms;
  }
  // The save that was answered is over for the worker too.
  void settle() {
    fake_.wait_until([this] {
      std::error_code error;  // what is deleted meanwhile: looked at again
      fs::recursive_directory_iterator it(state_.path() / "worker/attempts", error);
      for (; !error && it != fs::recursive_directory_iterator(); it.increment(error)) {
        if (it->path().filename() == "snapshot") return false;
      }
      return !error;
    });
    fake_.lease(key_of(99), script(""));  // of the same job, so it runs the same script
    fake_.wait_for_end(key_of(99));
  }
  std::atomic<int64_t> slept_ms_ = 0;
};

// One gate for each wait: a reader that comes before a gate's last writer has closed it reads its
// end.
TEST_F(WorkerSleepsTest, WhatIsSavedStandsForNoWorkOfThatTime) {
  open();
  const std::string sleep = fifo("sleep"), first = fifo("first"), second = fifo("second");
  const std::string checkpoint = "echo checkpoint >> \"$PESC_EVENTS\"; read x < ";
  fake_.lease(key_of(0), script("[ $PESC_RANK = 99 ] && exit 0\n"
                                "echo 'progress 0.5' >> \"$PESC_EVENTS\"; read x < " +
                                sleep + "\ncd \"$PESC_CHECKPOINT_DIR\"; echo 1 > state; " +
                                checkpoint + first + "\necho 2 > state; " + checkpoint + second));
  fake_.wait_until([&] { return fake_.has_progress(0.5); });
  slept_ms_ += 2 * kHour;
  write_file(sleep, "go\n");
  EXPECT_LT(saved_ms(0), kHour);
  settle();
  write_file(first, "go\n");
  EXPECT_GE(saved_ms(1), saved_ms(0));
  EXPECT_LT(saved_ms(1), kHour);
  write_file(second, "go\n");
  EXPECT_EQ(fake_.wait_for_end(key_of(0)).outcome.reason, EndReason::succeeded);
}

TEST_F(WorkerSleepsTest, WhatWasMarkedBeforeIsNotLessForIt) {
  open();
  const std::string work = fifo("work"), first = fifo("first"), second = fifo("second");
  fake_.lease(
      key_of(0),
      script("[ $PESC_RANK = 99 ] && exit 0\n"
             "cd \"$PESC_CHECKPOINT_DIR\"; echo 'progress 0.5' >> \"$PESC_EVENTS\"; read x < " +
             work + "\necho 1 > state; echo checkpoint >> \"$PESC_EVENTS\"; read x < " + first +
             "\necho 2 > state; echo checkpoint >> \"$PESC_EVENTS\"\n"
             "echo 'progress 0.6' >> \"$PESC_EVENTS\"; read x < " +
             second));
  fake_.wait_until([&] { return fake_.has_progress(0.5); });
  slept_ms_ += 1'000;  // no more than a timer may be late: it counts
  write_file(work, "go\n");
  EXPECT_GE(saved_ms(0), 1'000u);
  settle();
  write_file(first, "go\n");
  fake_.wait_until([&] { return fake_.has_progress(0.6); });
  slept_ms_ += 2 * kHour;  // the second one waits for its turn
  EXPECT_GE(saved_ms(1), saved_ms(0));
  EXPECT_LT(saved_ms(1), kHour);
  write_file(second, "go\n");
  EXPECT_EQ(fake_.wait_for_end(key_of(0)).outcome.reason, EndReason::succeeded);
}

TEST_F(WorkerCheckpointsTest, AnEmptyDirectoryIsNoCheckpoint) {
  open();
  fake_.lease(key_of(0), retried(script("exit 3")));
  fake_.wait_for_end(key_of(0));
  EXPECT_TRUE(fake_.checkpoints.empty());
}

TEST_F(WorkerCheckpointsTest, OneThatMakesNoSenseIsSaidToBeBad) {
  open();
  const std::string nonsense = "this is no manifest, for certain";
  fake_.add_blob(nonsense);
  fake_.lease(key_of(0, 2), script("true"), {.checkpoint = {4, blob_of(nonsense)}});
  const auto& end = fake_.wait_for_end(key_of(0, 2));
  EXPECT_EQ(end.outcome.reason, EndReason::bad_checkpoint);
  EXPECT_THAT(end.outcome.detail, HasSubstr("checkpoint 4 could not be restored"));
}

// As an ordinary user: all is one user's.
TEST_F(WorkerCheckpointsTest, ARootWorkerRestoresForTheRanksUser) {
  Options options;
  if (is_root()) {
    fs::permissions(state_.path(), fs::perms(0711));
    options.run_as = "nobody";
  }
  open(options);
  JobSpec spec =
      retried(script("id -un; cd \"$PESC_CHECKPOINT_DIR\"; stat -c %U state; cat state; "
                     "echo more >> state; ln /etc/passwd stolen 2>/dev/null; echo checkpoint >> "
                     "$PESC_EVENTS; exit 3"));
  fake_.lease(key_of(0, 2), spec, {.checkpoint = add_checkpoint("state", "41\n", 0600)});
  const auto& end = fake_.wait_for_end(key_of(0, 2));
  const std::string user = is_root() ? "nobody" : "";
  const std::string output = read_file(unpacked(end.output) / "output.txt");
  EXPECT_THAT(output, testing::StartsWith(user));
  EXPECT_THAT(output, HasSubstr("\n41\n"));
  ASSERT_EQ(fake_.checkpoints.size(), 1u);
  const CheckpointManifest manifest = manifest_of(fake_.checkpoints[0]);
  ASSERT_EQ(manifest.files.size(), 1u);
  EXPECT_EQ(fake_.blob(manifest.files[0].chunks[0].digest), "41\nmore\n");
}

TEST_F(WorkerCheckpointsTest, WhatACancelledRankHadWrittenComesBack) {
  open();
  fake_.lease(key_of(0), script("echo so far; echo part > \"$PESC_OUTPUT_DIR/part\"; "
                                "echo 'progress 0.5' >> \"$PESC_EVENTS\"; sleep 600 & wait"));
  fake_.wait_until([&] { return fake_.has_progress(0.5); });
  fake_.stop(key_of(0), EndReason::cancelled);
  const auto& end = fake_.wait_for_end(key_of(0));
  EXPECT_EQ(end.outcome.reason, EndReason::cancelled);
  EXPECT_EQ(read_file(unpacked(end.output) / "part"), "part\n");
}

TEST_F(WorkerCheckpointsTest, ADamagedInputIsFetchedAgainAndThenNamed) {
  open();
  JobSpec spec = script("true");
  spec.files.push_back(input("data.csv", "1,2,3", FileKind::file));
  fake_.damage_blob(sha256("1,2,3"));
  fake_.lease(key_of(0), spec);
  const auto& end = fake_.wait_for_end(key_of(0));
  EXPECT_EQ(end.outcome.reason, EndReason::inputs_unavailable);
  EXPECT_THAT(end.outcome.detail, HasSubstr("data.csv"));
  EXPECT_GT(fake_.reads[sha256("1,2,3")], 1);
}

class WorkerGangsTest : public WorkerCheckpointsTest {
 protected:
  JobSpec gang(const std::string& text) {
    JobSpec spec = script(text);
    spec.parallel = true;
    spec.repetitions = 2;
    return spec;
  }
  void hold(const JobSpec& spec) {
    fake_.lease(key_of(0), spec, {.hold = true, .local_rank = 0, .local_world_size = 2});
    fake_.lease(key_of(1), spec, {.hold = true, .local_rank = 1, .local_world_size = 2});
    fake_.wait_until([&] { return fake_.ready.size() == 2; });
  }
};

TEST_F(WorkerGangsTest, AreStartedTogetherWithTheirEnvironment) {
  open();
  hold(
      gang("echo $RANK $WORLD_SIZE $LOCAL_RANK $LOCAL_WORLD_SIZE $MASTER_ADDR $MASTER_PORT; "
           "echo $PESC_MASTER_PORT \"$@\""));
  const uint16_t port = fake_.ready.at(key_of(0));
  EXPECT_TRUE(port_is_free(port));
  EXPECT_EQ(fake_.ready.at(key_of(1)), 0);
  for (uint32_t rank : {0u, 1u}) fake_.start(key_of(rank), "127.0.0.1", port);
  for (uint32_t rank : {0u, 1u}) {
    const auto& end = fake_.wait_for_end(key_of(rank));
    ASSERT_EQ(end.outcome.reason, EndReason::succeeded) << end.outcome.detail;
    const std::string output = read_file(unpacked(end.output) / "output.txt");
    const std::string number = std::to_string(rank), text = std::to_string(port);
    EXPECT_THAT(output, testing::StartsWith(number + " 2 " + number + " 2 127.0.0.1 " + text));
    EXPECT_THAT(output, HasSubstr("--master_addr 127.0.0.1 --master_port " + text));
  }
}

TEST_F(WorkerGangsTest, APortThatIsTakenBeforeTheStartCostsNoStart) {
  open();
  hold(gang("echo started"));
  const uint16_t port = fake_.ready.at(key_of(0));
  common::UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(port);
  ASSERT_EQ(::bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  ASSERT_EQ(::listen(fd.get(), 1), 0);
  fake_.start(key_of(0), "127.0.0.1", port);
  const auto& end = fake_.wait_for_end(key_of(0));
  EXPECT_EQ(end.outcome.reason, EndReason::port_taken);
  EXPECT_THAT(end.outcome.detail, HasSubstr(std::to_string(port)));
  EXPECT_TRUE(end.output.empty());
}

TEST_F(WorkerGangsTest, APortThatIsTakenAfterTheStartIsToldFromItsWords) {
  open();
  hold(gang("echo 'OSError: [Errno 98] Address already in use' >&2; exit 1"));
  const uint16_t port = fake_.ready.at(key_of(0));
  for (uint32_t rank : {0u, 1u}) fake_.start(key_of(rank), "127.0.0.1", port);
  EXPECT_EQ(fake_.wait_for_end(key_of(0)).outcome.reason, EndReason::port_taken);
  EXPECT_EQ(fake_.wait_for_end(key_of(1)).outcome.reason, EndReason::exit_code);
}

}  // namespace
}  // namespace pesc::worker
