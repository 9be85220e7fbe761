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
    step_later(play_.world.random.between(0, 3), wo::Started{key, unix_ms + wall_offset_});
  };
  keeper_.on_exited = [this](const AttemptKey& key, const AttemptOutcome& outcome) {
    step(wo::Exited{key, outcome});
  };
  keeper_.on_marked = [this](const AttemptKey& key) {
    step_later(play_.world.random.between(0, 500), wo::CheckpointMarked{key});
  };
  keeper_.on_progress = [this](const AttemptKey& key, double fraction) {
    step_later(500, wo::Progressed{key, fraction, "half-way"});
  };
  const auto kept = keeper_.kept();  // a copy: adopting may forget
  step(wo::KeeperFound{true});
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
  keeper_.on_marked = nullptr;
  keeper_.forget_next();
  restored_.clear();
  last_saved_.clear();
  if (connection_ != nullptr) connection_->close_from_client();
  drop_connection();
}

void WorkerHost::step(const wo::Event& event) {
  if (core_ == nullptr) return;
  play_.world.trace([&] { return plan_.name + " -> " + text_of(event); });
  wo::Step step = core_->step(event, now());
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
  play_.world.at(*deadline - boot_offset_, [this, timer] {
    if (timer != timer_) return;
    timers_at_once_ = std::exchange(last_timer_, play_.world.now()) == play_.world.now()
                          ? timers_at_once_ + 1
                          : 0;
    if (timers_at_once_ > 10'000) return play_.world.fail(plan_.name + "'s timer spins");
    step(wo::TimerFired{});
  });
}

// ---- what the core wants ------------------------------------------------------------------------

void WorkerHost::perform(const wo::Prepare& action) {
  Random& random = play_.world.random;
  const TimeMs takes = random.chance(0.1) ? random.between(0, 2'000) : random.between(0, 20);
  if (!attached_ && (random.chance(0.5) || action.checkpoint.number != 0)) {
    return step_later(takes, wo::PrepareFailed{action.key, EndReason::inputs_unavailable,
                                               "the coordinator is away", true});
  }
  if (play_.goes_wrong(play_.scenario.faults.prepare_fails)) {
    return step_later(takes, wo::PrepareFailed{action.key, EndReason::inputs_unavailable,
                                               "the blob did not arrive", random.chance(0.8)});
  }
  if (disk_full_) {
    return step_later(takes, wo::PrepareFailed{action.key, EndReason::disk_full,
                                               "no space left on device", false});
  }
  auto save = restore_save(action);
  if (!save.ok()) {
    const bool away = absl::IsUnavailable(save.status());
    return step_later(
        takes, wo::PrepareFailed{action.key,
                                 away ? EndReason::inputs_unavailable : EndReason::bad_checkpoint,
                                 std::string(save.status().message()), away});
  }
  restored_.erase(action.key);
  if (*save) {
    restored_[action.key] = **save;
    last_saved_[action.key] = action.checkpoint.manifest;
  }
  step_later(takes, wo::Prepared{action.key});
}

absl::StatusOr<std::optional<Save>> WorkerHost::restore_save(const wo::Prepare& action) {
  if (action.checkpoint.number == 0) return std::nullopt;
  Blobs* blobs = coordinator_.blobs();
  if (blobs == nullptr) return absl::UnavailableError("the coordinator is away");
  if (play_.goes_wrong(play_.scenario.faults.restore_fails)) {
    return absl::DataLossError("it does not hash right");
  }
  const std::string* manifest = blobs->find(action.checkpoint.manifest);
  if (manifest == nullptr) {
    const LedgerRank* rank = play_.ledger.rank(action.key);
    if (rank != nullptr && !rank->final && rank->checkpoints.contains(action.checkpoint.number)) {
      play_.world.fail(fmt::format("checkpoints: number {} of {} is kept, but its blob is gone",
                                   action.checkpoint.number, to_string(action.key)));
    }
    return absl::NotFoundError("its blob is gone");
  }
  auto chunk = chunk_of(*manifest);
  if (!chunk.ok()) return chunk.status();
  const std::string* bytes = blobs->find(*chunk);
  if (bytes == nullptr) return absl::NotFoundError("a chunk is gone");
  auto save = from_chunk(*bytes);
  if (!save.ok()) return save.status();
  return *save;
}

void WorkerHost::perform(const wo::Start& action) {
  // By way of the keeper's socket: its answer never comes within the step.
  play_.world.after(0, [this, life = life_, action] {
    if (life != life_) return;
    std::optional<Save> from;
    if (auto it = restored_.find(action.key); it != restored_.end()) from = it->second;
    restored_.erase(action.key);
    if (play_.bug.host == HostBug::begin_from_nothing) from.reset();
    keeper_.start(action, from);
  });
}

void WorkerHost::perform(const wo::ChoosePort& action) {
  // As the real one: never that of the generation before.
  const auto port = static_cast<uint16_t>(
      20'000 + (action.key.job.value * 31 + action.key.attempt * 7ull) % 10'000);
  step_later(play_.world.random.between(0, 5), wo::PortChosen{action.key, port});
}

void WorkerHost::not_saved(const AttemptKey& key, std::string why) {
  step_later(play_.world.random.between(0, 20), wo::CheckpointSaved{key, false, std::move(why)});
}

// The snapshot is taken at once; what follows takes its time.
void WorkerHost::perform(const wo::SaveCheckpoint& action) {
  const AttemptKey& key = action.key;
  const Kept* kept = keeper_.find(key);
  if (kept == nullptr) return not_saved(key, "the keeper does not know it");
  if (!kept->saved) {
    return step_later(1, wo::CheckpointSaved{key, true, "it has written nothing"});
  }
  if (play_.goes_wrong(play_.scenario.faults.save_fails)) {
    return not_saved(key, "it changed while it was read");
  }
  if (disk_full_) return not_saved(key, "no space left on device");
  const SaveBlobs blobs = to_blobs(*kept->saved);
  play_.redone.saves(blobs.manifest, kept->saved->work_ms);
  if (auto it = last_saved_.find(key); it != last_saved_.end() && it->second == blobs.manifest) {
    return step_later(1, wo::CheckpointSaved{key, true, "unchanged"});
  }
  const auto saved_ms = static_cast<uint64_t>(keeper_.ran_ms(*kept));
  play_.world.after(play_.world.random.between(0, 2'000),
                    [this, key, blobs, saved_ms, life = life_] {
                      if (life == life_) offer(key, blobs, saved_ms);
                    });
}

void WorkerHost::offer(const AttemptKey& key, const SaveBlobs& blobs, uint64_t saved_ms) {
  Blobs* store = coordinator_.blobs();
  if (connection_ == nullptr || !attached_ || store == nullptr) {
    return not_saved(key, "the coordinator is away");
  }
  if (store->full || play_.goes_wrong(play_.scenario.faults.upload_fails)) {
    return not_saved(key, "the upload failed");
  }
  store->put(blobs.chunk, blobs.chunk_bytes);
  store->put(blobs.manifest, blobs.manifest_bytes);
  const uint64_t call = ++last_call_;
  offers_[call] = {key, blobs.manifest};
  connection_->send_to_server({MessageKind::checkpoint, call,
                               encode_checkpoint({key, blobs.manifest, {blobs.chunk}, saved_ms})});
  if (play_.goes_wrong(play_.scenario.faults.cut_in_call)) cut_link();
}

void WorkerHost::perform(const wo::Stop& action) {
  play_.world.after(0, [this, life = life_, action] {
    if (life == life_)
      keeper_.stop(action.key, action.reason, action.grace_ms, action.unless_begun);
  });
}

void WorkerHost::perform(const wo::Pack& action) {
  Random& random = play_.world.random;
  if (disk_full_ || play_.goes_wrong(play_.scenario.faults.pack_fails)) {
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
  Call& sent = calls_[call];
  for (const auto& one : action.finished) sent.sent.push_back(one.key);
  if (keeper_.gpus != told_gpus_) sent.gpus = keeper_.gpus;
  connection_->send_to_server(
      {MessageKind::report, call,
       encode_report(action, core_->busy(), sent.gpus ? &*sent.gpus : nullptr)});
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
  request.info.memory_bytes = plan_.memory_bytes;
  request.info.disk_bytes = plan_.disk_bytes;
  request.info.named = plan_.named;
  request.info.gpus = told_gpus_ = keeper_.gpus;
  request.info.advertise = plan_.name + ".lab";
  request.info.machine = plan_.name + "'s machine";
  request.info.busy = core_->busy();
  request.holding = core_->holding();
  connection_->send_to_server({MessageKind::attach, 0, encode_attach(request)});
}

void WorkerHost::drop_connection() {
  connection_ = nullptr;
  attached_ = false;
  calls_.clear();
  for (const auto& [call, offer] : std::exchange(offers_, {})) {
    not_saved(offer.first, "the coordinator is away");
  }
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
    case MessageKind::checkpoint_answer:
      return on_checkpoint_answer(message);
    case MessageKind::error:
      return on_error(message);
    case MessageKind::attach:
    case MessageKind::report:
    case MessageKind::checkpoint:
      return;
  }
}

void WorkerHost::on_error(const Message& message) {
  if (auto it = offers_.find(message.call); it != offers_.end()) {
    const AttemptKey key = it->second.first;
    offers_.erase(it);
    return not_saved(key, "it was refused");
  }
  // The session is refused: the next one begins with an attach.
  connection_->close_from_client();
  drop_connection();
  step(wo::Disconnected{});
  plan_connect();
}

void WorkerHost::on_checkpoint_answer(const Message& message) {
  auto it = offers_.find(message.call);
  if (it == offers_.end()) return;
  const auto [key, manifest] = it->second;
  offers_.erase(it);
  if (message.number != 0) last_saved_[key] = manifest;
  step(wo::CheckpointSaved{key, true, message.number == 0 ? "not wanted" : ""});
}

void WorkerHost::on_attach_answer(const Message& message) {
  auto answer = decode_attach_answer(message.bytes);
  if (!answer.ok()) return play_.world.fail("codec: " + std::string(answer.status().message()));
  attached_ = true;
  reached_since_ = play_.world.now();
  if (!answer->stop.empty()) step(wo::UpdateReceived{0, {}, answer->stop});
  step(wo::Connected{answer->heartbeat_ms});
}

void WorkerHost::on_report_answer(const Message& message) {
  auto answer = decode_report_answer(message.bytes);
  if (!answer.ok()) return play_.world.fail("codec: " + std::string(answer.status().message()));
  std::vector<AttemptKey> sent;
  if (auto it = calls_.find(message.call); it != calls_.end()) {
    sent = std::move(it->second.sent);
    if (it->second.gpus) told_gpus_ = *std::move(it->second.gpus);
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

void WorkerHost::jump_clock(TimeMs by_ms) {
  play_.world.trace([&] { return fmt::format("{}'s machine slept {} ms", plan_.name, by_ms); });
  boot_offset_ += by_ms;
  wall_offset_ += by_ms;
  if (core_ != nullptr) arm_timer();
}

void WorkerHost::fill_disk(TimeMs for_ms) {
  play_.world.trace([&] { return plan_.name + "'s disk is full"; });
  disk_full_ = true;
  play_.world.after(for_ms, [this] { disk_full_ = false; });
}

Gpu* WorkerHost::any_gpu(Random& random) {
  if (gone_ || keeper_.gpus.empty()) return nullptr;
  return &keeper_.gpus[static_cast<size_t>(
      random.between(0, static_cast<int64_t>(keeper_.gpus.size()) - 1))];
}

void WorkerHost::change_gpu_back(TimeMs after_ms, const std::string& uuid,
                                 std::function<void(Gpu&)> change) {
  step(wo::ReportWanted{});
  play_.world.after(after_ms, [this, uuid, change = std::move(change)] {
    for (Gpu& gpu : keeper_.gpus) {
      if (gpu.uuid == uuid) change(gpu);
    }
    step(wo::ReportWanted{});
  });
}

void WorkerHost::trouble_gpu(Random& random) {
  Gpu* gpu = any_gpu(random);
  if (gpu == nullptr || !gpu->trouble.empty()) return;
  play_.world.trace([&] { return gpu->uuid + " is in trouble"; });
  gpu->trouble = "Xid 79";
  keeper_.fail_on_gpu(gpu->uuid);
  change_gpu_back(random.between(1'000, 90'000), gpu->uuid, [](Gpu& one) { one.trouble.clear(); });
}

void WorkerHost::take_gpu(Random& random) {
  Gpu* gpu = any_gpu(random);
  if (gpu == nullptr || gpu->taken_bytes > 0) return;
  play_.world.trace([&] { return gpu->uuid + " is used by others"; });
  gpu->taken_bytes = gpu->memory_bytes / 100 * static_cast<uint64_t>(random.between(1, 100));
  change_gpu_back(random.between(1'000, 90'000), gpu->uuid, [](Gpu& one) { one.taken_bytes = 0; });
}

std::vector<AttemptKey> WorkerHost::running() const { return keeper_.running(); }

bool WorkerHost::runs(const AttemptKey& key) const {
  if (core_ == nullptr) return false;
  const Kept* kept = keeper_.find(key);
  return kept != nullptr && kept->running;
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
  boot_offset_ = play_.world.random.between(1'000, 100'000) - play_.world.now();
}

void WorkerHost::lose_keeper() {
  if (gone_) return;
  keeper_.lose_all();
  step(wo::KeeperLost{});
}

void WorkerHost::owner_comes(TimeMs stay_ms, bool vacates) {
  if (core_ == nullptr) return;
  play_.world.trace([&] { return plan_.name + "'s owner comes"; });
  step(wo::BusyChanged{"its owner is here"});
  if (vacates) {
    wo::UpdateReceived update;
    for (const AttemptKey& key : running()) update.stop.push_back({key, EndReason::vacated});
    step(update);
  }
  play_.world.after(stay_ms, [this, life = life_] {
    if (life == life_) step(wo::BusyChanged{});
  });
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
  unreachable_ = disk_full_ = false;
  for (Gpu& gpu : keeper_.gpus) {
    gpu.trouble.clear();
    gpu.taken_bytes = 0;
  }
  ++away_;
  start_daemon();  // one that is down comes back now
  if (core_ != nullptr && !core_->busy().empty()) step(wo::BusyChanged{});
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
