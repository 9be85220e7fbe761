#include "tests/coordinator_core/harness.h"

#include <algorithm>

namespace pesc::coordinator {
namespace {

std::string name(const AttemptKey& key) {
  return "j" + std::to_string(key.job.value) + "/" + std::to_string(key.rank) + "#" +
         std::to_string(key.attempt);
}
std::string name(JobId id) { return "j" + std::to_string(id.value); }
std::string name(WorkerId id) { return "w" + std::to_string(id.value); }
std::string name(const absl::Status& status) {
  return status.ok() ? "OK" : absl::StatusCodeToString(status.code());
}
std::string name(const std::vector<StopRequest>& stops) {
  std::string text;
  for (const StopRequest& stop : stops) {
    text += " stop " + name(stop.key) + " " + std::string(to_string(stop.reason));
  }
  return text;
}

struct Describe {
  std::string operator()(const JobAdded& r) { return "JobAdded " + name(r.id) + " " + r.owner; }
  std::string operator()(const AttemptLeased& r) {
    return "AttemptLeased " + name(r.key) + " " + name(r.worker) +
           (r.checkpoint > 0 ? " from c" + std::to_string(r.checkpoint) : "") +
           (r.second ? " second" : "");
  }
  std::string operator()(const AttemptEnded& r) {
    return "AttemptEnded " + name(r.key) + " " + std::string(to_string(r.outcome.reason)) +
           (r.final                         ? " final " + std::string(to_string(r.state))
            : r.state == RankState::running ? " uncounted"
            : r.state == RankState::waiting ? " unbegun"
                                            : "");
  }
  std::string operator()(const RanksCancelled& r) {
    return "RanksCancelled " + name(r.job) + " " + std::to_string(r.first) + "-" +
           std::to_string(r.last);
  }
  std::string operator()(const JobStopped& r) {
    return "JobStopped " + name(r.job) + (r.by_user ? " by user" : " by core");
  }
  std::string operator()(const JobFinished& r) {
    return "JobFinished " + name(r.job) + " " + std::string(to_string(r.state));
  }
  std::string operator()(const RanksReopened& r) {
    return "RanksReopened " + name(r.job) + " " + std::to_string(r.ranks.size());
  }
  std::string operator()(const JobErased& r) { return "JobErased " + name(r.job); }
  std::string operator()(const WorkerSeen& r) { return "WorkerSeen " + name(r.worker); }
  std::string operator()(const CheckpointKept& r) {
    return "CheckpointKept " + name(r.key) + " c" + std::to_string(r.checkpoint.number);
  }
  std::string operator()(const CheckpointsDropped& r) {
    return "CheckpointsDropped " + name(r.job) + "/" + std::to_string(r.rank) +
           (r.first > 0 ? " from c" + std::to_string(r.first) : "") + " through c" +
           std::to_string(r.through);
  }
  std::string operator()(const GangStarted& r) {
    return "GangStarted " + name(r.job) + " #" + std::to_string(r.generation) + " " +
           r.master_addr + ":" + std::to_string(r.master_port);
  }
  std::string operator()(const WorkerDraining& r) {
    return "WorkerDraining " + name(r.worker) + (r.draining ? "" : " no more") +
           (r.paused ? ", paused" : "");
  }
  std::string operator()(const ProgramLearned& r) {
    return "ProgramLearned " + std::to_string(r.memory_bytes >> 20) + " MiB";
  }

  std::string operator()(const Answer& a) {
    return "Answer " + name(a.status) + (a.count > 0 ? " " + std::to_string(a.count) : "");
  }
  std::string operator()(const AnswerAttach& a) {
    return "AnswerAttach " + name(a.status) + name(a.stop);
  }
  std::string operator()(const AnswerReport& a) {
    std::string text = "AnswerReport " + name(a.status);
    for (const AttemptKey& key : a.acknowledged) text += " ack " + name(key);
    return text + name(a.stop);
  }
  std::string operator()(const SendUpdate& a) {
    std::string text = "SendUpdate s" + std::to_string(a.session) + " #" + std::to_string(a.number);
    for (const LeaseGrant& lease : a.leases) {
      text += " lease " + name(lease.key);
      if (lease.checkpoint.number > 0) text += " from c" + std::to_string(lease.checkpoint.number);
      if (lease.hold) {
        text += " hold " + std::to_string(lease.local_rank) + "/" +
                std::to_string(lease.local_world_size);
      }
    }
    text += name(a.stop);
    for (const StartOrder& order : a.start) {
      text += " start " + name(order.key) + " " + order.master_addr + ":" +
              std::to_string(order.master_port);
    }
    if (a.paused) text += *a.paused ? " pause" : " resume";
    return text;
  }
  std::string operator()(const AnswerCheckpoint& a) {
    return "AnswerCheckpoint " + name(a.status) + " c" + std::to_string(a.number);
  }
  std::string operator()(const AnswerDrain& a) {
    return "AnswerDrain " + name(a.status) + " " + a.name + " " + std::to_string(a.attempts);
  }
  std::string operator()(const CloseSession& a) {
    return "CloseSession s" + std::to_string(a.session);
  }
  std::string operator()(const JobChanged& a) { return "JobChanged " + name(a.job); }
};

JobId job_of(const Record& record) {
  if (const auto* r = std::get_if<JobAdded>(&record)) return r->id;
  if (const auto* r = std::get_if<RanksCancelled>(&record)) return r->job;
  if (const auto* r = std::get_if<JobStopped>(&record)) return r->job;
  if (const auto* r = std::get_if<JobFinished>(&record)) return r->job;
  if (const auto* r = std::get_if<RanksReopened>(&record)) return r->job;
  if (const auto* r = std::get_if<GangStarted>(&record)) return r->job;
  return {};
}

}  // namespace

std::string describe(const Record& record) { return std::visit(Describe(), record); }
std::string describe(const Action& action) { return std::visit(Describe(), action); }
std::string describe(const Step& step) {
  std::string text;
  for (const Record& record : step.records) text += describe(record) + "\n";
  for (const Action& action : step.actions) text += "> " + describe(action) + "\n";
  return text;
}

void RowStore::add(const Record& record) {
  const uint64_t seq = next_++;
  if (const auto* seen = std::get_if<WorkerSeen>(&record)) {
    workers_[seen->worker] = *seen;
  } else if (const auto* draining = std::get_if<WorkerDraining>(&record)) {
    orders_[draining->worker] = *draining;
  } else if (const auto* learned = std::get_if<ProgramLearned>(&record)) {
    programs_[learned->program] = *learned;
  } else if (const auto* kept = std::get_if<CheckpointKept>(&record)) {
    CheckpointKept row = *kept;
    row.chunks = nullptr;
    jobs_[kept->key.job].checkpoints[kept->key.rank].emplace(kept->checkpoint.number,
                                                             std::pair(seq, row));
  } else if (const auto* dropped = std::get_if<CheckpointsDropped>(&record)) {
    JobRows& job = jobs_[dropped->job];
    auto& rows = job.checkpoints[dropped->rank];
    rows.erase(rows.lower_bound(dropped->first), rows.upper_bound(dropped->through));
    job.dropped[dropped->rank] = {seq, *dropped};
  } else if (const auto* erased = std::get_if<JobErased>(&record)) {
    jobs_.erase(erased->job);
  } else if (const auto* leased = std::get_if<AttemptLeased>(&record)) {
    Row row;
    row.leased_at = seq;
    row.leased = *leased;
    jobs_[leased->key.job].attempts[leased->key] = row;
  } else if (const auto* ended = std::get_if<AttemptEnded>(&record)) {
    Row& row = jobs_[ended->key.job].attempts[ended->key];
    row.ended_at = seq;
    row.ended = *ended;
  } else {
    jobs_[job_of(record)].events.emplace(seq, record);
  }
}

std::vector<Record> RowStore::replay() const {
  std::vector<Record> records;
  for (const auto& [id, seen] : workers_) records.push_back(seen);
  for (const auto& [id, order] : orders_) {
    if (order.draining || order.paused) records.push_back(order);
  }
  for (const auto& [program, learned] : programs_) records.push_back(learned);
  // Not in the order of submission: that must not matter.
  for (auto job = jobs_.rbegin(); job != jobs_.rend(); ++job) {
    std::map<uint64_t, Record> ordered = job->second.events;
    for (const auto& [key, row] : job->second.attempts) {
      ordered.emplace(row.leased_at, row.leased);
      if (row.ended_at > 0) ordered.emplace(row.ended_at, row.ended);
    }
    for (const auto& [rank, rows] : job->second.checkpoints) {
      for (const auto& [number, row] : rows) ordered.emplace(row.first, row.second);
    }
    for (const auto& [rank, row] : job->second.dropped) ordered.emplace(row.first, row.second);
    for (const auto& [seq, record] : ordered) records.push_back(record);
  }
  return records;
}

JobSpec spec_of(uint32_t repetitions) {
  JobSpec spec;
  spec.name = "test";
  spec.program = "true";
  spec.repetitions = repetitions;
  spec.output_limit_bytes = kDefaultOutputLimitBytes;
  return spec;
}

WorkerInfo worker_info(uint64_t n, uint32_t cpus, uint64_t memory, const std::string& room) {
  WorkerInfo info;
  info.id = worker_id(n);
  info.name = "pc" + std::to_string(n);
  info.room = room;
  info.machine = "machine" + std::to_string(n) + "/boot1";
  info.cpus_milli = cpus * 1000;
  info.memory_bytes = memory;
  return info;
}

AttemptOutcome outcome_of(EndReason reason, uint64_t duration_ms) {
  AttemptOutcome outcome;
  outcome.reason = reason;
  outcome.exit_code = reason == EndReason::succeeded ? 0 : 1;
  outcome.duration_ms = duration_ms;
  outcome.detail = reason == EndReason::succeeded ? "" : "it went wrong";
  return outcome;
}

Step Harness::step(const Event& event) {
  last = core->step(event, now);
  for (const Record& record : last.records) {
    log.push_back(record);
    rows.add(record);
  }
  EXPECT_EQ(core->check_invariants(), "");
  if (twin != nullptr) {
    EXPECT_EQ(describe(twin->step(event, now)), describe(last)) << "the twin does otherwise";
    EXPECT_EQ(twin->next_deadline(), core->next_deadline());
  }
  return last;
}

Step Harness::at(TimeMs time, const Event& event) {
  now = time;
  return step(event);
}

Step Harness::settle() {
  for (int i = 0; i < 10'000; ++i) {
    const std::optional<TimeMs> due = core->next_deadline();
    if (!due || *due > now) break;
    step(TimerFired{unix_ms});
  }
  return last;
}

absl::Status Harness::submit(uint64_t job, const JobSpec& spec, const std::string& owner) {
  step(
      JobSubmitted{7, job_id(job), owner, std::make_shared<JobSpec>(spec), unix_ms + int64_t(job)});
  return actions<Answer>().at(0).status;
}

absl::Status Harness::cancel(uint64_t job) {
  step(JobCancelled{8, job_id(job), unix_ms});
  return actions<Answer>().at(0).status;
}

absl::Status Harness::retry(uint64_t job, uint32_t* count) {
  step(JobRetried{9, job_id(job), unix_ms});
  const Answer answer = actions<Answer>().at(0);
  if (count != nullptr) *count = answer.count;
  return answer.status;
}

absl::Status Harness::remove(uint64_t job) {
  step(JobRemoved{10, job_id(job)});
  return actions<Answer>().at(0).status;
}

AnswerAttach Harness::attach(uint64_t session, const WorkerInfo& info,
                             std::vector<AttemptKey> holding) {
  step(WorkerAttached{11, session, info, std::move(holding), unix_ms});
  return actions<AnswerAttach>().at(0);
}

AnswerReport Harness::report(uint64_t session, std::vector<AttemptKey> holding,
                             std::vector<FinishedAttempt> finished, uint64_t last_update) {
  step(WorkerReported{
      12, session, std::move(holding), last_update, std::move(finished), {}, {}, unix_ms});
  return actions<AnswerReport>().at(0);
}

AnswerReport Harness::end(uint64_t session, const AttemptKey& key, EndReason reason,
                          uint64_t duration_ms) {
  return end(session, key, outcome_of(reason, duration_ms));
}

AnswerReport Harness::end(uint64_t session, const AttemptKey& key, const AttemptOutcome& outcome) {
  std::vector<AttemptKey> holding;
  for (const WorkerView& worker : core->workers()) {
    if (worker.session == session) holding = held(worker.info.id.value);
  }
  return report(session, holding, {{key, outcome}});
}

std::vector<AttemptKey> Harness::leased() const {
  std::vector<AttemptKey> keys;
  for (const SendUpdate& update : actions<SendUpdate>()) {
    for (const LeaseGrant& lease : update.leases) keys.push_back(lease.key);
  }
  return keys;
}

std::vector<StopRequest> Harness::stops(uint64_t session) const {
  std::vector<StopRequest> stops;
  for (const SendUpdate& update : actions<SendUpdate>()) {
    if (update.session == session)
      stops.insert(stops.end(), update.stop.begin(), update.stop.end());
  }
  return stops;
}

std::vector<AttemptKey> Harness::held(uint64_t worker) const {
  std::vector<AttemptKey> keys;
  for (JobId job : core->jobs()) {
    for (const RunningRank& running : core->running(job)) {
      if (running.worker == worker_id(worker)) keys.push_back(running.key);
    }
  }
  return keys;
}

void Harness::restore() {
  core = restored_from_rows();
  EXPECT_EQ(core->check_invariants(), "");
}

std::unique_ptr<Core> Harness::restored_from_rows() const {
  auto restored = std::make_unique<Core>(config);
  for (const Record& record : rows.replay()) restored->apply(record);
  restored->finish_restore(now);
  return restored;
}

std::unique_ptr<Core> Harness::restored_from_log() const {
  auto restored = std::make_unique<Core>(config);
  for (const Record& record : log) restored->apply(record);
  restored->finish_restore(now);
  return restored;
}

}  // namespace pesc::coordinator
