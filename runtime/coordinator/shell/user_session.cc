// The RPC front for users: what belongs to whom, long polls, pages of results.

#include <algorithm>
#include <map>
#include <utility>

#include "protocol/codec.h"
#include "rpc/log.h"
#include "runtime/coordinator/shell/clock.h"
#include "runtime/coordinator/shell/messages.h"
#include "runtime/coordinator/shell/promises.h"
#include "runtime/coordinator/shell/service.h"

namespace pesc::coordinator {
namespace {

constexpr uint32_t kMaxPage = 1'000;
constexpr uint32_t kMaxWaitMs = 30'000;
constexpr TimeMs kFollowPaceMs = 50;  // between two answers about a job that changes all the time
constexpr size_t kMaxWhyLines = 100;
constexpr size_t kMaxPrincipalBytes = 255;

absl::Status missing_blob(const FileRef& file) {
  return absl::FailedPreconditionError("missing blob " + to_hex(file.blob.digest) + " (" +
                                       file.path + "): upload it before the job is submitted");
}

bool is_final(JobState state) { return state != JobState::waiting && state != JobState::running; }

absl::StatusOr<rpc::Role> parse_role(std::string_view name) {
  for (const rpc::Role role : {rpc::Role::user, rpc::Role::worker, rpc::Role::admin}) {
    if (rpc::to_string(role) == name) return role;
  }
  return absl::InvalidArgumentError("no such role: " + std::string(name) +
                                    "; there are user, worker and admin");
}

class UserSessionServer final : public protocol::UserSession::Server {
 public:
  UserSessionServer(std::shared_ptr<Service> service, rpc::Principal principal)
      : service_(std::move(service)),
        principal_(std::move(principal)),
        hold_(service_->new_hold()) {}

  kj::Promise<void> blobs(BlobsContext context) override {
    context.getResults().setBlobs(make_blobs(service_, hold_));
    return kj::READY_NOW;
  }

  kj::Promise<void> submit(SubmitContext context) override;
  kj::Promise<void> status(StatusContext context) override;
  kj::Promise<void> jobs(JobsContext context) override;
  kj::Promise<void> follow(FollowContext context) override;
  kj::Promise<void> ranks(RanksContext context) override;
  kj::Promise<void> spec(SpecContext context) override;
  kj::Promise<void> why(WhyContext context) override;
  kj::Promise<void> cancel(CancelContext context) override;
  kj::Promise<void> retry(RetryContext context) override;
  kj::Promise<void> remove(RemoveContext context) override;
  kj::Promise<void> readLog(ReadLogContext context) override;
  kj::Promise<void> workers(WorkersContext context) override;
  kj::Promise<void> makeToken(MakeTokenContext context) override;
  kj::Promise<void> drain(DrainContext context) override;
  kj::Promise<void> pause(PauseContext context) override;
  kj::Promise<void> running(RunningContext context) override;

 private:
  struct Following {
    JobId id;
    uint64_t revision = 0;
    uint32_t committed = 0;
    TimeMs until = 0;
  };

  bool admin() const { return principal_.role == rpc::Role::admin; }
  // Other users' jobs do not exist for this one.
  std::optional<JobView> find(JobId id) const;
  JobView visible(uint64_t id) const;
  absl::Status check_blobs(const JobSpec& spec) const;
  kj::Promise<void> follow_on(Following following, FollowContext context);
  kj::Promise<void> answer_follow(Following following, JobView job, FollowContext context);
  void encode_ranks(capnp::List<protocol::RankInfo>::Builder out, JobId id,
                    const std::vector<RankRow>& rows);
  void encode_progress(const std::vector<RunningRank>& running, FollowContext& context);

  std::shared_ptr<Service> service_;
  rpc::Principal principal_;
  std::shared_ptr<BlobHold> hold_;
  std::map<JobId, TimeMs> last_follow_;
};

std::optional<JobView> UserSessionServer::find(JobId id) const {
  std::optional<JobView> job = service_->core().job(id);
  if (job && !admin() && job->owner != principal_.name) return std::nullopt;
  return job;
}

JobView UserSessionServer::visible(uint64_t id) const {
  rpc::throw_if_error(service_->open_status());
  std::optional<JobView> job = find(JobId{id});
  if (!job) rpc::throw_if_error(absl::NotFoundError("no job " + to_string(JobId{id})));
  return std::move(*job);
}

absl::Status UserSessionServer::check_blobs(const JobSpec& spec) const {
  for (const FileRef& file : spec.files) {
    if (file.kind == FileKind::directory) continue;
    const std::optional<uint64_t> size = service_->store().size_bytes(file.blob.digest);
    if (!size) return missing_blob(file);
    if (*size != file.blob.size_bytes) {
      return absl::InvalidArgumentError("the file " + file.path + " is said to have " +
                                        std::to_string(file.blob.size_bytes) +
                                        " bytes, its blob has " + std::to_string(*size));
    }
  }
  return absl::OkStatus();
}

kj::Promise<void> UserSessionServer::submit(SubmitContext context) {
  rpc::throw_if_error(service_->open_status());
  return service_->no_erasing().then([this, context]() mutable -> kj::Promise<void> {
    const auto params = context.getParams();
    absl::StatusOr<JobSpec> spec = protocol::decode(params.getSpec());
    rpc::throw_if_error(spec.status());
    rpc::throw_if_error(validate(*spec));
    const JobId id{params.getId()};
    if (id.value == 0) rpc::throw_if_error(absl::InvalidArgumentError("a job's id is not 0"));
    const std::optional<JobView> known = service_->core().job(id);
    if (service_->being_removed(id) || (known && known->owner != principal_.name)) {
      rpc::throw_if_error(absl::AlreadyExistsError("the id " + to_string(id) +
                                                   " is taken: submit the job under a new one"));
    }
    // A resend of a job that is known needs no blobs: it had them.
    if (!known) rpc::throw_if_error(check_blobs(*spec));
    for (const FileRef& file : spec->files) {
      if (!file.blob.empty()) service_->touched(file.blob.digest);
    }
    JobSubmitted event;
    event.id = id;
    event.owner = principal_.name;
    event.spec = std::make_shared<const JobSpec>(std::move(*spec));
    event.unix_ms = unix_ms();
    context.releaseParams();
    return service_->ask<Answer>(std::move(event)).then([](Answer answer) {
      rpc::throw_if_error(answer.status);
    });
  });
}

kj::Promise<void> UserSessionServer::status(StatusContext context) {
  encode_status(context.getResults().initStatus(), visible(context.getParams().getId()));
  return service_->settled();
}

kj::Promise<void> UserSessionServer::jobs(JobsContext context) {
  rpc::throw_if_error(service_->open_status());
  const JobId before{context.getParams().getBefore()};
  const uint32_t max = std::min(context.getParams().getMax(), kMaxPage);
  std::vector<JobId> ids = service_->core().jobs();
  std::reverse(ids.begin(), ids.end());
  auto from = ids.begin();
  if (before.value != 0) {
    from = std::find(ids.begin(), ids.end(), before);
    // Removed meanwhile: ids begin with the time of their submission.
    from = from != ids.end()
               ? from + 1
               : std::find_if(ids.begin(), ids.end(), [&](JobId id) { return id < before; });
  }
  std::vector<JobView> page;
  for (; from != ids.end() && page.size() < max; ++from) {
    if (std::optional<JobView> job = find(*from)) page.push_back(std::move(*job));
  }
  auto out = context.getResults().initJobs(page.size());
  for (unsigned i = 0; i < page.size(); ++i) encode_status(out[i], page[i]);
  return service_->settled();
}

kj::Promise<void> UserSessionServer::follow(FollowContext context) {
  const auto params = context.getParams();
  visible(params.getId());
  Following following;
  following.id = JobId{params.getId()};
  following.revision = params.getRevision();
  following.committed = params.getCommitted();
  following.until = boottime_ms() + std::min(params.getMaxWaitMs(), kMaxWaitMs);
  context.releaseParams();
  return follow_on(following, context);
}

kj::Promise<void> UserSessionServer::follow_on(Following following, FollowContext context) {
  JobView job = visible(following.id.value);
  const TimeMs now = boottime_ms();
  // Not "past": revisions begin anew when the coordinator starts again.
  const bool changed =
      following.revision != protocol::NO_REVISION && job.revision != following.revision;
  const bool news = changed || job.committed > following.committed;
  // Of a job that is over there will be no other news.
  if (now >= following.until || is_final(job.state)) {
    return answer_follow(following, std::move(job), context);
  }
  kj::Promise<void> wait = nullptr;
  if (!news) {
    wait = service_->changed(following.id)
               .exclusiveJoin(
                   service_->loop().timer().afterDelay((following.until - now) * kj::MILLISECONDS));
  } else {
    const auto last = last_follow_.find(following.id);
    const TimeMs ready = last == last_follow_.end() ? now : last->second + kFollowPaceMs;
    if (now >= ready) {
      return answer_follow(following, std::move(job), context);
    }
    wait = service_->loop().timer().afterDelay((ready - now) * kj::MILLISECONDS);
  }
  return wait.then([this, following, context]() mutable { return follow_on(following, context); });
}

kj::Promise<void> UserSessionServer::answer_follow(Following following, JobView job,
                                                   FollowContext context) {
  if (is_final(job.state)) {
    last_follow_.erase(job.id);
  } else {
    last_follow_[job.id] = boottime_ms();
  }
  auto ranks = service_->core().committed_ranks(job.id, following.committed, kMaxPage);
  encode_status(context.getResults().initStatus(), job);
  encode_progress(service_->core().running(job.id), context);
  return service_->settled()
      .then([this, id = job.id, ranks = std::move(ranks)]() mutable {
        return service_->read_ranks(id, std::move(ranks));
      })
      .then([this, id = job.id, context](std::vector<RankRow> rows) mutable {
        encode_ranks(context.getResults().initFinished(rows.size()), id, rows);
      });
}

void UserSessionServer::encode_progress(const std::vector<RunningRank>& running,
                                        FollowContext& context) {
  std::vector<const RunningRank*> told;
  for (const RunningRank& rank : running) {
    if (rank.fraction >= 0 && told.size() < kMaxPage) told.push_back(&rank);
  }
  auto out = context.getResults().initProgress(told.size());
  for (unsigned i = 0; i < told.size(); ++i) {
    out[i].setRank(told[i]->key.rank);
    out[i].setFraction(told[i]->fraction);
    out[i].setText(protocol::as_data(told[i]->text));
    out[i].setWorker(protocol::as_data(service_->worker_name(told[i]->worker)));
  }
}

void UserSessionServer::encode_ranks(capnp::List<protocol::RankInfo>::Builder out, JobId id,
                                     const std::vector<RankRow>& rows) {
  const Core& core = service_->core();
  const std::optional<JobView> job = core.job(id);
  if (!job) return;  // removed meanwhile
  for (unsigned i = 0; i < rows.size(); ++i) {
    const RankRow& row = rows[i];
    const RankState state = core.rank_state(id, row.rank);
    const AttemptRow* attempt = speaker(row, state);
    encode_rank(out[i], *job->spec, row, state, core.attempts(id, row.rank),
                attempt == nullptr ? std::string_view() : service_->worker_name(attempt->worker));
  }
}

kj::Promise<void> UserSessionServer::ranks(RanksContext context) {
  const auto params = context.getParams();
  const JobView job = visible(params.getId());
  const uint32_t first = params.getFirst();
  if (first >= job.spec->repetitions) {
    if (params.getMax() == 0 || first == job.spec->repetitions) return kj::READY_NOW;
    rpc::throw_if_error(absl::OutOfRangeError("no rank " + std::to_string(first) +
                                              ": the job has ranks 0 to " +
                                              std::to_string(job.spec->repetitions - 1)));
  }
  const uint32_t count = std::min({params.getMax(), kMaxPage, job.spec->repetitions - first});
  return service_->settled()
      .then([this, id = job.id, first, count] { return service_->read_page(id, first, count); })
      .then([this, id = job.id, context](std::vector<RankRow> rows) mutable {
        visible(id.value);  // it may have been removed while its rows were read
        encode_ranks(context.getResults().initRanks(rows.size()), id, rows);
        return service_->settled();
      });
}

kj::Promise<void> UserSessionServer::spec(SpecContext context) {
  const JobView job = visible(context.getParams().getId());
  protocol::encode(context.getResults().initSpec(), *job.spec);
  return service_->settled();
}

kj::Promise<void> UserSessionServer::why(WhyContext context) {
  const JobView job = visible(context.getParams().getId());
  return service_->settled()
      .then([this, id = job.id] { return service_->read_failures(id); })
      .then([this, id = job.id, context](std::vector<AttemptRow> failures) mutable {
        visible(id.value);
        const Core& core = service_->core();
        std::vector<WhyLine> lines = core.why(id, boottime_ms());
        std::map<uint32_t, std::string> died;  // of a rank that was retried the last failure counts
        for (const AttemptRow& row : failures) {
          const RankState state = core.rank_state(id, row.key.rank);
          // A job that is stopped early cancels ranks that had failed and would have been retried.
          if ((state == RankState::failed && row.final) || state == RankState::cancelled) {
            died[row.key.rank] = failure_line(row.outcome);
          }
        }
        std::map<std::pair<RankState, std::string>, RankRanges> groups;
        for (const auto& [rank, reason] : died) {
          groups[{core.rank_state(id, rank), reason}].add(rank);
        }
        for (const auto& [group, ranks] : groups) {
          if (lines.size() >= kMaxWhyLines) break;
          lines.push_back({ranks.text(), ranks.count(), group.first, group.second});
        }
        auto out = context.getResults().initLines(lines.size());
        for (unsigned i = 0; i < lines.size(); ++i) {
          out[i].setRanks(lines[i].ranks);
          out[i].setCount(lines[i].count);
          out[i].setState(static_cast<uint8_t>(lines[i].state));
          out[i].setReason(protocol::as_data(lines[i].reason));
        }
        return service_->settled();
      });
}

kj::Promise<void> UserSessionServer::cancel(CancelContext context) {
  JobCancelled event;
  event.id = visible(context.getParams().getId()).id;
  event.unix_ms = unix_ms();
  return service_->ask<Answer>(event).then(
      [](Answer answer) { rpc::throw_if_error(answer.status); });
}

kj::Promise<void> UserSessionServer::retry(RetryContext context) {
  JobRetried event;
  event.id = visible(context.getParams().getId()).id;
  event.unix_ms = unix_ms();
  return service_->ask<Answer>(event).then([context](Answer answer) mutable {
    rpc::throw_if_error(answer.status);
    context.getResults().setRanks(answer.count);
  });
}

kj::Promise<void> UserSessionServer::remove(RemoveContext context) {
  JobRemoved event;
  event.id = visible(context.getParams().getId()).id;
  return service_->ask<Answer>(event).then(
      [](Answer answer) { rpc::throw_if_error(answer.status); });
}

kj::Promise<void> UserSessionServer::running(RunningContext context) {
  const auto params = context.getParams();
  const JobView job = visible(params.getId());
  const uint32_t max = std::min(params.getMax(), kMaxPage);
  std::vector<uint32_t> ranks;
  for (const RunningRank& running : service_->core().running(job.id)) {  // in rank order
    if (ranks.size() >= max) break;
    const uint32_t rank = running.key.rank;
    if (running.ahead || rank < params.getFirst()) continue;
    if (ranks.empty() || ranks.back() != rank) ranks.push_back(rank);  // once of two attempts
  }
  auto out = context.getResults().initRanks(ranks.size());
  for (unsigned i = 0; i < ranks.size(); ++i) out.set(i, ranks[i]);
  return service_->settled();
}

kj::Promise<void> UserSessionServer::readLog(ReadLogContext context) {
  const auto params = context.getParams();
  const JobView job = visible(params.getId());
  const uint32_t rank = params.getRank();
  if (rank >= job.spec->repetitions) {
    rpc::throw_if_error(absl::OutOfRangeError("no rank " + std::to_string(rank) +
                                              ": the job has ranks 0 to " +
                                              std::to_string(job.spec->repetitions - 1)));
  }
  const RankState state = service_->core().rank_state(job.id, rank);
  auto results = context.getResults();
  results.setAttempt(service_->core().attempts(job.id, rank));
  results.setRunning(state == RankState::waiting || state == RankState::running);
  if (state == RankState::succeeded || state == RankState::failed) {
    // Whoever has followed another attempt must be told: the output is that of the one that
    // decided.
    return service_->read_page(job.id, rank, 1)
        .then([this, state, context](std::vector<RankRow> rows) mutable {
          const AttemptRow* decided = rows.empty() ? nullptr : speaker(rows.front(), state);
          if (decided != nullptr) context.getResults().setAttempt(decided->key.attempt);
          return service_->settled();
        });
  }
  if (state != RankState::running) return service_->settled();
  // The one that was asked for, or else the newest of its attempts: a second one may have failed
  // while an older one runs on.
  std::optional<RunningRank> found;
  bool asked = false;
  for (const RunningRank& running : service_->core().running(job.id, rank)) {
    if (running.ahead || asked) continue;
    asked = running.key.attempt == params.getAttempt();
    if (asked || !found || running.key.attempt > found->key.attempt) found = running;
  }
  if (!found) return service_->settled();
  results.setAttempt(found->key.attempt);
  if (!asked && params.getAttempt() != 0) return service_->settled();  // to be read from its start
  const std::optional<uint64_t> session = service_->core().session_of(found->worker);
  WorkerLink* link = session ? service_->worker(*session) : nullptr;
  if (link == nullptr) return service_->settled();  // its worker is away, and may come back
  const auto max = uint32_t(std::min<uint64_t>(params.getMaxBytes(), kMaxTransferBytes));
  auto read = link->read_log(found->key, params.getStream(), params.getOffset(), max);
  return read.then([context](std::pair<std::string, bool> log) mutable {
    context.getResults().setData(protocol::as_data(log.first));
  });
}

void encode_resources(protocol::WorkerStatus::Builder out, const WorkerView& view) {
  out.setMemoryUsedBytes(view.memory_used_bytes);
  out.setDiskBytes(view.info.disk_bytes);
  out.setDiskUsedBytes(view.disk_used_bytes);
  protocol::encode(out.initNamed(view.info.named.size()), view.info.named);
  protocol::encode(out.initNamedUsed(view.named_used.size()), view.named_used);
  auto gpus = out.initGpus(view.info.gpus.size());
  for (unsigned i = 0; i < gpus.size(); ++i) {
    protocol::encode(gpus[i].initGpu(), view.info.gpus[i]);
    if (i >= view.gpus.size()) continue;  // of a worker that has not been heard of since
    gpus[i].setUsedBytes(view.gpus[i].used_bytes);
    gpus[i].setRanks(view.gpus[i].ranks);
  }
}

kj::Promise<void> UserSessionServer::workers(WorkersContext context) {
  rpc::throw_if_error(service_->open_status());
  const std::vector<WorkerView> views = service_->core().workers();
  const int64_t boot_to_unix = unix_ms() - boottime_ms();
  auto out = context.getResults().initWorkers(views.size());
  for (unsigned i = 0; i < views.size(); ++i) {
    const WorkerView& view = views[i];
    const WorkerLink* link = view.attached ? service_->worker(view.session) : nullptr;
    out[i].setId(view.info.id.value);
    out[i].setName(protocol::as_data(view.info.name));
    out[i].setRoom(protocol::as_data(view.info.room));
    out[i].setAddress(link != nullptr ? link->peer_address() : view.info.advertise);
    out[i].setState(std::string(worker_state(view)));
    out[i].setTrouble(view.trouble);
    out[i].setCpusMilli(view.info.cpus_milli);
    out[i].setCpusUsedMilli(view.cpus_used_milli);
    out[i].setMemoryBytes(view.info.memory_bytes);
    out[i].setMemoryMeasuredBytes(view.measured.memory_bytes);
    out[i].setCpusMeasuredMilli(view.measured.cpus_milli);
    encode_resources(out[i], view);
    out[i].setRunning(view.leases);
    out[i].setFinished(view.finished);
    out[i].setSoftware(view.info.software);
    out[i].setLastSeenUnixMs(view.last_seen == 0 ? 0 : view.last_seen + boot_to_unix);
    auto warnings = out[i].initWarnings(view.info.warnings.size());
    for (unsigned w = 0; w < warnings.size(); ++w) warnings.set(w, view.info.warnings[w]);
  }
  return service_->settled();
}

kj::Promise<void> UserSessionServer::makeToken(MakeTokenContext context) {
  rpc::throw_if_error(service_->open_status());
  if (!admin()) {
    rpc::throw_if_error(absl::PermissionDeniedError(
        "only an administrator of this coordinator makes join files: ask whoever runs it"));
  }
  const auto params = context.getParams();
  const absl::StatusOr<rpc::Role> role = parse_role(params.getRole().cStr());
  rpc::throw_if_error(role.status());
  std::string name = params.getName().cStr();
  if (name.empty()) name = principal_.name;
  if (name.size() > kMaxPrincipalBytes) {
    rpc::throw_if_error(absl::InvalidArgumentError("a name of more than 255 bytes"));
  }
  const absl::StatusOr<std::string> join = service_->make_join_file(*role, name);
  rpc::throw_if_error(join.status());
  rpc::log().info("event=join_file_made role={} name=\"{}\" by=\"{}\"", rpc::to_string(*role),
                  loggable(name), loggable(principal_.name));
  context.getResults().setJoinFile(*join);
  return kj::READY_NOW;
}

// To an order that a person gives of a worker.
template <typename Results>
void set_order_answer(const AnswerDrain& answer, Results results) {
  rpc::throw_if_error(answer.status);
  results.setId(answer.worker.value);
  results.setName(protocol::as_data(answer.name));
  results.setAttempts(answer.attempts);
}

kj::Promise<void> UserSessionServer::drain(DrainContext context) {
  rpc::throw_if_error(service_->open_status());
  if (!admin()) {
    rpc::throw_if_error(absl::PermissionDeniedError(
        "only an administrator of this coordinator drains workers: ask whoever runs it"));
  }
  WorkerDrained event;
  event.worker = context.getParams().getWorker().cStr();
  event.drain = context.getParams().getDrain();
  context.releaseParams();
  rpc::log().info("event=worker_drain worker=\"{}\" drain={} by=\"{}\"", loggable(event.worker),
                  event.drain, loggable(principal_.name));
  return service_->ask<AnswerDrain>(std::move(event)).then([context](AnswerDrain answer) mutable {
    set_order_answer(answer, context.getResults());
  });
}

kj::Promise<void> UserSessionServer::pause(PauseContext context) {
  rpc::throw_if_error(service_->open_status());
  if (!admin()) {
    rpc::throw_if_error(absl::PermissionDeniedError(
        "only an administrator of this coordinator pauses workers: ask whoever runs it. Whoever "
        "keeps the machine itself can run `pesc-worker --pause` there"));
  }
  WorkerPaused event;
  event.worker = context.getParams().getWorker().cStr();
  event.pause = context.getParams().getPause();
  context.releaseParams();
  rpc::log().info("event=worker_pause worker=\"{}\" pause={} by=\"{}\"", loggable(event.worker),
                  event.pause, loggable(principal_.name));
  return service_->ask<AnswerDrain>(std::move(event)).then([context](AnswerDrain answer) mutable {
    set_order_answer(answer, context.getResults());
  });
}

}  // namespace

protocol::UserSession::Client make_user_session(std::shared_ptr<Service> service,
                                                rpc::Principal principal) {
  return kj::heap<UserSessionServer>(std::move(service), std::move(principal));
}

}  // namespace pesc::coordinator
