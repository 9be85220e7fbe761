#include <condition_variable>
#include <deque>

#include "client/follow.h"
#include "client/state.h"

namespace pesc {
namespace {

using client::FinalRank;
using client::Followed;
using client::kFollowMs;
using client::kNoRevision;
using client::Session;
using client::UserSession;

// "More than this many are final" is true when all are.
uint32_t last_rank(const JobStatus& status) {
  return status.repetitions == 0 ? 0 : status.repetitions - 1;
}

// What a follower is told of: each change (at most ten times a second), each rank that became
// final, or the end of the job alone.
enum class Follow { changes, results, end };

constexpr uint32_t kChangesEveryMs = 100;

// Follows a job on the loop's thread until `each` returns false, the handle is dropped, or it
// fails.
class Follower : public std::enable_shared_from_this<Follower> {
 public:
  using Each = std::function<bool(absl::StatusOr<Followed>)>;
  Follower(std::shared_ptr<Session> session, JobId id, std::shared_ptr<std::atomic<bool>> dropped,
           Follow what, Each each)
      : session_(session),
        id_(id),
        dropped_(std::move(dropped)),
        what_(what),
        each_(std::move(each)) {}

  static void start(std::shared_ptr<Follower> self) {
    std::shared_ptr<Session> session = self->session_.lock();
    if (!session) return;
    session->thread().loop().post(
        [self, loop = &session->thread().loop()] { loop->detach(self->next()); });
  }

 private:
  kj::Promise<void> next() {
    std::shared_ptr<Session> session = session_.lock();
    if (!session || *dropped_) return kj::READY_NOW;
    // The session is kept by handles only: a follower must not keep an embedded job alive.
    Session* raw = session.get();
    session.reset();
    uint64_t revision = what_ == Follow::changes ? revision_ : kNoRevision;
    uint32_t committed = what_ == Follow::results ? committed_ : last_;
    return raw
        ->attempt<Followed>(
            [raw, id = id_, revision, committed](UserSession& user) {
              return client::follow(*raw, user, id, revision, committed, kFollowMs);
            },
            client::kForever, 100)
        .then(
            [self = shared_from_this(),
             timer = &raw->thread().loop().timer()](Followed&& followed) -> kj::Promise<void> {
              if (*self->dropped_) return kj::READY_NOW;
              self->revision_ = followed.revision;
              self->committed_ += followed.finished.size();
              self->last_ = last_rank(followed.status);
              if (!self->each_(std::move(followed))) return kj::READY_NOW;
              if (self->what_ != Follow::changes) return self->next();
              return timer->afterDelay(kChangesEveryMs * kj::MILLISECONDS).then([self] {
                return self->next();
              });
            },
            [self = shared_from_this()](kj::Exception&& error) {
              if (!*self->dropped_) self->each_(rpc::to_status(error));
            });
  }

  std::weak_ptr<Session> session_;
  JobId id_;
  std::shared_ptr<std::atomic<bool>> dropped_;
  Follow what_;
  Each each_;
  uint64_t revision_ = 0;
  uint32_t committed_ = 0;
  uint32_t last_ = 0;
};

// Where callbacks go: the user's executor, or the dispatcher.
std::function<void(std::function<void()>)> runner(const std::shared_ptr<JobHandle::State>& state,
                                                  Executor executor) {
  auto dropped = state->dropped;
  auto calling = state->calling;
  std::weak_ptr<Session> session = state->session;
  return
      [dropped, calling, session, executor = std::move(executor)](std::function<void()> callback) {
        auto guarded = [dropped, calling, callback = std::move(callback)] {
          std::lock_guard lock(*calling);
          if (!*dropped) callback();
        };
        if (executor) {
          executor(std::move(guarded));
        } else if (std::shared_ptr<Session> alive = session.lock()) {
          alive->dispatcher().post(std::move(guarded));
        }
      };
}

JobResult result_of(const std::shared_ptr<Session>& session, JobId id, JobStatus status) {
  auto state = std::make_shared<JobResult::State>();
  state->session = session;
  state->id = id;
  state->status = std::move(status);
  return JobResult(std::move(state));
}

}  // namespace

JobHandle::JobHandle(std::shared_ptr<State> state) : state_(std::move(state)) {}

const std::string& JobHandle::id() const { return state_->id_text; }

absl::StatusOr<JobStatus> JobHandle::status() const {
  JobId id = state_->id;
  absl::StatusOr<JobStatus> status = state_->session->call<JobStatus>([id](UserSession& user) {
    auto request = user.statusRequest();
    request.setId(id.value);
    return request.send().then([](capnp::Response<protocol::UserSession::StatusResults> response) {
      return client::to_public(response.getStatus());
    });
  });
  if (status.ok() && state_->session->embedded()) client::say_this_machine(*status);
  return status;
}

void JobHandle::on_progress(std::function<void(const Progress&)> callback, Executor executor) {
  auto run = runner(state_, std::move(executor));
  // While a callback waits its turn newer states replace the one it will be given: a slow listener
  // sees fewer of them, never an ever longer queue.
  struct Latest {
    std::mutex mutex;
    Progress progress;
    bool queued = false;
  };
  auto latest = std::make_shared<Latest>();
  auto each = [run, latest, callback](absl::StatusOr<Followed> followed) {
    if (!followed.ok()) return false;
    std::lock_guard lock(latest->mutex);
    latest->progress = {followed->status, followed->progress};
    if (!latest->queued) {
      latest->queued = true;
      run([latest, callback] {
        Progress progress;
        {
          std::lock_guard lock(latest->mutex);
          progress = latest->progress;
          latest->queued = false;
        }
        callback(progress);
      });
    }
    return !followed->status.finished();
  };
  Follower::start(std::make_shared<Follower>(state_->session, state_->id, state_->dropped,
                                             Follow::changes, std::move(each)));
}

void JobHandle::on_result(std::function<void(const RankResult&)> callback, Executor executor) {
  auto run = runner(state_, std::move(executor));
  auto seen = std::make_shared<uint64_t>(0);
  auto each = [run, seen, callback](absl::StatusOr<Followed> followed) {
    if (!followed.ok()) return false;
    *seen += followed->finished.size();
    for (FinalRank& rank : followed->finished) {
      run([callback, rank = std::move(rank.result)] { callback(rank); });
    }
    return !(followed->status.finished() && *seen >= followed->committed);
  };
  Follower::start(std::make_shared<Follower>(state_->session, state_->id, state_->dropped,
                                             Follow::results, std::move(each)));
}

void JobHandle::on_finished(std::function<void(const absl::StatusOr<JobResult>&)> callback,
                            Executor executor) {
  auto run = runner(state_, std::move(executor));
  std::weak_ptr<Session> weak = state_->session;
  JobId id = state_->id;
  auto each = [run, callback, weak, id](absl::StatusOr<Followed> followed) {
    if (followed.ok() && !followed->status.finished()) return true;
    std::shared_ptr<Session> session = weak.lock();
    if (!session) return false;
    absl::StatusOr<JobResult> result = followed.ok() ? result_of(session, id, followed->status)
                                                     : absl::StatusOr<JobResult>(followed.status());
    run([callback, result] { callback(result); });
    return false;
  };
  Follower::start(std::make_shared<Follower>(state_->session, state_->id, state_->dropped,
                                             Follow::end, std::move(each)));
}

absl::StatusOr<std::optional<RankResult>> JobHandle::next_result() {
  JobId id = state_->id;
  uint32_t next = next_;
  for (;;) {
    auto followed = state_->session->call<Followed>(
        [session = state_->session.get(), id, next](UserSession& user) {
          return client::follow(*session, user, id, kNoRevision, next, kFollowMs);
        },
        client::kForever);
    if (!followed.ok()) return followed.status();
    if (!followed->finished.empty()) {
      ++next_;
      return std::move(followed->finished.front().result);
    }
    if (followed->status.finished()) return std::optional<RankResult>();
  }
}

absl::StatusOr<std::vector<RankResult>> JobHandle::ranks() const {
  return client::read_all_ranks(*state_->session, state_->id);
}

absl::StatusOr<RankResult> JobHandle::rank(uint32_t rank) const {
  absl::StatusOr<FinalRank> info = client::read_rank(*state_->session, state_->id, rank);
  if (!info.ok()) return info.status();
  return std::move(info->result);
}

absl::Status JobHandle::cancel() {
  JobId id = state_->id;
  return state_->session->call_void([id](UserSession& user) {
    auto request = user.cancelRequest();
    request.setId(id.value);
    return request.send().ignoreResult();
  });
}

absl::StatusOr<JobResult> JobHandle::wait() { return wait(std::chrono::milliseconds::max()); }

absl::StatusOr<JobResult> JobHandle::wait(std::chrono::milliseconds timeout) {
  using Clock = std::chrono::steady_clock;
  bool for_ever = timeout == std::chrono::milliseconds::max();
  Clock::time_point deadline = for_ever ? Clock::time_point::max() : Clock::now() + timeout;
  JobId id = state_->id;
  uint32_t last = 0;
  for (bool first = true;; first = false) {
    uint64_t left_ms = kFollowMs;
    if (!for_ever) {
      auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now());
      if (left.count() <= 0 && !first) {
        return absl::DeadlineExceededError("job " + state_->id_text + " is not over yet");
      }
      left_ms = std::clamp<int64_t>(left.count(), 0, kFollowMs);
    }
    auto followed = state_->session->call<Followed>(
        [session = state_->session.get(), id, last, left_ms](UserSession& user) {
          return client::follow(*session, user, id, kNoRevision, last, left_ms);
        },
        for_ever ? client::kForever : left_ms);
    if (!followed.ok()) {
      // Out of contact: the job goes on, and so does waiting, as long as the caller asked for.
      if (for_ever || followed.status().code() != absl::StatusCode::kUnavailable) {
        return followed.status();
      }
      continue;
    }
    last = last_rank(followed->status);
    if (followed->status.finished()) return result_of(state_->session, id, followed->status);
  }
}

double Progress::fraction() const {
  if (status.repetitions == 0) return 0;
  double done = status.succeeded + status.failed + status.cancelled;
  for (const RankProgress& rank : ranks) done += std::clamp(rank.fraction, 0.0, 1.0);
  return std::min(1.0, done / status.repetitions);
}

std::string_view to_string(State state) {
  return to_string(static_cast<RankState>(static_cast<uint8_t>(state)));
}

}  // namespace pesc
