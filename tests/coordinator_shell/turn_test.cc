// The turn with a host that does nothing by itself: what leaves, and when.
#include "runtime/coordinator/shell/turn.h"

#include "harness.h"

namespace pesc::coordinator::testing {
namespace {

constexpr JobId kJob{0x0ab00000'00000001};

class Host final : public TurnHost {
 public:
  TimeMs now() override { return time; }
  int64_t wall_ms() override { return time; }
  void schedule() override { ++scheduled; }
  void commit(const Batch& batch) override { committing = &batch; }
  void restore(uint64_t delay_ms) override { restore_delays.push_back(delay_ms); }
  void perform(Action action) override { performed.push_back(std::move(action)); }
  void released(const Batch&) override {}
  void refuse(uint64_t request, const absl::Status& status) override {
    refused.emplace_back(request, status.code());
  }
  void state_lost(const absl::Status&) override { ++lost; }
  void arm(TimeMs) override {}

  std::vector<uint64_t> answered() const {
    std::vector<uint64_t> requests;
    for (const Action& action : performed) {
      if (const auto* answer = std::get_if<Answer>(&action)) requests.push_back(answer->request);
    }
    return requests;
  }

  TimeMs time = 1'000'000;
  int scheduled = 0, lost = 0;
  const Batch* committing = nullptr;
  std::vector<uint64_t> restore_delays;
  std::vector<Action> performed;
  std::vector<std::pair<uint64_t, absl::StatusCode>> refused;
};

class TurnTest : public ::testing::Test {
 protected:
  TurnTest() : turn_(host_, std::make_unique<Core>(CoreConfig{})) {
    turn_.core().finish_restore(host_.time);
    turn_.run();
    host_.performed.clear();
  }
  void submit(uint64_t request, uint64_t job) {
    turn_.post(JobSubmitted{request, JobId{kJob.value + job}, "ann",
                            std::make_shared<const JobSpec>(simple_spec(1)), 1});
  }
  Host host_;
  Turn turn_;
};

// While a slow disk commits, events wait; and the one that tells of a worker may stand last.
TEST_F(TurnTest, WhoWasHeardDuringACommitIsNotGivenUpAfterIt) {
  const auto info = [](uint64_t n) {
    WorkerInfo info;
    info.id = WorkerId{n};
    info.name = info.machine = "pc" + std::to_string(n);
    info.cpus_milli = 1000;
    return info;
  };
  const auto commit = [this] {
    turn_.run();
    if (std::exchange(host_.committing, nullptr) != nullptr) turn_.committed(absl::OkStatus());
  };
  for (uint64_t n : {1, 2}) turn_.post(WorkerAttached{n, n, info(n), {}, 1});
  commit();
  submit(3, 1);
  commit();
  WorkerReported idle, busy;
  for (const Action& action : host_.performed) {
    const auto* update = std::get_if<SendUpdate>(&action);
    if (update == nullptr || update->leases.empty()) continue;
    busy.session = update->session;
    busy.holding = {update->leases[0].key};
    busy.last_update = update->number;
  }
  ASSERT_FALSE(busy.holding.empty());
  idle.session = 3 - busy.session;
  busy.request = 4;
  idle.request = 5;
  turn_.post(busy);
  commit();
  submit(6, 2);
  turn_.run();  // this commit takes until just after the lease has ended
  ASSERT_NE(host_.committing, nullptr);
  turn_.post(idle);
  turn_.post(busy);
  host_.time += static_cast<TimeMs>(CoreConfig{}.lease_ms) + 10;
  host_.committing = nullptr;
  turn_.committed(absl::OkStatus());
  turn_.run();
  if (host_.committing == nullptr) return;  // there is nothing to record
  for (const Record& record : host_.committing->records) {
    EXPECT_FALSE(std::holds_alternative<AttemptEnded>(record));
  }
}

// Nobody is told anything before a turn's commit, so however much comes at once, none is large.
TEST_F(TurnTest, AFloodBecomesManyTurns) {
  turn_.post(
      JobSubmitted{1, kJob, "ann", std::make_shared<const JobSpec>(simple_spec(200'000)), 1});
  for (uint64_t n = 1; n <= 3'000; ++n) {
    WorkerInfo info;
    info.id = WorkerId{n};
    info.name = info.machine = "pc" + std::to_string(n);
    info.cpus_milli = 64'000;
    turn_.post(WorkerAttached{n, n, info, {}, 1});
  }
  std::map<uint64_t, size_t> messages;
  size_t turns = 0, leases = 0;
  for (size_t before = 1; leases != before; ++turns) {
    before = leases;
    turn_.run();
    if (host_.committing == nullptr) break;
    EXPECT_LT(host_.committing->records.size(), 20'000u);
    host_.committing = nullptr;
    turn_.committed(absl::OkStatus());
    for (const Action& action : std::exchange(host_.performed, {})) {
      const auto* update = std::get_if<SendUpdate>(&action);
      if (update == nullptr) continue;
      ++messages[update->session];
      leases += update->leases.size();
    }
  }
  EXPECT_EQ(leases, 3'000u * 64u);
  EXPECT_GT(turns, 20u);
  size_t sent = 0;
  for (const auto& [session, count] : messages) sent += count;
  EXPECT_LT(sent, 2u * 3'000u) << "a message tells of all that a worker is given";
}

TEST_F(TurnTest, NothingLeavesBeforeItsCommit) {
  submit(1, 1);
  turn_.run();
  ASSERT_NE(host_.committing, nullptr);
  EXPECT_TRUE(host_.performed.empty());
  bool settled = false;
  turn_.when_settled([&](const absl::Status& status) { settled = status.ok(); });
  EXPECT_FALSE(settled) << "views show what is not durable yet";
  turn_.committed(absl::OkStatus());
  EXPECT_EQ(host_.answered(), std::vector<uint64_t>{1});
  EXPECT_TRUE(settled);
}

TEST_F(TurnTest, EventsThatComeDuringACommitShareTheNext) {
  submit(1, 1);
  turn_.run();
  submit(2, 2);
  submit(3, 3);
  turn_.run();
  int drained = 0;
  turn_.when_drained([&](const absl::Status& status) { drained += status.ok(); });
  turn_.committed(absl::OkStatus());
  EXPECT_EQ(host_.answered(), std::vector<uint64_t>{1});
  EXPECT_EQ(drained, 0);
  turn_.run();
  EXPECT_GE(host_.committing->records.size(), 2u);
  turn_.committed(absl::OkStatus());
  EXPECT_EQ(host_.answered(), (std::vector<uint64_t>{1, 2, 3}));
  EXPECT_EQ(drained, 1);
}

TEST_F(TurnTest, AFailedCommitRefusesAllAndTheStateIsMadeAnew) {
  submit(1, 1);
  turn_.run();
  submit(2, 2);
  std::vector<absl::Status> views;
  turn_.when_settled([&](const absl::Status& status) { views.push_back(status); });
  turn_.committed(absl::ResourceExhaustedError("full"));
  EXPECT_TRUE(host_.performed.empty());
  const auto full = absl::StatusCode::kResourceExhausted;
  EXPECT_EQ(host_.refused,
            (std::vector<std::pair<uint64_t, absl::StatusCode>>{{1, full}, {2, full}}));
  ASSERT_EQ(views.size(), 1u);
  EXPECT_EQ(views[0].code(), full);
  EXPECT_EQ(host_.lost, 1);
  submit(3, 3);
  EXPECT_EQ(host_.refused.back().first, 3u);
  turn_.restored(absl::ResourceExhaustedError("still full"));
  turn_.restored(absl::ResourceExhaustedError("still full"));
  EXPECT_EQ(host_.restore_delays, (std::vector<uint64_t>{1'000, 2'000, 4'000}));
  turn_.restored(std::make_unique<Core>(CoreConfig{}));
  EXPECT_EQ(turn_.health(), absl::OkStatus());
  EXPECT_TRUE(turn_.core().jobs().empty()) << "the job whose record failed is not there";
  submit(4, 1);
  turn_.run();
  turn_.committed(absl::OkStatus());
  EXPECT_EQ(host_.answered(), std::vector<uint64_t>{4});
}

TEST_F(TurnTest, BlobsAreSyncedOnlyForRecordsThatNameSome) {
  submit(1, 1);
  turn_.run();
  EXPECT_FALSE(host_.committing->sync_blobs);
  turn_.committed(absl::OkStatus());
  JobSpec spec = simple_spec(1);
  spec.files = {{"f", FileKind::file, {sha256("x"), 1}, 0644}};
  turn_.post(JobSubmitted{2, JobId{5}, "ann", std::make_shared<const JobSpec>(spec), 1});
  turn_.run();
  EXPECT_TRUE(host_.committing->sync_blobs);
}

}  // namespace
}  // namespace pesc::coordinator::testing
