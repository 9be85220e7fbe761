#include "tests/sim/coordinator_host.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "tests/sim/checkers/durability.h"
#include "tests/sim/trace_text.h"

namespace pesc::sim {

namespace co = coordinator;

CoordinatorHost::CoordinatorHost(Play& play) : play_(play) {}

void CoordinatorHost::start() {
  if (up()) return;
  play_.world.trace([] { return std::string("coordinator starts"); });
  core_ = std::make_unique<co::Core>(play_.scenario.coordinator);
  disk_.restore(*core_, play_.world.random);
  core_->finish_restore(play_.world.now());
#ifdef PESC_PLANTED_BUGS
  core_->plant(play_.bug.coordinator);
#endif
  if (play_.check_invariants) play_.expect(core_->check_invariants());
  check_agreement();
  arm_timer();
}

void CoordinatorHost::crash() {
  if (!up()) return;
  play_.world.trace([] { return std::string("coordinator crashes"); });
  if (quiet()) check_agreement();
  // The transaction under way may have reached the disk, but nobody hears of it.
  if (committing_ && play_.world.random.chance(0.5)) committed(in_commit_.records);
  core_.reset();
  ++life_;
  queue_.clear();
  batch_ = {};
  in_commit_ = {};
  turn_planned_ = committing_ = false;
  answers_.clear();
  calls_.clear();
  sessions_.clear();
  for (const auto& connection : std::exchange(connections_, {})) connection->close_from_server();
}

void CoordinatorHost::check_agreement() { play_.expect(check_core_agrees(play_.ledger, *core_)); }

void CoordinatorHost::check_replay() {
  co::Core replayed(play_.scenario.coordinator);
  disk_.replay(replayed);
  replayed.finish_restore(play_.world.now());
  play_.expect(check_core_agrees(play_.ledger, replayed));
  play_.expect(replayed.check_invariants());
}

std::string CoordinatorHost::why(JobId id) const {
  std::string text;
  if (!up()) return "the coordinator is down";
  for (const auto& line : core_->why(id, play_.world.now())) {
    text += fmt::format("; ranks {}: {}", line.ranks, line.reason);
  }
  for (const auto& rank : core_->running(id)) {
    text += fmt::format("; {} runs on {}", to_string(rank.key), to_string(rank.worker));
  }
  return text;
}

// ---- the turn -----------------------------------------------------------------------------------

void CoordinatorHost::post(co::Event event) {
  queue_.push_back(std::move(event));
  if (std::exchange(turn_planned_, true)) return;
  play_.world.after(0, [this, life = life_] {
    if (life == life_) turn();
  });
}

void CoordinatorHost::turn() {
  turn_planned_ = false;
  for (const co::Event& event : std::exchange(queue_, {})) step(event);
  commit_batch();
  arm_timer();
}

void CoordinatorHost::step(const co::Event& event) {
  play_.world.trace([&] { return "  -> " + text_of(event); });
  co::Step step = core_->step(event, play_.world.now());
  for (const auto& record : step.records) {
    play_.world.trace([&] { return "     record " + text_of(record); });
  }
  // The check costs as much as the core holds: with large jobs not each time.
  const bool large = play_.ledger.jobs.size() > 0 &&
                     std::any_of(play_.ledger.jobs.begin(), play_.ledger.jobs.end(),
                                 [](const auto& job) { return job.second.ranks.size() > 100; });
  if (play_.check_invariants && (!large || ++steps_ % 32 == 0)) {
    play_.expect(core_->check_invariants());
  }
  if (play_.bug.release_before_commit) {
    release(step.actions);
    step.actions.clear();
  }
  std::move(step.records.begin(), step.records.end(), std::back_inserter(batch_.records));
  std::move(step.actions.begin(), step.actions.end(), std::back_inserter(batch_.actions));
}

void CoordinatorHost::commit_batch() {
  if (committing_) return;
  if (batch_.records.empty()) {
    release(std::exchange(batch_, {}).actions);
    return;
  }
  committing_ = true;
  in_commit_ = std::exchange(batch_, {});
  const TimeMs takes = play_.world.random.between(0, play_.scenario.faults.longest_commit_ms);
  play_.world.after(takes, [this, life = life_] {
    if (life != life_) return;
    committed(in_commit_.records);
    committing_ = false;
    release(std::exchange(in_commit_, {}).actions);
    if (life == life_) commit_batch();
  });
}

void CoordinatorHost::committed(const std::vector<co::Record>& records) {
  disk_.commit(records);
  for (const co::Record& record : records) {
    const std::string wrong = play_.results.check(play_.ledger, record);
    if (!wrong.empty()) {
      play_.world.fail(wrong);
      return;
    }
    play_.ledger.apply(record);
    play_.expect(play_.limits.check(play_.ledger, record));
  }
}

void CoordinatorHost::arm_timer() {
  const auto deadline = core_->next_deadline();
  if (!deadline) {
    ++timer_;
    return;
  }
  const TimeMs when = std::max(*deadline, play_.world.now());
  play_.world.at(when, [this, life = life_, timer = ++timer_] {
    if (life != life_ || timer != timer_) return;
    timers_at_once_ = std::exchange(last_timer_, play_.world.now()) == play_.world.now()
                          ? timers_at_once_ + 1
                          : 0;
    if (timers_at_once_ > 10'000) play_.world.fail("the coordinator's timer spins");
    post(co::TimerFired{play_.world.unix_ms()});
  });
}

// ---- from the workers and users -----------------------------------------------------------------

void CoordinatorHost::call(uint64_t request, co::Event event, Answered answered) {
  if (!up()) return;
  answers_[request] = std::move(answered);
  post(std::move(event));
}

void CoordinatorHost::accept(const std::shared_ptr<Connection>& connection) {
  connections_.insert(connection);
  // The connection holds these functions, and they must not hold it.
  Connection* raw = connection.get();
  connection->on_server_message = [this, raw, life = life_](const Message& message) {
    if (life == life_) on_message(raw->shared_from_this(), message);
  };
  connection->on_server_closed = [this, raw, life = life_] {
    if (life != life_) return;
    auto held = raw->shared_from_this();
    connections_.erase(held);
    if (held->session == 0) return;
    sessions_.erase(held->session);
    post(co::WorkerDetached{held->session});
  };
}

void CoordinatorHost::on_message(const std::shared_ptr<Connection>& connection,
                                 const Message& message) {
  if (message.kind == MessageKind::attach) on_attach(connection, message);
  if (message.kind == MessageKind::report) on_report(connection, message);
}

void CoordinatorHost::on_attach(const std::shared_ptr<Connection>& connection,
                                const Message& message) {
  auto request = decode_attach(message.bytes);
  if (!request.ok()) return play_.world.fail("codec: " + std::string(request.status().message()));
  connection->session = ++last_session_;
  sessions_[connection->session] = connection;
  const uint64_t number = next_request();
  calls_[number] = {connection, message.call, {}};
  post(co::WorkerAttached{number, connection->session, request->info, request->holding,
                          play_.world.unix_ms()});
}

void CoordinatorHost::on_report(const std::shared_ptr<Connection>& connection,
                                const Message& message) {
  auto report = decode_report(message.bytes);
  if (!report.ok()) return play_.world.fail("codec: " + std::string(report.status().message()));
  report->request = next_request();
  report->session = connection->session;
  report->unix_ms = play_.world.unix_ms();
  Call call{connection, message.call, {}};
  for (const auto& one : report->finished) {
    if (one.outcome.reason == EndReason::succeeded) call.succeeded.insert(one.key);
  }
  calls_[report->request] = std::move(call);
  post(*std::move(report));
}

// ---- the actions --------------------------------------------------------------------------------

void CoordinatorHost::release(const std::vector<co::Action>& actions) {
  for (const co::Action& action : actions) {
    play_.world.trace([&] { return "  <- " + text_of(action); });
    std::visit([this](const auto& one) { release_one(one); }, action);
    if (play_.world.failed()) return;
  }
}

void CoordinatorHost::release_one(const co::Answer& action) {
  auto it = answers_.find(action.request);
  if (it == answers_.end()) return;
  Answered answered = std::move(it->second);
  answers_.erase(it);
  answered(action.status, action.count);
}

void CoordinatorHost::release_one(const co::AnswerAttach& action) {
  auto it = calls_.find(action.request);
  if (it == calls_.end()) return;
  const Call call = std::move(it->second);
  calls_.erase(it);
  if (!action.status.ok()) return call.connection->send_to_client({MessageKind::error});
  call.connection->send_to_client({MessageKind::attach_answer, call.number,
                                   encode_attach_answer(action, play_.scenario.coordinator)});
}

void CoordinatorHost::release_one(const co::AnswerReport& action) {
  auto it = calls_.find(action.request);
  if (it == calls_.end()) return;
  const Call call = std::move(it->second);
  calls_.erase(it);
  play_.expect(check_acknowledged(play_.ledger, action.acknowledged, call.succeeded));
  if (!action.status.ok()) {
    return call.connection->send_to_client({MessageKind::error, call.number});
  }
  call.connection->send_to_client(
      {MessageKind::report_answer, call.number, encode_report_answer(action)});
}

void CoordinatorHost::release_one(const co::SendUpdate& action) {
  play_.expect(check_leases_sent(play_.ledger, action));
  auto it = sessions_.find(action.session);
  if (it == sessions_.end()) return;
  it->second->send_to_client(
      {MessageKind::update, 0, encode_update(action, it->second->specs_sent)});
}

void CoordinatorHost::release_one(const co::CloseSession& action) {
  auto it = sessions_.find(action.session);
  if (it == sessions_.end()) return;
  auto connection = it->second;
  sessions_.erase(it);
  connections_.erase(connection);
  connection->close_from_server();
}

}  // namespace pesc::sim
