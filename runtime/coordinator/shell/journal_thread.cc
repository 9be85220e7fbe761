#include "runtime/coordinator/shell/journal_thread.h"

#include <pthread.h>
#include <signal.h>

#include <string>
#include <utility>

namespace pesc::coordinator {

absl::StatusOr<std::unique_ptr<Core>> restore_core(Journal& journal, const CoreConfig& config) {
  auto core = std::make_unique<Core>(config);
  absl::Status status = journal.replay([&](const Record& record) { core->apply(record); });
  if (!status.ok()) return status;
  return core;
}

absl::Status explain_commit_failure(const absl::Status& status) {
  const std::string reason(status.message());
  if (status.code() == absl::StatusCode::kResourceExhausted) {
    return absl::ResourceExhaustedError("the coordinator's disk is full: " + reason +
                                        "; free space there, it goes on by itself");
  }
  // Not Unavailable: it answers, and whoever asks is to hear why nothing comes of it.
  return absl::ResourceExhaustedError(
      "the coordinator cannot write its journal: " + reason +
      "; nothing was lost that it had acknowledged, it tries again by itself");
}

JournalThread::JournalThread(rpc::Loop& loop, Journal& journal, blob::Store& blobs)
    : loop_(loop), journal_(journal), blobs_(blobs) {
  // Signals belong to the host program's threads.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  thread_ = std::thread([this] { main(); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

JournalThread::~JournalThread() {
  *alive_ = false;
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

void JournalThread::push(std::function<void()> task) {
  {
    const std::lock_guard lock(mutex_);
    tasks_.push_back(std::move(task));
  }
  wake_.notify_one();
}

uint64_t JournalThread::wait_with(Done done) {
  waiting_.emplace(next_ticket_, std::move(done));
  return next_ticket_++;
}

void JournalThread::answer(uint64_t ticket, absl::Status status) {
  loop_.post([this, alive = alive_, ticket, status = std::move(status)] {
    if (!*alive) return;
    auto found = waiting_.find(ticket);
    const Done done = std::move(found->second);
    waiting_.erase(found);
    done(status);
  });
}

void JournalThread::main() {
  std::unique_lock lock(mutex_);
  while (true) {
    wake_.wait(lock, [this] { return stop_ || !tasks_.empty(); });
    if (tasks_.empty()) return;
    std::function<void()> task = std::move(tasks_.front());
    tasks_.pop_front();
    lock.unlock();
    task();
    task = nullptr;
    lock.lock();
  }
}

void JournalThread::commit(const Batch& batch, Done done) {
  push([this, &batch, ticket = wait_with(std::move(done))] {
    absl::Status status;
    if (batch.sync_blobs) status = blobs_.sync();
    if (status.ok()) status = journal_.commit(batch.records);
    answer(ticket, std::move(status));
  });
}

void JournalThread::sync_blobs(Done done) {
  const uint64_t ticket = wait_with(std::move(done));
  {
    const std::lock_guard lock(mutex_);
    syncs_.push_back(ticket);
    if (syncs_.size() > 1) return;  // a sync that has not begun is queued already
  }
  push([this] {
    std::vector<uint64_t> tickets;
    {
      const std::lock_guard lock(mutex_);
      tickets.swap(syncs_);
    }
    const absl::Status status = blobs_.sync();
    for (const uint64_t waiting : tickets) answer(waiting, status);
  });
}

void JournalThread::restore(CoreConfig config,
                            std::function<void(absl::StatusOr<std::unique_ptr<Core>>)> done) {
  using Result = absl::StatusOr<std::unique_ptr<Core>>;
  auto result = std::make_shared<Result>(absl::UnknownError(""));
  const uint64_t ticket = wait_with(
      [result, done = std::move(done)](const absl::Status&) { done(std::move(*result)); });
  push([this, result, config, ticket] {
    absl::Status status = journal_.reopen();
    *result = status.ok() ? restore_core(journal_, config) : Result(status);
    answer(ticket, absl::OkStatus());
  });
}

void JournalThread::run(std::function<void(Journal&)> work, std::function<void()> done) {
  const uint64_t ticket = wait_with([done = std::move(done)](const absl::Status&) { done(); });
  push([this, work = std::move(work), ticket] {
    work(journal_);
    answer(ticket, absl::OkStatus());
  });
}

}  // namespace pesc::coordinator
