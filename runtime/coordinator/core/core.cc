#include "runtime/coordinator/core/core.h"

#include <algorithm>
#include <utility>

#include "runtime/coordinator/core/state.h"

namespace pesc::coordinator {

Core::Core(CoreConfig config) : state_(std::make_unique<State>(config)) {}
Core::~Core() = default;

Step Core::step(const Event& event, TimeMs now, bool more) {
  return state_->step(event, now, more);
}
std::optional<TimeMs> Core::next_deadline() const { return state_->next_deadline(); }

void Core::apply(const Record& record) {
  state_->restoring = true;
  state_->apply(record);
}

void Core::finish_restore(TimeMs now) { state_->finish_restore(now); }
std::string Core::check_invariants() const { return state_->check_invariants(); }

#ifdef PESC_PLANTED_BUGS
void Core::plant(PlantedBug bug) {
  state_->bug = bug;
  for (auto& [id, worker] : state_->workers) state_->reindex(worker);
}
#endif

// An event that renews a lease comes before the clock that would end it; so does one that tells of
// the ends of what would be taken back. What several events make room for is placed at once, after
// the last of them: so a worker is told of all its leases by one message.
Step Core::State::step(const Event& event, TimeMs at, bool more) {
  if (restoring) finish_restore(at);
  now = std::max(now, at);
  forgive_absence();
  for (auto& [worker, report] : std::exchange(late, {})) {
    finished(worker, report.key, std::move(report.outcome));
  }
  std::visit([this](const auto& e) { on(e); }, event);
  settle_after_restore();
  settle_limits(std::holds_alternative<TimerFired>(event));
  const bool places = !more || std::holds_alternative<TimerFired>(event);
  if (!more) expire_leases();
  end_limits();
  settle_verdicts();
  release_backoffs();
  release_asides();
  release_gpu_asides();
  if (places) {
    place();
    // Not while others wait for placement: what is free is theirs.
    if (!more && !placement_due && take_back_aheads()) place();
    try_seconds();
    send_updates();
  } else {
    placement_due = true;
  }
  say_changed();
  return std::exchange(out, {});
}

void Core::State::emit(Record record) {
  drop_before(record);
  apply(record);
  out.records.push_back(std::move(record));
}

void Core::State::touch(Job& job) {
  ++job.revision;
  if (job.changed || restoring) return;
  job.changed = true;
  changed.push_back(job.id);
}

SendUpdate& Core::State::update_for(Worker& worker) {
  SendUpdate& update = updates[worker.session];
  if (update.number == 0) {
    update.session = worker.session;
    update.number = ++worker.updates;
  }
  return update;
}

void Core::State::send_stop(WorkerId id, const AttemptKey& key, EndReason reason) {
  Worker* worker = find_worker(id);
  if (worker == nullptr || !worker->attached) return;
  SendUpdate& update = update_for(*worker);
  update.stop.push_back({key, reason});
  if (const auto it = worker->ending.find(key); it != worker->ending.end()) {
    it->second.update = update.number;
  }
}

void Core::State::send_updates() {
  for (auto& [session, update] : updates) out.actions.emplace_back(std::move(update));
  updates.clear();
}

void Core::State::say_changed() {
  for (JobId id : changed) {
    if (Job* job = find_job(id)) job->changed = false;
    out.actions.emplace_back(std::in_place_type<JobChanged>, JobChanged{id});
  }
  changed.clear();
}

std::optional<TimeMs> Core::State::next_deadline() const {
  if (placement_due || !unsettled.empty() || !unlimited.empty()) return now;
  TimeMs next = kNever;
  if (!deadlines.empty()) next = deadlines.begin()->first;
  if (!backoffs.empty()) next = std::min(next, backoffs.begin()->not_before);
  for (const auto* times : {&limits, &tails, &verdicts}) {
    if (!times->empty()) next = std::min(next, times->begin()->first);
  }
  if (!asides.empty()) next = std::min(next, asides.begin()->first);
  if (!gpu_asides.empty()) next = std::min(next, std::get<TimeMs>(*gpu_asides.begin()));
  if (!aheads.empty()) next = std::min(next, aheads.begin()->first);
  if (next == kNever) return std::nullopt;
  return next;
}

Job* Core::State::find_job(JobId id) {
  auto it = jobs.find(id);
  return it == jobs.end() ? nullptr : &it->second;
}

Worker* Core::State::find_worker(WorkerId id) {
  auto it = workers.find(id);
  return it == workers.end() ? nullptr : &it->second;
}

std::string bounded(std::string text, size_t max) {
  if (text.size() <= max) return text;
  size_t end = max;
  for (int i = 0; i < 3 && end > 0 && (static_cast<uint8_t>(text[end]) & 0xC0) == 0x80; ++i) --end;
  text.resize(end);
  return text;
}

void bound_outcome(AttemptOutcome& outcome) {
  constexpr size_t kMaxNames = 20;
  outcome.detail = bounded(std::move(outcome.detail));
  if (outcome.uncollected.size() > kMaxNames) outcome.uncollected.resize(kMaxNames);
  for (std::string& name : outcome.uncollected) name = bounded(std::move(name));
}

}  // namespace pesc::coordinator
