// The coordinator's process: the real core behind a turn like the shell's (drain, step, commit all
// records in one transaction, release the actions), on a disk that keeps what was committed.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <vector>

#include "runtime/coordinator/core/core.h"
#include "tests/sim/network.h"
#include "tests/sim/play.h"
#include "tests/sim/record_store.h"

namespace pesc::sim {

class CoordinatorHost {
 public:
  explicit CoordinatorHost(Play& play);

  void start();
  void crash();
  bool up() const { return core_ != nullptr; }

  void accept(const std::shared_ptr<Connection>& connection);
  using Answered = std::function<void(const absl::Status& status, uint32_t count)>;
  // `event` with `request` filled in; `answered` is not called when it crashes before.
  uint64_t next_request() { return ++last_request_; }
  void call(uint64_t request, coordinator::Event event, Answered answered);

  // Nothing waits to be committed: the core and the disk must agree.
  bool quiet() const { return up() && batch_.records.empty() && !committing_; }
  void check_agreement();
  void check_replay();  // the log must say what the rows say
  std::string why(JobId id) const;

 private:
  struct Batch {
    std::vector<coordinator::Record> records;
    std::vector<coordinator::Action> actions;
  };
  struct Call {
    std::shared_ptr<Connection> connection;
    uint64_t number = 0;
    std::set<AttemptKey> succeeded;
  };

  void post(coordinator::Event event);
  void turn();
  void step(const coordinator::Event& event);
  void commit_batch();
  void committed(const std::vector<coordinator::Record>& records);
  void release(const std::vector<coordinator::Action>& actions);
  void arm_timer();
  void on_message(const std::shared_ptr<Connection>& connection, const Message& message);
  void on_attach(const std::shared_ptr<Connection>& connection, const Message& message);
  void on_report(const std::shared_ptr<Connection>& connection, const Message& message);

  void release_one(const coordinator::Answer& action);
  void release_one(const coordinator::AnswerAttach& action);
  void release_one(const coordinator::AnswerReport& action);
  void release_one(const coordinator::AnswerCheckpoint&) {}
  void release_one(const coordinator::AnswerDrain&) {}
  void release_one(const coordinator::SendUpdate& action);
  void release_one(const coordinator::CloseSession& action);
  void release_one(const coordinator::JobChanged&) {}

  Play& play_;
  RecordStore disk_;
  std::unique_ptr<coordinator::Core> core_;
  uint64_t life_ = 0;  // grows with each crash: what was planned before it does not happen
  std::vector<coordinator::Event> queue_;
  bool turn_planned_ = false;
  bool committing_ = false;
  Batch batch_, in_commit_;
  uint64_t timer_ = 0;
  TimeMs last_timer_ = -1;
  uint32_t timers_at_once_ = 0;
  uint64_t steps_ = 0;

  uint64_t last_request_ = 0, last_session_ = 0;  // never reused, over crashes too
  std::map<uint64_t, Answered> answers_;
  std::map<uint64_t, Call> calls_;
  std::map<uint64_t, std::shared_ptr<Connection>> sessions_;
  std::set<std::shared_ptr<Connection>> connections_;  // also those not attached yet
};

}  // namespace pesc::sim
