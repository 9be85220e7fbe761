// What the coordinator is told, and when an attempt may be forgotten.
#include <algorithm>

#include "runtime/worker/core/state.h"

namespace pesc::worker {
namespace {

// An output up to this size travels inside its report (docs/protocol.md); a larger one is uploaded
// first, which can take minutes.
constexpr uint64_t kInlineOutputBytes = 64 * 1024;
constexpr uint64_t kReportBytes = 4 * 1024 * 1024;  // far below a message's limit of 64 MiB
constexpr size_t kReportAttempts = 512;
// While these are in flight what ends is collected: a few hide the round trip, more would only
// make many small commits.
constexpr size_t kSmallReports = 3;
// Each report costs a commit and wakes three processes, however many ends it tells. While every
// slot has its next ranks here, nobody waits for the answer: ends of this time go together…
constexpr uint64_t kCollectMs = 50;
// …until half of what waited here has begun, so that new leases come before the rest has. Only of
// ranks so short that this many times what runs waits here.
constexpr uint64_t kDeep = 2;
constexpr size_t kLargeReports = 2;
// A report of small outputs that was not answered for so many heartbeats is taken as lost.
constexpr uint64_t kLostAfterHeartbeats = 3;

bool is_large(const AttemptOutcome& outcome) {
  return outcome.output.size_bytes > kInlineOutputBytes;
}

}  // namespace

void Core::State::finish(const AttemptKey& key, Attempt& attempt) {
  attempt.state = AttemptState::finished;
  attempt.progress_fresh = false;
  requeue(key, attempt);
}

void Core::State::requeue(const AttemptKey& key, Attempt& attempt) {
  attempt.report = 0;
  (is_large(attempt.outcome) ? unreported_large : unreported_small).emplace(attempt.order, key);
}

std::vector<AttemptKey> Core::State::holding() const {
  std::vector<AttemptKey> keys;
  keys.reserve(attempts.size());
  for (const auto& [key, attempt] : attempts) keys.push_back(key);
  return keys;
}

SendReport Core::State::make_report(const std::vector<AttemptKey>& keys) {
  SendReport report;
  report.holding = holding();
  report.last_update = last_update;
  for (const auto& [key, attempt] : attempts) {
    if (attempt.gang_ready) report.ready.push_back({key, attempt.master_port});
  }
  report.finished.reserve(keys.size());
  for (const AttemptKey& key : keys) report.finished.push_back({key, attempts.at(key).outcome});
  return report;
}

// A message that leaves at once. It says all that a heartbeat would, and is one.
void Core::State::tell(SendReport report, TimeMs now) {
  if (say_progress) {
    for (auto& [key, attempt] : attempts) {
      if (!attempt.progress_fresh) continue;
      attempt.progress_fresh = false;
      report.progress.push_back(attempt.progress);
    }
  }
  say_ready = say_busy = say_progress = false;  // it is said
  next_heartbeat = now + static_cast<TimeMs>(heartbeat_ms);
  out.actions.push_back(std::move(report));
}

void Core::State::send_report(std::vector<AttemptKey> keys, bool large, TimeMs now) {
  SendReport report = make_report(keys);
  const uint64_t number = next_report++;
  for (const AttemptKey& key : keys) attempts.at(key).report = number;
  if (large) {  // it leaves when its output has been uploaded
    out.actions.push_back(std::move(report));
  } else {
    tell(std::move(report), now);
  }
  if (bug == PlantedBug::forget_before_acknowledged) {
    for (const AttemptKey& key : keys) {
      out.actions.push_back(Forget{key});
      attempts.erase(key);
    }
    return;
  }
  in_flight.emplace(number, InFlight{std::move(keys), now, large});
}

size_t Core::State::small_in_flight() const {
  return static_cast<size_t>(std::count_if(
      in_flight.begin(), in_flight.end(), [](const auto& report) { return !report.second.large; }));
}

// More waits here than would fill all slots, and most of it still does.
bool Core::State::collects_ends() const {
  if (draining || (leased.empty() && ready.empty())) return false;
  const AttemptKey& next = ready.empty() ? leased.begin()->second : ready.begin()->second;
  return 2 * waiting() >= most_waiting &&
         waiting() * cpus_of(attempts.at(next).spec) >= kDeep * config.cpus_milli;
}

void Core::State::send_reports(TimeMs now) {
  if (!connected) return;
  if (now >= next_upkeep) upkeep(now);
  // Ready: a whole gang waits for it. Busy: leases would come in vain.
  bool must_tell = heartbeat_due(now) || say_ready || say_busy || say_progress;
  size_t small = small_in_flight(), large_in_flight = in_flight.size() - small;
  while (!unreported_small.empty() && small < kSmallReports) {
    // With a message that leaves anyway they go at once.
    if (!must_tell && collects_ends() && (small > 0 || now < next_small_report)) break;
    next_small_report = now + static_cast<TimeMs>(kCollectMs);
    most_waiting = waiting();
    std::vector<AttemptKey> keys;
    uint64_t bytes = 0;
    while (!unreported_small.empty() && keys.size() < kReportAttempts && bytes < kReportBytes) {
      keys.push_back(unreported_small.begin()->second);
      bytes += attempts.at(keys.back()).outcome.output.size_bytes;
      unreported_small.erase(unreported_small.begin());
    }
    send_report(std::move(keys), false, now);
    must_tell = false;
    ++small;
  }
  if (must_tell) {
    tell(make_report({}), now);
    heard = now;
  }
  while (!unreported_large.empty() && large_in_flight < kLargeReports) {
    const AttemptKey key = unreported_large.begin()->second;
    unreported_large.erase(unreported_large.begin());
    send_report({key}, true, now);
    ++large_in_flight;
  }
}

// A report that waits for its answer says that we are here, until it is taken as lost: a
// coordinator that is behind is not told again. When the answer has come a heartbeat may be due at
// once.
bool Core::State::heartbeat_due(TimeMs now) const {
  return now >= next_heartbeat && small_in_flight() == 0;
}

// Once in a heartbeat's time, however many reports there are: what was lost or refused is sent
// again, and what programs say of themselves is told.
void Core::State::upkeep(TimeMs now) {
  next_upkeep = now + static_cast<TimeMs>(heartbeat_ms);
  // A large one is not touched: its upload may rightly take long, and its answer or failure comes
  // with the connection.
  const TimeMs lost_before = now - static_cast<TimeMs>(kLostAfterHeartbeats * heartbeat_ms);
  for (auto it = in_flight.begin(); it != in_flight.end();) {
    if (it->second.large || it->second.sent > lost_before) {
      ++it;
      continue;
    }
    for (const AttemptKey& key : it->second.keys) requeue(key, attempts.at(key));
    it = in_flight.erase(it);
  }
  for (const AttemptKey& key : unanswered) requeue(key, attempts.at(key));
  unanswered.clear();
  say_progress = say_progress || std::any_of(attempts.begin(), attempts.end(),
                                             [](const auto& a) { return a.second.progress_fresh; });
}

void Core::State::on(const Connected& e, TimeMs now) {
  if (connected) on(Disconnected{}, now);  // a new session without a word about the old one's end
  connected = true;
  away_since.reset();
  gave_up = false;
  heartbeat_ms = std::max<uint64_t>(e.heartbeat_ms, 1);
  heard = now;
  next_heartbeat = next_upkeep = now + static_cast<TimeMs>(heartbeat_ms);
  // What failed for want of a coordinator may well work now.
  for (const auto& [when, key] : retry_at) leased.emplace(attempts.at(key).order, key);
  retry_at.clear();
  for (auto& [key, attempt] : attempts) {
    say_ready = say_ready || attempt.gang_ready;
    // The coordinator may have forgotten it, with its memory.
    if (!attempt.progress.trouble.empty() && attempt.state != AttemptState::finished) {
      attempt.progress_fresh = true;
    }
  }
  save_all_waiting(now);
}

void Core::State::on(const Disconnected&, TimeMs now) {
  if (connected) away_since = now;
  connected = false;
  // Updates are numbered within a session, and its answers will not come.
  last_update = 0;
  for (const auto& [number, report] : in_flight) {
    for (const AttemptKey& key : report.keys) requeue(key, attempts.at(key));
  }
  in_flight.clear();
  for (const AttemptKey& key : unanswered) requeue(key, attempts.at(key));
  unanswered.clear();
}

void Core::State::on(const Acknowledged& e, TimeMs) {
  std::set<uint64_t> answered;
  for (const AttemptKey& key : e.keys) {
    auto it = attempts.find(key);
    // What runs is never forgotten, whatever the answer says: it would run unowned.
    if (it == attempts.end() || it->second.state != AttemptState::finished) continue;
    Attempt& attempt = it->second;
    if (attempt.report != 0) {
      answered.insert(attempt.report);
      std::erase(in_flight.at(attempt.report).keys, key);
    }
    unreported_small.erase(attempt.order);
    unreported_large.erase(attempt.order);
    std::erase(unanswered, key);
    out.actions.push_back(Forget{key});
    attempts.erase(it);
  }
  for (uint64_t number : answered) {
    heard = std::max(heard, in_flight.at(number).sent);
    for (const AttemptKey& key : in_flight.at(number).keys) {
      attempts.at(key).report = 0;
      unanswered.push_back(key);
    }
    in_flight.erase(number);
  }
}

void Core::State::on(const ReportFailed& e, TimeMs) {
  for (const AttemptKey& key : e.keys) {
    Attempt* attempt = find(key);
    if (attempt == nullptr || attempt->report == 0) continue;
    auto report = in_flight.find(attempt->report);
    std::erase(report->second.keys, key);
    if (report->second.keys.empty()) in_flight.erase(report);
    attempt->report = 0;
    // It may have been refused: a coordinator that knows nothing of it takes only that it was
    // stopped.
    if (attempt->stop && unwanted(*attempt->stop)) attempt->outcome.reason = *attempt->stop;
    unanswered.push_back(key);  // not at once: what failed now would most likely fail again
  }
  // It renewed no lease.
  next_heartbeat = std::min(next_heartbeat, heard + static_cast<TimeMs>(heartbeat_ms));
}

}  // namespace pesc::worker
