#include "runtime/coordinator/shell/journal.h"

#include <sqlite3.h>

#include "harness.h"
#include "runtime/coordinator/shell/journal_rows.h"

namespace pesc::coordinator::testing {
namespace {

constexpr JobId kJob{0x0ab00000'00000001};
constexpr JobId kOther{0x0ab00001'00000002};
constexpr WorkerId kWorker{77};

class JournalTest : public ::testing::Test {
 protected:
  JournalTest() { options_.path = dir_ / "journal.db"; }

  absl::Status open() {
    journal_ = nullptr;
    auto journal = Journal::open(options_);
    if (!journal.ok()) return journal.status();
    journal_ = std::move(*journal);
    replayed_.clear();
    return journal_->replay([this](const Record& record) { replayed_.push_back(record); });
  }
  template <typename T>
  std::vector<T> replayed() const {
    std::vector<T> found;
    for (const Record& record : replayed_) {
      if (const T* each = std::get_if<T>(&record)) found.push_back(*each);
    }
    return found;
  }
  void sql(const std::string& text) {
    sqlite3* db = nullptr;
    ASSERT_EQ(sqlite3_open(options_.path.c_str(), &db), SQLITE_OK);
    EXPECT_EQ(sqlite3_exec(db, text.c_str(), nullptr, nullptr, nullptr), SQLITE_OK)
        << sqlite3_errmsg(db);
    sqlite3_close(db);
  }
  static Record job(JobId id, uint32_t repetitions = 10) {
    return JobAdded{id, "ann", std::make_shared<const JobSpec>(simple_spec(repetitions)), 1234};
  }
  static AttemptOutcome outcome() {
    AttemptOutcome outcome = FakeWorker::failure(3, "it \n died\xff");
    outcome.signal = 9;
    outcome.cpu_ms = 11;
    outcome.max_rss_bytes = 1ull << 40;
    outcome.refused_arguments = true;
    outcome.output = {sha256("out"), 3};
    outcome.uncollected = {"a file", "b"};
    return outcome;
  }

  TemporaryDirectory dir_;
  JournalOptions options_;
  std::unique_ptr<Journal> journal_;
  std::vector<Record> replayed_;
};

TEST_F(JournalTest, GivesEverythingBackInOrder) {
  ASSERT_EQ(open(), absl::OkStatus());
  ASSERT_EQ(journal_->commit({WorkerSeen{kWorker, "w\"1", "lab"}, job(kJob),
                              AttemptLeased{{kJob, 5, 1}, kWorker},
                              AttemptLeased{{kJob, 2, 1}, kWorker}}),
            absl::OkStatus());
  ASSERT_EQ(journal_->commit(
                {job(kOther), AttemptEnded{{kJob, 5, 1}, outcome(), false, RankState::waiting},
                 AttemptEnded{{kJob, 2, 1}, outcome(), true, RankState::failed},
                 JobStopped{kJob, true, "stop"}, RanksCancelled{kJob, 6, 9},
                 JobFinished{kJob, JobState::cancelled, 99}, RanksReopened{kJob, {2, 6, 7, 9}}}),
            absl::OkStatus());
  ASSERT_EQ(open(), absl::OkStatus());

  ASSERT_EQ(replayed_.size(), 11u);
  EXPECT_EQ(std::get<WorkerSeen>(replayed_[0]).name, "w\"1");
  EXPECT_EQ(std::get<WorkerSeen>(replayed_[0]).room, "lab");
  const auto& added = std::get<JobAdded>(replayed_[1]);
  EXPECT_EQ(added.id, kJob);
  EXPECT_EQ(added.owner, "ann");
  EXPECT_EQ(*added.spec, simple_spec(10));
  EXPECT_EQ(added.submitted_unix_ms, 1234);
  EXPECT_EQ(std::get<AttemptLeased>(replayed_[2]).key, (AttemptKey{kJob, 5, 1}));
  EXPECT_EQ(std::get<AttemptLeased>(replayed_[3]).key, (AttemptKey{kJob, 2, 1}));
  const auto& ended = std::get<AttemptEnded>(replayed_[4]);
  EXPECT_EQ(ended.key, (AttemptKey{kJob, 5, 1}));
  EXPECT_EQ(ended.outcome, outcome());
  EXPECT_FALSE(ended.final);
  EXPECT_EQ(ended.state, RankState::waiting);
  EXPECT_TRUE(std::get<AttemptEnded>(replayed_[5]).final);
  EXPECT_EQ(std::get<JobStopped>(replayed_[6]).detail, "stop");
  EXPECT_EQ(std::get<RanksCancelled>(replayed_[7]).last, 9u);
  EXPECT_EQ(std::get<JobFinished>(replayed_[8]).state, JobState::cancelled);
  EXPECT_EQ(std::get<RanksReopened>(replayed_[9]).ranks, (std::vector<uint32_t>{2, 6, 7, 9}));
  EXPECT_EQ(std::get<JobAdded>(replayed_[10]).id, kOther);
}

TEST_F(JournalTest, AnAttemptThatIsLeasedAgainIsOpenAgain) {
  ASSERT_EQ(open(), absl::OkStatus());
  ASSERT_EQ(journal_->commit({job(kJob), AttemptLeased{{kJob, 0, 1}, kWorker},
                              AttemptEnded{{kJob, 0, 1}, outcome(), false, RankState::waiting},
                              AttemptLeased{{kJob, 0, 1}, kWorker}}),
            absl::OkStatus());
  ASSERT_EQ(open(), absl::OkStatus());
  EXPECT_EQ(replayed<AttemptLeased>().size(), 1u);
  EXPECT_TRUE(replayed<AttemptEnded>().empty());
}

TEST_F(JournalTest, PlacesGoOnAfterAReopening) {
  ASSERT_EQ(open(), absl::OkStatus());
  ASSERT_EQ(journal_->commit({job(kJob), JobStopped{kJob, true, "1"}}), absl::OkStatus());
  ASSERT_EQ(open(), absl::OkStatus());
  ASSERT_EQ(journal_->commit({JobStopped{kJob, true, "2"}}), absl::OkStatus());
  ASSERT_EQ(open(), absl::OkStatus());
  ASSERT_EQ(replayed<JobStopped>().size(), 2u);
  EXPECT_EQ(replayed<JobStopped>()[1].detail, "2");
}

TEST_F(JournalTest, AFlippedByteIsFoundAndNamed) {
  ASSERT_EQ(open(), absl::OkStatus());
  ASSERT_EQ(journal_->commit({job(kJob), job(kOther), AttemptLeased{{kJob, 4, 2}, kWorker},
                              AttemptEnded{{kJob, 4, 2}, outcome(), true, RankState::failed}}),
            absl::OkStatus());
  journal_ = nullptr;
  sql("UPDATE attempts SET exit_code=4");
  const absl::Status damaged = open();
  EXPECT_EQ(damaged.code(), absl::StatusCode::kDataLoss);
  const std::string text(damaged.message());
  EXPECT_NE(text.find(to_string(kJob)), std::string::npos) << text;
  EXPECT_NE(text.find("rank 4 attempt 2"), std::string::npos) << text;
  EXPECT_NE(text.find("--drop-damaged"), std::string::npos) << text;
  EXPECT_EQ(text.find(to_string(kOther)), std::string::npos) << text;

  options_.drop_damaged = true;
  ASSERT_EQ(open(), absl::OkStatus());
  ASSERT_EQ(replayed<JobAdded>().size(), 1u);
  EXPECT_EQ(replayed<JobAdded>()[0].id, kOther);
  EXPECT_EQ(journal_->erased().value(), std::vector<JobId>{kJob});
}

TEST_F(JournalTest, DamagedJobsAndEventsAreNamedToo) {
  ASSERT_EQ(open(), absl::OkStatus());
  ASSERT_EQ(journal_->commit({job(kJob), job(kOther), JobStopped{kOther, true, "x"}}),
            absl::OkStatus());
  journal_ = nullptr;
  sql("UPDATE jobs SET owner='bob' WHERE rowid=(SELECT min(id) FROM jobs);"
      "UPDATE job_events SET payload=x'00'");
  const std::string text(open().message());
  EXPECT_NE(text.find("job " + to_string(kJob) + ": its description"), std::string::npos) << text;
  EXPECT_NE(text.find("job " + to_string(kOther) + ": row 3"), std::string::npos) << text;
}

TEST_F(JournalTest, AFileThatIsNoDatabaseIsRefused) {
  std::FILE* file = std::fopen(options_.path.c_str(), "w");
  for (int i = 0; i < 1000; ++i) std::fputs("this is no database\n", file);
  std::fclose(file);
  const absl::Status status = open();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_NE(status.message().find("backup"), absl::string_view::npos) << status;
}

TEST_F(JournalTest, AnotherSchemaVersionIsRefusedByName) {
  ASSERT_EQ(open(), absl::OkStatus());
  journal_ = nullptr;
  sql("PRAGMA user_version=99");
  const absl::Status status = open();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_NE(status.message().find("version 99"), absl::string_view::npos) << status;
  sql("PRAGMA application_id=1");
  EXPECT_NE(open().message().find("not a journal of PESC"), absl::string_view::npos);
}

TEST_F(JournalTest, AFullDiskFailsTheWholeBatchAndLaterGoesOn) {
  ASSERT_EQ(open(), absl::OkStatus());
  ASSERT_EQ(journal_->commit({job(kJob)}), absl::OkStatus());
  options_.max_pages = 12;
  ASSERT_EQ(open(), absl::OkStatus());
  std::vector<Record> batch = {job(kOther)};
  for (uint32_t rank = 0; rank < 5'000; ++rank) {
    batch.push_back(AttemptLeased{{kOther, rank, 1}, kWorker});
  }
  EXPECT_EQ(journal_->commit(batch).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(journal_->reopen().code(), absl::StatusCode::kResourceExhausted);
  options_.max_pages = 1'000'000;
  ASSERT_EQ(open(), absl::OkStatus());
  EXPECT_EQ(replayed<JobAdded>().size(), 1u) << "all of the batch, or nothing";
  EXPECT_TRUE(replayed<AttemptLeased>().empty());
  EXPECT_EQ(journal_->reopen(), absl::OkStatus());
  EXPECT_EQ(journal_->commit(batch), absl::OkStatus());
}

TEST_F(JournalTest, ErasedJobsArePurgedBitByBit) {
  ASSERT_EQ(open(), absl::OkStatus());
  std::vector<Record> batch = {job(kJob, 1'000)};
  for (uint32_t rank = 0; rank < 1'000; ++rank) {
    batch.push_back(AttemptLeased{{kJob, rank, 1}, kWorker});
  }
  batch.push_back(JobErased{kJob});
  ASSERT_EQ(journal_->commit(batch), absl::OkStatus());
  ASSERT_EQ(open(), absl::OkStatus());
  EXPECT_TRUE(replayed_.empty());
  EXPECT_EQ(journal_->erased().value(), std::vector<JobId>{kJob});
  int steps = 0;
  while (!journal_->purge(kJob, 300).value()) ++steps;
  EXPECT_EQ(steps, 3);
  EXPECT_TRUE(journal_->erased().value().empty());
  ASSERT_EQ(journal_->commit({job(kJob), AttemptLeased{{kJob, 0, 1}, kWorker}}), absl::OkStatus());
}

TEST_F(JournalTest, TheReaderTellsWhichAttemptDecided) {
  ASSERT_EQ(open(), absl::OkStatus());
  AttemptOutcome lost;
  lost.reason = EndReason::worker_lost;
  ASSERT_EQ(journal_->commit({job(kJob), AttemptLeased{{kJob, 1, 1}, kWorker},
                              AttemptLeased{{kJob, 1, 2}, WorkerId{78}},
                              AttemptEnded{{kJob, 1, 1}, outcome(), true, RankState::failed},
                              AttemptEnded{{kJob, 1, 2}, lost, false, RankState::failed},
                              AttemptLeased{{kJob, 3, 1}, kWorker}}),
            absl::OkStatus());
  auto reader = JournalReader::open(options_.path);
  ASSERT_TRUE(reader.ok()) << reader.status();
  const auto page = (*reader)->page(kJob, 0, 4).value();
  ASSERT_EQ(page.size(), 4u);
  EXPECT_FALSE(page[0].latest.has_value());
  EXPECT_EQ(page[1].decided->key.attempt, 1u);
  EXPECT_EQ(page[1].decided->outcome, outcome());
  EXPECT_EQ(page[1].latest->key.attempt, 2u);
  EXPECT_FALSE(page[3].latest->ended);
  const auto ranks = (*reader)->ranks(kJob, {3, 0, 1}).value();
  EXPECT_EQ(ranks[0].rank, 3u);
  EXPECT_TRUE(ranks[0].latest.has_value());
  EXPECT_FALSE(ranks[1].latest.has_value());
  EXPECT_TRUE(ranks[2].decided.has_value());
  std::vector<std::pair<uint32_t, bool>> failed;  // attempt, whether it decided
  ASSERT_EQ((*reader)->failures(
                kJob, [&](const AttemptRow& r) { failed.emplace_back(r.key.attempt, r.final); }),
            absl::OkStatus());
  EXPECT_EQ(failed, (std::vector<std::pair<uint32_t, bool>>{{1, true}, {2, false}}));
  std::vector<BlobRef> outputs;
  ASSERT_EQ((*reader)->outputs(kJob, [&](const BlobRef& o) { outputs.push_back(o); }),
            absl::OkStatus());
  EXPECT_EQ(outputs, std::vector<BlobRef>{outcome().output});
}

}  // namespace
}  // namespace pesc::coordinator::testing
