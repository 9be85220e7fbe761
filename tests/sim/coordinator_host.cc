#include "tests/sim/coordinator_host.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "runtime/coordinator/shell/journal_thread.h"
#include "runtime/coordinator/shell/sqlite.h"
#include "tests/sim/checkers/checkpoints.h"
#include "tests/sim/checkers/drains.h"
#include "tests/sim/checkers/durability.h"
#include "tests/sim/trace_text.h"

namespace pesc::sim {

namespace co = coordinator;

namespace {
constexpr const char* kJournal = "/sim/journal.db";
constexpr int64_t kChangesOfACommit = 18;  // more than most make
}  // namespace

CoordinatorHost::CoordinatorHost(Play& play) : play_(play) {
  disk_.lie_about_syncs(play_.bug.host == HostBug::disk_lies);
}

CoordinatorHost::~CoordinatorHost() = default;

// ---- the process --------------------------------------------------------------------------------

void CoordinatorHost::start() {
  if (up() || play_.world.failed()) return;
  play_.world.trace([] { return std::string("coordinator starts"); });
  MaybeCore core = absl::UnavailableError("");
  if (open_journal()) core = restore_core();
  if (play_.world.failed()) return;
  if (!core.ok()) {
    play_.world.trace([&] { return "  it cannot: " + std::string(core.status().message()); });
    journal_ = nullptr;
    if (core.status().code() == absl::StatusCode::kDataLoss) {
      return play_.world.fail("promise 1: " + core.status().ToString());
    }
    play_.world.after(2'000, [this] { start(); });  // as its unit does
    return;
  }
  (*core)->finish_restore(now());
  play_.uninterrupted.coordinator_started(now());
  play_.redone.coordinator_started();
  play_.estimates.coordinator_started(play_.ledger);
  turn_ = std::make_unique<co::Turn>(static_cast<co::TurnHost&>(*this), *std::move(core));
  check_core();
  check_agreement();
}

bool CoordinatorHost::open_journal() {
  std::optional<JobId> damaged;
  if (std::exchange(damage_, false)) damaged = flip_a_byte();
  auto journal =
      co::Journal::open({.path = kJournal, .drop_damaged = dropping_, .vfs = vfs_.name()});
  if (damaged) {
    absl::Status status = journal.status();
    if (status.ok()) status = (*journal)->replay([](const co::Record&) {});
    if (status.code() != absl::StatusCode::kDataLoss ||
        status.message().find(to_string(*damaged)) == std::string::npos) {
      play_.world.fail(
          fmt::format("promise 1: a byte of job {} was flipped, and the journal says {}",
                      to_string(*damaged), status.ToString()));
      return false;
    }
    if (journal.ok()) journal->reset();
    play_.world.trace([&] { return "  it refuses: " + status.ToString(); });
    dropping_ = true;  // until it was done: the disk may be full
    journal = co::Journal::open({.path = kJournal, .drop_damaged = true, .vfs = vfs_.name()});
    play_.ledger.jobs.erase(*damaged);
    play_.ledger.damaged.insert(*damaged);
    play_.limits.forget(*damaged);
    play_.amounts.forget(*damaged);
    play_.shares.forget(*damaged);
  }
  if (!journal.ok()) {
    play_.world.trace([&] { return "  no journal: " + journal.status().ToString(); });
    return false;
  }
  journal_ = *std::move(journal);
  dropping_ = false;
  return true;
}

CoordinatorHost::MaybeCore CoordinatorHost::restore_core() {
  Records rows;
  const absl::Status status =
      journal_->replay([&](const co::Record& record) { rows.push_back(record); });
  if (!status.ok()) return status;
  settle_unknown(rows);
  auto core = std::make_unique<co::Core>(play_.scenario.coordinator);
  for (const co::Record& row : rows) {
    const auto* lease = std::get_if<co::AttemptLeased>(&row);
    if (lease != nullptr && play_.bug.host == HostBug::forget_open_leases) {
      const LedgerAttempt* attempt = play_.ledger.attempt(lease->key);
      if (attempt != nullptr && !attempt->ended) continue;
    }
    core->apply(row);
  }
#ifdef PESC_PLANTED_BUGS
  core->plant(play_.bug.coordinator);
#endif
  return core;
}

// A transaction that was cut short, or failed, is there in whole or not at all; everything that was
// committed before it is there.
void CoordinatorHost::settle_unknown(const Records& rows) {
  Ledger found;
  for (const co::Record& row : rows) found.apply(row);
  const std::string without = difference(play_.ledger, found);
  if (without.empty()) {
    unknown_.clear();
    return;
  }
  std::string with = "there was none";
  if (!unknown_.empty()) {
    committed(std::exchange(unknown_, {}));
    with = difference(play_.ledger, found);
  }
  if (with.empty() || play_.world.failed()) return;
  play_.world.fail(fmt::format(
      "promise 1: what is durable (first) is not what a restart finds (second): {}; with the "
      "transaction that was under way: {}",
      without, with));
}

void CoordinatorHost::crash(bool power) {
  if (!up()) return;
  play_.world.trace([&] {
    return std::string("coordinator ") + (power ? "loses its power" : "is killed") +
           (committing_ ? " in a commit" : "");
  });
  if (quiet()) check_agreement();
  if (committing_ && play_.world.random.chance(0.7)) {
    disk_.die_after(static_cast<uint64_t>(play_.world.random.between(0, kChangesOfACommit)),
                    play_.world.random);
    unknown_ = in_commit_;
    (void)journal_->commit(in_commit_);
  }
  end_process(power);
}

void CoordinatorHost::end_process(bool power) {
  disk_.die();  // whatever closing would write
  turn_ = nullptr;
  journal_ = nullptr;
  if (power) {
    disk_.power_failed(play_.world.random);
    // The machine starts anew, and its clock with it.
    boot_offset_ = play_.world.random.between(1'000, 100'000) - play_.world.now();
  } else {
    disk_.process_killed();
  }
  ++life_;
  scheduled_ = committing_ = false;
  in_commit_.clear();
  armed_.reset();
  answers_.clear();
  calls_.clear();
  sessions_.clear();
  for (const auto& connection : std::exchange(connections_, {})) connection->close_from_server();
}

void CoordinatorHost::crash_in_next_commit(bool power, TimeMs down_ms) {
  if (!up() || die_in_commit_) return;
  die_in_commit_ = power;
  down_after_commit_ms_ = down_ms;
}

void CoordinatorHost::fill_disk(TimeMs for_ms) {
  play_.world.trace([] { return std::string("the coordinator's disk is full"); });
  disk_.set_room(disk_.bytes() + static_cast<uint64_t>(play_.world.random.between(1, 100'000)));
  blobs_.full = true;
  play_.world.after(for_ms, [this, filled = ++filled_] {
    if (filled != filled_) return;
    disk_.set_room(0);
    blobs_.full = false;
  });
}

void CoordinatorHost::jump_clock(TimeMs by_ms) {
  play_.world.trace([&] { return fmt::format("the coordinator's machine slept {} ms", by_ms); });
  boot_offset_ += by_ms;
  wall_offset_ += by_ms;
  if (armed_) plan_timer();
}

void CoordinatorHost::heal() {
  ++filled_;
  disk_.set_room(0);
  disk_.fail_syncs(0);
  blobs_.full = false;
  die_in_commit_.reset();
  damage_ = false;
  start();
}

std::optional<JobId> CoordinatorHost::flip_a_byte() {
  if (play_.ledger.jobs.empty() || !unknown_.empty()) return std::nullopt;
  auto it = play_.ledger.jobs.begin();
  std::advance(it, play_.world.random.between(0, int64_t(play_.ledger.jobs.size()) - 1));
  const auto id = std::to_string(static_cast<int64_t>(it->first.value));
  const bool nowhere = play_.bug.host == HostBug::flip_unnoticed;
  const auto& ranks = it->second.ranks;
  const bool leased = std::any_of(ranks.begin(), ranks.end(),
                                  [](const LedgerRank& rank) { return !rank.attempts.empty(); });
  std::string sql = "UPDATE jobs SET owner=CAST(owner||'x' AS BLOB) WHERE id=" + id;
  if (play_.world.random.chance(0.3)) {
    sql = "UPDATE jobs SET spec=CAST(substr(spec,1,length(spec)-1)||x'77' AS BLOB) WHERE id=" + id;
  } else if (leased && play_.world.random.chance(0.6)) {
    sql = "UPDATE attempts SET worker=worker+1 WHERE job=" + id;
  }
  if (nowhere) sql = "DELETE FROM probe";
  const uint64_t room = disk_.room();
  disk_.set_room(0);  // no program does this
  disk_.fail_syncs(0);
  bool flipped = false;
  if (auto db = co::Database::open(kJournal, false, vfs_.name()); db.ok()) {
    flipped = db->execute(sql.c_str()).ok();
  }
  disk_.set_room(room);
  if (!flipped) return std::nullopt;
  play_.world.trace([&] { return "a byte of job " + to_string(it->first) + " flips"; });
  return it->first;
}

void CoordinatorHost::check_agreement() {
  play_.expect(check_core_agrees(play_.ledger, turn_->core()));
}

void CoordinatorHost::check_replay() {
  co::Core replayed(play_.scenario.coordinator);
  Ledger found;
  const absl::Status status = journal_->replay([&](const co::Record& record) {
    replayed.apply(record);
    found.apply(record);
  });
  if (!status.ok()) return play_.world.fail("promise 1: " + status.ToString());
  replayed.finish_restore(now());
  const std::string wrong = difference(play_.ledger, found);
  if (!wrong.empty()) return play_.world.fail("promise 1: at the end, the journal: " + wrong);
  play_.expect(check_core_agrees(play_.ledger, replayed));
  play_.expect(replayed.check_invariants());
}

std::string CoordinatorHost::why(JobId id) const {
  std::string text;
  if (!up()) return "; the coordinator is down";
  if (!turn_->health().ok()) return "; " + turn_->health().ToString();
  for (const auto& line : turn_->core().why(id, play_.world.now() + boot_offset_)) {
    text += fmt::format("; ranks {}: {}", line.ranks, line.reason);
  }
  for (const auto& rank : turn_->core().running(id)) {
    text += fmt::format("; {} runs on {}", to_string(rank.key), to_string(rank.worker));
  }
  return text;
}

// ---- the turn's host ----------------------------------------------------------------------------

void CoordinatorHost::post(co::Event event) {
  play_.world.trace([&] { return "  -> " + text_of(event); });
  turn_->post(std::move(event));
}

void CoordinatorHost::schedule() {
  if (std::exchange(scheduled_, true)) return;
  play_.world.after(0, [this, life = life_] {
    if (life != life_) return;
    scheduled_ = false;
    turns_at_once_ =
        std::exchange(last_turn_, play_.world.now()) == play_.world.now() ? turns_at_once_ + 1 : 0;
    if (turns_at_once_ > 10'000) return play_.world.fail("the coordinator's turn spins");
    turn_->run();
  });
}

void CoordinatorHost::arm(TimeMs deadline) {
  if (armed_ && *armed_ <= deadline) return;  // it fires early then, and arms again
  armed_ = deadline;
  plan_timer();
}

void CoordinatorHost::plan_timer() {
  const TimeMs when = std::max(*armed_ - boot_offset_, play_.world.now());
  play_.world.at(when, [this, life = life_, timer = ++timer_] {
    if (life != life_ || timer != timer_) return;
    armed_.reset();
    play_.world.trace([] { return std::string("  -> timer"); });
    turn_->timer_fired();
  });
}

void CoordinatorHost::commit(const co::Batch& batch) {
  committing_ = true;
  in_commit_ = batch.records;
  mutate(play_.bug.host, play_.ledger, in_commit_);
  for (const co::Record& record : in_commit_) {
    play_.world.trace([&] { return "     record " + text_of(record); });
    // Decided now: what is heard while it is written is too late.
    play_.expect(play_.uninterrupted.check(play_.ledger, record, now(),
                                           play_.scenario.coordinator.lease_ms));
    play_.expect(play_.amounts.check_gpus(record, play_.world.now()));
  }
  if (play_.bug.host == HostBug::release_before_commit) {
    play_.world.after(0, [this, life = life_] {
      if (life == life_ && committing_) turn_->committed(absl::OkStatus());
    });
  }
  const TimeMs takes = play_.world.random.between(0, play_.scenario.faults.longest_commit_ms);
  play_.world.after(takes, [this, life = life_, records = in_commit_] {
    if (life == life_) write_batch(records);
  });
}

void CoordinatorHost::write_batch(Records records) {
  const std::optional<bool> dies = std::exchange(die_in_commit_, std::nullopt);
  if (dies) {
    disk_.die_after(static_cast<uint64_t>(play_.world.random.between(0, kChangesOfACommit)),
                    play_.world.random);
  }
  Records written = records;
  if (play_.bug.host == HostBug::forget_last_record && written.size() > 1) written.pop_back();
  const absl::Status status = journal_->commit(written);
  in_commit_.clear();
  committing_ = false;
  if (status.ok()) {
    committed(records);
  } else {
    unknown_ = records;
  }
  if (dies) {
    play_.world.trace([&] {
      return fmt::format("coordinator {} {} a commit", *dies ? "loses its power" : "is killed",
                         status.ok() ? "after" : "in");
    });
    end_process(*dies);
    play_.world.after(down_after_commit_ms_, [this] { start(); });
    return;
  }
  if (play_.world.failed() || play_.bug.host == HostBug::release_before_commit) return;
  if (!status.ok()) {
    play_.world.trace([&] { return "  the commit failed: " + status.ToString(); });
  }
  turn_->committed(status.ok() ? status : co::explain_commit_failure(status));
}

void CoordinatorHost::committed(const Records& records) {
  for (const co::Record& record : records) {
    std::string wrong = play_.results.check(play_.ledger, record);
    if (wrong.empty()) wrong = play_.checkpoints.check(play_.ledger, record);
    if (wrong.empty()) wrong = play_.gangs.check(play_.ledger, record);
    if (wrong.empty()) wrong = play_.seconds.check(play_.ledger, record);
    if (wrong.empty()) wrong = play_.redone.check(play_.ledger, record);
    if (wrong.empty()) wrong = check_drain_record(play_.ledger, record);
    if (wrong.empty()) wrong = play_.estimates.check(play_.ledger, record);
    if (wrong.empty()) wrong = play_.shares.check(play_.ledger, record);
    if (!wrong.empty()) return play_.world.fail(wrong);
    collect(record);
    count(record);
    play_.ledger.apply(record);
    play_.expect(play_.limits.check(play_.ledger, record));
    play_.expect(play_.amounts.check(play_.ledger, record));
  }
  play_.expect(play_.checkpoints.check_transaction(play_.ledger));
  play_.expect(play_.gangs.check_transaction(play_.ledger));
  play_.expect(play_.seconds.check_transaction(play_.ledger));
  play_.expect(play_.shares.check_transaction(play_.ledger, play_.world.now()));
}

void CoordinatorHost::count(const co::Record& record) {
  Totals& totals = play_.totals;
  if (const auto* leased = std::get_if<co::AttemptLeased>(&record)) {
    if (totals.first_lease == 0) totals.first_lease = play_.world.now();
    totals.second_attempts += leased->second;
  }
  const auto* ended = std::get_if<co::AttemptEnded>(&record);
  if (ended == nullptr || !ended->final || ended->state != RankState::succeeded) return;
  const LedgerAttempt* attempt = play_.ledger.attempt(ended->key);
  if (attempt == nullptr) return;
  ++totals.committed[attempt->worker];
  totals.last_commit = play_.world.now();
}

// The blobs of checkpoints that were dropped go, as the shell's collection does some time later.
void CoordinatorHost::collect(const co::Record& record) {
  const auto* dropped = std::get_if<co::CheckpointsDropped>(&record);
  if (dropped != nullptr) {
    const LedgerRank* rank = play_.ledger.rank({dropped->job, dropped->rank, 0});
    if (rank == nullptr) return;
    std::set<BlobRef> kept;  // the same directory may have been saved twice
    for (const auto& [number, one] : rank->checkpoints) {
      if (number > dropped->through || number < dropped->first) kept.insert(one.manifest);
    }
    for (const auto& [number, one] : rank->checkpoints) {
      if (!kept.contains(one.manifest)) blobs_.remove(one.manifest);
    }
  }
  const auto* kept = std::get_if<co::CheckpointKept>(&record);
  if (kept != nullptr && play_.bug.host == HostBug::collect_kept_blobs) {
    blobs_.remove(kept->checkpoint.manifest);
  }
}

void CoordinatorHost::restore(uint64_t delay_ms) {
  play_.world.after(static_cast<TimeMs>(delay_ms), [this, life = life_] {
    if (life != life_) return;
    const absl::Status reopened = journal_->reopen();
    MaybeCore core = reopened.ok() ? restore_core() : MaybeCore(reopened);
    if (play_.world.failed()) return;
    if (core.ok()) {
      play_.uninterrupted.coordinator_started(now());
      play_.redone.coordinator_started();
      play_.estimates.coordinator_started(play_.ledger);
      play_.world.trace([] { return std::string("coordinator has its journal again"); });
    } else {
      core = co::explain_commit_failure(core.status());
    }
    turn_->restored(std::move(core));
  });
}

void CoordinatorHost::check_core() {
  // The check costs as much as the core holds: with large jobs not each time.
  const bool large = std::any_of(play_.ledger.jobs.begin(), play_.ledger.jobs.end(),
                                 [](const auto& job) { return job.second.ranks.size() > 100; });
  if (play_.check_invariants && (!large || ++batches_ % 32 == 0)) {
    play_.expect(turn_->core().check_invariants());
  }
}

void CoordinatorHost::released(const co::Batch&) {
  if (!play_.world.failed()) check_core();
}

void CoordinatorHost::refuse(uint64_t request, const absl::Status& status) {
  if (auto it = answers_.find(request); it != answers_.end()) {
    Answered answered = std::move(it->second);
    answers_.erase(it);
    return answered(status, 0);
  }
  if (auto call = take_call(request)) {
    call->connection->send_to_client({MessageKind::error, call->number});
  }
}

void CoordinatorHost::state_lost(const absl::Status& reason) {
  play_.world.trace([&] { return "coordinator takes no work: " + reason.ToString(); });
  for (const auto& [session, connection] : std::exchange(sessions_, {})) {
    connections_.erase(connection);
    connection->close_from_server();
  }
  calls_.clear();
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
    if (held->session == 0 || sessions_.erase(held->session) == 0) return;
    post(co::WorkerDetached{held->session});
  };
}

void CoordinatorHost::on_message(const std::shared_ptr<Connection>& connection,
                                 const Message& message) {
  if (message.kind == MessageKind::attach) on_attach(connection, message);
  if (message.kind == MessageKind::report) on_report(connection, message);
  if (message.kind == MessageKind::checkpoint) on_checkpoint(connection, message);
}

void CoordinatorHost::on_attach(const std::shared_ptr<Connection>& connection,
                                const Message& message) {
  auto request = decode_attach(message.bytes);
  if (!request.ok()) return play_.world.fail("codec: " + std::string(request.status().message()));
  connection->session = ++last_session_;
  sessions_[connection->session] = connection;
  session_workers_[connection->session] = request->info.id;
  play_.uninterrupted.heard(request->info.id, now());
  play_.amounts.told(request->info.id, request->info.gpus, play_.world.now());
  const uint64_t number = next_request();
  calls_[number] = {connection, message.call, {}};
  post(co::WorkerAttached{number, connection->session, request->info, request->holding, wall_ms()});
}

void CoordinatorHost::on_report(const std::shared_ptr<Connection>& connection,
                                const Message& message) {
  auto report = decode_report(message.bytes);
  if (!report.ok()) return play_.world.fail("codec: " + std::string(report.status().message()));
  report->request = next_request();
  report->session = connection->session;
  report->unix_ms = wall_ms();
  if (sessions_.contains(connection->session)) {
    const WorkerId worker = session_workers_[connection->session];
    play_.uninterrupted.heard(worker, now());
    if (report->gpus) play_.amounts.told(worker, *report->gpus, play_.world.now());
  }
  Call call{connection, message.call, {}};
  for (const auto& one : report->finished) {
    if (one.outcome.reason == EndReason::succeeded) call.succeeded.insert(one.key);
    if (one.outcome.reason == EndReason::worker_lost) play_.redone.told_lost(one.key);
  }
  calls_[report->request] = std::move(call);
  post(*std::move(report));
}

void CoordinatorHost::on_checkpoint(const std::shared_ptr<Connection>& connection,
                                    const Message& message) {
  auto offer = decode_checkpoint(message.bytes);
  if (!offer.ok()) return play_.world.fail("codec: " + std::string(offer.status().message()));
  const uint64_t number = next_request();
  calls_[number] = {connection, message.call, {}, offer->key, offer->manifest};
  const bool there = blobs_.find(offer->manifest) != nullptr &&
                     std::all_of(offer->chunks.begin(), offer->chunks.end(),
                                 [&](const BlobRef& one) { return blobs_.find(one) != nullptr; });
  if (!there) return refuse(number, absl::FailedPreconditionError("missing blob"));
  post(co::CheckpointOffered{number, connection->session, offer->key, offer->manifest,
                             std::make_shared<const std::vector<BlobRef>>(offer->chunks),
                             offer->saved_ms, wall_ms()});
}

// ---- the actions --------------------------------------------------------------------------------

void CoordinatorHost::perform(co::Action action) {
  if (play_.world.failed()) return;
  play_.world.trace([&] { return "  <- " + text_of(action); });
  std::visit([this](auto&& one) { release_one(std::move(one)); }, std::move(action));
}

std::optional<CoordinatorHost::Call> CoordinatorHost::take_call(uint64_t request) {
  auto it = calls_.find(request);
  if (it == calls_.end()) return std::nullopt;
  Call call = std::move(it->second);
  calls_.erase(it);
  return call;
}

void CoordinatorHost::release_one(const co::Answer& action) {
  auto it = answers_.find(action.request);
  if (it == answers_.end()) return;
  Answered answered = std::move(it->second);
  answers_.erase(it);
  answered(action.status, action.count);
}

void CoordinatorHost::release_one(const co::AnswerAttach& action) {
  const auto call = take_call(action.request);
  if (!call) return;
  if (!action.status.ok()) return call->connection->send_to_client({MessageKind::error});
  call->connection->send_to_client({MessageKind::attach_answer, call->number,
                                    encode_attach_answer(action, play_.scenario.coordinator)});
}

void CoordinatorHost::release_one(const co::AnswerReport& action) {
  const auto call = take_call(action.request);
  if (!call) return;
  play_.expect(check_acknowledged(play_.ledger, action.acknowledged, call->succeeded));
  if (!action.status.ok()) {
    return call->connection->send_to_client({MessageKind::error, call->number});
  }
  call->connection->send_to_client(
      {MessageKind::report_answer, call->number, encode_report_answer(action)});
}

void CoordinatorHost::release_one(const co::AnswerCheckpoint& action) {
  const auto call = take_call(action.request);
  if (!call) return;
  if (!action.status.ok()) {
    return call->connection->send_to_client({MessageKind::error, call->number});
  }
  play_.expect(check_checkpoint_answered(play_.ledger, call->key, action.number, call->manifest));
  play_.redone.acknowledged(call->key, action.number, call->manifest);
  call->connection->send_to_client(
      {MessageKind::checkpoint_answer, call->number, {}, action.number});
}

void CoordinatorHost::release_one(const co::AnswerDrain& action) {
  release_one(co::Answer{action.request, action.status, action.attempts});
}

void CoordinatorHost::release_one(co::SendUpdate action) {
  mutate(play_.bug.host, action);
  play_.expect(check_leases_sent(play_.ledger, action));
  for (const auto& lease : action.leases) {
    play_.expect(check_checkpoint_sent(play_.ledger, lease));
  }
  play_.expect(play_.gangs.check_orders(play_.ledger, action));
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
