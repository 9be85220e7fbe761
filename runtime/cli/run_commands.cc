// pesc run, pesc submit.
#include <fmt/format.h>
#include <unistd.h>

#include <memory>

#include "blob/hash.h"
#include "client/prepare.h"
#include "client/state.h"
#include "rpc/credentials.h"
#include "runtime/cli/cli.h"
#include "runtime/cli/feasible.h"
#include "runtime/cli/job_options.h"
#include "runtime/cli/placeholder_notes.h"
#include "runtime/cli/report.h"
#include "runtime/cli/run_directory.h"
#include "runtime/cli/watcher.h"
#include "runtime/local/cluster.h"

namespace pesc::cli {
namespace {

struct RunOptions {
  JobOptions job;
  std::string output, workers = "1", slots = "0";
  bool resume = false;
};

void say_sent(const std::vector<std::string>& sent) {
  if (sent.empty()) return;
  std::string names;
  for (const std::string& name : sent) names += (names.empty() ? "" : ", ") + name;
  say("sending " + names + " (--no-auto-files stops this)");
}

void say_notes(const Job& job) {
  for (const std::string& note : placeholder_notes(job.arguments)) say(note);
}

class RunCommand {
 public:
  RunCommand(const Common& common, const RunOptions& options)
      : common_(common), options_(options) {}

  int run() {
    std::vector<std::string> sent;
    absl::StatusOr<Job> job = make_job(options_.job, sent);
    if (!job.ok()) return fail(job.status());
    repetitions_ = job->repetitions;
    auto named = rpc::find_coordinator(common_.coordinator, rpc::Role::user);
    if (!named.ok()) return fail(as_no_coordinator(named.status()));
    embedded_ = !named->has_value();
    if (int code = check_flags(); code != 0) return code;
    // All that can be wrong with the job is found before anything is started or stored.
    const bool digest_first = embedded_ || options_.resume;
    absl::StatusOr<client::PreparedJob> prepared =
        client::prepare(*job, digest_first ? client::Naming::now : client::Naming::when_sent);
    if (!prepared.ok()) return fail(in_flags(prepared.status()));
    if (absl::Status fits = check_fits_here(prepared->spec); !fits.ok()) return fail(fits);
    if (digest_first) digest_ = to_hex(client::digest_of(prepared->spec));
    if (options_.resume && RunDirectory(options_.output).completed() == digest_) {
      say("'" + options_.output +
          "' holds the complete results of this job: nothing is left to do");
      return kSucceeded;
    }
    absl::StatusOr<std::string> id = choose_id();
    if (!id.ok()) return fail(id.status());
    // A coordinator is asked before anything is written here, an embedded one has its state here.
    absl::StatusOr<Client> client = embedded_ ? absl::CancelledError() : open_client();
    if (!embedded_ && !client.ok()) return fail(client.status());
    if (!embedded_) {
      absl::Status fits = check_someone_fits(*client, *job, options_.job.strict);
      if (!fits.ok()) return fail(fits);
    }
    if (resuming_) paused_ms_ = RunDirectory(output_).add_pause(now_unix_ms());
    absl::Status status = client::claim_directory(output_, *id, {});
    if (!status.ok()) return fail(other_directory(status));
    unclaim_ = !resuming_;
    if (embedded_) {
      RunDirectory(output_).describe(digest_);
      client = open_client();
      if (!client.ok()) return fail(client.status());
    }
    if (!common_.json) {
      say_notes(*job);
      say_sent(sent);
    }
    Submitted submitted = submit_watching(*client, *prepared, *id);
    absl::StatusOr<JobHandle>& handle = submitted.job;
    if (handle.status().code() == absl::StatusCode::kAlreadyExists && options_.resume) {
      return fail(another_job());
    }
    if (!handle.ok()) return fail(in_flags(handle.status()));
    if (!digest_first) digest_ = to_hex(client::digest_of(prepared->spec));
    unclaim_ = false;
    if (resuming_ && !submitted.interrupted) retry_failed(*client, *handle);
    return follow(*client, *handle, submitted);
  }

 private:
  absl::Status another_job() const {
    return absl::FailedPreconditionError(
        "'" + output_ +
        "' holds an incomplete run of another job (program, arguments, files or flags differ); "
        "resume with the same command line, or name another directory (-o DIR)");
  }

  // What this process alone could never run is refused, not waited for.
  absl::Status check_fits_here(const JobSpec& spec) const {
    if (!embedded_) return absl::OkStatus();
    if (!spec.room.empty()) {
      return absl::InvalidArgumentError("--room: rooms are a coordinator's, and none is named");
    }
    const uint32_t slots =
        local::slots_per_worker({.workers = local_.workers, .slots = local_.slots});
    if (spec.resources.cpus_milli > slots * 1000) {
      return absl::InvalidArgumentError(
          fmt::format("--cpus {:g}: a worker in this process has {}; ask for less, or say how many "
                      "it shall have (--slots N)",
                      spec.resources.cpus_milli / 1000.0, slots));
    }
    const uint64_t memory = static_cast<uint64_t>(sysconf(_SC_PHYS_PAGES)) *
                            static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
    if (spec.resources.memory_bytes > memory) {
      return absl::InvalidArgumentError("--memory: this machine has " + format_bytes(memory));
    }
    if (!spec.resources.named.empty()) {
      return absl::InvalidArgumentError(
          "--resource: named resources are what workers of a coordinator declare, and none is "
          "named");
    }
    return check_gang_fits_here(spec, slots);
  }

  // All ranks of a gang have their cores at the same time, or none starts.
  absl::Status check_gang_fits_here(const JobSpec& spec, uint32_t slots) const {
    if (!spec.parallel) return absl::OkStatus();
    const uint64_t one_worker = uint64_t{slots} * 1000 / spec.resources.cpus_milli;
    const uint64_t room = spec.same_worker ? one_worker : one_worker * local_.workers;
    if (spec.repetitions <= room) return absl::OkStatus();
    return absl::InvalidArgumentError(fmt::format(
        "--parallel: {} of {:g} cpus each run at the same time, but {} has room for {}; give fewer "
        "(--repetitions N), or say how many cores {} shall have (--slots N)",
        count_ranks(spec.repetitions), spec.resources.cpus_milli / 1000.0,
        spec.same_worker ? "with --same-worker one worker of this process" : "this process", room,
        local_.workers == 1 ? "it" : "each worker"));
  }

  int check_flags() {
    if (!embedded_ && (options_.workers != "1" || options_.slots != "0" || options_.resume)) {
      return fail(absl::InvalidArgumentError(
          "--workers, --slots and --resume are for runs without a coordinator, but one is named (" +
          std::string(common_.coordinator.empty() ? "PESC_COORDINATOR or the configuration"
                                                  : common_.coordinator) +
          ")"));
    }
    for (auto [flag, text, out] : {std::tuple{"--workers", &options_.workers, &local_.workers},
                                   std::tuple{"--slots", &options_.slots, &local_.slots}}) {
      char* end = nullptr;
      unsigned long value = strtoul(text->c_str(), &end, 10);
      bool zero_is_default = std::string(flag) == "--slots";
      if (text->empty() || *end != '\0' || !isdigit((*text)[0]) || value > 1'000 ||
          (value == 0 && !zero_is_default)) {
        return fail(absl::InvalidArgumentError(
            fmt::format("{} '{}': give a whole number from 1 to 1000", flag, *text)));
      }
      *out = static_cast<uint32_t>(value);
    }
    return 0;
  }

  absl::StatusOr<std::string> choose_id() {
    std::string id = new_job_id();
    output_ = options_.output.empty() ? "pesc-" + id : options_.output;
    if (!embedded_) return id;
    RunDirectory directory(output_);
    bool can = directory.can_be_resumed();
    if (can && !options_.resume) {
      return absl::FailedPreconditionError("'" + output_ +
                                           "' holds a run that is not complete (interrupted, or "
                                           "with failed ranks): go on with it by "
                                           "--resume, or name another "
                                           "directory (-o DIR)");
    }
    if (options_.resume && options_.output.empty()) {
      return absl::InvalidArgumentError("--resume needs the output directory of the run: -o DIR");
    }
    if (!can) return id;
    if (!directory.described().empty() && directory.described() != digest_) return another_job();
    resuming_ = true;
    return directory.job_id();
  }

  absl::StatusOr<Client> open_client() {
    if (!embedded_) return connect_named(common_.coordinator);
    local_.gpus = options_.job.gpus != "0";
    local_.state_directory = RunDirectory(output_).state().string();
    return Client::local(local_);
  }

  // Ranks that failed before the interruption are tried again: that is what one resumes for.
  void retry_failed(Client& client, JobHandle& handle) {
    absl::StatusOr<JobStatus> status = handle.status();
    if (!status.ok()) return;
    if (!common_.json) {
      say(
          fmt::format("resuming: {} of {} ranks are there already; the {} in which nothing ran are "
                      "not counted",
                      status->succeeded, status->repetitions, format_duration_ms(paused_ms_)));
    }
    if (status->finished() && status->state != State::succeeded) {
      absl::StatusOr<uint32_t> ranks = client.retry(handle.id());
      if (!ranks.ok()) fail(ranks.status());
    }
  }

  int follow(Client& client, JobHandle& handle, const Submitted& submitted) {
    if (!common_.json) {
      say(fmt::format("job {} ({}{})", handle.id(), count_ranks(repetitions_),
                      embedded_ ? ", in this process" : ""));
    }
    Watched watched = watch(client, handle,
                            {.quiet = common_.json,
                             .interrupted = submitted.interrupted,
                             .hung_up = submitted.hung_up,
                             .on_stalled = [&] { say_why_it_waits(client, handle.id()); }});
    if (watched.end == WatchEnd::detached) return kSucceeded;
    if (!watched.result.ok() && watched.end == WatchEnd::interrupted) return kInterrupted;
    if (!watched.result.ok()) return fail(watched.result.status());
    absl::StatusOr<client::FetchReport> fetched =
        fetch_job(client, handle.id(), output_, {}, common_.json);
    if (!fetched.ok()) return fail(fetched.status());
    const JobStatus& status = watched.result->status();
    report_end(client, status, output_, common_.json, paused_ms_);
    if (embedded_ && status.state == State::succeeded) finished_ = true;
    if (watched.end == WatchEnd::interrupted) return kInterrupted;
    return status.state == State::succeeded ? kSucceeded : kSomeFailed;
  }

 public:
  // After the client is gone.
  void clean_up() const {
    if (finished_) RunDirectory(output_).complete(digest_);
    if (unclaim_) RunDirectory(output_).unclaim();
  }

 private:
  const Common& common_;
  const RunOptions& options_;
  LocalOptions local_;
  std::string output_, digest_;
  uint32_t repetitions_ = 0;
  uint64_t paused_ms_ = 0;  // of all interruptions
  bool embedded_ = false, resuming_ = false, finished_ = false, unclaim_ = false;
};

int submit(const Common& common, const JobOptions& options) {
  std::vector<std::string> sent;
  absl::StatusOr<Job> job = make_job(options, sent);
  if (!job.ok()) return fail(job.status());
  absl::StatusOr<client::PreparedJob> prepared = client::prepare(*job, client::Naming::when_sent);
  if (!prepared.ok()) return fail(in_flags(prepared.status()));
  absl::StatusOr<Client> client = connect(common);
  if (!client.ok()) return fail(client.status());
  if (absl::Status fits = check_someone_fits(*client, *job, options.strict); !fits.ok()) {
    return fail(fits);
  }
  if (!common.json) say_notes(*job);
  say_sent(sent);
  absl::StatusOr<JobHandle> handle = client::submit(*client, *prepared, {});
  if (!handle.ok()) return fail(in_flags(handle.status()));
  if (common.json) {
    absl::StatusOr<JobStatus> status = handle->status();
    if (!status.ok()) return fail(status.status());
    fmt::print("{}\n", json_of(*status));
  } else {
    fmt::print("{}\n", handle->id());
  }
  return kSucceeded;
}

}  // namespace

void add_run_commands(CLI::App& app, Common& common, Commands& commands) {
  auto run = std::make_shared<RunOptions>();
  CLI::App* run_app = app.add_subcommand("run",
                                         "Run a program N times and bring every output back\n"
                                         "(here, when no coordinator is named; Ctrl-C cancels)");
  add_common_flags(run_app, common, true);
  add_job_flags(run_app, run->job);
  run_app->add_option("-o,--output", run->output, "Where the results go (default: pesc-JOB)")
      ->type_name("DIR");
  run_app->add_option("--workers", run->workers, "Without a coordinator: workers in this process")
      ->type_name("N");
  run_app->add_option("--slots", run->slots, "Without a coordinator: ranks at once per worker")
      ->type_name("N");
  run_app->add_flag("--resume", run->resume,
                    "Without a coordinator: go on with the interrupted run in DIR");
  commands.push_back({run_app, [&common, run] {
                        absl::Status status = take_command(common.after_dashes, run->job);
                        if (!status.ok()) return fail(status);
                        RunCommand command(common, *run);
                        int code = command.run();
                        command.clean_up();
                        return code;
                      }});

  auto job = std::make_shared<JobOptions>();
  CLI::App* submit_app =
      app.add_subcommand("submit", "Submit a job to a coordinator; prints its id");
  add_common_flags(submit_app, common, true);
  add_job_flags(submit_app, *job);
  commands.push_back({submit_app, [&common, job] {
                        absl::Status status = take_command(common.after_dashes, *job);
                        return status.ok() ? submit(common, *job) : fail(status);
                      }});
}

}  // namespace pesc::cli
