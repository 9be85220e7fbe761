// A job from submission to its results.
#include <atomic>
#include <deque>
#include <set>
#include <thread>

#include "client/prepare.h"
#include "tests/client/support.h"

namespace pesc {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class JobTest : public Embedded {};

TEST_F(JobTest, SubmitWaitSave) {
  std::string program =
      directory_.script("who", "echo rank $PESC_RANK; echo x$PESC_RANK >$PESC_OUTPUT_DIR/f");
  absl::StatusOr<JobHandle> job = submit(job_of(program, 5));
  ASSERT_TRUE(job.ok()) << job.status();
  absl::StatusOr<JobResult> result = job->wait();
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_TRUE(result->succeeded());
  EXPECT_EQ(result->status().succeeded, 5u);
  EXPECT_EQ(*result->output(3), "rank 3\n");
  EXPECT_EQ(result->output(5).status().code(), absl::StatusCode::kOutOfRange);
  absl::Status saved = result->save((directory_ / "r").string());
  ASSERT_TRUE(saved.ok()) << saved;
  EXPECT_EQ(read_file(directory_ / "r/output.txt"), "rank 0\nrank 1\nrank 2\nrank 3\nrank 4\n");
  EXPECT_EQ(read_file(directory_ / "r/rank-4/f"), "x4\n");
  EXPECT_TRUE(result->save((directory_ / "r").string()).ok());  // its own directory: again
  std::ofstream(directory_ / "file") << "x";
  EXPECT_FALSE(result->save((directory_ / "file").string()).ok());
}

TEST_F(JobTest, RefusedBeforeAnythingIsStored) {
  Job job = job_of((directory_ / "missing").string());
  EXPECT_THAT(std::string(submit(job).status().message()), HasSubstr("missing"));
  job.program = "";
  EXPECT_EQ(submit(job).status().code(), absl::StatusCode::kInvalidArgument);
  job = job_of("true", 0);
  EXPECT_EQ(submit(job).status().code(), absl::StatusCode::kInvalidArgument);
  job = job_of("true");
  job.resources.cpus = -1;
  EXPECT_EQ(submit(job).status().code(), absl::StatusCode::kInvalidArgument);
  job = job_of("true");
  job.time_limit = std::chrono::milliseconds(-1);
  EXPECT_EQ(submit(job).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(JobTest, AFailureHasItsReason) {
  Client client = local();
  absl::StatusOr<JobHandle> job =
      client.submit(job_of(directory_.script("bad", "echo no luck >&2; exit 7"), 2));
  ASSERT_TRUE(job.ok()) << job.status();
  absl::StatusOr<JobResult> result = job->wait();
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_FALSE(result->succeeded());
  absl::StatusOr<RankResult> rank = job->rank(1);
  ASSERT_TRUE(rank.ok()) << rank.status();
  EXPECT_EQ(rank->state, State::failed);
  EXPECT_EQ(rank->exit_code, 7);
  EXPECT_EQ(rank->reason, "exit_code");
  EXPECT_EQ(*job->read_output(1, 0, true), "no luck\n");
  EXPECT_EQ(job->rank(2).status().code(), absl::StatusCode::kOutOfRange);
  absl::StatusOr<std::vector<WhyLine>> why = client.why(job->id());
  ASSERT_TRUE(why.ok() && !why->empty());
  EXPECT_THAT(why->front().reason, HasSubstr("no luck"));
}

TEST_F(JobTest, CallbacksOfEveryKind) {
  std::mutex mutex;
  std::set<uint32_t> ranks;
  std::atomic<int> progress = 0, concurrent = 0, most = 0;
  Flag over, all, first;
  absl::StatusOr<JobHandle> job = submit(job_of(directory_.script("who", "exit 0"), 20));
  ASSERT_TRUE(job.ok()) << job.status();
  auto entered = [&] {
    int now = ++concurrent;
    most = std::max(most.load(), now);
  };
  job->on_progress([&](const Progress& p) {
    entered();
    EXPECT_LE(p.fraction(), 1);
    ++progress;
    first.set();
    --concurrent;
  });
  job->on_result([&](const RankResult& rank) {
    entered();
    {
      std::lock_guard lock(mutex);
      EXPECT_TRUE(ranks.insert(rank.rank).second) << "told twice: " << rank.rank;
      if (ranks.size() == 20) all.set();
    }
    --concurrent;
  });
  job->on_finished([&](const absl::StatusOr<JobResult>& result) {
    entered();
    EXPECT_TRUE(result.ok() && result->succeeded());
    // Blocking calls are allowed here: PESC's loop is another thread.
    EXPECT_EQ(job->status()->succeeded, 20u);
    --concurrent;
    over.set();
  });
  over.wait();
  all.wait();
  first.wait();
  EXPECT_EQ(most, 1) << "callbacks come one at a time";
}

TEST_F(JobTest, CallbacksOnTheCallersOwnLoop) {
  struct Loop {
    std::mutex mutex;
    std::condition_variable wake;
    std::deque<std::function<void()>> queue;
  };
  auto loop = std::make_shared<Loop>();
  Executor executor = [loop](std::function<void()> work) {
    std::lock_guard lock(loop->mutex);
    loop->queue.push_back(std::move(work));
    loop->wake.notify_one();
  };
  std::thread::id here = std::this_thread::get_id();
  size_t results = 0;
  bool over = false, progressed = false;
  absl::StatusOr<JobHandle> job = submit(job_of("true", 3));
  ASSERT_TRUE(job.ok()) << job.status();
  job->on_progress([&](const Progress&) { progressed = std::this_thread::get_id() == here; },
                   executor);
  job->on_result([&](const RankResult&) { results += std::this_thread::get_id() == here; },
                 executor);
  job->on_finished([&](const absl::StatusOr<JobResult>&) { over = true; }, executor);
  while (!over || results < 3 || !progressed) {
    std::function<void()> work;
    {
      std::unique_lock lock(loop->mutex);
      loop->wake.wait(lock, [&] { return !loop->queue.empty(); });
      work = std::move(loop->queue.front());
      loop->queue.pop_front();
    }
    work();
  }
  EXPECT_EQ(results, 3u);
}

TEST_F(JobTest, NextResultGivesEachRankOnce) {
  absl::StatusOr<JobHandle> job = submit(job_of("true", 30));
  ASSERT_TRUE(job.ok()) << job.status();
  JobHandle copy = *job;
  for (JobHandle* handle : {&*job, &copy}) {
    std::set<uint32_t> ranks;
    for (;;) {
      absl::StatusOr<std::optional<RankResult>> next = handle->next_result();
      ASSERT_TRUE(next.ok()) << next.status();
      if (!next->has_value()) break;
      EXPECT_TRUE(ranks.insert((*next)->rank).second);
    }
    EXPECT_EQ(ranks.size(), 30u);
  }
}

TEST_F(JobTest, OutputIsReadWhileTheRankRunsAndAfter) {
  std::string started = directory_.fifo("started"), gate = directory_.fifo("gate");
  std::string program = directory_.script(
      "live", "echo first; echo up >" + started + "; read x <" + gate + "; echo second");
  absl::StatusOr<JobHandle> job = submit(job_of(program));
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(read_line(started), "up");
  std::string seen;
  while (seen != "first\n") {  // the rank has written it; the keeper may still be reading
    absl::StatusOr<std::string> more = job->read_output(0, seen.size());
    ASSERT_TRUE(more.ok()) << more.status();
    seen += *more;
    ASSERT_TRUE(std::string("first\n").starts_with(seen)) << seen;
  }
  EXPECT_EQ(job->wait(std::chrono::milliseconds(10)).status().code(),
            absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(job->wait(std::chrono::milliseconds(0)).status().code(),
            absl::StatusCode::kDeadlineExceeded);
  std::ofstream(gate) << "go\n";
  ASSERT_TRUE(job->wait().ok());
  EXPECT_EQ(*job->read_output(0, 6), "second\n");
  EXPECT_EQ(*job->read_output(0, 1'000), "");
  EXPECT_EQ(job->read_output(1).status().code(), absl::StatusCode::kOutOfRange);
}

TEST_F(JobTest, CancelEndsTheRanksAndTheWait) {
  std::string started = directory_.fifo("started");
  std::string program =
      directory_.script("stubborn", "trap '' TERM; echo up >" + started + "; while :; do :; done");
  Job description = job_of(program, 1);
  description.grace = std::chrono::milliseconds(50);
  absl::StatusOr<JobHandle> job = submit(description);
  ASSERT_TRUE(job.ok()) << job.status();
  read_line(started);
  EXPECT_TRUE(job->cancel().ok());
  EXPECT_TRUE(job->cancel().ok());  // nothing more to do
  absl::StatusOr<JobResult> result = job->wait();
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->status().state, State::cancelled);
}

TEST_F(JobTest, TheSameIdIsTheSameJob) {
  Client client = local();
  std::string program = directory_.script("who", "echo x >>" + (directory_ / "runs").string());
  std::string id = new_job_id();
  absl::StatusOr<JobHandle> first = client.submit(job_of(program), id);
  absl::StatusOr<JobHandle> second = client.submit(job_of(program), id);
  ASSERT_TRUE(first.ok() && second.ok()) << first.status() << second.status();
  EXPECT_EQ(first->id(), second->id());
  ASSERT_TRUE(first->wait().ok());
  ASSERT_TRUE(second->wait().ok());
  EXPECT_EQ(read_file(directory_ / "runs"), "x\n");
  EXPECT_EQ(client.submit(job_of(program, 2), id).status().code(),
            absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(client.submit(job_of(program), "no id").status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(client.attach(new_job_id()).status().code(), absl::StatusCode::kNotFound);
  absl::StatusOr<JobHandle> again = client.attach(id);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_TRUE(again->wait()->succeeded());
  ASSERT_TRUE(client.remove(id).ok());
  EXPECT_EQ(client.attach(id).status().code(), absl::StatusCode::kNotFound);
}

// Large: it goes up piece by piece, and the last one is not full.
std::string large_bytes() {
  std::string bytes(5 * 1024 * 1024 + 12'345, 'x');
  for (size_t i = 0; i < bytes.size(); i += 4'096) bytes[i] = static_cast<char>(i >> 12);
  return bytes;
}

TEST_F(JobTest, WhatWasPreparedIsSubmitted) {
  Client client = local();
  const std::string bytes = large_bytes();
  std::ofstream(directory_ / "big", std::ios::binary) << bytes;
  Job job = job_of(directory_.script("copy", "cp big $PESC_OUTPUT_DIR/back"));
  job.shared_files = {(directory_ / "big").string()};
  absl::StatusOr<client::PreparedJob> prepared = client::prepare(job);
  ASSERT_TRUE(prepared.ok()) << prepared.status();
  absl::StatusOr<JobHandle> handle = client::submit(client, *prepared, "");
  ASSERT_TRUE(handle.ok()) << handle.status();
  absl::StatusOr<JobResult> result = handle->wait();
  ASSERT_TRUE(result.ok()) << result.status();
  ASSERT_TRUE(result->save((directory_ / "r").string()).ok());
  EXPECT_TRUE(read_file(directory_ / "r/rank-0/back") == bytes);
}

TEST_F(JobTest, AFileThatIsNotWhatItWasWhenPreparedIsRefused) {
  Client client = local();
  std::string bytes = large_bytes();
  Job job = job_of(directory_.script("nothing", "true"));
  job.shared_files = {(directory_ / "big").string()};
  const std::vector<std::function<void()>> changes = {
      [&] { bytes.back() = '!'; }, [&] { bytes += "more"; }, [&] { bytes.pop_back(); },
      [&] { bytes.resize(100); }};
  for (const auto& change : changes) {
    bytes = large_bytes();
    std::ofstream(directory_ / "big", std::ios::binary) << bytes;
    absl::StatusOr<client::PreparedJob> prepared = client::prepare(job);
    ASSERT_TRUE(prepared.ok()) << prepared.status();
    change();
    std::ofstream(directory_ / "big", std::ios::binary) << bytes;
    const absl::Status refused = client::submit(client, *prepared, "").status();
    EXPECT_EQ(refused.code(), absl::StatusCode::kAborted) << refused;
    EXPECT_THAT(std::string(refused.message()), HasSubstr("changed while it was being submitted"));
  }
  EXPECT_TRUE(client.jobs()->empty());
}

}  // namespace
}  // namespace pesc
