// What builds jobs' programs on this worker: one build for all that want the same, its result in
// the cache, under a name that says all that it was made of.
#include <fcntl.h>

#include <algorithm>
#include <iterator>
#include <utility>

#include "blob/files.h"
#include "blob/pack.h"
#include "rpc/log.h"
#include "runtime/worker/gpu/cuda_text.h"
#include "runtime/worker/shell/async.h"
#include "runtime/worker/shell/build_plan.h"
#include "runtime/worker/shell/clock.h"
#include "runtime/worker/shell/worker_impl.h"

namespace pesc::worker {
namespace {

// A toolchain is looked at again after this long, a failure held against no newer lease.
constexpr int64_t kLookAgainMs = 10'000;
constexpr size_t kRemembered = 8;
constexpr size_t kFailuresRemembered = 32;
constexpr uint64_t kLogLimitBytes = 64 << 20;  // of a build that writes without end
constexpr uint64_t kSentLogBytes = 48 << 10;   // so that it travels within its report
constexpr uint64_t kBuildGraceMs = 2'000;
constexpr uint32_t kBuildProcesses = 4096;

constexpr const char* kAwaited = "its program is being built on its worker";

struct Found {
  Digest key;
  std::optional<BuiltTree> tree;
};

BuiltInputsPtr inputs_of(std::shared_ptr<const JobSpec> source, ComputeCapability capability,
                         const Digest& key, const BuiltTree& tree) {
  auto built = std::make_shared<BuiltInputs>();
  built->spec = std::make_shared<const JobSpec>(with_built(*source, tree));
  built->capability = capability;
  built->key = key;
  built->looked_boot_ms = boot_ms();
  built->links = tree.links;
  built->blobs = input_blobs(*built->spec);  // sorted
  const std::vector<BlobRef> sources = input_blobs(*source);
  std::set_intersection(built->blobs.begin(), built->blobs.end(), sources.begin(), sources.end(),
                        std::back_inserter(built->from_coordinator));
  built->source = std::move(source);
  return built;
}

// "exit code 2: …", and the log's last lines.
std::string failure_text(const KeptExit& exit, const JobSpec& spec, const std::string& log) {
  const AttemptOutcome& outcome = exit.outcome;
  std::string text;
  switch (outcome.reason) {
    case EndReason::exit_code:
      text = "exit code " + std::to_string(outcome.exit_code);
      break;
    case EndReason::time_limit:
      text = "it took longer than " +
             format_duration_ms(spec.build_time_limit_ms != 0 ? spec.build_time_limit_ms
                                                              : kDefaultBuildTimeLimitMs) +
             " (--build-time-limit allows more)";
      break;
    default:
      text = outcome.detail.empty() ? std::string(to_string(outcome.reason)) : outcome.detail;
      break;
  }
  const std::string words = last_lines(log);
  return words.empty() ? text + "; it wrote nothing" : text + ": " + words;
}

// The end of the log, as what a rank brings back.
std::string pack_log(std::string_view log) {
  if (log.size() > kSentLogBytes) log.remove_prefix(log.size() - kSentLogBytes);
  blob::PackRequest request;
  request.extra.push_back({"build.log", std::string(log), "", 0});
  std::string packed;
  auto report = blob::pack(request, [&](std::string_view bytes) {
    packed += bytes;
    return absl::OkStatus();
  });
  return report.ok() && packed.size() <= kInlineOutputBytes ? packed : std::string();
}

}  // namespace

// Of several GPUs the least: what is made for it runs on the others.
ComputeCapability WorkerShell::capability_of(const std::vector<std::string>& gpus) const {
  ComputeCapability least = 0;
  for (const std::string& uuid : gpus) {
    const GpuState* state = gpus_ ? gpus_->snapshot().find(uuid) : nullptr;
    if (state == nullptr) continue;
    const ComputeCapability own = state->gpu.compute_capability;
    least = least == 0 ? own : std::min(least, own);
  }
  return least;
}

// ---- an attempt that needs one
// --------------------------------------------------------------------

BuiltInputsPtr WorkerShell::remembered_build(const JobSpec* spec,
                                             ComputeCapability capability) const {
  for (const BuiltInputsPtr& built : built_) {
    if (built->source.get() == spec && built->capability == capability &&
        boot_ms() - built->looked_boot_ms < kLookAgainMs) {
      return built;
    }
  }
  return nullptr;
}

void WorkerShell::prepare_built(const AttemptPtr& attempt, uint32_t number,
                                std::vector<std::string> gpus) {
  attempt->built.reset();
  const ComputeCapability capability = capability_of(gpus);
  if (BuiltInputsPtr built = remembered_build(attempt->spec.get(), capability)) {
    return use_build(attempt, number, std::move(built), std::move(gpus));
  }
  const auto look = [spec = attempt->spec, base = base_, index = build_index_, capability] {
    Found found;
    found.key =
        build_key(*spec, toolchain_print(spec->build, build_search_path(*spec, base)), capability);
    found.tree = index->load(found.key);
    return found;
  };
  tasks_->add(
      blocking(loop_, look)
          .then(
              [this, attempt, number, capability, gpus = std::move(gpus)](Found found) mutable {
                if (attempt->forgotten || attempt->prepare_number != number) return;
                if (!found.tree) {
                  return await_build(attempt, found.key, capability, std::move(gpus));
                }
                BuiltInputsPtr built = inputs_of(attempt->spec, capability, found.key, *found.tree);
                std::erase_if(built_, [&](const BuiltInputsPtr& other) {
                  return other->source == built->source && other->capability == capability;
                });
                built_.push_back(built);
                if (built_.size() > kRemembered) built_.pop_front();
                use_build(attempt, number, std::move(built), std::move(gpus));
              },
              [this, attempt, number](kj::Exception&& e) {
                prepared(attempt, number, rpc::to_status(e));
              }));
}

// What the coordinator has can be fetched, if need be; the rest is here, or it is built again.
void WorkerShell::use_build(const AttemptPtr& attempt, uint32_t number, BuiltInputsPtr built,
                            std::vector<std::string> gpus) {
  cache_->pin(built->blobs);
  cache_->unpin(std::exchange(attempt->pinned, built->blobs));
  attempt->build = built->key;
  attempt->built = built;
  leave_build(attempt->key, built->key);
  tasks_->add(fetcher_->ensure(built->from_coordinator)
                  .then([this, attempt, number, built,
                         gpus = std::move(gpus)]() mutable -> kj::Promise<void> {
                    if (attempt->forgotten || attempt->prepare_number != number) {
                      return kj::READY_NOW;
                    }
                    const bool whole =
                        std::all_of(built->blobs.begin(), built->blobs.end(),
                                    [&](const BlobRef& b) { return cache_->contains(b.digest); });
                    if (whole) return place(attempt, number);
                    rpc::log().info("event=build_evicted build={} next=\"built again\"",
                                    to_hex(built->key));
                    build_index_->drop(built->key);
                    std::erase(built_, built);
                    attempt->built.reset();
                    cache_->unpin(std::exchange(attempt->pinned, {}));
                    await_build(attempt, built->key, built->capability, std::move(gpus));
                    return kj::READY_NOW;
                  })
                  .catch_([this, attempt, number](kj::Exception&& e) {
                    prepared(attempt, number, rpc::to_status(e));
                  }));
}

void WorkerShell::await_build(const AttemptPtr& attempt, const Digest& key,
                              ComputeCapability capability, std::vector<std::string> gpus) {
  attempt->build = key;
  std::erase_if(failed_builds_,
                [now = boot_ms()](const auto& f) { return now - f.boot_ms > kLookAgainMs; });
  for (const FailedBuild& known : failed_builds_) {
    if (known.job != attempt->key.job || known.key != key) continue;
    PrepareFailed failed = known.failed;
    failed.key = attempt->key;
    attempt->packed = {failed.output, known.log, "", {}};
    return push(std::move(failed));
  }
  BuildPtr& build = builds_[key];
  const bool fresh = build == nullptr;
  if (fresh) {
    build = std::make_shared<Build>();
    build->key = key;
    build->spec = attempt->spec;
    build->capability = capability;
    build->gpus = std::move(gpus);
  }
  build->waiting.insert(attempt->key);
  push(BuildAwaited{attempt->key, kAwaited});
  if (build->done) push(BuildDone{attempt->key});
  if (fresh) begin_build(build);
}

void WorkerShell::leave_build(const AttemptKey& key, const Digest& digest) {
  const auto it = builds_.find(digest);
  if (it == builds_.end() || it->second->waiting.erase(key) == 0) return;
  const BuildPtr build = it->second;
  if (!build->waiting.empty()) return;
  if (build->done) return end_build(build);
  // What is not with the keeper yet, or not any more, looks at `waiting` when it goes on.
  build->stopped = true;
  if (build->with_keeper && keeper_ != nullptr) {
    keeper_->stop(build->run, EndReason::revoked, kBuildGraceMs);
  }
}

// ---- its life
// -------------------------------------------------------------------------------------

BuildPtr WorkerShell::find_build(const AttemptKey& run) const {
  for (const auto& [key, build] : builds_) {
    if (build->run == run && !build->done) return build;
  }
  return nullptr;
}

void WorkerShell::begin_build(BuildPtr build) {
  build->stopped = build->binds_failed = false;
  build->run = {JobId{0}, next_build_++ & 0x7fffffff, 1};
  build->paths = dirs_->paths(build->run);
  std::vector<BlobRef> pins = input_blobs(*build->spec);
  cache_->pin(pins);
  cache_->unpin(std::exchange(build->pinned, pins));
  tasks_->add(
      fetcher_->ensure(pins)
          .then([this] { return shared_mode(); })
          .then([this, build](SharedMode mode) { return place_build(build, mode); })
          .then([this, build] { launch_build(build); })
          .catch_([this, build](kj::Exception&& e) { build_broken(build, rpc::to_status(e)); }));
}

kj::Promise<void> WorkerShell::place_build(BuildPtr build, SharedMode mode) {
  // The build may want to replace a program that travels: it has its own copy.
  auto spec = std::make_shared<JobSpec>(*build->spec);
  spec->program.clear();
  return blocking(loop_,
                  [spec, paths = build->paths, dirs = dirs_, cache = cache_,
                   mode]() -> absl::StatusOr<PlacedInputs> {
                    absl::Status made = dirs->make(paths);
                    if (!made.ok()) return made;
                    auto placed = place_inputs(*spec, paths, *dirs, *cache, mode);
                    if (placed.ok()) made = dirs->open_to_ranks(paths);
                    return made.ok() ? std::move(placed) : made;
                  })
      .then([build](absl::StatusOr<PlacedInputs> placed) {
        rpc::throw_if_error(placed.status());
        build->placed = *std::move(placed);
      });
}

void WorkerShell::launch_build(const BuildPtr& build) {
  if (build->waiting.empty()) return end_build(build);
  if (keeper_ == nullptr) {
    return build_broken(build, absl::UnavailableError("the worker's keeper is not running"));
  }
  const JobSpec& spec = *build->spec;
  LaunchRequest request;
  request.key = build->run;
  request.argv = build_argv(spec);
  request.environment =
      build_environment(spec, base_, build->paths, build->capability,
                        gpus_ ? gpu_environment(build->gpus) : std::vector<std::string>());
  request.search_path = build_search_path(spec, base_);
  request.working_directory = build->paths.app;
  request.spill_directory = build->paths.root;
  if (user_) {
    request.run_as = true;
    request.uid = user_->uid;
    request.gid = user_->gid;
  }
  request.time_limit_ms =
      spec.build_time_limit_ms != 0 ? spec.build_time_limit_ms : kDefaultBuildTimeLimitMs;
  request.grace_ms = kBuildGraceMs;
  request.output_limit_bytes = kLogLimitBytes;
  request.read_only_binds = build->placed.binds;
  request.idle_priority = options_.idle_priority;
  // A compiler's needs are not the program's: the worker's own bound must do.
  request.memory_limit_bytes = options_.memory_bytes;
  request.cpus_milli = std::max<uint32_t>(spec.resources.cpus_milli, 1'000);
  request.process_limit = kBuildProcesses;
  build->with_keeper = true;
  build->stopped = false;
  keeper_->start(request);
  rpc::log().info("event=build_started build={} capability={} command=\"{}\"", to_hex(build->key),
                  build->capability, last_lines(spec.build));
}

void WorkerShell::on_build_started(const AttemptKey& run, bool binds_done) {
  const BuildPtr build = find_build(run);
  if (build == nullptr || build->placed.binds.empty() || binds_done) return;
  shared_mode_ = without_mounts();  // the next try has links
  build->binds_failed = true;
  keeper_->stop(run, EndReason::inputs_unavailable, 0);
}

void WorkerShell::on_build_exited(KeptExit exit) {
  const BuildPtr build = find_build(exit.key);
  if (keeper_ != nullptr) keeper_->forget(exit.key);
  if (build == nullptr || stopping_) return;
  build->with_keeper = false;
  if (build->waiting.empty()) return end_build(build);
  const AttemptOutcome& outcome = exit.outcome;
  if (build->stopped && outcome.reason != EndReason::succeeded) {  // and wanted again meanwhile
    dirs_->discard(build->paths);
    empty_trash();
    return begin_build(build);
  }
  if (build->binds_failed) {
    return build_broken(build,
                        absl::UnavailableError("a shared file could not be mounted read-only"));
  }
  dirs_->close_to_ranks(build->paths);
  struct End {
    absl::StatusOr<BuiltTree> tree = absl::CancelledError("");
    std::string text, packed;
    bool disk_full = false;
  };
  const uint32_t owner = user_ ? user_->uid : ::geteuid();
  auto work = [build, owner, index = build_index_, cache = cache_,
               limit = options_.cache_limit_bytes, exit = std::move(exit)] {
    End end;
    const std::string log = index->keep_log(build->key, exit, build->paths);
    if (exit.outcome.reason == EndReason::succeeded) {
      end.tree = take_tree(build->paths.app, owner, *build->spec, cache->store(), limit,
                           *build->cancelled);
      if (end.tree.ok()) return end;
      end.disk_full = is_disk_full(end.tree.status());
      end.text = std::string(end.tree.status().message());
    } else {
      KeptExit both = exit;  // one stream
      std::swap(both.standard_output, both.standard_error);
      std::swap(both.output_spilled, both.error_spilled);
      end.disk_full = !both.error_spilled && died_of_a_full_disk(both, build->paths);
      end.text = failure_text(exit, *build->spec, log);
    }
    end.packed = pack_log(log);
    return end;
  };
  const int32_t code = outcome.exit_code;
  tasks_->add(
      blocking(loop_, std::move(work))
          .then(
              [this, build, code](End end) {
                if (stopping_) return;
                if (end.tree.ok()) return build_done(build, *end.tree);
                PrepareFailed failed;
                failed.reason = end.disk_full ? EndReason::disk_full : EndReason::build_failed;
                failed.detail = std::move(end.text);
                failed.exit_code = code;
                if (!end.packed.empty()) {
                  failed.output = {sha256(end.packed), end.packed.size()};
                }
                build_failed(build, std::move(failed), std::move(end.packed));
              },
              [this, build](kj::Exception&& e) { build_broken(build, rpc::to_status(e)); }));
}

// Its blobs are held until those that waited hold them themselves.
void WorkerShell::build_done(const BuildPtr& build, const BuiltTree& tree) {
  std::vector<BlobRef> blobs;
  for (const FileRef& file : tree.files) {
    if (file.kind == FileKind::file) blobs.push_back(file.blob);
  }
  cache_->pin(blobs);
  cache_->unpin(std::exchange(build->pinned, std::move(blobs)));
  dirs_->discard(build->paths);
  empty_trash();
  tasks_->add(blocking(loop_, [index = build_index_, key = build->key, tree] {
                return index->save(key, tree);
              }).then([this, build](absl::Status saved) {
    if (!saved.ok()) return build_broken(build, saved);
    rpc::log().info("event=build_done build={}", to_hex(build->key));
    build->done = true;
    if (build->waiting.empty()) return end_build(build);
    for (const AttemptKey& key : build->waiting) push(BuildDone{key});
  }));
}

void WorkerShell::build_failed(const BuildPtr& build, PrepareFailed failed,
                               std::string packed_log) {
  rpc::log().warn("event=build_failed build={} reason={} text=\"{}\"", to_hex(build->key),
                  to_string(failed.reason), failed.detail);
  std::set<JobId> jobs;
  for (const AttemptKey& key : std::exchange(build->waiting, {})) {
    const AttemptPtr attempt = find(key);
    if (attempt == nullptr) continue;
    if (!packed_log.empty()) attempt->packed = {failed.output, packed_log, "", {}};
    failed.key = key;
    push(failed);
    if (failed.reason == EndReason::build_failed && jobs.insert(key.job).second) {
      failed_builds_.push_back({key.job, build->key, boot_ms(), failed, packed_log});
      if (failed_builds_.size() > kFailuresRemembered) failed_builds_.pop_front();
    }
  }
  end_build(build);
}

// It could not even be tried, or its result not be kept: none of the command's fault.
void WorkerShell::build_broken(const BuildPtr& build, const absl::Status& status) {
  PrepareFailed failed;
  failed.reason = is_disk_full(status) ? EndReason::disk_full : EndReason::inputs_unavailable;
  failed.may_pass = absl::IsUnavailable(status) || absl::IsDataLoss(status);
  failed.detail = "its program could not be built: " + std::string(status.message());
  build_failed(build, std::move(failed), "");
}

void WorkerShell::end_build(const BuildPtr& build) {
  const auto it = builds_.find(build->key);
  if (it == builds_.end() || it->second != build) return;
  builds_.erase(it);
  build->cancelled->store(true);
  cache_->unpin(std::exchange(build->pinned, {}));
  dirs_->discard(build->paths);
  empty_trash();
  if (monitor_) monitor_->set_ranks_run(core_->cpus_used_milli() > 0 || !builds_.empty());
}

void WorkerShell::lose_builds(const std::string& why) {
  std::vector<BuildPtr> lost;
  for (const auto& [key, build] : builds_) {
    if (build->with_keeper) lost.push_back(build);
  }
  for (const BuildPtr& build : lost) {
    build->with_keeper = false;
    build_broken(build, absl::UnavailableError(why));
  }
}

// ---- its log
// --------------------------------------------------------------------------------------

kj::Promise<LogChunk> WorkerShell::read_build_log(const ShellAttempt& attempt, uint64_t offset,
                                                  uint32_t max_bytes) {
  const auto it = builds_.find(attempt.build);
  if (it != builds_.end() && it->second->with_keeper && keeper_ != nullptr) {
    auto paf = kj::newPromiseAndFulfiller<LogChunk>();
    auto fulfiller =
        std::make_shared<kj::Own<kj::PromiseFulfiller<LogChunk>>>(kj::mv(paf.fulfiller));
    keeper_->read_output(it->second->run, 1, offset, max_bytes,
                         [fulfiller](KeeperClient::Output output) {
                           (*fulfiller)->fulfill(LogChunk{std::move(output.data), true});
                         });
    return kj::mv(paf.promise);
  }
  if (attempt.build.is_zero()) return LogChunk{"", attempt.running};
  return blocking(loop_, [path = build_index_->log_path(attempt.build), offset, max_bytes,
                          running = attempt.running] {
    LogChunk chunk{"", running};
    blob::Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
    auto bytes = fd ? blob::pread_up_to(fd.get(), offset, max_bytes, path)
                    : absl::StatusOr<std::string>(std::string());
    if (bytes.ok()) chunk.data = *std::move(bytes);
    return chunk;
  });
}

}  // namespace pesc::worker
