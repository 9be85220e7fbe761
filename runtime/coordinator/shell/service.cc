#include "runtime/coordinator/shell/service.h"

#include <unistd.h>

#include <algorithm>
#include <mutex>
#include <utility>

#include "rpc/log.h"
#include "runtime/coordinator/shell/clock.h"
#include "runtime/coordinator/shell/promises.h"

namespace pesc::coordinator {
namespace {

// Fewer rows than this are read on the loop: quicker than waking a thread.
constexpr size_t kReadOnLoop = 128;

}  // namespace

// A reader for the pool's threads, one at a time.
struct PoolReader {
  std::mutex mutex;
  std::unique_ptr<JournalReader> reader;
};

Service::Service(rpc::Loop& loop, const Options& options, std::filesystem::path dir,
                 common::UniqueFd lock)
    : loop_(loop), options_(options), dir_(std::move(dir)), lock_(std::move(lock)) {}

Service::~Service() noexcept = default;

absl::StatusOr<std::shared_ptr<Service>> Service::open(rpc::Loop& loop, const Options& options) {
  absl::StatusOr<std::filesystem::path> dir = common::make_state_dir(options.state_dir, 0700);
  if (!dir.ok()) return dir.status();
  absl::StatusOr<common::UniqueFd> lock = common::lock_state_dir(*dir, "pesc-coordinator");
  if (!lock.ok()) return lock.status();
  std::shared_ptr<Service> service(new Service(loop, options, std::move(*dir), std::move(*lock)));
  if (absl::Status status = service->start(); !status.ok()) return status;
  return service;
}

absl::Status Service::start() {
  blob::StoreOptions store_options;
  store_options.directory = dir_ / "blobs";
  store_options.durable = options_.durable;
  auto store = blob::Store::open(store_options);
  if (!store.ok()) return store.status();
  store_ = std::move(*store);

  JournalOptions journal_options;
  journal_options.path = journal_path();
  journal_options.durable = options_.durable;
  journal_options.drop_damaged = options_.drop_damaged;
  auto journal = Journal::open(journal_options);
  if (!journal.ok()) return journal.status();
  journal_ = std::move(*journal);
  auto core = restore_core(*journal_, options_.core);
  if (!core.ok()) return core.status();
  auto reader = JournalReader::open(journal_path());
  if (!reader.ok()) return reader.status();
  reader_ = std::move(*reader);
  auto pool_reader = JournalReader::open(journal_path());
  if (!pool_reader.ok()) return pool_reader.status();
  pool_reader_ = std::make_shared<PoolReader>();
  pool_reader_->reader = std::move(*pool_reader);

  if (options_.retention_bytes > 0) {
    if (absl::Status status = count_outputs(); !status.ok()) return status;
  }
  auto erased = journal_->erased();
  if (!erased.ok()) return erased.status();
  purging_.insert(erased->begin(), erased->end());
  to_collect_ = std::move(*erased);
  collect_all_ = store_->stats().blobs > 0;
  dropped_ = true;
  next_full_collection_ = now() + kFullCollectionPauseMs;

  (*core)->finish_restore(now());
  turn_ = std::make_unique<Turn>(*this, std::move(*core));
  journal_thread_ = std::make_unique<JournalThread>(loop_, *journal_, *store_);
  every(options_.core.heartbeat_ms, [this] { close_silent_workers(); });
  every(60'000, [this] { apply_retention(); });
  every(std::clamp<uint64_t>(options_.collect_pause_ms, 1, 10'000), [this] { collect_when_due(); });
  apply_retention();
  collect_garbage();
  return absl::OkStatus();
}

absl::Status Service::count_outputs() {
  auto jobs = reader_->jobs();
  if (!jobs.ok()) return jobs.status();
  for (const JobId job : *jobs) {
    uint64_t& bytes = output_bytes_[job];
    absl::Status status =
        reader_->outputs(job, [&](const BlobRef& output) { bytes += output.size_bytes; });
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

void Service::every(uint64_t period_ms, std::function<void()> work) {
  struct Tick {
    Service& service;
    uint64_t period_ms;
    std::function<void()> work;
    kj::Promise<void> run() {
      return service.loop_.timer().afterDelay(period_ms * kj::MILLISECONDS).then([this] {
        if (!service.closed_) work();
        return run();
      });
    }
  };
  auto tick = std::make_unique<Tick>(Tick{*this, period_ms, std::move(work)});
  kj::Promise<void> promise = tick->run();
  periodic_.push_back(
      promise.attach(std::shared_ptr<Tick>(std::move(tick))).eagerlyEvaluate([](kj::Exception&& e) {
        rpc::log().error("event=internal_error error=\"{}\"", e.getDescription().cStr());
      }));
}

kj::Promise<void> Service::shutdown() {
  closed_ = true;
  periodic_.clear();
  for (const auto& [session, link] : std::map(workers_)) {
    link->close("the coordinator shuts down; it may come back");
  }
  for (auto& [job, follow] : follows_) follow.fulfiller->fulfill();
  follows_.clear();
  // What is queued is committed and answered; what failed to be has been refused by now.
  return status_promise([this](auto done) { turn_->when_drained(std::move(done)); })
      .catch_([](kj::Exception&&) {});
}

absl::Status Service::open_status() const {
  if (!closed_) return absl::OkStatus();
  return absl::UnavailableError("the coordinator is shutting down");
}

kj::Promise<void> Service::durable() {
  if (!options_.durable) return kj::READY_NOW;
  return status_promise([this](auto done) {
    journal_thread_->sync_blobs(
        [done = std::move(done)](absl::Status status) { done(std::move(status)); });
  });
}

kj::Promise<void> Service::settled() {
  return status_promise([this](auto done) { turn_->when_settled(std::move(done)); });
}

kj::Promise<void> Service::changed(JobId job) {
  auto found = follows_.find(job);
  if (found == follows_.end()) {
    auto paf = kj::newPromiseAndFulfiller<void>();
    found = follows_.emplace(job, Follow{paf.promise.fork(), kj::mv(paf.fulfiller)}).first;
  }
  return found->second.changed.addBranch();
}

// ---- reading the journal ------------------------------------------------------------------------

kj::Promise<std::vector<RankRow>> Service::read_ranks(JobId job, std::vector<uint32_t> ranks) {
  if (ranks.empty()) return std::vector<RankRow>();
  auto unwrap = [](absl::StatusOr<std::vector<RankRow>> rows) {
    rpc::throw_if_error(rows.status());
    return std::move(*rows);
  };
  if (ranks.size() <= kReadOnLoop) return unwrap(reader_->ranks(job, ranks));
  return run_blocking(loop_,
                      [pool = pool_reader_, job, ranks = std::move(ranks)] {
                        const std::lock_guard lock(pool->mutex);
                        return pool->reader->ranks(job, ranks);
                      })
      .then(unwrap);
}

kj::Promise<std::vector<RankRow>> Service::read_page(JobId job, uint32_t first, uint32_t count) {
  auto unwrap = [](absl::StatusOr<std::vector<RankRow>> rows) {
    rpc::throw_if_error(rows.status());
    return std::move(*rows);
  };
  if (count <= kReadOnLoop) return unwrap(reader_->page(job, first, count));
  return run_blocking(loop_,
                      [pool = pool_reader_, job, first, count] {
                        const std::lock_guard lock(pool->mutex);
                        return pool->reader->page(job, first, count);
                      })
      .then(unwrap);
}

kj::Promise<std::vector<AttemptRow>> Service::read_failures(JobId job) {
  using Rows = absl::StatusOr<std::vector<AttemptRow>>;
  return run_blocking(loop_,
                      [pool = pool_reader_, job]() -> Rows {
                        const std::lock_guard lock(pool->mutex);
                        std::vector<AttemptRow> rows;
                        absl::Status status = pool->reader->failures(
                            job, [&](const AttemptRow& row) { rows.push_back(row); });
                        if (!status.ok()) return status;
                        return rows;
                      })
      .then([](Rows rows) {
        rpc::throw_if_error(rows.status());
        return std::move(*rows);
      });
}

const std::string& Service::worker_name(WorkerId worker) {
  auto found = worker_names_.find(worker);
  if (found == worker_names_.end()) {
    for (const WorkerView& view : core().workers()) worker_names_[view.info.id] = view.info.name;
    found = worker_names_.try_emplace(worker, to_string(worker)).first;
  }
  return found->second;
}

// ---- workers' sessions --------------------------------------------------------------------------

uint64_t Service::open_worker(WorkerLink* link) {
  const uint64_t session = next_session_++;
  workers_.emplace(session, link);
  return session;
}

void Service::close_worker(uint64_t session) {
  workers_.erase(session);
  passing_.closed(session);
}

WorkerLink* Service::worker(uint64_t session) const {
  const auto found = workers_.find(session);
  return found == workers_.end() ? nullptr : found->second;
}

void Service::close_silent_workers() {
  const TimeMs oldest = now() - TimeMs(options_.core.lease_ms);
  for (const auto& [session, link] : std::map(workers_)) {
    if (link->last_heard() < oldest) link->close("no heartbeat for longer than a lease");
  }
}

// ---- the turn's host ----------------------------------------------------------------------------

TimeMs Service::now() { return boottime_ms(); }
int64_t Service::wall_ms() { return unix_ms(); }

void Service::schedule() {
  loop_.post([weak = weak_from_this()] {
    if (const auto self = weak.lock()) self->turn_->run();
  });
}

void Service::commit(const Batch& batch) {
  journal_thread_->commit(batch, [this](absl::Status status) {
    if (!status.ok()) {
      rpc::log().error("event=commit_failed error=\"{}\"", std::string(status.message()));
      status = explain_commit_failure(status);
    }
    const auto self = shared_from_this();  // an answer may drop the last session
    turn_->committed(status);
  });
}

void Service::restore(uint64_t delay_ms) {
  auto begin = [this] {
    journal_thread_->restore(options_.core, [this](absl::StatusOr<std::unique_ptr<Core>> core) {
      if (!core.ok()) {
        rpc::log().warn("event=journal_unusable error=\"{}\"",
                        std::string(core.status().message()));
        core = explain_commit_failure(core.status());
      } else {
        rpc::log().info("event=journal_usable_again");
      }
      turn_->restored(std::move(core));
    });
  };
  restore_delay_ =
      loop_.timer()
          .afterDelay(delay_ms * kj::MILLISECONDS)
          .then(std::move(begin))
          .eagerlyEvaluate([](kj::Exception&& e) {
            rpc::log().error("event=internal_error error=\"{}\"", e.getDescription().cStr());
          });
}

void Service::arm(TimeMs deadline) {
  if (armed_ != 0 && armed_ <= deadline) return;  // it fires early then, and arms again
  armed_ = deadline;
  const TimeMs delay = std::max<TimeMs>(0, deadline - now());
  timer_ = loop_.timer()
               .afterDelay(delay * kj::MILLISECONDS)
               .then([this] {
                 armed_ = 0;
                 turn_->timer_fired();
               })
               .eagerlyEvaluate([](kj::Exception&&) {});
}

template <typename A>
void Service::answer(A answer) {
  auto& all = pending<A>();
  const auto found = all.find(answer.request);
  if (found == all.end()) return;
  auto fulfiller = kj::mv(found->second);
  all.erase(found);
  fulfiller->fulfill(kj::mv(answer));
}

template <typename A>
bool Service::reject(uint64_t request, const absl::Status& status) {
  auto& all = pending<A>();
  const auto found = all.find(request);
  if (found == all.end()) return false;
  auto fulfiller = kj::mv(found->second);
  all.erase(found);
  fulfiller->reject(rpc::to_exception(status));
  return true;
}

void Service::perform(Action action) {
  if (auto* a = std::get_if<Answer>(&action)) {
    answer(std::move(*a));
  } else if (auto* a = std::get_if<AnswerAttach>(&action)) {
    answer(std::move(*a));
  } else if (auto* a = std::get_if<AnswerReport>(&action)) {
    answer(std::move(*a));
  } else if (auto* a = std::get_if<AnswerCheckpoint>(&action)) {
    answer(std::move(*a));
  } else if (auto* a = std::get_if<AnswerDrain>(&action)) {
    answer(std::move(*a));
  } else if (auto* a = std::get_if<SendUpdate>(&action)) {
    if (WorkerLink* link = worker(a->session)) link->update(std::move(*a));
  } else if (auto* a = std::get_if<CloseSession>(&action)) {
    if (WorkerLink* link = worker(a->session)) link->close(a->reason);
  } else if (auto* a = std::get_if<JobChanged>(&action)) {
    changed_.insert(a->job);
  }
}

void Service::refuse(uint64_t request, const absl::Status& status) {
  (void)(reject<Answer>(request, status) || reject<AnswerAttach>(request, status) ||
         reject<AnswerReport>(request, status) || reject<AnswerCheckpoint>(request, status) ||
         reject<AnswerDrain>(request, status));
}

void Service::state_lost(const absl::Status& reason) {
  for (const auto& [session, link] : std::map(workers_)) link->close(std::string(reason.message()));
  retiring_.clear();
  // What the lost batch would have named, and what it had come with.
  collect_all_ = true;
  next_collection_ = 0;
}

void Service::released(const Batch& batch) {
  on_records(batch);
  for (const JobId job : std::exchange(changed_, {})) {
    const auto found = follows_.find(job);
    if (found == follows_.end()) continue;
    auto fulfiller = kj::mv(found->second.fulfiller);
    follows_.erase(found);
    fulfiller->fulfill();
  }
}

void Service::on_records(const Batch& batch) {
  bool erased = false;
  for (const Record& record : batch.records) {
    if (const auto* ended = std::get_if<AttemptEnded>(&record)) {
      if (options_.retention_bytes > 0) {
        output_bytes_[ended->key.job] += ended->outcome.output.size_bytes;
      }
    } else if (std::get_if<WorkerSeen>(&record) != nullptr) {
      worker_names_.clear();
    } else if (const auto* gone = std::get_if<JobErased>(&record)) {
      output_bytes_.erase(gone->job);
      retiring_.erase(gone->job);
      purging_.insert(gone->job);
      to_collect_.push_back(gone->job);
      changed_.insert(gone->job);
      erased = dropped_ = true;
    } else if (std::holds_alternative<CheckpointsDropped>(record)) {
      dropped_ = true;
    }
  }
  if (erased) collect_garbage();
}

// ---- credentials --------------------------------------------------------------------------------

absl::StatusOr<rpc::TokenStore*> Service::tokens() {
  if (!tokens_) {
    auto tokens = rpc::TokenStore::open(dir_);
    if (!tokens.ok()) return tokens.status();
    tokens_ = std::make_unique<rpc::TokenStore>(std::move(*tokens));
  }
  return tokens_.get();
}

void Service::set_join_address(rpc::Address address, std::string certificate_pem) {
  join_address_ = std::move(address);
  join_certificate_ = std::move(certificate_pem);
}

absl::StatusOr<std::string> Service::make_join_file(rpc::Role role, const std::string& name) {
  if (join_address_.host.empty()) {
    return absl::FailedPreconditionError(
        "this coordinator is part of a program and listens nowhere: nobody could join it");
  }
  auto tokens = this->tokens();
  if (!tokens.ok()) return tokens.status();
  auto token = (*tokens)->issue(role, name);
  if (!token.ok()) return token.status();
  rpc::JoinFile join;
  join.address = rpc::to_string(join_address_);
  join.role = role;
  join.name = name;
  join.token = std::move(*token);
  join.certificate_pem = join_certificate_;
  if (join_certificate_.empty()) join.coordinator_uid = ::geteuid();
  return rpc::to_json(join);
}

}  // namespace pesc::coordinator
