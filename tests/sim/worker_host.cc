#include "tests/sim/worker_host.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "tests/sim/checkers/durability.h"
#include "tests/sim/trace_text.h"

namespace pesc::sim {

namespace wo = worker;

WorkerHost::WorkerHost(Play& play, CoordinatorHost& coordinator, const WorkerPlan& plan,
                       size_t index)
    : play_(play), coordinator_(coordinator), plan_(plan), index_(index), keeper_(play, plan) {}

// ---- the daemon ---------------------------------------------------------------------------------

void WorkerHost::start_daemon() {
  if (gone_ || core_ != nullptr) return;
  play_.world.trace([&] { return plan_.name + " starts"; });
  core_ = std::make_unique<wo::Core>(wo::CoreConfig{.cpus_milli = plan_.cpus_milli});
#ifdef PESC_PLANTED_BUGS
  core_->plant(play_.bug.worker);
#endif
  keeper_.on_started = [this](const AttemptKey& key, int64_t unix_ms) {
    step_later(play_.world.random.between(0, 3), wo::Started{key, unix_ms});
  };
  keeper_.on_exited = [this](const AttemptKey& key, const AttemptOutcome& outcome) {
    step(wo::Exited{key, outcome});
  };
  keeper_.on_progress = [this](const AttemptKey& key, double fraction) {
    step_later(500, wo::Progressed{key, fraction, "half-way"});
  };
  const auto kept = keeper_.kept();  // a copy: adopting may forget
  for (const auto& [key, one] : kept) step(wo::Adopted{key, one.spec, one.running, one.outcome});
  plan_connect();
}

void WorkerHost::stop_daemon() {
  core_.reset();
  ++life_;
  ++timer_;
  keeper_.on_started = nullptr;
  keeper_.on_exited = nullptr;
  keeper_.on_progress = nullptr;
  if (connection_ != nullptr) connection_->close_from_client();
  drop_connection();
}

void WorkerHost::step(const wo::Event& event) {
  if (core_ == nullptr) return;
  play_.world.trace([&] { return plan_.name + " -> " + text_of(event); });
  wo::Step step = core_->step(event, play_.world.now());
  if (play_.check_invariants) play_.expect(core_->check_invariants());
  for (const wo::Action& action : step.actions) {
    play_.world.trace([&] { return plan_.name + " <- " + text_of(action); });
    std::visit([this](const auto& one) { perform(one); }, action);
    if (play_.world.failed()) return;
  }
  arm_timer();
}

void WorkerHost::step_later(TimeMs delay_ms, wo::Event event) {
  play_.world.after(delay_ms, [this, life = life_, event = std::move(event)] {
    if (life == life_) step(event);
  });
}

void WorkerHost::arm_timer() {
  const auto deadline = core_->next_deadline();
  const uint64_t timer = ++timer_;
  if (!deadline) return;
  play_.world.at(*deadline, [this, timer] {
    if (timer == timer_) step(wo::TimerFired{});
  });
}

// ---- what the core wants ------------------------------------------------------------------------

void WorkerHost::perform(const wo::Prepare& action) {
  Random& random = play_.world.random;
  const TimeMs takes = random.chance(0.1) ? random.between(0, 2'000) : random.between(0, 20);
  if (!attached_ && random.chance(0.5)) {
    step_later(takes, wo::PrepareFailed{action.key, EndReason::inputs_unavailable,
                                        "the coordinator is away", true});
  } else if (play_.goes_wrong(play_.scenario.faults.prepare_fails)) {
    step_later(takes, wo::PrepareFailed{action.key, EndReason::inputs_unavailable,
                                        "the blob did not arrive", random.chance(0.8)});
  } else {
    step_later(takes, wo::Prepared{action.key});
  }
}

void WorkerHost::perform(const wo::Start& action) {
  // By way of the keeper's socket: its answer never comes within the step.
  play_.world.after(0, [this, life = life_, action] {
    if (life == life_) keeper_.start(action.key, action.spec);
  });
}

void WorkerHost::perform(const wo::ChoosePort& action) {
  step_later(1, wo::PortChosen{action.key, 20'000});
}

void WorkerHost::perform(const wo::SaveCheckpoint& action) {
  step_later(1, wo::CheckpointSaved{action.key, false, "this program has written nothing"});
}

void WorkerHost::perform(const wo::Stop& action) {
  play_.world.after(0, [this, life = life_, action] {
    if (life == life_) keeper_.stop(action.key, action.reason, action.grace_ms);
  });
}

void WorkerHost::perform(const wo::Pack& action) {
  Random& random = play_.world.random;
  if (play_.goes_wrong(play_.scenario.faults.pack_fails)) {
    step_later(random.between(0, 50),
               wo::PackFailed{action.key, EndReason::disk_full, "no space left on device"});
    return;
  }
  const bool large = random.chance(play_.plan_of(action.key.job)->large_output);
  const int64_t size = large ? random.between(100'000, 50'000'000) : random.between(100, 10'000);
  const BlobRef output{sha256(to_string(action.key) + plan_.name + std::to_string(size)),
                       static_cast<uint64_t>(size)};
  play_.results.packed(action.key, output);
  step_later(large ? random.between(0, 3'000) : random.between(0, 5),
             wo::Packed{action.key, output, {}});
}

void WorkerHost::perform(const wo::SendReport& action) {
  const bool large =
      std::any_of(action.finished.begin(), action.finished.end(),
                  [](const auto& one) { return one.outcome.output.size_bytes > 64 * 1024; });
  if (!large) return send_report(action);
  Random& random = play_.world.random;
  const bool fails = play_.goes_wrong(play_.scenario.faults.upload_fails);
  play_.world.after(random.between(10, 20'000),
                    [this, life = life_, fails, action, connection = connection_] {
                      if (life != life_ || connection != connection_ || connection == nullptr)
                        return;
                      if (!fails) {
                        wo::SendReport report = action;
                        report.holding = core_->holding();
                        return send_report(report);
                      }
                      std::vector<AttemptKey> keys;
                      for (const auto& one : action.finished) keys.push_back(one.key);
                      step(wo::ReportFailed{keys, "the upload failed"});
                    });
}

void WorkerHost::send_report(const wo::SendReport& action) {
  if (connection_ == nullptr || !attached_) return;
  const uint64_t call = ++last_call_;
  for (const auto& one : action.finished) calls_[call].push_back(one.key);
  connection_->send_to_server({MessageKind::report, call, encode_report(action)});
  const FaultPlan& faults = play_.scenario.faults;
  if (action.finished.empty() || !play_.goes_wrong(faults.cut_in_call)) return;
  // Somewhere on its way there, in the commit, or on the answer's way back.
  play_.world.after(
      play_.world.random.between(0, 2 * faults.longest_delay_ms + faults.longest_commit_ms),
      [this, life = life_] {
        if (life == life_) cut_link();
      });
}

void WorkerHost::perform(const wo::Forget& action) {
  play_.expect(check_forgotten(play_.ledger, action.key));
  // A daemon that ends in between will find the attempt with its keeper again.
  play_.world.after(play_.world.random.between(0, 200), [this, life = life_, key = action.key] {
    if (life == life_) keeper_.forget(key);
  });
}

void WorkerHost::perform(const wo::Drained&) {
  // Nothing may be left: forgetting is on its way to the keeper only.
  if (!core_->holding().empty()) play_.world.fail(plan_.name + " drained, but holds attempts");
  play_.world.after(300, [this, life = life_] {
    if (life == life_) crash_daemon(play_.world.random.between(0, 5'000));
  });
}

// ---- the link -----------------------------------------------------------------------------------

void WorkerHost::plan_connect() {
  play_.world.after(play_.world.random.between(10, 2'000), [this, life = life_] {
    if (life == life_) try_connect();
  });
}

void WorkerHost::try_connect() {
  if (connection_ != nullptr || gone_) return;
  if (unreachable_ || !coordinator_.up()) return plan_connect();
  connection_ = std::make_shared<Connection>(play_.world, ++connections_, index_,
                                             play_.scenario.faults.longest_delay_ms);
  Connection* raw = connection_.get();
  connection_->on_client_message = [this, raw, life = life_](const Message& message) {
    if (life == life_ && connection_.get() == raw) on_message(message);
  };
  connection_->on_client_closed = [this, raw, life = life_] {
    if (life != life_ || connection_.get() != raw) return;
    drop_connection();
    step(wo::Disconnected{});
    plan_connect();
  };
  coordinator_.accept(connection_);
  AttachRequest request;
  request.info.id = plan_.id;
  request.info.name = plan_.name;
  request.info.room = plan_.room;
  request.info.cpus_milli = plan_.cpus_milli;
  request.info.memory_bytes = 1ull << 34;
  request.info.machine = plan_.name + "'s machine";
  request.holding = core_->holding();
  connection_->send_to_server({MessageKind::attach, 0, encode_attach(request)});
}

void WorkerHost::drop_connection() {
  connection_ = nullptr;
  attached_ = false;
  calls_.clear();
}

void WorkerHost::on_message(const Message& message) {
  switch (message.kind) {
    case MessageKind::attach_answer:
      return on_attach_answer(message);
    case MessageKind::report_answer:
      return on_report_answer(message);
    case MessageKind::update: {
      auto update = decode_update(message.bytes, connection_->specs_known);
      if (!update.ok()) {
        return play_.world.fail("codec: " + std::string(update.status().message()));
      }
      return step(*update);
    }
    case MessageKind::error:
      // The session is refused: the next one begins with an attach.
      connection_->close_from_client();
      drop_connection();
      step(wo::Disconnected{});
      return plan_connect();
    case MessageKind::attach:
    case MessageKind::report:
      return;
  }
}

void WorkerHost::on_attach_answer(const Message& message) {
  auto answer = decode_attach_answer(message.bytes);
  if (!answer.ok()) return play_.world.fail("codec: " + std::string(answer.status().message()));
  attached_ = true;
  if (!answer->stop.empty()) step(wo::UpdateReceived{0, {}, answer->stop});
  step(wo::Connected{answer->heartbeat_ms});
}

void WorkerHost::on_report_answer(const Message& message) {
  auto answer = decode_report_answer(message.bytes);
  if (!answer.ok()) return play_.world.fail("codec: " + std::string(answer.status().message()));
  std::vector<AttemptKey> sent;
  if (auto it = calls_.find(message.call); it != calls_.end()) {
    sent = std::move(it->second);
    calls_.erase(it);
  }
  step(wo::Acknowledged{answer->acknowledged});
  if (!sent.empty() && answer->acknowledged.empty()) step(wo::ReportFailed{sent, "not wanted now"});
  if (!answer->stop.empty()) step(wo::UpdateReceived{0, {}, answer->stop});
}

// ---- faults -------------------------------------------------------------------------------------

void WorkerHost::cut_link() {
  if (connection_ == nullptr) return;
  play_.world.trace([&] { return plan_.name + "'s link is cut"; });
  connection_->cut(play_.world.random.chance(0.3) ? 60'000 : 5'000);
}

void WorkerHost::go_away(TimeMs away_ms) {
  if (gone_) return;
  cut_link();
  unreachable_ = true;
  play_.world.after(away_ms, [this, away = ++away_] {
    if (away == away_) unreachable_ = false;
  });
}

void WorkerHost::crash_daemon(TimeMs down_ms) {
  if (core_ == nullptr) return;
  play_.world.trace([&] { return plan_.name + "'s daemon crashes"; });
  stop_daemon();
  play_.world.after(down_ms, [this, life = life_] {
    if (life == life_) start_daemon();
  });
}

void WorkerHost::reboot(TimeMs down_ms) {
  if (core_ == nullptr) return;
  cut_link();
  crash_daemon(down_ms);
  keeper_.lose_all();
}

void WorkerHost::lose_keeper() {
  if (gone_) return;
  keeper_.lose_all();
  step(wo::KeeperLost{});
}

void WorkerHost::drain() { step(wo::DrainRequested{}); }

void WorkerHost::vanish() {
  play_.world.trace([&] { return plan_.name + " vanishes for ever"; });
  cut_link();
  gone_ = true;
  stop_daemon();
  keeper_.lose_all();
}

void WorkerHost::heal() {
  unreachable_ = false;
  ++away_;
  start_daemon();  // one that is down comes back now
}

std::string WorkerHost::leftovers() const {
  if (gone_) return {};
  if (core_ != nullptr) {
    for (const AttemptKey& key : core_->holding()) {
      return fmt::format("promise 5: {} still holds {}", plan_.name, to_string(key));
    }
  }
  for (const auto& [key, kept] : keeper_.kept()) {
    return fmt::format("promise 5: {}'s keeper still has {}", plan_.name, to_string(key));
  }
  return {};
}

}  // namespace pesc::sim
