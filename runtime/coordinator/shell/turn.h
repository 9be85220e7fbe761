// The shell's turn: events in; one batch of records to the journal; then, and only then, the
// actions out. Knows no clock, thread, file or socket: its host has them (the coordinator, or the
// simulator). Not thread-safe.
//
// While a batch is being committed new events queue up, so that a group commit comes about by
// itself and nothing waits longer than one commit.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/coordinator/core/core.h"

namespace pesc::coordinator {

// What one turn wants to be durable. `sync_blobs`: a record names a blob, which must be durable
// before it.
struct Batch {
  std::vector<Record> records;
  bool sync_blobs = false;
};

class TurnHost {
 public:
  virtual ~TurnHost() = default;
  virtual TimeMs now() = 0;
  virtual int64_t wall_ms() = 0;
  // Calls Turn::run() soon, once.
  virtual void schedule() = 0;
  // Ends in Turn::committed(), never from within this call. The batch stays as it is until then.
  virtual void commit(const Batch& batch) = 0;
  // Makes a new core from the journal after `delay_ms`; ends in Turn::restored().
  virtual void restore(uint64_t delay_ms) = 0;
  virtual void perform(Action action) = 0;
  // All actions of a batch have been performed.
  virtual void released(const Batch& batch) = 0;
  // A request (of an event that failed or cannot be taken) is answered with an error.
  virtual void refuse(uint64_t request, const absl::Status& status) = 0;
  // The core's state is gone: every worker's session ends.
  virtual void state_lost(const absl::Status& reason) = 0;
  virtual void arm(TimeMs deadline) = 0;
};

class Turn {
 public:
  Turn(TurnHost& host, std::unique_ptr<Core> core);

  void post(Event event);
  void timer_fired();
  void run();
  void committed(const absl::Status& status);
  void restored(absl::StatusOr<std::unique_ptr<Core>> core);

  // Calls back when all that has been stepped so far is durable (at once when it is), or with the
  // error when it never will be. What a view of the core shows may leave only then.
  void when_settled(std::function<void(const absl::Status&)> done);
  // The same for all events posted so far.
  void when_drained(std::function<void(const absl::Status&)> done);
  // OK, or why no work is taken at present.
  const absl::Status& health() const { return health_; }

  const Core& core() const { return *core_; }
  Core& core() { return *core_; }

 private:
  void step(const Event& event, bool more);
  void step_timers(bool more);
  void release();
  void fail(const absl::Status& status);
  void when_done(uint64_t events, std::function<void(const absl::Status&)> done);
  void answer_waiting(const absl::Status& status);
  void schedule();
  void arm();

  TurnHost& host_;
  std::unique_ptr<Core> core_;
  std::deque<Event> queue_;
  Batch batch_;
  std::vector<Action> actions_;
  std::vector<uint64_t> requests_;  // of the batch
  uint64_t posted_ = 0, stepped_ = 0;
  uint64_t awaited_ = 0;  // no worker is given up before so many are stepped
  struct Waiting {
    uint64_t events;
    std::function<void(const absl::Status&)> done;
  };
  std::vector<Waiting> waiting_;
  absl::Status health_;
  uint64_t restore_delay_ms_ = 0;
  bool scheduled_ = false, committing_ = false, timer_due_ = false;
};

// The number of the call that waits for an answer to the event; 0: none does.
uint64_t request_of(const Event& event);
bool names_blob(const Record& record);

}  // namespace pesc::coordinator
