// What the shell does for attempts: prepare, start, stop, pack, forget.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "protocol/codec.h"
#include "rpc/log.h"
#include "runtime/worker/shell/async.h"
#include "runtime/worker/shell/clock.h"
#include "runtime/worker/shell/network_interface.h"
#include "runtime/worker/shell/worker_impl.h"

namespace pesc::worker {
namespace {

// A blob's name says nothing to a user; the file's does.
std::string with_file_name(std::string message, const JobSpec& spec) {
  for (const FileRef& file : spec.files) {
    if (file.kind == FileKind::directory ||
        message.find(to_hex(file.blob.digest)) == message.npos) {
      continue;
    }
    return "the file \"" + file.path + "\": " + message;
  }
  return message;
}

PrepareFailed failure(const ShellAttempt& attempt, const absl::Status& status) {
  PrepareFailed failed{attempt.key, EndReason::inputs_unavailable,
                       with_file_name(std::string(status.message()), *attempt.spec), false};
  if (is_disk_full(status)) {
    failed.reason = EndReason::disk_full;
    return failed;
  }
  // On its way, damaged: the coordinator's copy is asked again.
  failed.may_pass = absl::IsUnavailable(status) || absl::IsDataLoss(status);
  if (!attempt.restoring) return failed;
  failed.may_pass = failed.may_pass || absl::IsNotFound(status);
  failed.reason = EndReason::bad_checkpoint;
  failed.detail = "checkpoint " + std::to_string(attempt.checkpoint.number) +
                  " could not be restored: " + failed.detail;
  return failed;
}

// A file's number in `directory` says nothing, and would make every rank's reason another.
std::string without_numbers(std::string text, const std::string& directory) {
  for (size_t at = 0; (at = text.find(directory + "/", at)) != text.npos;) {
    at += directory.size();
    text.erase(at, std::min(text.find_first_not_of("/0123456789", at), text.size()) - at);
  }
  return text;
}

// More than any program needs that is not a fork bomb.
constexpr uint32_t kProcessLimit = 4096;

bool has_shared(const JobSpec& spec) {
  for (const FileRef& file : spec.files) {
    if (file.kind == FileKind::shared_file) return true;
  }
  return false;
}

std::string path_of(const Command& command, const std::string& otherwise) {
  for (const std::string& variable : command.environment) {
    if (variable.rfind("PATH=", 0) == 0) return variable.substr(5);
  }
  return otherwise;
}

}  // namespace

AttemptPtr WorkerShell::find(const AttemptKey& key) const {
  auto it = attempts_.find(key);
  return it == attempts_.end() ? nullptr : it->second;
}

// ---- prepare ------------------------------------------------------------------------------------

void WorkerShell::on(Prepare& action) {
  AttemptPtr& attempt = attempts_[action.key];
  if (attempt == nullptr) {
    attempt = std::make_shared<ShellAttempt>();
    attempt->key = action.key;
    attempt->spec = action.spec;
    attempt->paths = dirs_->paths(action.key);
    if (action.spec->build.empty()) attempt->pinned = input_blobs(*action.spec);
    cache_->pin(attempt->pinned);
  }
  const uint32_t number = ++attempt->prepare_number;
  attempt->has_directories = true;
  attempt->checkpoint = action.checkpoint;
  attempt->restoring = false;
  if (!attempt->spec->build.empty()) {
    return prepare_built(attempt, number, std::move(action.gpus));
  }
  const bool restores = attempt->checkpoint.number != 0;
  if (!restores && reuse_directories(*attempt)) {
    prepared(attempt, number, dirs_->open_to_ranks(attempt->paths));
    return;
  }
  if (!restores && attempt->pinned.empty() &&
      !is_heavy(*attempt->spec)) {  // nothing to fetch, little to make
    absl::Status made = dirs_->make(attempt->paths);
    if (made.ok() && !attempt->spec->files.empty()) {
      auto placed = place_inputs(*attempt->spec, attempt->paths, *dirs_, *cache_,
                                 shared_mode_.value_or(without_mounts()));
      made = placed.status();
      if (placed.ok()) attempt->placed = *std::move(placed);
    }
    dirs_->mark(attempt->paths);
    if (made.ok()) made = dirs_->open_to_ranks(attempt->paths);
    prepared(attempt, number, made);
    return;
  }
  tasks_->add(fetcher_->ensure(attempt->pinned)
                  .then([this, attempt, number] { return place(attempt, number); })
                  .catch_([this, attempt, number](kj::Exception&& e) {
                    prepared(attempt, number, rpc::to_status(e));
                  }));
}

kj::Promise<void> WorkerShell::place(AttemptPtr attempt, uint32_t number) {
  if (attempt->forgotten || attempt->prepare_number != number) return kj::READY_NOW;
  const std::shared_ptr<const JobSpec> inputs =
      attempt->built != nullptr ? attempt->built->spec : attempt->spec;
  kj::Promise<SharedMode> mode =
      has_shared(*inputs) ? shared_mode()
                          : kj::Promise<SharedMode>(shared_mode_.value_or(without_mounts()));
  return mode.then([this, attempt, number, inputs](SharedMode shared) -> kj::Promise<void> {
    if (attempt->forgotten || attempt->prepare_number != number) return kj::READY_NOW;
    const bool restores = attempt->checkpoint.number != 0;
    const auto work = [inputs, built = attempt->built, paths = attempt->paths, dirs = dirs_,
                       cache = cache_, shared, restores]() -> absl::StatusOr<PlacedInputs> {
      absl::Status made = dirs->make(paths);
      if (!made.ok()) return made;
      auto placed = place_inputs(*inputs, paths, *dirs, *cache, shared);
      if (placed.ok() && built != nullptr) {
        made = place_links(built->links, paths, *dirs, *placed);
        if (!made.ok()) return made;
      }
      dirs->mark(paths);
      if (placed.ok() && !restores) made = dirs->open_to_ranks(paths);
      return made.ok() ? std::move(placed) : made;
    };
    const auto finish = [this, attempt, number, restores](absl::StatusOr<PlacedInputs> placed) {
      const absl::Status status = placed.status();
      const bool wanted = !attempt->forgotten && attempt->prepare_number == number;
      if (placed.ok() && wanted) attempt->placed = *std::move(placed);
      if (status.ok() && wanted && restores) return restore(attempt, number);
      prepared(attempt, number, status);
    };
    if (!is_heavy(*inputs)) {
      finish(work());
      return kj::READY_NOW;
    }
    ++attempt->pool_jobs;
    return blocking(loop_, work)
        .then(
            [this, attempt, finish](absl::StatusOr<PlacedInputs> placed) {
              pool_job_done(attempt);
              finish(std::move(placed));
            },
            [this, attempt, finish](kj::Exception&& e) {
              pool_job_done(attempt);
              finish(rpc::to_status(e));
            });
  });
}

void WorkerShell::prepared(const AttemptPtr& attempt, uint32_t number, const absl::Status& status) {
  if (attempt->forgotten || attempt->prepare_number != number) return;
  if (status.ok()) {
    push(Prepared{attempt->key});
    return;
  }
  rpc::log().warn("event=prepare_failed attempt=\"{}\" error=\"{}\"", to_string(attempt->key),
                  std::string(status.message()));
  if (is_disk_full(status)) note_full_disk();
  push(failure(*attempt, status));
}

void WorkerShell::on(CancelPrepare& action) {
  AttemptPtr attempt = find(action.key);
  if (attempt == nullptr) return;
  ++attempt->prepare_number;
  leave_build(attempt->key, attempt->build);
}

// ---- how shared files are kept read-only
// ------------------------------------------------------------

kj::Promise<SharedMode> WorkerShell::shared_mode() {
  if (shared_mode_) return *shared_mode_;
  if (keeper_ == nullptr) {
    return rpc::to_exception(absl::UnavailableError("the worker's keeper is not running"));
  }
  auto paf = kj::newPromiseAndFulfiller<SharedMode>();
  waiting_for_mode_.push_back(kj::mv(paf.fulfiller));
  if (!std::exchange(probing_, true)) probe_binds();
  return kj::mv(paf.promise);
}

SharedMode WorkerShell::without_mounts() const {
  return ::geteuid() == 0 && !user_ ? SharedMode::copied : SharedMode::checked;
}

// A program with a mount, started by the very keeper that is to make the mounts.
void WorkerShell::probe_binds() {
  const std::string directory = (state_dir_ / "outbox").string();
  const std::string source = directory + "/probe-source", target = directory + "/probe-target";
  for (const std::string& path : {source, target}) {
    common::UniqueFd made(::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
  }
  LaunchRequest request;
  request.key = kProbe;
  request.argv = {"true"};
  request.search_path = "/usr/local/bin:/usr/bin:/bin";
  request.working_directory = directory;
  request.spill_directory = directory;
  request.read_only_binds.emplace_back(source, target);
  keeper_->start(request);
}

void WorkerShell::on_started(const AttemptKey& key, uint32_t pid, int64_t unix_ms,
                             bool binds_done) {
  if (key == kProbe) {
    shared_mode_ = binds_done ? SharedMode::bind : without_mounts();
    return;
  }
  if (is_build(key)) return on_build_started(key, binds_done);
  AttemptPtr attempt = find(key);
  if (attempt == nullptr) return;
  attempt->started_boot_ms = now_ms();
  watch_->add(key, attempt->paths.events);
  watch_gpu_use(*attempt, pid);
  watch_disk(attempt);
  push(Started{key, unix_ms});
  if (!attempt->placed.binds.empty() && !binds_done) {
    // The program sees empty files: what it does now is worth nothing. The next try has links.
    rpc::log().warn(
        "event=mounts_failed attempt=\"{}\" next=\"shared files are links, and checked\"",
        to_string(key));
    shared_mode_ = without_mounts();
    attempt->binds_failed = true;
    keeper_->stop(key, EndReason::inputs_unavailable, 0);
  }
}

// ---- start, stop, exit
// ------------------------------------------------------------------------------

const std::string& WorkerShell::lease_bytes(const AttemptPtr& attempt) {
  if (lease_spec_ != attempt->spec) {
    lease_spec_ = attempt->spec;
    lease_bytes_ = protocol::serialize_spec(*attempt->spec);
  }
  return lease_bytes_;
}

void WorkerShell::on(Start& action) {
  AttemptPtr attempt = find(action.key);
  if (attempt == nullptr || keeper_ == nullptr) {
    AttemptOutcome outcome;
    outcome.reason = EndReason::worker_lost;
    outcome.exit_code = -1;
    outcome.detail = "the worker's keeper was not running";
    push(Exited{action.key, std::move(outcome)});
    return;
  }
  if (!check_master_port(action)) return;
  AttemptPlace place;
  if (action.master_port != 0) {
    place.master_addr = action.master_addr;
    place.master_port = action.master_port;
    place.local_rank = action.local_rank;
    place.local_world_size = action.local_world_size;
    place.network_interface = network_interface_towards(action.master_addr);
  }
  place.app_dir = attempt->paths.app;
  place.checkpoint_dir = attempt->paths.checkpoint;
  place.output_dir = attempt->paths.output;
  place.temporary_dir = attempt->paths.temporary;
  place.events_file = attempt->paths.events;
  Command command = make_command(*attempt->spec, attempt->key, place, base_);
  give_gpus(*attempt, std::move(action.grant), command.environment);
  LaunchRequest request;
  request.key = attempt->key;
  request.search_path = path_of(command, base_.path);
  request.argv = std::move(command.argv);
  request.environment = std::move(command.environment);
  request.working_directory = attempt->paths.app;
  request.spill_directory = attempt->paths.root;
  request.lease = lease_bytes(attempt);
  if (user_) {
    request.run_as = true;
    request.uid = user_->uid;
    request.gid = user_->gid;
  }
  request.time_limit_ms = attempt->spec->time_limit_ms;
  request.grace_ms = attempt->spec->grace_ms;
  request.output_limit_bytes = attempt->spec->output_limit_bytes != 0
                                   ? attempt->spec->output_limit_bytes
                                   : kDefaultOutputLimitBytes;
  request.read_only_binds = attempt->placed.binds;
  request.idle_priority = options_.idle_priority;
  request.memory_limit_bytes = action.grant.memory_limit_bytes != 0
                                   ? action.grant.memory_limit_bytes
                                   : attempt->spec->resources.memory_bytes;
  request.cpus_milli = attempt->spec->resources.cpus_milli;
  request.process_limit = kProcessLimit;
  request.most_of_job = action.most_of_job;
  attempt->with_keeper = attempt->running = attempt->was_started = true;
  keeper_->start(request);
  if (monitor_ && monitor_->verdict().mode != owner::Mode::run) pace(attempt->key);
}

void WorkerShell::on(Stop& action) {
  AttemptPtr attempt = find(action.key);
  const bool unwanted =
      action.reason == EndReason::cancelled ||
      (action.reason == EndReason::revoked && attempt != nullptr && !attempt->spec->parallel);
  if (attempt != nullptr && unwanted) cancel_save(*attempt);
  if (keeper_ != nullptr) {
    keeper_->stop(action.key, action.reason, action.grace_ms, action.unless_begun);
  }
}

void WorkerShell::on_exited(KeptExit exit) {
  if (exit.key == kProbe) {
    if (!shared_mode_) shared_mode_ = without_mounts();  // it could not even be started
    probing_ = false;
    if (keeper_ != nullptr) keeper_->forget(kProbe);
    for (auto& waiting : std::exchange(waiting_for_mode_, {})) {
      waiting->fulfill(SharedMode(*shared_mode_));
    }
    return;
  }
  if (is_build(exit.key)) return on_build_exited(std::move(exit));
  AttemptPtr attempt = find(exit.key);
  if (attempt == nullptr) {
    keeper_->forget(exit.key);
    return;
  }
  // A success leaves nothing to save, and costs no look at the file.
  if (exit.outcome.reason != EndReason::succeeded || attempt->spec->parallel) {
    watch_->read_rest(exit.key);
  }
  watch_->remove(exit.key);
  attempt->running = false;
  attempt->disk_watch = nullptr;
  attempt->ran_ms = exit.outcome.duration_ms;
  attempt->exit = std::move(exit);
  AttemptOutcome outcome = outcome_of(*attempt);
  add_gpu_use(*attempt, outcome);
  if (attempt->binds_failed) {
    outcome.reason = EndReason::inputs_unavailable;
    outcome.detail = "a shared file could not be mounted read-only";
  }
  push(Exited{attempt->key, std::move(outcome)});
}

AttemptOutcome WorkerShell::outcome_of(const ShellAttempt& attempt) const {
  AttemptOutcome outcome = complete_outcome(attempt.exit, attempt.paths, attempt.spec->inject);
  if (attempt.spec->parallel && attempt.key.rank == 0 &&
      died_of_a_taken_port(attempt.exit, attempt.paths)) {
    outcome.reason = EndReason::port_taken;
  }
  if (died_of_a_full_disk(attempt.exit, attempt.paths)) outcome.reason = EndReason::disk_full;
  return outcome;
}

// ---- pack, forget
// -----------------------------------------------------------------------------------

void WorkerShell::on(Pack& action) {
  AttemptPtr attempt = find(action.key);
  if (attempt != nullptr) cancel_save(*attempt);  // nobody has waited for it
  if (attempt == nullptr || !attempt->was_started ||
      action.outcome.reason == EndReason::cannot_start ||
      action.outcome.reason == EndReason::inputs_unavailable) {
    push(Packed{action.key, {}, {}});
    return;
  }
  auto ordered = std::make_shared<PackOrder>();
  PackOrder& order = *ordered;
  order.spec = attempt->spec;
  order.paths = attempt->paths;
  if (user_) order.ranks_user = {user_->uid, user_->gid};
  order.placed = attempt->placed;
  order.adopted = attempt->adopted;
  order.exit = std::exchange(attempt->exit, {});  // not needed again: the keeper has it for logs
  order.outbox_file = (state_dir_ / "outbox" / std::to_string(next_outbox_++)).string();
  // Once per job is enough, and where one looks first.
  if (attempt->built != nullptr && attempt->key.rank == 0) {
    order.build_log = build_index_->log_path(attempt->built->key);
  }
  dirs_->close_to_ranks(order.paths);
  order.output_untouched = dirs_->is_untouched(order.paths.output, dirs_->owner());
  order.app_untouched =
      !order.adopted && order.placed.flat && dirs_->is_untouched(order.paths.app, dirs_->owner());
  ++attempt->pool_jobs;
  if (is_light(order)) return packed(attempt, pack_attempt(order));
  using Output = std::optional<PackedOutput>;  // nothing: it is large
  const bool may_send = blobs_.has_value() && named_only_in_ != session_number_;
  const auto work = [order = std::shared_ptr<const PackOrder>(ordered), cache = cache_,
                     may_send]() -> absl::StatusOr<Output> {
    for (const SharedUse& use : order->placed.checks) {
      if (!cache->verify_shared_copy(use.path, use.digest, use.print)) {
        rpc::log().warn("event=shared_file_changed job={} rank={} blob={} next=\"fetched again\"",
                        to_string(order->exit.key.job), order->exit.key.rank, to_hex(use.digest));
      }
    }
    if (may_send && is_large(*order)) return Output();
    return pack_attempt(*order);
  };
  tasks_->add(blocking(loop_, work)
                  .then(
                      [this, attempt, ordered](absl::StatusOr<Output> output) {
                        if (!output.ok()) return packed(attempt, output.status());
                        if (!output->has_value()) return pack_and_send(attempt, ordered);
                        packed(attempt, **std::move(output));
                      },
                      [this, attempt](kj::Exception&& e) { packed(attempt, rpc::to_status(e)); }));
}

void WorkerShell::pack_here(const AttemptPtr& attempt, std::shared_ptr<const PackOrder> order) {
  tasks_->add(blocking(loop_, [order = std::move(order)] { return pack_attempt(*order); })
                  .then(
                      [this, attempt](absl::StatusOr<PackedOutput> output) {
                        packed(attempt, std::move(output));
                      },
                      [this, attempt](kj::Exception&& e) { packed(attempt, rpc::to_status(e)); }));
}

// Whatever goes wrong on the way, the output is where it was: it is packed here, and sent then.
void WorkerShell::pack_and_send(const AttemptPtr& attempt, std::shared_ptr<const PackOrder> order) {
  if (!blobs_ || output_sender_.busy() || attempt->forgotten) return pack_here(attempt, order);
  attempt->pack_order = order;
  tasks_->add(output_sender_.send(order, *blobs_)
                  .then([this, attempt, order,
                         session = session_number_](absl::StatusOr<PackedOutput> output) {
                    if (output.ok()) {
                      attempt->sent_in = session;
                      return packed(attempt, std::move(output));
                    }
                    attempt->pack_order = nullptr;
                    if (absl::IsUnimplemented(output.status())) named_only_in_ = session;
                    rpc::log().info(
                        "event=output_not_sent attempt=\"{}\" error=\"{}\" next=\"packed first\"",
                        to_string(attempt->key), std::string(output.status().message()));
                    pack_here(attempt, order);
                  }));
}

void WorkerShell::packed(const AttemptPtr& attempt, absl::StatusOr<PackedOutput> output) {
  if (output.ok()) {
    attempt->packed = *std::move(output);
    attempt->tidy_later = attempt->placed.flat && !attempt->adopted && !attempt->binds_failed &&
                          attempt->build.is_zero();
    push(Packed{attempt->key, attempt->packed.blob, attempt->packed.uncollected});
  } else {
    const std::string message =
        "its output could not be packed: " +
        without_numbers(std::string(output.status().message()), (state_dir_ / "outbox").string());
    rpc::log().warn("event=pack_failed attempt=\"{}\" error=\"{}\"", to_string(attempt->key),
                    message);
    const bool full = is_disk_full(output.status());
    if (full) note_full_disk();
    push(PackFailed{attempt->key, full ? EndReason::disk_full : EndReason::worker_faulty, message});
  }
  pool_job_done(attempt);
}

void WorkerShell::on(Forget& action) {
  auto it = attempts_.find(action.key);
  if (it == attempts_.end()) return;
  AttemptPtr attempt = std::move(it->second);
  attempts_.erase(it);
  watch_->remove(action.key);
  if (attempt->with_keeper && keeper_ != nullptr) keeper_->forget(action.key);
  cache_->unpin(attempt->pinned);
  leave_build(attempt->key, attempt->build);
  ports_.release(action.key);
  attempt->forgotten = true;
  cancel_save(*attempt);
  output_sender_.cancel(attempt->pack_order.get());
  if (attempt->pool_jobs == 0) dispose(attempt);
}

}  // namespace pesc::worker
