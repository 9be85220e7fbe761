// Users and workers of a coordinator in this process.
#include "harness.h"

namespace pesc::coordinator::testing {
namespace {

constexpr JobId kJob{0x0ab00000'00000001};
constexpr JobId kOther{0x0ab00001'00000002};

class Sessions : public ::testing::Test, public Lab {
 protected:
  void SetUp() override { ASSERT_EQ(open(), absl::OkStatus()); }

  bool can_read(const std::string& bytes) {
    auto read = user().blobs().readRequest();
    read.setDigest(protocol::as_data(sha256(bytes)));
    read.setMaxBytes(100);
    return status_of(loop, read).ok();
  }
};

TEST_F(Sessions, AJobFromItsSubmissionToItsRemoval) {
  FakeUser ann = user();
  ASSERT_EQ(ann.put("input"), absl::OkStatus());
  JobSpec spec = simple_spec(3);
  spec.files = {{"data.txt", FileKind::file, {sha256("input"), 5}, 0644}};
  ASSERT_EQ(ann.submit(kJob, spec), absl::OkStatus());

  FakeWorker worker = this->worker();
  ASSERT_EQ(worker.attach(), absl::OkStatus());
  const Lease first = worker.next_lease();
  ASSERT_TRUE(first.spec.has_value());
  EXPECT_EQ(*first.spec, spec);
  EXPECT_EQ(first.key, (AttemptKey{kJob, 0, 1}));
  ASSERT_EQ(worker.report(first.key, FakeWorker::success("out 0"), "out 0"), absl::OkStatus());
  EXPECT_TRUE(worker.inbox->holding.empty() || worker.inbox->holding.front() != first.key);
  for (int i = 1; i < 3; ++i) {
    const Lease lease = worker.next_lease();
    EXPECT_FALSE(lease.spec.has_value()) << "the specification is sent once a session";
    const std::string output = "out " + std::to_string(lease.key.rank);
    ASSERT_EQ(worker.report(lease.key, FakeWorker::success(output), output), absl::OkStatus());
  }

  EXPECT_EQ(ann.follow_to_the_end(kJob), (std::vector<uint32_t>{0, 1, 2}));
  auto ranks = ann.ranks(kJob, 0, 10);
  ASSERT_TRUE(ranks.ok());
  ASSERT_EQ((*ranks)->getRanks().size(), 3u);
  const auto rank = (*ranks)->getRanks()[1];
  EXPECT_EQ(rank.getState(), uint8_t(RankState::succeeded));
  EXPECT_EQ(rank.getAttempts(), 1u);
  EXPECT_EQ(protocol::as_view(rank.getWorker()), "fake-7");
  EXPECT_EQ(protocol::decode(rank.getOutcome()).value(), FakeWorker::success("out 1"));

  auto read = ann.blobs().readRequest();
  read.setDigest(protocol::as_data(sha256("out 2")));
  read.setMaxBytes(100);
  EXPECT_EQ(protocol::as_view(loop.wait(read.send()).getData()), "out 2");

  ASSERT_EQ(ann.remove(kJob), absl::OkStatus());
  EXPECT_EQ(ann.status(kJob).status().code(), absl::StatusCode::kNotFound);
  EXPECT_TRUE(ann.jobs().empty());
}

TEST_F(Sessions, ARemovedJobTakesItsBlobsAlongButNotThoseOfOthers) {
  FakeUser ann = user();
  FakeWorker worker = this->worker();
  ASSERT_EQ(worker.attach(), absl::OkStatus());
  ASSERT_EQ(ann.submit(kJob, simple_spec(2)), absl::OkStatus());
  worker.succeed("shared output");
  worker.succeed("own output");
  ASSERT_EQ(ann.submit(kOther, simple_spec(1)), absl::OkStatus());
  worker.succeed("shared output");
  ASSERT_EQ(ann.put("not named yet"), absl::OkStatus());
  ASSERT_EQ(ann.remove(kJob), absl::OkStatus());
  while (can_read("own output")) let_others();  // the collection goes on behind
  EXPECT_TRUE(can_read("shared output"));
  EXPECT_TRUE(can_read("not named yet"));
  // The id is free again when its last row is gone.
  while (ann.submit(kJob, simple_spec(1)).code() == absl::StatusCode::kAlreadyExists) let_others();
  EXPECT_EQ(ann.jobs().size(), 2u);
}

TEST_F(Sessions, BlobsThatNoJobNamesGoAtARestart) {
  ASSERT_EQ(user().put("upload of a client that died"), absl::OkStatus());
  {
    FakeUser ann = user();
    FakeWorker worker = this->worker();
    ASSERT_EQ(worker.attach(), absl::OkStatus());
    ASSERT_EQ(ann.put("input"), absl::OkStatus());
    JobSpec spec = simple_spec(1);
    spec.files = {{"data.txt", FileKind::file, {sha256("input"), 5}, 0644}};
    ASSERT_EQ(ann.submit(kJob, spec), absl::OkStatus());
    worker.succeed("output");
  }
  EXPECT_TRUE(can_read("upload of a client that died"));
  close();
  ASSERT_EQ(open(), absl::OkStatus());
  while (can_read("upload of a client that died")) let_others();
  EXPECT_TRUE(can_read("input"));
  EXPECT_TRUE(can_read("output"));
}

TEST_F(Sessions, OwnersSeeTheirOwnJobsOnly) {
  FakeUser ann = user("ann"), bob = user("bob"), root = user("root", rpc::Role::admin);
  ASSERT_EQ(ann.submit(kJob, simple_spec(1)), absl::OkStatus());
  ASSERT_EQ(bob.submit(kOther, simple_spec(1)), absl::OkStatus());
  EXPECT_EQ(bob.status(kJob).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(bob.cancel(kJob).code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(bob.remove(kJob).code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(bob.follow(kJob, 0, 0).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(bob.submit(kJob, simple_spec(1)).code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(ann.jobs(), std::vector<JobId>{kJob});
  EXPECT_EQ(root.jobs(), (std::vector<JobId>{kOther, kJob})) << "newest first";
  EXPECT_EQ(root.cancel(kJob), absl::OkStatus());
}

TEST_F(Sessions, TheSameSubmissionAgainIsHarmlessAnotherOneIsRefused) {
  FakeUser ann = user();
  ASSERT_EQ(ann.submit(kJob, simple_spec(2)), absl::OkStatus());
  EXPECT_EQ(ann.submit(kJob, simple_spec(2)), absl::OkStatus());
  EXPECT_NE(ann.submit(kJob, simple_spec(3)), absl::OkStatus());
  EXPECT_EQ(ann.jobs().size(), 1u);
}

TEST_F(Sessions, BadJobsAreRefusedAndNothingIsStored) {
  FakeUser ann = user();
  EXPECT_EQ(ann.submit(kJob, simple_spec(0)).code(), absl::StatusCode::kInvalidArgument);
  JobSpec spec = simple_spec(1);
  spec.files = {{"data.txt", FileKind::file, {sha256("never uploaded"), 14}, 0644}};
  const absl::Status missing = ann.submit(kJob, spec);
  EXPECT_EQ(missing.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_NE(missing.message().find("missing blob"), absl::string_view::npos) << missing;
  ASSERT_EQ(ann.put("data"), absl::OkStatus());
  spec.files[0].blob = {sha256("data"), 99};
  EXPECT_EQ(ann.submit(kJob, spec).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(ann.jobs().empty());
}

TEST_F(Sessions, ResultsWithoutTheirOutputAreRefused) {
  FakeUser ann = user();
  FakeWorker worker = this->worker();
  ASSERT_EQ(worker.attach(), absl::OkStatus());
  ASSERT_EQ(ann.submit(kJob, simple_spec(1)), absl::OkStatus());
  const Lease lease = worker.next_lease();
  EXPECT_EQ(worker.report(lease.key, FakeWorker::success("elsewhere"), "").code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(worker.report(lease.key, FakeWorker::success("what it says"), "what it is").code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(worker.report(lease.key, FakeWorker::success(""), std::string(kMaxInlineBytes + 1, 'x'))
                .code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(worker.report(lease.key, FakeWorker::success("right"), "right"), absl::OkStatus());
}

TEST_F(Sessions, WhyNamesFailuresByTheirReason) {
  FakeUser ann = user();
  FakeWorker worker = this->worker(7, 8);
  ASSERT_EQ(ann.submit(kJob, simple_spec(6)), absl::OkStatus());
  ASSERT_EQ(worker.attach(), absl::OkStatus());
  for (int i = 0; i < 6; ++i) {
    const Lease lease = worker.next_lease();
    const bool other = lease.key.rank == 3;
    ASSERT_EQ(
        worker.report(lease.key, FakeWorker::failure(other ? 2 : 1, other ? "" : "no model"), ""),
        absl::OkStatus());
  }
  ann.follow_to_the_end(kJob);
  EXPECT_EQ(ann.why(kJob),
            (std::vector<std::string>{"0-2,4-5: exit code 1: no model", "3: exit code 2"}));
  ASSERT_EQ(ann.retry(kJob), absl::OkStatus());
  for (const std::string& line : ann.why(kJob)) {
    EXPECT_EQ(line.find("exit code"), std::string::npos) << line;
  }
}

TEST_F(Sessions, AFollowerIsWokenByAChangeAndWaitsUntilThen) {
  FakeUser ann = user(), waiting = user();
  ASSERT_EQ(ann.submit(kJob, simple_spec(1)), absl::OkStatus());
  const uint64_t revision = (*ann.status(kJob))->getStatus().getRevision();
  auto request = waiting.session().followRequest();
  request.setId(kJob.value);
  request.setRevision(revision);
  request.setMaxWaitMs(30'000);
  auto follow = request.send();
  EXPECT_FALSE(follow.poll(loop.wait_scope()));
  ASSERT_EQ(ann.cancel(kJob), absl::OkStatus());
  auto news = loop.wait(kj::mv(follow));
  EXPECT_EQ(news.getStatus().getState(), uint8_t(JobState::cancelled));
  EXPECT_NE(news.getStatus().getRevision(), revision);
  ASSERT_EQ(news.getFinished().size(), 1u);
  EXPECT_EQ(news.getFinished()[0].getState(), uint8_t(RankState::cancelled));
}

TEST_F(Sessions, LiveOutputComesFromTheWorker) {
  FakeUser ann = user();
  FakeWorker worker = this->worker();
  ASSERT_EQ(worker.attach(), absl::OkStatus());
  ASSERT_EQ(ann.submit(kJob, simple_spec(1)), absl::OkStatus());
  const Lease lease = worker.next_lease();
  auto read = [&](uint32_t rank) {
    auto request = ann.session().readLogRequest();
    request.setId(kJob.value);
    request.setRank(rank);
    request.setStream(1);
    request.setMaxBytes(1000);
    return request;
  };
  auto live = loop.wait(read(0).send());
  EXPECT_EQ(protocol::as_view(live.getData()), "a line\n");
  EXPECT_TRUE(live.getRunning());
  EXPECT_EQ(live.getAttempt(), 1u);
  EXPECT_EQ(status_of(loop, read(1)).code(), absl::StatusCode::kOutOfRange);
  ASSERT_EQ(worker.report(lease.key, FakeWorker::success(""), ""), absl::OkStatus());
  auto over = loop.wait(read(0).send());
  EXPECT_FALSE(over.getRunning());
  EXPECT_EQ(over.getData().size(), 0u);
}

TEST_F(Sessions, WhoFollowedASecondAttemptThatFailedIsToldWhichOneRunsOn) {
  close();
  options.core.straggler_min_ms = 0;
  ASSERT_EQ(open(), absl::OkStatus());
  FakeUser ann = user();
  FakeWorker slow = this->worker(7, 4), idle = this->worker(8, 4);
  ASSERT_EQ(slow.attach(), absl::OkStatus());
  ASSERT_EQ(ann.submit(kJob, simple_spec(4)), absl::OkStatus());
  AttemptOutcome quick = FakeWorker::success("");
  quick.duration_ms = 1;
  for (int i = 0; i < 4; ++i) {
    const Lease lease = slow.next_lease();
    if (lease.key.rank == 3) continue;
    ASSERT_EQ(slow.report(lease.key, quick, ""), absl::OkStatus());
  }
  ASSERT_EQ(idle.attach(), absl::OkStatus());
  const Lease second = idle.next_lease();
  ASSERT_EQ(second.key, (AttemptKey{kJob, 3, 2}));
  idle.inbox->log = "the second\n";
  auto read = [&](uint32_t attempt, uint64_t offset) {
    auto request = ann.session().readLogRequest();
    request.setId(kJob.value);
    request.setRank(3);
    request.setStream(1);
    request.setAttempt(attempt);
    request.setOffset(offset);
    request.setMaxBytes(1000);
    auto log = loop.wait(request.send());
    EXPECT_TRUE(log.getRunning());
    return std::make_pair(log.getAttempt(), std::string(protocol::as_view(log.getData())));
  };
  EXPECT_EQ(read(0, 0), std::make_pair(2u, std::string("the second\n"))) << "the newest";
  EXPECT_EQ(read(1, 0), std::make_pair(1u, std::string("a line\n"))) << "which runs still";
  ASSERT_EQ(idle.report(second.key, FakeWorker::failure(1, ""), ""), absl::OkStatus());
  EXPECT_EQ(read(2, 11), std::make_pair(1u, std::string())) << "its own offset is not the other's";
  EXPECT_EQ(read(1, 0), std::make_pair(1u, std::string("a line\n")));
}

TEST_F(Sessions, WhichRanksRunIsToldByPages) {
  FakeUser ann = user(), bob = user("bob");
  FakeWorker worker = this->worker(7, 4);
  ASSERT_EQ(worker.attach(), absl::OkStatus());
  ASSERT_EQ(ann.submit(kJob, simple_spec(10)), absl::OkStatus());
  std::vector<Lease> leases;
  for (int i = 0; i < 4; ++i) leases.push_back(worker.next_lease());
  const auto ask = [&](FakeUser& who, uint32_t first, uint32_t max) {
    auto request = who.session().runningRequest();
    request.setId(kJob.value);
    request.setFirst(first);
    request.setMax(max);
    return request;
  };
  const auto running = [&](uint32_t first, uint32_t max) {
    std::vector<uint32_t> ranks;
    auto response = loop.wait(ask(ann, first, max).send());
    for (uint32_t rank : response.getRanks()) ranks.push_back(rank);
    return ranks;
  };
  EXPECT_EQ(running(0, 100), (std::vector<uint32_t>{0, 1, 2, 3})) << "without those leased ahead";
  EXPECT_EQ(running(1, 2), (std::vector<uint32_t>{1, 2}));
  EXPECT_EQ(running(4, 100), std::vector<uint32_t>());
  EXPECT_EQ(status_of(loop, ask(bob, 0, 100)).code(), absl::StatusCode::kNotFound);
}

TEST_F(Sessions, AWorkerThatIsGoneIsAwayAndOneThatComesAgainReplacesItself) {
  FakeUser ann = user();
  auto states = [&] {
    std::vector<std::string> states;
    auto response = loop.wait(ann.session().workersRequest().send());
    for (const auto worker : response.getWorkers()) states.push_back(worker.getState().cStr());
    return states;
  };
  FakeWorker again = worker();
  {
    FakeWorker worker = this->worker();
    ASSERT_EQ(worker.attach(), absl::OkStatus());
    EXPECT_EQ(states(), std::vector<std::string>{"attached"});
    ASSERT_EQ(again.attach(), absl::OkStatus());
    EXPECT_TRUE(worker.inbox->gone) << "the older session is closed";
    EXPECT_EQ(worker.report_all({}, {}).code(), absl::StatusCode::kUnavailable);
  }
  EXPECT_EQ(states(), std::vector<std::string>{"attached"});
  again.session() = nullptr;
  while (states() != std::vector<std::string>{"away"}) let_others();
}

TEST_F(Sessions, UploadsAreCheckedAndDurableWhenAnswered) {
  FakeUser ann = user();
  std::string large(3 * 1024 * 1024 + 17, 'x');
  for (size_t i = 0; i < large.size(); i += 4096) large[i] = char('a' + i / 4096 % 26);
  auto upload_of = [&](const BlobRef& blob) {
    auto request = ann.blobs().uploadRequest();
    protocol::encode(request.initBlob(), blob);
    return request.send().getUpload();
  };
  auto write = [&](protocol::Upload::Client& upload, uint64_t offset, const std::string& bytes) {
    auto request = upload.writeRequest();
    request.setOffset(offset);
    request.setData(protocol::as_data(bytes));
    return request;
  };
  auto upload = upload_of({sha256(large), large.size()});
  std::vector<kj::Promise<void>> writes;
  for (size_t offset = 0; offset < large.size(); offset += kMaxTransferBytes) {
    writes.push_back(
        write(upload, offset, large.substr(offset, kMaxTransferBytes)).send().ignoreResult());
  }
  for (auto& each : writes) loop.wait(kj::mv(each));
  ASSERT_EQ(status_of(loop, upload.finishRequest()), absl::OkStatus());
  EXPECT_TRUE(ann.has_blob(large));

  auto wrong = upload_of({sha256("right"), 5});
  EXPECT_EQ(status_of(loop, write(wrong, 3, "xx")).code(), absl::StatusCode::kInvalidArgument);
  ASSERT_EQ(status_of(loop, write(wrong, 0, "wrong")), absl::OkStatus());
  EXPECT_EQ(status_of(loop, write(wrong, 5, "more")).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(status_of(loop, wrong.finishRequest()).code(), absl::StatusCode::kDataLoss);
  EXPECT_FALSE(ann.has_blob("right"));

  auto read = ann.blobs().readRequest();
  read.setDigest(protocol::as_data(sha256(large)));
  read.setOffset(large.size() - 10);
  read.setMaxBytes(1 << 30);
  EXPECT_EQ(protocol::as_view(loop.wait(read.send()).getData()), large.substr(large.size() - 10));
}

TEST_F(Sessions, AnUploadMayGetItsNameAtItsEnd) {
  FakeUser ann = user();
  std::string large(1024 * 1024, 'x');
  for (size_t i = 0; i < large.size(); i += 4096) large[i] = char('a' + i / 4096 % 26);
  auto begin = [&](uint64_t size_bytes) {
    auto request = ann.blobs().beginRequest();
    request.setSizeBytes(size_bytes);
    return loop.wait(request.send());
  };
  auto write = [&](protocol::Upload::Client& upload, uint64_t offset, const std::string& bytes) {
    auto request = upload.writeRequest();
    request.setOffset(offset);
    request.setData(protocol::as_data(bytes));
    return status_of(loop, request);
  };
  auto named = [&](protocol::Upload::Client& upload) {
    return protocol::decode(loop.wait(upload.finishRequest().send()).getBlob()).value();
  };
  const auto temporaries = [&] {
    const std::filesystem::directory_iterator files(options.state_dir / "blobs" / "tmp");
    return std::distance(files, std::filesystem::directory_iterator());
  };

  auto upload = begin(large.size()).getUpload();
  ASSERT_EQ(write(upload, 0, large), absl::OkStatus());
  EXPECT_EQ(write(upload, large.size(), "x").code(), absl::StatusCode::kInvalidArgument);
  EXPECT_FALSE(ann.has_blob(large)) << "before its end";
  EXPECT_EQ(named(upload), (BlobRef{sha256(large), large.size()}));
  EXPECT_TRUE(ann.has_blob(large));
  EXPECT_EQ(temporaries(), 0);

  // One of that size may be the same: the client is to hash it first.
  EXPECT_FALSE(begin(large.size()).hasUpload());

  // As many as come, even what is here.
  auto open_end = begin(0).getUpload();
  ASSERT_EQ(write(open_end, 0, large), absl::OkStatus());
  EXPECT_EQ(named(open_end), (BlobRef{sha256(large), large.size()}));
  EXPECT_EQ(temporaries(), 0);

  // One that stops early is none, and leaves nothing.
  std::optional<protocol::Upload::Client> early = begin(large.size() + 1).getUpload();
  ASSERT_EQ(write(*early, 0, std::string(large.size(), 'y')), absl::OkStatus());
  EXPECT_EQ(temporaries(), 1);
  EXPECT_EQ(status_of(loop, early->finishRequest()).code(), absl::StatusCode::kDataLoss);
  EXPECT_FALSE(ann.has_blob(std::string(large.size(), 'y')));
  early.reset();
  while (temporaries() != 0) let_others();
}

TEST_F(Sessions, ReadManyGivesAsManyAsFit) {
  FakeUser ann = user();
  std::vector<Digest> digests;
  for (char c : {'a', 'b', 'c'}) {
    const std::string bytes(500'000, c);
    ASSERT_EQ(ann.put(bytes), absl::OkStatus());
    digests.push_back(sha256(bytes));
  }
  auto request = ann.blobs().readManyRequest();
  protocol::encode(request.initDigests(3), digests);
  EXPECT_EQ(loop.wait(request.send()).getBlobs().size(), 2u);
  EXPECT_EQ(ann.put(std::string(kMaxTransferBytes + 1, 'x')).code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_F(Sessions, OnlyAdministratorsMakeTokensAndOnlyOfAListener) {
  auto make = [&](FakeUser user) {
    auto request = user.session().makeTokenRequest();
    request.setRole("worker");
    request.setName("w1");
    return status_of(loop, request);
  };
  EXPECT_EQ(make(user()).code(), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(make(user("root", rpc::Role::admin)).code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(Sessions, AfterTheShutdownCallsAreRefused) {
  FakeUser ann = user();
  FakeWorker worker = this->worker();
  ASSERT_EQ(worker.attach(), absl::OkStatus());
  close();
  EXPECT_EQ(ann.submit(kJob, simple_spec(1)).code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(worker.report_all({}, {}).code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace pesc::coordinator::testing
