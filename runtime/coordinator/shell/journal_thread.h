// The thread that waits for the disk: commits, fsyncs of blobs, restores and purges, one after the
// other. Answers come back on the loop.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "blob/store.h"
#include "rpc/loop.h"
#include "runtime/coordinator/shell/journal.h"
#include "runtime/coordinator/shell/turn.h"

namespace pesc::coordinator {

class JournalThread {
 public:
  using Done = std::function<void(absl::Status)>;

  JournalThread(rpc::Loop& loop, Journal& journal, blob::Store& blobs);
  ~JournalThread();  // does what was asked for, calls nothing back any more
  JournalThread(const JournalThread&) = delete;
  JournalThread& operator=(const JournalThread&) = delete;

  // `batch` must live until `done`.
  void commit(const Batch& batch, Done done);
  // Blobs put so far are durable when `done` is called; waiting calls share one sync.
  void sync_blobs(Done done);
  void restore(CoreConfig config, std::function<void(absl::StatusOr<std::unique_ptr<Core>>)> done);
  // Any other work with the journal.
  void run(std::function<void(Journal&)> work, std::function<void()> done);

 private:
  // What is called back stays on the loop's side, under a number: it may hold KJ objects, which no
  // other thread may even destroy.
  uint64_t wait_with(Done done);
  void push(std::function<void()> task);
  void answer(uint64_t ticket, absl::Status status);
  void main();

  rpc::Loop& loop_;
  Journal& journal_;
  blob::Store& blobs_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::function<void()>> tasks_;
  bool stop_ = false;
  std::vector<uint64_t> syncs_;       // wait for the sync that is queued (mutex_)
  std::map<uint64_t, Done> waiting_;  // on the loop
  uint64_t next_ticket_ = 1;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  std::thread thread_;
};

// A core as the journal has it, or why not.
absl::StatusOr<std::unique_ptr<Core>> restore_core(Journal& journal, const CoreConfig& config);

// What a failed commit is told to those who wait: what happened, and what to do.
absl::Status explain_commit_failure(const absl::Status& status);

}  // namespace pesc::coordinator
