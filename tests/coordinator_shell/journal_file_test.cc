// The journal as a file: earlier versions, damage and what is saved of it, growth, another VFS.
#include <sqlite3.h>

#include <cstdio>
#include <fstream>
#include <set>

#include "harness.h"
#include "runtime/coordinator/shell/journal.h"
#include "runtime/coordinator/shell/journal_rows.h"

namespace pesc::coordinator::testing {
namespace {

constexpr JobId kJob{0x0ab00000'00000001};
constexpr JobId kOther{0x0ab00001'00000002};
constexpr WorkerId kWorker{77};

const Claim kClaim{1ull << 31, 1ull << 30, true, {"GPU-1", "GPU-2"}};

class JournalFile : public ::testing::Test {
 protected:
  JournalFile() { options_.path = dir_ / "journal.db"; }

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
  int64_t count(const std::string& query) {
    sqlite3* db = nullptr;
    sqlite3_stmt* statement = nullptr;
    EXPECT_EQ(sqlite3_open(options_.path.c_str(), &db), SQLITE_OK);
    EXPECT_EQ(sqlite3_prepare_v2(db, query.c_str(), -1, &statement, nullptr), SQLITE_OK);
    EXPECT_EQ(sqlite3_step(statement), SQLITE_ROW);
    const int64_t result = sqlite3_column_int64(statement, 0);
    sqlite3_finalize(statement);
    sqlite3_close(db);
    return result;
  }
  static Record job(JobId id, uint32_t repetitions = 10) {
    return JobAdded{id, "ann", std::make_shared<const JobSpec>(simple_spec(repetitions)), 1234};
  }
  static Record kept(JobId job, uint32_t rank, uint32_t number,
                     const std::vector<std::string>& chunks) {
    auto refs = std::make_shared<std::vector<BlobRef>>();
    for (const std::string& chunk : chunks) refs->push_back({sha256(chunk), chunk.size()});
    return CheckpointKept{{job, rank, 1},
                          {number, manifest(rank, number)},
                          refs,
                          1'000ull * number,
                          1'000ull * number + 500};
  }
  static BlobRef manifest(uint32_t rank, uint32_t number) {
    return {sha256("manifest " + std::to_string(rank) + "." + std::to_string(number)), 99};
  }
  static AttemptOutcome outcome(const std::string& detail) {
    AttemptOutcome outcome = FakeWorker::failure(3, detail);
    outcome.saved_ms = 17;
    return outcome;
  }
  std::unique_ptr<JournalReader> reader() {
    auto reader = JournalReader::open(options_.path);
    EXPECT_TRUE(reader.ok()) << reader.status();
    return std::move(*reader);
  }
  std::set<Digest> kept_blobs() {
    std::set<Digest> all;
    EXPECT_EQ(reader()->checkpoints([&](const Digest& d) { all.insert(d); }), absl::OkStatus());
    return all;
  }

  TemporaryDirectory dir_;
  JournalOptions options_;
  std::unique_ptr<Journal> journal_;
  std::vector<Record> replayed_;
};

// ---- what is new in version 2 -------------------------------------------------------------------

TEST_F(JournalFile, CheckpointsGangsAndDrainsComeBackInOrder) {
  ASSERT_EQ(open(), absl::OkStatus());
  AttemptOutcome lost = outcome("gone");
  ASSERT_EQ(
      journal_->commit({WorkerSeen{kWorker, "w", "lab"}, WorkerDraining{kWorker, true}, job(kJob),
                        AttemptLeased{{kJob, 4, 1}, kWorker}, kept(kJob, 4, 1, {"a", "b"}),
                        kept(kJob, 4, 2, {"a", "c"}), GangStarted{kJob, 1, "192.0.2.9", 20'001},
                        AttemptEnded{{kJob, 4, 1}, lost, false, RankState::waiting},
                        CheckpointsDropped{kJob, 4, 1},
                        AttemptLeased{{kJob, 4, 2}, kWorker, 2, true, 2'500, kClaim}}),
      absl::OkStatus());
  // A name that is seen again is still draining.
  ASSERT_EQ(journal_->commit({WorkerSeen{kWorker, "new name", "lab"}}), absl::OkStatus());
  ASSERT_EQ(open(), absl::OkStatus());

  ASSERT_EQ(replayed_.size(), 9u);
  EXPECT_EQ(std::get<WorkerSeen>(replayed_[0]).name, "new name");
  EXPECT_TRUE(std::get<WorkerDraining>(replayed_[1]).draining);
  EXPECT_EQ(std::get<AttemptLeased>(replayed_[3]).checkpoint, 0u);
  const auto& checkpoint = std::get<CheckpointKept>(replayed_[4]);
  EXPECT_EQ(checkpoint.key, (AttemptKey{kJob, 4, 1}));
  EXPECT_EQ(checkpoint.checkpoint, (CheckpointRef{2, manifest(4, 2)}));
  EXPECT_EQ(checkpoint.saved_ms, 2'000u);
  EXPECT_EQ(checkpoint.total_ms, 2'500u);
  EXPECT_EQ(std::get<GangStarted>(replayed_[5]).master_addr, "192.0.2.9");
  EXPECT_EQ(std::get<GangStarted>(replayed_[5]).master_port, 20'001);
  EXPECT_EQ(std::get<AttemptEnded>(replayed_[6]).outcome, lost);
  EXPECT_EQ(std::get<CheckpointsDropped>(replayed_[7]).through, 1u);
  const auto& again = std::get<AttemptLeased>(replayed_[8]);
  EXPECT_EQ(again.checkpoint, 2u);
  EXPECT_EQ(again.base_ms, 2'500u);
  EXPECT_TRUE(again.second);
  EXPECT_EQ(again.claim, kClaim);

  ASSERT_EQ(journal_->commit({WorkerDraining{kWorker, false, true}}), absl::OkStatus());
  ASSERT_EQ(open(), absl::OkStatus());
  ASSERT_EQ(replayed<WorkerDraining>().size(), 1u);
  EXPECT_FALSE(replayed<WorkerDraining>()[0].draining);
  EXPECT_TRUE(replayed<WorkerDraining>()[0].paused);

  ASSERT_EQ(journal_->commit({WorkerDraining{kWorker, false}}), absl::OkStatus());
  ASSERT_EQ(open(), absl::OkStatus());
  EXPECT_TRUE(replayed<WorkerDraining>().empty());
}

TEST_F(JournalFile, OneInTheMiddleIsDropped) {
  ASSERT_EQ(open(), absl::OkStatus());
  ASSERT_EQ(journal_->commit({job(kJob), AttemptLeased{{kJob, 0, 1}, kWorker, 0, false, 7},
                              kept(kJob, 0, 1, {"a"}), kept(kJob, 0, 2, {"b"}),
                              kept(kJob, 0, 3, {"c"}), CheckpointsDropped{kJob, 0, 2, 2},
                              AttemptEnded{{kJob, 0, 1}, outcome("x"), false, RankState::failed}}),
            absl::OkStatus());
  ASSERT_EQ(open(), absl::OkStatus());
  const std::vector<CheckpointKept> left = replayed<CheckpointKept>();
  ASSERT_EQ(left.size(), 2u);
  EXPECT_EQ(left[0].checkpoint.number, 1u);
  EXPECT_EQ(left[1].checkpoint.number, 3u);
  EXPECT_EQ(replayed<CheckpointsDropped>().at(0).first, 2u);
  EXPECT_EQ(replayed<CheckpointsDropped>().at(0).through, 2u);
  EXPECT_EQ(replayed<AttemptLeased>().at(0).base_ms, 7u);
}

TEST_F(JournalFile, WhatADroppedCheckpointNamedWaitsToBeCollected) {
  ASSERT_EQ(open(), absl::OkStatus());
  ASSERT_EQ(journal_->commit({job(kJob), kept(kJob, 0, 1, {"a", "b"}), kept(kJob, 0, 2, {"b"}),
                              kept(kJob, 1, 1, {"x"}), CheckpointsDropped{kJob, 0, 1}}),
            absl::OkStatus());
  EXPECT_EQ(kept_blobs(), (std::set<Digest>{manifest(0, 2).digest, sha256("b"),
                                            manifest(1, 1).digest, sha256("x")}));
  std::set<Digest> dropped;
  const auto through = reader()->dropped(10, [&](const Digest& d) { dropped.insert(d); });
  EXPECT_EQ(dropped, (std::set<Digest>{manifest(0, 1).digest, sha256("a"), sha256("b")}));
  ASSERT_EQ(journal_->commit({CheckpointsDropped{kJob, 0, 2}}), absl::OkStatus());
  ASSERT_EQ(journal_->forget_dropped(*through), absl::OkStatus());
  dropped.clear();
  (void)reader()->dropped(10, [&](const Digest& d) { dropped.insert(d); });
  EXPECT_EQ(dropped, (std::set<Digest>{manifest(0, 2).digest, sha256("b")}))
      << "what was dropped since stays";
  ASSERT_EQ(journal_->commit({JobErased{kJob}}), absl::OkStatus());
  EXPECT_TRUE(kept_blobs().empty());
  (void)reader()->dropped(10, [&](const Digest& d) { dropped.insert(d); });
  EXPECT_EQ(dropped.count(sha256("x")), 1u) << "a removed job's go as well";
}

// ---- what is new in version 4 -------------------------------------------------------------------

ProgramLearned learned(int program, uint64_t bytes) {
  return {sha256("program " + std::to_string(program)), bytes, bytes / 2, bytes > 1};
}

TEST_F(JournalFile, WhatWasLearnedOfProgramsComesBeforeAllJobs) {
  ASSERT_EQ(open(), absl::OkStatus());
  ASSERT_EQ(journal_->commit({job(kJob), learned(1, 100), JobErased{kJob}, job(kOther),
                              learned(2, 1), learned(1, 200), JobErased{kOther}, job(kJob)}),
            absl::OkStatus());
  ASSERT_EQ(open(), absl::OkStatus());
  const std::vector<ProgramLearned> programs = replayed<ProgramLearned>();
  ASSERT_EQ(programs.size(), 2u) << "the newer word of a program replaces the older";
  EXPECT_EQ(programs[0].program, sha256("program 2"));
  EXPECT_FALSE(programs[0].gpu_known);
  EXPECT_EQ(programs[1].memory_bytes, 200u);
  EXPECT_EQ(programs[1].gpu_memory_bytes, 100u);
  EXPECT_TRUE(programs[1].gpu_known);
  ASSERT_TRUE(std::holds_alternative<ProgramLearned>(replayed_[1]));
  ASSERT_TRUE(std::holds_alternative<JobAdded>(replayed_[2]));
  // Its place in the order of all records is never given again, though its job's rows are gone.
  ASSERT_EQ(journal_->commit({JobErased{kJob}, learned(3, 7)}), absl::OkStatus());
  ASSERT_EQ(open(), absl::OkStatus());
  EXPECT_EQ(replayed<ProgramLearned>().size(), 3u);
  ASSERT_EQ(journal_->commit({learned(4, 7)}), absl::OkStatus());
  EXPECT_EQ(count("SELECT count(*) FROM programs"), 4);
}

TEST_F(JournalFile, WhatWasLearnedIsBounded) {
  ASSERT_EQ(open(), absl::OkStatus());
  std::vector<Record> batch;
  for (int i = 0; i < int(kMaxKeptPrograms) + 500; ++i) batch.push_back(learned(i, 10));
  ASSERT_EQ(journal_->commit(batch), absl::OkStatus());
  ASSERT_EQ(open(), absl::OkStatus());
  const std::vector<ProgramLearned> programs = replayed<ProgramLearned>();
  ASSERT_EQ(programs.size(), size_t(kMaxKeptPrograms));
  EXPECT_EQ(programs.back().program, sha256("program 5499")) << "the latest are kept";
}

TEST_F(JournalFile, ADamagedSizeCostsNoJob) {
  ASSERT_EQ(open(), absl::OkStatus());
  ASSERT_EQ(journal_->commit({job(kJob), learned(1, 100), learned(2, 100)}), absl::OkStatus());
  journal_ = nullptr;
  sql("UPDATE programs SET memory=1 WHERE memory=100 AND seq=2");
  const absl::Status status = open();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_NE(status.message().find("what was learned of programs"), absl::string_view::npos);
  options_.drop_damaged = true;
  EXPECT_EQ(open(), absl::OkStatus());
  EXPECT_EQ(replayed<JobAdded>().size(), 1u);
  EXPECT_TRUE(replayed<ProgramLearned>().empty());
}

// ---- versions -----------------------------------------------------------------------------------

// Version 1 as it was written, checksums included.
std::string version_1() {
  const std::string spec = protocol::serialize_spec(simple_spec(10));
  std::string hex;
  for (const unsigned char c : spec) {
    char digits[3];
    std::snprintf(digits, sizeof digits, "%02x", c);
    hex += digits;
  }
  return R"sql(
CREATE TABLE jobs(
  id INTEGER PRIMARY KEY, seq INTEGER NOT NULL, owner BLOB NOT NULL, spec BLOB NOT NULL,
  submitted INTEGER NOT NULL, crc INTEGER NOT NULL);
CREATE TABLE workers(
  id INTEGER PRIMARY KEY, name BLOB NOT NULL, room BLOB NOT NULL, crc INTEGER NOT NULL);
CREATE TABLE job_events(
  job INTEGER NOT NULL, seq INTEGER NOT NULL, kind INTEGER NOT NULL, payload BLOB NOT NULL,
  crc INTEGER NOT NULL, PRIMARY KEY(job, seq)) WITHOUT ROWID;
CREATE TABLE attempts(
  job INTEGER NOT NULL, rank INTEGER NOT NULL, attempt INTEGER NOT NULL, worker INTEGER,
  leased_seq INTEGER, ended_seq INTEGER, final INTEGER, state INTEGER, reason INTEGER,
  exit_code INTEGER, signal INTEGER, refused INTEGER, detail BLOB, started INTEGER,
  duration INTEGER, cpu INTEGER, rss INTEGER, output BLOB, output_size INTEGER, uncollected BLOB,
  crc INTEGER NOT NULL, PRIMARY KEY(job, rank, attempt)) WITHOUT ROWID;
CREATE TABLE erased(job INTEGER PRIMARY KEY, spec BLOB NOT NULL);
CREATE TABLE probe(bytes BLOB);
PRAGMA application_id=1346720579; PRAGMA user_version=1; PRAGMA journal_mode=WAL;
INSERT INTO workers VALUES(77, x'70632d37', x'6c6162', 1098691189);
INSERT INTO attempts VALUES(770115536280354817,5,1,77,3,4,1,2,0,0,0,0,x'',1700000000000,5000,0,0,
  x'',0,x'',1431747840);
INSERT INTO attempts(job,rank,attempt,worker,leased_seq,crc)
  VALUES(770115536280354817,6,1,77,5,2281607259);
INSERT INTO job_events VALUES(770115536280354817,6,1,x'08000000000000000900000000000000',4066544487);
INSERT INTO jobs VALUES(770115536280354817,1,x'616e6e',x')sql" +
         hex + "',1234," + std::to_string(job_crc(kJob, 1, "ann", spec, 1234)) + ");";
}

TEST_F(JournalFile, AVersion1IsMigratedAndGoesOn) {
  sql(version_1());
  ASSERT_EQ(open(), absl::OkStatus());
  EXPECT_EQ(count("PRAGMA user_version"), kJournalSchema);
  ASSERT_EQ(replayed_.size(), 6u);
  EXPECT_EQ(std::get<WorkerSeen>(replayed_[0]).name, "pc-7");
  EXPECT_EQ(*std::get<JobAdded>(replayed_[1]).spec, simple_spec(10));
  EXPECT_EQ(std::get<AttemptLeased>(replayed_[2]).key.rank, 5u);
  EXPECT_EQ(std::get<AttemptEnded>(replayed_[3]).outcome.duration_ms, 5'000u);
  EXPECT_EQ(std::get<AttemptLeased>(replayed_[4]).key.rank, 6u);
  EXPECT_EQ(std::get<RanksCancelled>(replayed_[5]).last, 9u);

  ASSERT_EQ(journal_->commit({kept(kJob, 6, 1, {"a"}),
                              AttemptEnded{{kJob, 6, 1}, outcome("x"), false, RankState::waiting},
                              AttemptLeased{{kJob, 6, 2}, kWorker, 1}}),
            absl::OkStatus());
  ASSERT_EQ(open(), absl::OkStatus());
  EXPECT_EQ(replayed<AttemptLeased>().back().checkpoint, 1u);
  EXPECT_EQ(replayed<AttemptEnded>().back().outcome.saved_ms, 17u);
  EXPECT_EQ(replayed<CheckpointKept>().size(), 1u);
}

TEST_F(JournalFile, AMigrationThatFindsNoRoomLeavesVersion1) {
  sql(version_1());
  options_.max_pages = 8;  // what it has
  EXPECT_EQ(open().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(count("PRAGMA user_version"), 1);
  EXPECT_EQ(count("SELECT count(*) FROM pragma_table_info('attempts') WHERE name='saved'"), 0);
  options_.max_pages = 0;
  EXPECT_EQ(open(), absl::OkStatus());
  EXPECT_EQ(replayed_.size(), 6u);
}

TEST_F(JournalFile, ALaterVersionIsRefusedByName) {
  ASSERT_EQ(open(), absl::OkStatus());
  journal_ = nullptr;
  sql("PRAGMA user_version=" + std::to_string(kJournalSchema + 1));
  const absl::Status status = open();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  const std::string later = "has schema version " + std::to_string(kJournalSchema + 1);
  const std::string known = "versions 1 to " + std::to_string(kJournalSchema);
  EXPECT_NE(status.message().find(later), absl::string_view::npos) << status;
  EXPECT_NE(status.message().find(known), absl::string_view::npos) << status;
}

// Version 5 has the tables of 4; its rows of retries say when they were.
TEST_F(JournalFile, ARetryOfVersion4DoesNotSayWhenItWas) {
  ASSERT_EQ(open(), absl::OkStatus());
  ASSERT_EQ(journal_->commit({job(kJob), RanksReopened{kJob, {2, 3, 7}}}), absl::OkStatus());
  journal_ = nullptr;
  EXPECT_EQ(count("SELECT length(payload) FROM job_events"), 32) << "as version 4 wrote it";
  sql("PRAGMA user_version=4");
  ASSERT_EQ(open(), absl::OkStatus());
  EXPECT_EQ(count("PRAGMA user_version"), kJournalSchema);
  EXPECT_EQ(replayed<RanksReopened>().back().ranks, (std::vector<uint32_t>{2, 3, 7}));
  EXPECT_EQ(replayed<RanksReopened>().back().unix_ms, 0);
  ASSERT_EQ(journal_->commit({RanksReopened{kJob, {2, 3, 9}, 1'700'000'000'123}}),
            absl::OkStatus());
  ASSERT_EQ(open(), absl::OkStatus());
  ASSERT_EQ(replayed<RanksReopened>().size(), 2u);
  EXPECT_EQ(replayed<RanksReopened>().back().ranks, (std::vector<uint32_t>{2, 3, 9}));
  EXPECT_EQ(replayed<RanksReopened>().back().unix_ms, 1'700'000'000'123);
}

// ---- damage -------------------------------------------------------------------------------------

TEST_F(JournalFile, ADamagedCheckpointIsLostAlone) {
  ASSERT_EQ(open(), absl::OkStatus());
  ASSERT_EQ(journal_->commit({WorkerSeen{kWorker, "w", ""}, job(kJob),
                              AttemptLeased{{kJob, 4, 1}, kWorker}, kept(kJob, 4, 1, {"a"}),
                              kept(kJob, 4, 2, {"b"})}),
            absl::OkStatus());
  journal_ = nullptr;
  sql("UPDATE checkpoints SET saved=saved+1 WHERE number=2; UPDATE workers SET draining=1");
  const std::string text(open().message());
  EXPECT_NE(text.find("checkpoint 2 of rank 4"), std::string::npos) << text;
  EXPECT_NE(text.find("loses 1 checkpoint, 1 worker"), std::string::npos) << text;
  EXPECT_NE(text.find("1 other job in it is intact"), std::string::npos) << text;
  options_.drop_damaged = true;
  ASSERT_EQ(open(), absl::OkStatus());
  EXPECT_EQ(replayed<JobAdded>().size(), 1u);
  ASSERT_EQ(replayed<CheckpointKept>().size(), 1u);
  EXPECT_EQ(replayed<CheckpointKept>()[0].checkpoint.number, 1u);
  EXPECT_TRUE(replayed<WorkerSeen>().empty()) << "it attaches again";
}

TEST_F(JournalFile, WhatIsIntactIsCounted) {
  ASSERT_EQ(open(), absl::OkStatus());
  ASSERT_EQ(journal_->commit({job(kJob)}), absl::OkStatus());
  journal_ = nullptr;
  sql("UPDATE jobs SET owner=owner||'x'");
  std::string text(open().message());
  EXPECT_NE(text.find(". No other job is in it. Put a backup"), std::string::npos) << text;
  journal_ = nullptr;
  sql("UPDATE jobs SET owner=substr(owner,1,length(owner)-1)");
  ASSERT_EQ(open(), absl::OkStatus());
  ASSERT_EQ(journal_->commit({job(JobId{71}), job(JobId{72})}), absl::OkStatus());
  journal_ = nullptr;
  sql("UPDATE jobs SET owner=owner||'x' WHERE id=" + std::to_string(int64_t(kJob.value)));
  text = std::string(open().message());
  EXPECT_NE(text.find(". 2 other jobs in it are intact. Put a backup"), std::string::npos) << text;
}

class DamagedPages : public JournalFile {
 protected:
  // Two jobs; a page in the middle of the first one's attempts becomes zeros.
  void SetUp() override {
    ASSERT_EQ(open(), absl::OkStatus());
    std::vector<Record> batch = {WorkerSeen{kWorker, "w", "lab"}, job(kJob, 3'000), job(kOther, 2)};
    for (uint32_t rank = 0; rank < 3'000; ++rank) {
      batch.push_back(AttemptLeased{{kJob, rank, 1}, kWorker});
      batch.push_back(AttemptEnded{
          {kJob, rank, 1}, outcome("rank " + std::to_string(rank) + "!"), true, RankState::failed});
    }
    batch.push_back(AttemptLeased{{kOther, 1, 1}, kWorker});
    batch.push_back(kept(kOther, 1, 1, {"chunk"}));
    ASSERT_EQ(journal_->commit(batch), absl::OkStatus());
    journal_ = nullptr;
    zero_page_with("rank 1500!");
  }
  void zero_page_with(const std::string& text) {
    std::fstream file(options_.path, std::ios::in | std::ios::out | std::ios::binary);
    const std::string bytes((std::istreambuf_iterator<char>(file)), {});
    const size_t at = bytes.find(text);
    ASSERT_NE(at, std::string::npos);
    file.clear();
    file.seekp(std::streamoff(at / 4096 * 4096));
    file << std::string(4096, '\0');
  }
};

TEST_F(DamagedPages, AreReportedWithWhatIsLostAndWhatIsNot) {
  const std::string before = [&] {
    std::ifstream file(options_.path, std::ios::binary);
    return std::string((std::istreambuf_iterator<char>(file)), {});
  }();
  const absl::Status status = open();
  const std::string text(status.message());
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_NE(text.find("job " + to_string(kJob) + ": rows that cannot be read"), std::string::npos)
      << text;
  EXPECT_EQ(text.find(to_string(kOther)), std::string::npos) << text;
  EXPECT_NE(text.find("1 other job in it is intact"), std::string::npos) << text;
  EXPECT_NE(text.find("--drop-damaged, which loses 1 job"), std::string::npos) << text;
  std::ifstream file(options_.path, std::ios::binary);
  EXPECT_TRUE(before == std::string((std::istreambuf_iterator<char>(file)), {}))
      << "nothing was changed";
}

TEST_F(DamagedPages, WhatIsIntactIsCopied) {
  options_.drop_damaged = true;
  ASSERT_EQ(open(), absl::OkStatus());
  ASSERT_EQ(replayed<JobAdded>().size(), 1u);
  EXPECT_EQ(replayed<JobAdded>()[0].id, kOther);
  EXPECT_EQ(replayed<WorkerSeen>().size(), 1u);
  EXPECT_EQ(replayed<AttemptLeased>().size(), 1u);
  EXPECT_EQ(kept_blobs(), (std::set<Digest>{manifest(1, 1).digest, sha256("chunk")}));
  EXPECT_TRUE(std::filesystem::exists(dir_ / "journal.db.damaged"));
  EXPECT_FALSE(std::filesystem::exists(dir_ / "journal.db.new"));
  options_.drop_damaged = false;
  ASSERT_EQ(open(), absl::OkStatus());
  EXPECT_EQ(journal_->commit({AttemptLeased{{kOther, 0, 1}, kWorker}}), absl::OkStatus());
}

// ---- growth -------------------------------------------------------------------------------------

TEST_F(JournalFile, RemovedJobsMakeRoomForOthers) {
  options_.durable = false;
  ASSERT_EQ(open(), absl::OkStatus());
  const auto reading = reader();  // as the coordinator has one
  uintmax_t early = 0;
  for (uint64_t i = 1; i <= 20; ++i) {
    const JobId id{kJob.value + i};
    std::vector<Record> batch = {job(id, 10'000)};
    for (uint32_t rank = 0; rank < 10'000; ++rank) {
      batch.push_back(AttemptLeased{{id, rank, 1}, kWorker});
      batch.push_back(AttemptEnded{{id, rank, 1}, outcome("a reason"), true, RankState::failed});
    }
    batch.push_back(JobErased{id});
    ASSERT_EQ(journal_->commit(batch), absl::OkStatus());
    while (!journal_->purge(id, 3'000).value()) {
    }
    ASSERT_TRUE(reading->jobs().ok());
    if (i == 3) early = count("PRAGMA page_count");
  }
  EXPECT_LE(uintmax_t(count("PRAGMA page_count")), early + early / 20) << "trees differ by a page";
  EXPECT_LE(std::filesystem::file_size(options_.path.string() + "-wal"), uintmax_t{64} << 20);
}

TEST_F(JournalFile, ARankThatSavesForWeeksNeedsNoMore) {
  options_.durable = false;
  ASSERT_EQ(open(), absl::OkStatus());
  ASSERT_EQ(journal_->commit({job(kJob), AttemptLeased{{kJob, 0, 1}, kWorker}}), absl::OkStatus());
  uintmax_t early = 0;
  for (uint32_t number = 1; number <= 3'000; ++number) {
    std::vector<Record> batch = {kept(kJob, 0, number, {"same", std::to_string(number)})};
    if (number > 3) batch.push_back(CheckpointsDropped{kJob, 0, number - 3});
    ASSERT_EQ(journal_->commit(batch), absl::OkStatus());
    if (number % 100 != 0) continue;
    const auto through = reader()->dropped(1'000, [](const Digest&) {});
    ASSERT_EQ(journal_->forget_dropped(through.value()), absl::OkStatus());
    if (number == 1'000) early = count("PRAGMA page_count");
  }
  EXPECT_LE(uintmax_t(count("PRAGMA page_count")), early);
  EXPECT_EQ(count("SELECT count(*) FROM checkpoint_drops"), 1);
  EXPECT_EQ(count("SELECT count(*) FROM checkpoints"), 3);
  ASSERT_EQ(open(), absl::OkStatus());
  EXPECT_EQ(replayed<CheckpointsDropped>().back().through, 2'997u);
}

// ---- other file systems -------------------------------------------------------------------------

TEST_F(JournalFile, AVfsIsNamedAndOneConnectionNeedsNoSharedMemory) {
  options_.vfs = "there is no such thing";
  EXPECT_FALSE(open().ok());
  options_.vfs = "unix-none";
  options_.exclusive = true;
  ASSERT_EQ(open(), absl::OkStatus());
  ASSERT_EQ(journal_->commit({job(kJob)}), absl::OkStatus());
  EXPECT_TRUE(std::filesystem::exists(options_.path.string() + "-wal"));
  EXPECT_FALSE(std::filesystem::exists(options_.path.string() + "-shm"));
  ASSERT_EQ(journal_->reopen(), absl::OkStatus());
  ASSERT_EQ(open(), absl::OkStatus());
  EXPECT_EQ(replayed<JobAdded>().size(), 1u);
}

}  // namespace
}  // namespace pesc::coordinator::testing
