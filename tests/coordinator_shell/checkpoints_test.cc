// Checkpoints, gangs and drains as a worker and a user meet them.
#include <signal.h>
#include <sys/resource.h>

#include "harness.h"

namespace pesc::coordinator::testing {
namespace {

constexpr JobId kJob{0x0ab00000'00000001};
constexpr JobId kOther{0x0ab00001'00000002};

class Checkpoints : public ::testing::Test, public Lab {
 protected:
  void SetUp() override {
    options.core.backoff_base_ms = 1;
    options.collect_pause_ms = 1;
    ASSERT_EQ(open(), absl::OkStatus());
  }
  static JobSpec spec_with_retries() {
    JobSpec spec = simple_spec(1);
    spec.retries = 3;
    return spec;
  }
  // The next collections take it; what else they do, they have done by then.
  void wait_until_collected(const std::string& bytes) {
    FakeUser reader = user();
    while (reader.can_read(bytes)) loop.wait(loop.timer().afterDelay(1 * kj::MILLISECONDS));
  }
};

TEST_F(Checkpoints, TheNextAttemptBeginsFromTheLastOneAfterARestartToo) {
  FakeUser(user()).submit(kJob, spec_with_retries()).IgnoreError();
  {
    FakeWorker worker = this->worker();
    ASSERT_EQ(worker.attach(), absl::OkStatus());
    const Lease first = worker.next_lease();
    EXPECT_EQ(first.checkpoint, CheckpointRef{});
    EXPECT_EQ(worker.save(first.key, "manifest 1", {"a", "b"}).value(), 1u);
    EXPECT_EQ(worker.save(first.key, "manifest 2", {"a", "c"}).value(), 2u);
    EXPECT_EQ(worker.offer(first.key, "manifest 2", {"a", "c"}).value(), 2u) << "sent again";
    ASSERT_EQ(worker.report(first.key, FakeWorker::failure(1, "bad luck"), ""), absl::OkStatus());
    const CheckpointRef newest{2, {sha256("manifest 2"), 10}};
    EXPECT_EQ(worker.next_lease().checkpoint, newest);
  }
  ASSERT_EQ(user().put("garbage"), absl::OkStatus());
  close();
  ASSERT_EQ(open(), absl::OkStatus());
  wait_until_collected("garbage");
  for (const char* blob : {"manifest 1", "manifest 2", "a", "b", "c"}) {
    EXPECT_TRUE(user().can_read(blob)) << blob;
  }
  auto status = user().status(kJob);
  const auto tally = (*status)->getStatus().getTally();
  EXPECT_EQ(tally.getCheckpoints(), 2u);
  ASSERT_EQ(tally.getEnded().size(), 1u);
  EXPECT_EQ(tally.getEnded()[0].getReason(), uint8_t(EndReason::exit_code));
  EXPECT_EQ(tally.getEnded()[0].getAttempts(), 1u);
}

TEST_F(Checkpoints, OneWhoseBlobsAreNotHereIsRefused) {
  FakeUser(user()).submit(kJob, spec_with_retries()).IgnoreError();
  FakeWorker worker = this->worker();
  EXPECT_EQ(worker.offer({kJob, 0, 1}, "m", {}).status().code(),
            absl::StatusCode::kFailedPrecondition)
      << "not attached";
  ASSERT_EQ(worker.attach(), absl::OkStatus());
  const AttemptKey key = worker.next_lease().key;
  ASSERT_EQ(user().put("manifest"), absl::OkStatus());
  const absl::Status status = worker.offer(key, "manifest", {"chunk"}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_NE(status.message().find(to_hex(sha256("chunk"))), absl::string_view::npos) << status;
  EXPECT_EQ(worker.offer(key, "", {}).status().code(), absl::StatusCode::kFailedPrecondition);
  ASSERT_EQ(user().put("chunk"), absl::OkStatus());
  EXPECT_EQ(worker.offer(key, "manifest", {"chunk"}).value(), 1u);
}

TEST_F(Checkpoints, OneThatNobodyWantsGoes) {
  FakeUser(user()).submit(kJob, spec_with_retries()).IgnoreError();
  FakeWorker worker = this->worker();
  ASSERT_EQ(worker.attach(), absl::OkStatus());
  const AttemptKey key = worker.next_lease().key;
  EXPECT_EQ(worker.save({kOther, 7, 1}, "of no job", {"its chunk"}).value(), 0u);
  EXPECT_EQ(worker.save(key, "wanted", {"chunk"}).value(), 1u);
  wait_until_collected("its chunk");
  wait_until_collected("of no job");
  EXPECT_TRUE(user().can_read("wanted"));
}

// The session goes on, and holds nothing back.
TEST_F(Checkpoints, DroppedOnesAreCollectedButForWhatOthersShare) {
  FakeUser ann = user();
  ASSERT_EQ(ann.submit(kJob, spec_with_retries()), absl::OkStatus());
  ASSERT_EQ(ann.submit(kOther, simple_spec(1)), absl::OkStatus());
  FakeWorker worker = this->worker();
  ASSERT_EQ(worker.attach(), absl::OkStatus());
  const AttemptKey key = worker.next_lease().key;
  const AttemptKey other = worker.next_lease().key;
  ASSERT_EQ(worker.report(other, FakeWorker::success("an output"), "an output"), absl::OkStatus());
  for (uint32_t i = 1; i <= 5; ++i) {
    const std::string number = std::to_string(i);
    // The first ones name what is another job's output, or the last ones' too.
    const std::string more = i <= 2 ? "an output" : "other";
    EXPECT_EQ(worker.save(key, "manifest " + number, {"shared", "own " + number, more}).value(), i);
  }
  wait_until_collected("own 1");
  wait_until_collected("own 2");
  wait_until_collected("manifest 2");
  for (const char* blob : {"shared", "own 3", "own 4", "own 5", "manifest 3", "an output"}) {
    EXPECT_TRUE(ann.can_read(blob)) << blob;
  }
  ASSERT_EQ(worker.report(key, FakeWorker::success("out"), "out"), absl::OkStatus());
  for (const char* blob : {"shared", "own 3", "own 5", "manifest 5"}) wait_until_collected(blob);
  EXPECT_TRUE(ann.can_read("out"));
  EXPECT_TRUE(ann.can_read("an output"));
}

TEST_F(Checkpoints, AJobThatIsRemovedTakesThemAlong) {
  FakeUser ann = user();
  ASSERT_EQ(ann.submit(kJob, spec_with_retries()), absl::OkStatus());
  FakeWorker worker = this->worker();
  ASSERT_EQ(worker.attach(), absl::OkStatus());
  const AttemptKey key = worker.next_lease().key;
  EXPECT_EQ(worker.save(key, "manifest", {"chunk"}).value(), 1u);
  ASSERT_EQ(ann.cancel(kJob), absl::OkStatus());
  AttemptOutcome cancelled = FakeWorker::failure(0, "");
  cancelled.reason = EndReason::cancelled;
  ASSERT_EQ(worker.report(key, cancelled, ""), absl::OkStatus());
  ASSERT_EQ(ann.remove(kJob), absl::OkStatus());
  wait_until_collected("chunk");
  wait_until_collected("manifest");
}

// ---- a full disk --------------------------------------------------------------------------------

class FullDisk : public Checkpoints {
 protected:
  // While it lives writes fail as on a full disk, but for those of the small files of blobs: not
  // one page of the journal fits.
  class Full {
   public:
    Full() {
      signal(SIGXFSZ, SIG_IGN);
      EXPECT_EQ(getrlimit(RLIMIT_FSIZE, &before_), 0);
      rlimit tight = before_;
      tight.rlim_cur = 4096;
      EXPECT_EQ(setrlimit(RLIMIT_FSIZE, &tight), 0);
    }
    ~Full() { EXPECT_EQ(setrlimit(RLIMIT_FSIZE, &before_), 0); }

   private:
    rlimit before_{};
  };
  // It goes on by itself; a user who tries again sees when.
  void wait_until_it_goes_on() {
    FakeUser ann = user();
    while (ann.submit(kOther, simple_spec(1)).code() == absl::StatusCode::kResourceExhausted) {
      loop.wait(loop.timer().afterDelay(10 * kj::MILLISECONDS));
    }
  }
};

TEST_F(FullDisk, NoAcknowledgedCheckpointIsLost) {
  FakeUser ann = user();
  ASSERT_EQ(ann.submit(kJob, spec_with_retries()), absl::OkStatus());
  AttemptKey key;
  {
    FakeWorker worker = this->worker();
    ASSERT_EQ(worker.attach(), absl::OkStatus());
    key = worker.next_lease().key;
    ASSERT_EQ(worker.save(key, "manifest 1", {"chunk 1"}).value(), 1u);
    ASSERT_EQ(ann.put("manifest 2"), absl::OkStatus());
    const Full full;
    const absl::Status refused = worker.offer(key, "manifest 2", {"chunk 1"}).status();
    EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted) << refused;
    EXPECT_NE(refused.message().find("disk is full"), absl::string_view::npos) << refused;
    EXPECT_TRUE(worker.inbox->gone);
  }
  wait_until_it_goes_on();
  FakeWorker again = this->worker();
  again.inbox->holding = {key};
  ASSERT_EQ(again.attach(), absl::OkStatus());
  EXPECT_EQ(again.offer(key, "manifest 1", {"chunk 1"}).value(), 1u) << "it is known";
  EXPECT_EQ(again.offer(key, "manifest 2", {"chunk 1"}).value(), 2u);
}

TEST_F(FullDisk, GarbageOfAFailedCommitIsCollectedWithoutARestart) {
  FakeUser ann = user();
  ASSERT_EQ(ann.submit(kJob, spec_with_retries()), absl::OkStatus());
  {
    FakeWorker worker = this->worker();
    ASSERT_EQ(worker.attach(), absl::OkStatus());
    const AttemptKey key = worker.next_lease().key;
    const Full full;
    EXPECT_FALSE(worker.report(key, FakeWorker::success("never again"), "never again").ok());
    EXPECT_TRUE(ann.can_read("never again")) << "it came before the commit that failed";
  }
  wait_until_it_goes_on();
  wait_until_collected("never again");
}

// ---- drains and gangs ---------------------------------------------------------------------------

TEST_F(Checkpoints, ADrainIsDurableAndForAdministrators) {
  FakeUser(user()).submit(kJob, spec_with_retries()).IgnoreError();
  AttemptKey key;
  {
    FakeUser root = user("root", rpc::Role::admin);
    FakeWorker worker = this->worker();
    ASSERT_EQ(worker.attach(), absl::OkStatus());
    key = worker.next_lease().key;
    EXPECT_EQ(root.worker().first, "attached");
    EXPECT_EQ(user().drain("fake-7").status().code(), absl::StatusCode::kPermissionDenied);
    EXPECT_EQ(root.drain("nobody").status().code(), absl::StatusCode::kNotFound);
    EXPECT_EQ(root.drain("fake-7").value(), 1u);
    while (worker.inbox->stops.empty()) worker.news();
    EXPECT_EQ(worker.inbox->stops.front(), (protocol::Stop{key, EndReason::vacated}));
    EXPECT_EQ(root.worker().first, "draining");
    EXPECT_NE(root.worker().second, "");
  }
  close();
  ASSERT_EQ(open(), absl::OkStatus());
  FakeWorker worker = this->worker();
  worker.inbox->holding = {key};
  ASSERT_EQ(worker.attach(), absl::OkStatus());
  FakeUser admin = user("root", rpc::Role::admin);
  EXPECT_EQ(admin.worker().first, "draining");
  AttemptOutcome vacated = FakeWorker::failure(-1, "");
  vacated.reason = EndReason::vacated;
  ASSERT_EQ(worker.report(key, vacated, ""), absl::OkStatus());
  EXPECT_TRUE(worker.inbox->leases.empty());
  EXPECT_EQ(admin.drain("fake-7", false).value(), 0u);
  ASSERT_EQ(worker.ready({}, 0), absl::OkStatus()) << "a heartbeat: it does not go after all";
  EXPECT_EQ(worker.next_lease().key.attempt, 2u);
  EXPECT_EQ(admin.worker().first, "attached");
}

TEST_F(Checkpoints, AGangIsHeldUntilAllAreReadyAndToldWhereRank0Is) {
  JobSpec spec = simple_spec(2);
  spec.parallel = true;
  ASSERT_EQ(user().submit(kJob, spec), absl::OkStatus());
  FakeWorker a = this->worker(7, 1), b = this->worker(8, 1);
  ASSERT_EQ(a.attach(), absl::OkStatus());
  ASSERT_EQ(b.attach(), absl::OkStatus());
  const Lease one = a.next_lease(), two = b.next_lease();
  EXPECT_TRUE(one.hold);
  EXPECT_TRUE(two.hold);
  EXPECT_EQ(one.local_world_size, 1u);
  ASSERT_EQ(a.ready({one.key}, 20'001), absl::OkStatus());
  EXPECT_TRUE(a.inbox->starts.empty()) << "the other is not ready";
  ASSERT_EQ(b.ready({two.key}, 20'001), absl::OkStatus());
  while (a.inbox->starts.empty()) a.news();
  while (b.inbox->starts.empty()) b.news();
  EXPECT_EQ(a.inbox->starts[0].master_port, 20'001);
  EXPECT_EQ(b.inbox->starts[0].master_addr, "192.0.2.7")
      << "a worker that names no address has the one it came from";
}

}  // namespace
}  // namespace pesc::coordinator::testing
