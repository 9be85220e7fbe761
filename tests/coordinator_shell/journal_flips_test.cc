// Bits of the journal's file rot. Whatever bit it is: the journal is refused with a report, or it
// gives back what was written.
#include <sqlite3.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <set>

#include "harness.h"
#include "runtime/coordinator/shell/journal.h"
#include "runtime/coordinator/shell/journal_rows.h"

namespace pesc::coordinator::testing {
namespace {

constexpr JobId kFirst{0x0ab00000'00000001};
constexpr JobId kSecond{0x0ab00001'00000002};
constexpr JobId kThird{0x0ab00002'00000003};
constexpr JobId kRemoved{0x0ab00003'00000004};
constexpr WorkerId kWorker{77};

std::string file_text(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// A record as text, with all that it says (but for chunks, which a restore leaves out).
std::string text_of(const Record& record) {
  struct Text {
    std::string operator()(const JobAdded& r) {
      return r.owner + " " + std::to_string(r.submitted_unix_ms) +
             protocol::serialize_spec(*r.spec);
    }
    std::string operator()(const AttemptLeased& r) {
      return to_string(r.key.job) + " lease " + std::to_string(r.key.rank) + "." +
             std::to_string(r.key.attempt) + " " + std::to_string(r.worker.value) + " " +
             std::to_string(r.checkpoint) + (r.second ? " second" : "");
    }
    std::string operator()(const AttemptEnded& r) {
      StoredAttempt attempt;
      attempt.row.key = r.key;
      attempt.ended_seq = 1;
      attempt.row.final = r.final;
      attempt.row.state = r.state;
      attempt.row.outcome = r.outcome;
      return to_string(r.key.job) + " end " + std::to_string(r.key.rank) + "." +
             std::to_string(r.key.attempt) + " " + std::to_string(attempt_crc(attempt));
    }
    std::string operator()(const WorkerSeen& r) { return r.name + "/" + r.room; }
    std::string operator()(const WorkerDraining& r) { return std::to_string(r.worker.value); }
    std::string operator()(const ProgramLearned& r) {
      return to_hex(r.program) + " " + std::to_string(r.memory_bytes) + " " +
             std::to_string(r.gpu_memory_bytes) + (r.gpu_known ? " known" : "");
    }
    std::string operator()(const CheckpointKept& r) {
      return to_string(r.key.job) + " checkpoint " + std::to_string(r.key.rank) + "." +
             std::to_string(r.key.attempt) + " " + std::to_string(r.checkpoint.number) + " " +
             to_hex(r.checkpoint.manifest.digest) + " " + std::to_string(r.saved_ms);
    }
    std::string operator()(const CheckpointsDropped& r) {
      return to_string(r.job) + " drop " + std::to_string(r.rank) + " " + std::to_string(r.through);
    }
    std::string operator()(const JobErased& r) { return to_string(r.job); }
    std::string operator()(const RanksCancelled& r) { return to_string(r.job) + encode(r); }
    std::string operator()(const JobStopped& r) { return to_string(r.job) + encode(r); }
    std::string operator()(const JobFinished& r) { return to_string(r.job) + encode(r); }
    std::string operator()(const RanksReopened& r) { return to_string(r.job) + encode(r); }
    std::string operator()(const GangStarted& r) { return to_string(r.job) + encode(r); }
  };
  return std::to_string(record.index()) + " " + std::visit(Text{}, record);
}

// What a restore gives back: job by job, checkpoints apart, since one may be lost alone.
struct Restored {
  std::vector<std::string> all;
  std::map<uint64_t, std::vector<std::string>> jobs;
  std::set<std::string> checkpoints;

  void add(const Record& record) {
    const std::string text = text_of(record);
    all.push_back(text);
    if (const auto* added = std::get_if<JobAdded>(&record)) job = added->id.value;
    if (std::holds_alternative<CheckpointKept>(record)) {
      checkpoints.insert(text);
    } else if (job != 0) {
      jobs[job].push_back(text);
    }
  }
  uint64_t job = 0;  // whose records come
};

class FlippedBits : public ::testing::Test {
 protected:
  FlippedBits() {
    options_.path = dir_ / "journal.db";
    options_.durable = false;
  }
  void SetUp() override {
    {
      auto journal = Journal::open(options_).value();
      ASSERT_EQ(journal->replay([](const Record&) {}), absl::OkStatus());
      ASSERT_EQ(journal->commit(records()), absl::OkStatus());
    }
    good_ = file_text(options_.path);
    ASSERT_FALSE(std::filesystem::exists(options_.path.string() + "-wal"));
    ASSERT_EQ(open(&original_), absl::OkStatus());
    outputs_ = outputs();
    ASSERT_EQ(outputs_.size(), 200u) << "100 outputs, and as many decided ranks";
  }
  static void add_job(std::vector<Record>& batch, JobId id, uint32_t ranks) {
    batch.push_back(JobAdded{id, "ann", std::make_shared<const JobSpec>(simple_spec(ranks)), 1234});
    for (uint32_t rank = 0; rank < ranks; ++rank) {
      batch.push_back(AttemptLeased{{id, rank, 1}, kWorker});
      const std::string output = to_string(id) + "." + std::to_string(rank);
      AttemptOutcome outcome = FakeWorker::success(output);
      outcome.output = {sha256(output), output.size()};
      if (rank % 10 != 9) {
        batch.push_back(AttemptEnded{{id, rank, 1}, outcome, true, RankState::succeeded});
      }
    }
  }
  static Record kept(JobId job, uint32_t rank, uint32_t number) {
    const std::string name = "manifest " + std::to_string(rank) + "." + std::to_string(number);
    auto chunks = std::make_shared<std::vector<BlobRef>>();
    for (int i = 0; i < 3; ++i) chunks->push_back({sha256(name + std::to_string(i)), 4'096});
    return CheckpointKept{{job, rank, 1}, {number, {sha256(name), 99}}, chunks, 1'000ull * number};
  }
  // The attempts need a b-tree of two levels.
  static std::vector<Record> records() {
    std::vector<Record> batch = {WorkerSeen{kWorker, "w", "lab"}, WorkerDraining{kWorker, true}};
    add_job(batch, kFirst, 90);
    add_job(batch, kSecond, 1);
    add_job(batch, kThird, 20);
    add_job(batch, kRemoved, 10);
    for (uint32_t rank = 0; rank < 5; ++rank) {
      for (uint32_t number = 1; number <= 3; ++number) {
        batch.push_back(kept(kFirst, rank, number));
        if (number > 2) batch.push_back(CheckpointsDropped{kFirst, rank, number - 2});
      }
    }
    batch.push_back(kept(kThird, 0, 1));
    batch.push_back(GangStarted{kThird, 1, "192.0.2.9", 20'001});
    batch.push_back(RanksCancelled{kThird, 9, 9});
    batch.push_back(JobStopped{kThird, true, "enough"});
    batch.push_back(JobFinished{kSecond, JobState::succeeded, 1'700'000'000'000});
    for (int i = 0; i < 50; ++i) {
      batch.push_back(ProgramLearned{sha256("program " + std::to_string(i)), 1ull << 30, 5, true});
    }
    batch.push_back(JobErased{kRemoved});
    return batch;
  }
  absl::Status open(Restored* restored) {
    auto journal = Journal::open(options_);
    if (!journal.ok()) return journal.status();
    return (*journal)->replay([&](const Record& record) {
      if (restored != nullptr) restored->add(record);
    });
  }
  std::set<Digest> outputs() {
    std::set<Digest> found;
    auto reader = JournalReader::open(options_.path).value();
    for (const JobId job : {kFirst, kSecond, kThird}) {
      EXPECT_EQ(reader->outputs(job, [&](const BlobRef& blob) { found.insert(blob.digest); }),
                absl::OkStatus());
      const std::vector<RankRow> rows = reader->page(job, 0, 90).value();
      for (const RankRow& row : rows) {
        if (row.decided) found.insert(sha256(to_string(job) + std::to_string(row.rank)));
      }
    }
    return found;
  }
  void write(size_t at, unsigned bit) {
    for (const char* suffix : {"-wal", "-shm", ".damaged", ".new"}) {
      std::filesystem::remove(options_.path.string() + suffix);
    }
    std::string bytes = good_;
    bytes[at] = char(bytes[at] ^ (1 << bit));
    std::ofstream(options_.path, std::ios::binary | std::ios::trunc) << bytes;
  }

  // Refused, and what --drop-damaged then keeps is whole; or as it was written.
  void check(size_t at, unsigned bit) {
    SCOPED_TRACE("byte " + std::to_string(at) + " bit " + std::to_string(bit));
    write(at, bit);
    options_.drop_damaged = false;
    Restored restored;
    const absl::Status status = open(&restored);
    if (status.ok()) {
      EXPECT_TRUE(restored.all == original_.all) << "not what was written";
      EXPECT_TRUE(outputs() == outputs_) << "look-ups miss some";
      ++harmless_;
      return;
    }
    EXPECT_FALSE(status.message().empty());
    ++refused_;
    options_.drop_damaged = true;
    Restored kept;
    if (!open(&kept).ok()) {
      ++hopeless_;
      return;
    }
    for (const auto& [job, records] : kept.jobs) {
      const auto found = original_.jobs.find(job);
      ASSERT_TRUE(found != original_.jobs.end()) << status;
      // What a broken page has lost of its cells nobody can tell.
      if (status.message().find("SQLite says") != absl::string_view::npos) continue;
      EXPECT_TRUE(records == found->second) << to_string(JobId{job}) << " is not whole: " << status;
    }
    for (const std::string& checkpoint : kept.checkpoints) {
      EXPECT_EQ(original_.checkpoints.count(checkpoint), 1u) << checkpoint;
    }
    EXPECT_GE(kept.jobs.size(), 1u) << status;
    saved_jobs_ += kept.jobs.size();
    options_.drop_damaged = false;
    EXPECT_EQ(open(nullptr), absl::OkStatus()) << "after " << status;
  }

  TemporaryDirectory dir_;
  JournalOptions options_;
  std::string good_;
  Restored original_;
  std::set<Digest> outputs_;
  int harmless_ = 0, refused_ = 0, hopeless_ = 0;
  size_t saved_jobs_ = 0;
};

TEST_F(FlippedBits, AreRefusedOrDoNotMatter) {
  unsigned bit = 0;
  for (size_t at = 0; at < 100; ++at) check(at, ++bit * 5 % 8);  // the file's header
  const size_t step = (good_.size() / 300) | 1;
  for (size_t at = 100; at < good_.size(); at += step) check(at, ++bit * 5 % 8);
  EXPECT_GT(refused_, 80);
  EXPECT_GT(harmless_, 30);
  EXPECT_LT(hopeless_, 60) << "the header and the tables' descriptions";
}

// Every bit of a job's number, wherever it stands in a row: it hides rows, or moves one elsewhere.
TEST_F(FlippedBits, OfAJobsNumberHideNothingUnnoticed) {
  for (const JobId job : {kFirst, kSecond, kThird, kRemoved}) {
    std::string number;
    for (int i = 7; i >= 0; --i) number.push_back(char(job.value >> (8 * i) & 0xff));
    std::vector<size_t> places;
    for (size_t at = good_.find(number); at != std::string::npos; at = good_.find(number, at + 1)) {
      places.push_back(at);
    }
    ASSERT_FALSE(places.empty());
    const size_t step = std::max<size_t>(1, places.size() / 3);
    for (size_t i = 0; i < places.size(); i += step) {
      for (size_t bit = i % 5; bit < 64; bit += 5) check(places[i] + bit / 8, bit % 8);
    }
  }
  EXPECT_GT(refused_, 60);
  EXPECT_EQ(hopeless_, 0);
  EXPECT_GT(saved_jobs_, size_t(refused_)) << "one row costs one job";
}

// The journal of the report: one bit in the middle, and a third of the results was not found.
TEST_F(FlippedBits, OneRowOutOfOrderCostsItsJobAlone) {
  std::string number;
  for (int i = 7; i >= 0; --i) number.push_back(char(kFirst.value >> (8 * i) & 0xff));
  const size_t at = good_.find(number + char(45));  // rank 45
  ASSERT_NE(at, std::string::npos);
  write(at, 4);
  const absl::Status status = open(nullptr);
  const std::string text(status.message());
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_NE(text.find("the rows of table attempts are out of order"), std::string::npos) << text;
  EXPECT_NE(text.find("job " + to_string(kFirst)), std::string::npos) << text;
  EXPECT_NE(text.find("2 other jobs in it are intact"), std::string::npos) << text;
  EXPECT_NE(text.find("loses 1 job with all results"), std::string::npos) << text;
  check(at, 4);
  EXPECT_EQ(saved_jobs_, 2u);
}

// Rows of a job that is in no table: as damaged as if they could not be read.
TEST_F(FlippedBits, RowsOfNoJobAreDamage) {
  auto lost = [this](const std::string& table, JobId job) {
    write(0, 0);
    std::ofstream(options_.path, std::ios::binary | std::ios::trunc) << good_;
    sqlite3* db = nullptr;
    ASSERT_EQ(sqlite3_open(options_.path.c_str(), &db), SQLITE_OK);
    const std::string sql = "DELETE FROM " + table +
                            (table == "jobs" ? " WHERE id=" : " WHERE job=") +
                            std::to_string(int64_t(job.value));
    EXPECT_EQ(sqlite3_exec(db, sql.c_str(), nullptr, nullptr, nullptr), SQLITE_OK);
    sqlite3_close(db);
    options_.drop_damaged = false;
    const std::string text(open(nullptr).message());
    EXPECT_NE(text.find("job " + to_string(job) + ": its description cannot be read"),
              std::string::npos)
        << text;
    options_.drop_damaged = true;
    Restored kept;
    EXPECT_EQ(open(&kept), absl::OkStatus());
    EXPECT_EQ(kept.jobs.size(), table == "jobs" ? 2u : 3u);
    auto journal = Journal::open(options_).value();
    ASSERT_EQ(journal->replay([](const Record&) {}), absl::OkStatus());
    const std::vector<JobId> erased = journal->erased().value();
    EXPECT_EQ(std::count(erased.begin(), erased.end(), job), 1);
    while (!journal->purge(job, 20).value()) {
    }
    journal = nullptr;
    options_.drop_damaged = false;
    EXPECT_EQ(open(nullptr), absl::OkStatus());
  };
  lost("jobs", kThird);
  lost("erased", kRemoved);
}

}  // namespace
}  // namespace pesc::coordinator::testing
