// Who is sent to whom for a large blob, as workers see it.
#include <memory>
#include <set>

#include "tests/coordinator_shell/harness.h"

namespace pesc::coordinator::testing {
namespace {

class PassingTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_EQ(lab_.open(), absl::OkStatus());
    ASSERT_EQ(lab_.user().put(bytes_), absl::OkStatus());
  }

  FakeWorker& attach(uint64_t id, const std::string& peer = "192.0.2.7", bool passes_on = true) {
    workers_.push_back(
        std::make_unique<FakeWorker>(lab_.loop, lab_.coordinator->worker_session(peer), id));
    workers_.back()->passes_on = passes_on;
    EXPECT_EQ(workers_.back()->attach(), absl::OkStatus());
    return *workers_.back();
  }

  using Answer = capnp::Response<protocol::WorkerSession::FindHolderResults>;
  kj::Promise<Answer> ask(FakeWorker& worker, const std::set<uint64_t>& without = {},
                          uint64_t failed = 0) {
    auto request = worker.session().findHolderRequest();
    protocol::encode(request.initBlob(), blob_);
    auto list = request.initWithout(static_cast<unsigned>(without.size()));
    unsigned i = 0;
    for (const uint64_t id : without) list.set(i++, id);
    request.setFailed(failed);
    return request.send();
  }
  // The id of the worker that it is sent to; 0: the coordinator.
  uint64_t holder_for(FakeWorker& worker, const std::set<uint64_t>& without = {},
                      uint64_t failed = 0) {
    return lab_.loop.wait(ask(worker, without, failed)).getHolder().getWorker();
  }
  void fetched(FakeWorker& worker, bool here) {
    auto request = worker.session().fetchedRequest();
    request.setDigest(protocol::as_data(blob_.digest));
    request.setHere(here);
    EXPECT_EQ(status_of(lab_.loop, request), absl::OkStatus());
  }

  Lab lab_;
  const std::string bytes_ = "bytes that many need";
  const BlobRef blob_{sha256(bytes_), bytes_.size()};
  std::vector<std::unique_ptr<FakeWorker>> workers_;
};

TEST_F(PassingTest, TheSecondIsSentToTheFirstWithATicketThatBothAreTold) {
  FakeWorker& one = attach(1);
  FakeWorker& two = attach(2, "192.0.2.8");
  EXPECT_EQ(holder_for(one), 0u);
  auto answer = lab_.loop.wait(ask(two));
  const auto holder = answer.getHolder();
  EXPECT_EQ(holder.getWorker(), 1u);
  EXPECT_EQ(holder.getAddress(), "192.0.2.7") << "where it connects from";
  EXPECT_EQ(holder.getPort(), 4711);
  EXPECT_EQ(holder.getCertificate(), "its certificate");
  ASSERT_EQ(one.inbox->tickets.size(), 1u);
  EXPECT_EQ(protocol::as_view(holder.getTicket()), one.inbox->tickets[0]);
  EXPECT_EQ(one.inbox->tickets[0].size(), 32u);
  EXPECT_EQ(holder_for(attach(3, "192.0.2.9")), 1u);
  EXPECT_NE(one.inbox->tickets[1], one.inbox->tickets[0]) << "each has one of its own";
}

TEST_F(PassingTest, WhoDoesNotPassOnIsNotNamedAndMayStillBeSentToOthers) {
  FakeWorker& one = attach(1, "192.0.2.7", false);
  FakeWorker& two = attach(2);
  EXPECT_EQ(holder_for(one), 0u);
  EXPECT_EQ(holder_for(two), 0u);
  EXPECT_EQ(holder_for(one), 2u);
}

TEST_F(PassingTest, ALoopbackAddressIsForTheSameMachineOnly) {
  FakeWorker& local = attach(1, "127.0.0.1");
  EXPECT_EQ(holder_for(local), 0u);
  EXPECT_EQ(holder_for(attach(2, "192.0.2.7")), 0u);
  EXPECT_EQ(holder_for(attach(3, "127.0.0.1")), 1u);
}

TEST_F(PassingTest, OneThatHasLostTheBlobIsNotAskedAgain) {
  FakeWorker& one = attach(1);
  EXPECT_EQ(holder_for(one), 0u);
  fetched(one, true);
  one.inbox->port = 0;
  FakeWorker& two = attach(2);
  EXPECT_EQ(holder_for(two), 0u);
  EXPECT_EQ(one.inbox->tickets.size(), 1u);
  EXPECT_EQ(holder_for(attach(3)), 2u);
  EXPECT_EQ(one.inbox->tickets.size(), 1u);
}

TEST_F(PassingTest, OneThatIsTooBusyIsAskedAgainByTheNext) {
  FakeWorker& one = attach(1);
  EXPECT_EQ(holder_for(one), 0u);
  fetched(one, true);
  one.inbox->cannot_pass_on = absl::ResourceExhaustedError("too many tickets");
  FakeWorker& two = attach(2, "192.0.2.7", false);
  EXPECT_EQ(holder_for(two), 0u);
  EXPECT_EQ(one.inbox->tickets.size(), 1u) << "not twice for the same";
  one.inbox->cannot_pass_on = absl::OkStatus();
  EXPECT_EQ(holder_for(two), 1u);
  one.inbox->cannot_pass_on = absl::FailedPreconditionError("no such call");
  EXPECT_EQ(holder_for(two), 0u);
  one.inbox->cannot_pass_on = absl::OkStatus();
  EXPECT_EQ(holder_for(two), 0u) << "what cannot be done is not asked for again";
}

TEST_F(PassingTest, WithoutACertificateNobodyIsSentToAnotherMachine) {
  FakeWorker& one = attach(1);
  EXPECT_EQ(holder_for(one), 0u);
  one.inbox->certificate = "";
  EXPECT_EQ(holder_for(attach(2)), 0u);
  EXPECT_EQ(one.inbox->tickets.size(), 1u);
}

TEST_F(PassingTest, WhoWantsNoneComplainsAndForgivesNobody) {
  EXPECT_EQ(holder_for(attach(1)), 0u);
  const std::set<uint64_t> others{2, 3, 4, 5};
  for (uint64_t id = 2; id <= 4; ++id) {
    FakeWorker& worker = attach(id);
    EXPECT_EQ(holder_for(worker, others), 1u);
    EXPECT_EQ(holder_for(worker, {0}, 1), 0u);
    fetched(worker, true);  // from the coordinator
  }
  EXPECT_EQ(workers_[0]->inbox->tickets.size(), 3u);
  EXPECT_EQ(holder_for(attach(5), others), 0u);
}

TEST_F(PassingTest, ThoseToDoWithoutAreNotNamed) {
  FakeWorker& one = attach(1);
  FakeWorker& two = attach(2);
  FakeWorker& three = attach(3);
  EXPECT_EQ(holder_for(one), 0u);
  EXPECT_EQ(holder_for(two), 1u);
  EXPECT_EQ(holder_for(three, {1}), 2u);
  EXPECT_EQ(holder_for(three, {1, 2}), 0u);
}

TEST_F(PassingTest, OneThatThreeComplainOfIsNotNamedAnyMore) {
  EXPECT_EQ(holder_for(attach(1)), 0u);
  for (uint64_t id = 2; id <= 4; ++id) {
    FakeWorker& worker = attach(id);
    EXPECT_EQ(holder_for(worker, {2, 3, 4}), 1u);
    EXPECT_EQ(holder_for(worker, {2, 3, 4}, 1), 0u);
  }
  EXPECT_EQ(holder_for(attach(5), {2, 3, 4}), 0u);
}

TEST_F(PassingTest, WhoServesSomebodyIsForgivenWhatWasSaidBefore) {
  EXPECT_EQ(holder_for(attach(1)), 0u);
  const std::set<uint64_t> others{2, 3, 4, 5};
  for (uint64_t id = 2; id <= 3; ++id) {
    FakeWorker& worker = attach(id);
    EXPECT_EQ(holder_for(worker, others), 1u);
    EXPECT_EQ(holder_for(worker, others, 1), 0u);
  }
  FakeWorker& content = attach(4);
  EXPECT_EQ(holder_for(content, others), 1u);
  fetched(content, true);
  FakeWorker& last = attach(5);
  EXPECT_EQ(holder_for(last, others), 1u);
  EXPECT_EQ(holder_for(last, others, 1), 0u);
  EXPECT_EQ(holder_for(attach(6), others), 1u);
}

TEST_F(PassingTest, NobodyIsAskedForABlobThatTheCoordinatorLacks) {
  FakeWorker& one = attach(1);
  auto request = one.session().findHolderRequest();
  protocol::encode(request.initBlob(), BlobRef{sha256("unknown"), 7});
  EXPECT_TRUE(absl::IsNotFound(status_of(lab_.loop, request)));
  FakeWorker stranger(lab_.loop, lab_.coordinator->worker_session("192.0.2.7"), 9);
  auto early = stranger.session().findHolderRequest();
  protocol::encode(early.initBlob(), blob_);
  EXPECT_TRUE(absl::IsFailedPrecondition(status_of(lab_.loop, early))) << "before it attaches";
}

}  // namespace
}  // namespace pesc::coordinator::testing
