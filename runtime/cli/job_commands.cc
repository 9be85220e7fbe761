// pesc jobs, status, why, cancel, retry, rm.
#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "model/job_spec.h"
#include "runtime/cli/cli.h"
#include "runtime/cli/report.h"

namespace pesc::cli {
namespace {

using Json = nlohmann::ordered_json;

Json to_json(const JobStatus& s) {
  return {{"id", s.id},
          {"name", s.name},
          {"state", to_string(s.state)},
          {"repetitions", s.repetitions},
          {"waiting", s.waiting},
          {"running", s.running},
          {"succeeded", s.succeeded},
          {"failed", s.failed},
          {"cancelled", s.cancelled},
          {"owner", s.owner},
          {"submitted_unix_ms", s.submitted_unix_ms},
          {"finished_unix_ms", s.finished_unix_ms},
          {"detail", s.detail},
          {"attempts_ended", s.tally.ended}};
}

// The commands about one job: connect, find it, do something.
using JobAction = std::function<int(Client&, const std::string& id)>;

void add_job_command(CLI::App& app, Common& common, Commands& commands, const std::string& name,
                     const std::string& help, Several several, JobAction action) {
  auto text = std::make_shared<std::string>();
  CLI::App* command = app.add_subcommand(name, help);
  add_common_flags(command, common, true);
  command->add_option("job", *text, "JOB: its id, a part of it, its name, or last")->required();
  commands.push_back({command, [&common, text, several, action] {
                        absl::StatusOr<Client> client = connect(common);
                        if (!client.ok()) return fail(client.status());
                        absl::StatusOr<std::string> id = resolve_job(*client, *text, several);
                        if (!id.ok()) return fail(id.status());
                        return action(*client, *id);
                      }});
}

int jobs(const Common& common) {
  absl::StatusOr<Client> client = connect(common);
  if (!client.ok()) return fail(client.status());
  absl::StatusOr<std::vector<JobStatus>> jobs = client->jobs();
  if (!jobs.ok()) return fail(jobs.status());
  if (common.json) {
    fmt::print("{}\n", json_of(*jobs));
    return kSucceeded;
  }
  fmt::print("{:13}  {:9}  {:>9}  {:>9}  {:>7}  {:19}  {}\n", "JOB", "STATE", "RANKS", "SUCCEEDED",
             "FAILED", "SUBMITTED", "NAME");
  for (const JobStatus& job : *jobs) {
    print_line(fmt::format("{:13}  {:9}  {:>9}  {:>9}  {:>7}  {:19}  {}", job.id,
                           to_string(job.state), job.repetitions, job.succeeded, job.failed,
                           format_time(job.submitted_unix_ms), job.name));
  }
  return kSucceeded;
}

int status(const Common& common, Client& client, const std::string& id) {
  absl::StatusOr<JobHandle> job = client.attach(id);
  if (!job.ok()) return fail(job.status());
  absl::StatusOr<JobStatus> status = job->status();
  if (!status.ok()) return fail(status.status());
  if (common.json) {
    fmt::print("{}\n", json_of(*status));
    return kSucceeded;
  }
  print_line(fmt::format("job {} ({}) of {}: {}", status->id, status->name, status->owner,
                         to_string(status->state)));
  fmt::print("  {} ranks: {} waiting, {} running, {} succeeded, {} failed, {} cancelled\n",
             status->repetitions, status->waiting, status->running, status->succeeded,
             status->failed, status->cancelled);
  fmt::print("  submitted {}", format_time(status->submitted_unix_ms));
  if (status->finished_unix_ms != 0) fmt::print(", over {}", format_time(status->finished_unix_ms));
  fmt::print("\n");
  if (!status->detail.empty()) print_line(fmt::format("  {}", status->detail));
  const std::string ended = failed_attempts_line(status->tally);
  if (!ended.empty()) print_line("  " + ended);
  return kSucceeded;
}

int why(const Common& common, Client& client, const std::string& id) {
  absl::StatusOr<std::vector<WhyLine>> lines = client.why(id);
  if (!lines.ok()) return fail(lines.status());
  if (common.json) {
    Json out = Json::array();
    for (const WhyLine& line : *lines) {
      out.push_back({{"ranks", line.ranks},
                     {"count", line.count},
                     {"state", to_string(line.state)},
                     {"reason", line.reason}});
    }
    fmt::print("{}\n", dump(out));
    return kSucceeded;
  }
  if (lines->empty()) fmt::print("no rank of job {} waits or has failed\n", id);
  for (const WhyLine& line : *lines) {
    print_line(fmt::format("{} {} ({}): {}", line.count == 1 ? "rank" : "ranks", line.ranks,
                           to_string(line.state), line.reason));
  }
  return kSucceeded;
}

int cancel(const Common& common, Client& client, const std::string& id) {
  absl::StatusOr<JobHandle> job = client.attach(id);
  if (!job.ok()) return fail(job.status());
  absl::StatusOr<JobStatus> before = job->status();
  if (!before.ok()) return fail(before.status());
  absl::Status cancelled = job->cancel();
  if (!cancelled.ok()) return fail(cancelled);
  // What finished meanwhile has finished; the rest is stopped, or is being stopped.
  absl::StatusOr<JobStatus> after = job->status();
  if (!after.ok()) return fail(after.status());
  const uint32_t finished = after->succeeded + after->failed;
  const uint32_t stopped = before->finished() ? 0 : after->repetitions - finished;
  if (common.json) {
    fmt::print("{}\n", dump(Json{{"id", id},
                                 {"stopped", stopped},
                                 {"finished", finished},
                                 {"was_over", before->finished()}}));
  } else if (before->finished()) {
    say(fmt::format("job {} is over already ({}): nothing was left to stop", id,
                    to_string(before->state)));
  } else {
    say(fmt::format("cancelled {}: {} stopped{}, {} had finished", id, count_ranks(stopped),
                    after->running > 0 ? fmt::format(" ({} still ending)", after->running) : "",
                    finished));
  }
  return kSucceeded;
}

int retry(const Common& common, Client& client, const std::string& id) {
  absl::StatusOr<uint32_t> ranks = client.retry(id);
  if (!ranks.ok()) return fail(ranks.status());
  if (common.json) {
    fmt::print("{}\n", dump(Json{{"id", id}, {"ranks", *ranks}}));
  } else {
    say(count_ranks(*ranks) + (*ranks == 1 ? " runs" : " run") + " again");
  }
  return kSucceeded;
}

int remove(const Common& common, Client& client, const std::string& id) {
  absl::StatusOr<JobHandle> job = client.attach(id);
  if (!job.ok()) return fail(job.status());
  absl::StatusOr<JobStatus> before = job->status();
  if (!before.ok()) return fail(before.status());
  absl::Status removed = client.remove(id);
  if (!removed.ok()) return fail(removed);
  if (common.json) {
    fmt::print("{}\n", dump(Json{{"id", id}, {"ranks", before->repetitions}}));
  } else {
    say(fmt::format("removed {} ({}): {} and what {} left", id, before->name,
                    count_ranks(before->repetitions), before->repetitions == 1 ? "it" : "they"));
  }
  return kSucceeded;
}

}  // namespace

std::string dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string json_of(const JobStatus& status) { return dump(to_json(status)); }

std::string json_of(const std::vector<JobStatus>& jobs) {
  Json out = Json::array();
  for (const JobStatus& job : jobs) out.push_back(to_json(job));
  return dump(out);
}

void add_job_commands(CLI::App& app, Common& common, Commands& commands) {
  CLI::App* jobs_app = app.add_subcommand("jobs", "List your jobs, newest first");
  add_common_flags(jobs_app, common, true);
  commands.push_back({jobs_app, [&common] { return jobs(common); }});

  add_job_command(
      app, common, commands, "status", "How far a job is", Several::newest,
      [&common](Client& client, const std::string& id) { return status(common, client, id); });
  add_job_command(
      app, common, commands, "why", "What each waiting or failed rank waits for or died of",
      Several::newest,
      [&common](Client& client, const std::string& id) { return why(common, client, id); });
  add_stats_command(app, common, commands);
  add_job_command(
      app, common, commands, "cancel", "Stop a job", Several::refuse,
      [&common](Client& client, const std::string& id) { return cancel(common, client, id); });
  add_job_command(
      app, common, commands, "retry", "Run the failed ranks of a job again", Several::refuse,
      [&common](Client& client, const std::string& id) { return retry(common, client, id); });
  add_job_command(
      app, common, commands, "rm", "Remove a finished job and its outputs", Several::refuse,
      [&common](Client& client, const std::string& id) { return remove(common, client, id); });
}

}  // namespace pesc::cli
