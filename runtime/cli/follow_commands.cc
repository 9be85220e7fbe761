// pesc watch, logs, fetch.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <memory>
#include <nlohmann/json.hpp>
#include <utility>

#include "client/output.h"
#include "client/session.h"
#include "client/state.h"
#include "model/ids.h"
#include "runtime/cli/cli.h"
#include "runtime/cli/line_prefix.h"
#include "runtime/cli/report.h"
#include "runtime/cli/watcher.h"

namespace pesc::cli {
namespace {

struct Logs {
  std::string job, rank;  // rank: empty: all
  bool follow = false, standard_error = false, build = false;
};

struct Opened {
  Client client;
  JobHandle job;
};

absl::StatusOr<Opened> open_job(const Common& common, const std::string& text) {
  absl::StatusOr<Client> client = connect(common);
  if (!client.ok()) return client.status();
  absl::StatusOr<std::string> id = resolve_job(*client, text, Several::newest);
  if (!id.ok()) return id.status();
  absl::StatusOr<JobHandle> job = client->attach(*id);
  if (!job.ok()) return job.status();
  return Opened{*std::move(client), *std::move(job)};
}

int watch_job(const Common& common, const std::string& text) {
  absl::StatusOr<Opened> opened = open_job(common, text);
  if (!opened.ok()) return fail(opened.status());
  Watched watched = watch(opened->client, opened->job,
                          {.cancel_on_interrupt = false, .quiet = common.json, .on_stalled = [&] {
                             say_why_it_waits(opened->client, opened->job.id());
                           }});
  if (watched.end == WatchEnd::interrupted) return kInterrupted;
  if (watched.end == WatchEnd::detached) return kSucceeded;
  if (!watched.result.ok()) return fail(watched.result.status());
  const JobStatus& status = watched.result->status();
  report_end(opened->client, status, "", common.json);
  return status.state == State::succeeded ? kSucceeded : kSomeFailed;
}

absl::Status write_out(std::string_view bytes) {
  if (fwrite(bytes.data(), 1, bytes.size(), stdout) == bytes.size()) return absl::OkStatus();
  return absl::CancelledError("standard output cannot be written");
}

absl::Status say_restart(uint32_t rank, uint32_t before, uint32_t attempt) {
  fflush(stdout);  // what the attempt before wrote comes first, where both go to one terminal
  say(attempt > before
          ? fmt::format("rank {} starts again (attempt {})", rank, attempt)
          : fmt::format("rank {}: attempt {} came first; its output follows", rank, attempt));
  return absl::OkStatus();
}

// One rank's output, piece by piece. With `follow` a coordinator that does not answer is waited
// for, as long as it takes: what was printed is not printed again.
class RankLog {
 public:
  RankLog(Opened& opened, uint32_t rank, bool standard_error, bool follow)
      : reader_(opened.client.session(), *parse_job_id(opened.job.id()), rank, standard_error),
        rank_(rank),
        follow_(follow) {}
  // All that there is beyond what was printed.
  absl::Status print_more() {
    absl::Status status;
    do {
      status = reader_.read(
          [this](std::string_view bytes) {
            if (!bytes.empty()) line_begins_ = bytes.back() == '\n';
            return write_out(bytes);
          },
          [this](uint32_t before, uint32_t attempt) {
            absl::Status ended =
                std::exchange(line_begins_, true) ? absl::OkStatus() : write_out("\n");
            return ended.ok() ? say_restart(rank_, before, attempt) : ended;
          });
    } while (follow_ && absl::IsUnavailable(status));
    if (status.ok() && fflush(stdout) != 0) return absl::CancelledError("");
    return status;
  }

 private:
  client::OutputReader reader_;
  uint32_t rank_;
  bool follow_;
  bool line_begins_ = true;
};

// A reader that went away needs no explanation.
int fail_unless_closed(const absl::Status& status) {
  return absl::IsCancelled(status) ? kSomeFailed : fail(status);
}

// One rank's log; with `follow`, until the rank is final.
int print_rank(Opened& opened, uint32_t rank, bool standard_error, bool follow) {
  RankLog log(opened, rank, standard_error, follow);
  for (;;) {
    absl::StatusOr<RankResult> before = opened.job.rank(rank);
    if (follow && absl::IsUnavailable(before.status())) continue;
    if (!before.ok()) return fail(before.status());
    absl::Status status = log.print_more();
    if (!status.ok()) return fail_unless_closed(status);
    bool running = before->state == State::waiting || before->state == State::running;
    if (!follow || !running) return kSucceeded;
    usleep(200'000);
  }
}

// Every rank's, in rank order.
int print_all(Opened& opened, uint32_t ranks, bool standard_error) {
  for (uint32_t rank = 0; rank < ranks; ++rank) {
    if (int code = print_rank(opened, rank, standard_error, false); code != 0) return code;
  }
  return kSucceeded;
}

// Every rank's as it is written, each line with its rank.
int follow_all(Opened& opened, bool standard_error) {
  LinePrefix lines;
  const auto print = [](const std::string& text) {
    absl::Status status = write_out(text);
    return status.ok() && fflush(stdout) != 0 ? absl::CancelledError("") : status;
  };
  client::JobOutput::Listener listener;
  listener.bytes = [&](uint32_t rank, std::string_view bytes) {
    return print(lines.add(rank, bytes));
  };
  listener.restarted = [&](uint32_t rank, uint32_t before, uint32_t attempt) {
    absl::Status status = print(lines.end());
    return status.ok() ? say_restart(rank, before, attempt) : status;
  };
  client::JobOutput output(opened.client.session(), *parse_job_id(opened.job.id()), standard_error,
                           std::move(listener));
  absl::Status status = output.follow();
  if (status.ok()) status = print(lines.end());
  return status.ok() ? kSucceeded : fail_unless_closed(status);
}

int print_job(Opened& opened, bool standard_error, bool follow) {
  absl::StatusOr<JobStatus> status = opened.job.status();
  while (follow && absl::IsUnavailable(status.status())) status = opened.job.status();
  if (!status.ok()) return fail(status.status());
  if (!follow) return print_all(opened, status->repetitions, standard_error);
  // Of a single rank nothing is to be told apart.
  return status->repetitions == 1 ? print_rank(opened, 0, standard_error, true)
                                  : follow_all(opened, standard_error);
}

// Nothing: all ranks.
absl::StatusOr<std::optional<uint32_t>> parse_rank(const std::string& text) {
  if (text.empty()) return std::optional<uint32_t>();
  uint32_t rank = 0;
  const char* end = text.data() + text.size();
  auto [stop, error] = std::from_chars(text.data(), end, rank);
  if (error == std::errc() && stop == end) return std::optional<uint32_t>(rank);
  return absl::InvalidArgumentError("rank '" + text + "': give a number from 0");
}

int print_build_log(Opened& opened, std::optional<uint32_t> rank) {
  absl::StatusOr<std::string> log =
      client::read_build_log(opened.client.session(), *parse_job_id(opened.job.id()), rank);
  if (!log.ok()) return fail(log.status());
  absl::Status status = write_out(*log);
  return status.ok() ? kSucceeded : fail_unless_closed(status);
}

int logs(const Common& common, const Logs& options) {
  absl::StatusOr<std::optional<uint32_t>> rank = parse_rank(options.rank);
  if (!rank.ok()) return fail(rank.status());
  absl::StatusOr<Opened> opened = open_job(common, options.job);
  if (!opened.ok()) return fail(opened.status());
  if (options.build) return print_build_log(*opened, *rank);
  if (options.follow) {
    const std::string address = opened->client.session()->address();
    opened->client.session()->on_contact([address](bool answers) {
      say("the coordinator at " + address +
          (answers ? " answers again"
                   : " does not answer; waiting for it (the job goes on without us). Ctrl-C stops "
                     "following"));
    });
  }
  int code = rank->has_value() ? print_rank(*opened, **rank, options.standard_error, options.follow)
                               : print_job(*opened, options.standard_error, options.follow);
  opened->client.session()->on_contact({});
  return code;
}

int fetch(const Common& common, const std::string& text, const std::string& output,
          bool overwrite) {
  absl::StatusOr<Opened> opened = open_job(common, text);
  if (!opened.ok()) return fail(opened.status());
  std::string directory = output.empty() ? "pesc-" + opened->job.id() : output;
  auto report =
      fetch_job(opened->client, opened->job.id(), directory, {.overwrite = overwrite}, common.json);
  if (!report.ok()) return fail(report.status());
  if (common.json) {
    nlohmann::ordered_json out = {{"id", opened->job.id()},
                                  {"directory", directory},
                                  {"fetched", report->ranks},
                                  {"missing", report->missing}};
    fmt::print("{}\n", dump(out));
    return kSucceeded;
  }
  std::string line = fmt::format("{} fetched into {}", count_ranks(report->ranks), directory);
  if (report->missing > 0) {
    line += fmt::format("; {} not over yet: fetch again later, it goes on",
                        count_ranks(report->missing));
  }
  say(line);
  return kSucceeded;
}

}  // namespace

void add_follow_commands(CLI::App& app, Common& common, Commands& commands) {
  auto job = std::make_shared<std::string>();
  CLI::App* watch = app.add_subcommand("watch", "Follow a job until it ends; exit code as run's");
  add_common_flags(watch, common, true);
  watch->add_option("job", *job, "JOB: its id, a part of it, its name, or last")->required();
  commands.push_back({watch, [&common, job] { return watch_job(common, *job); }});

  auto chosen = std::make_shared<Logs>();
  CLI::App* logs_app = app.add_subcommand("logs", "Print what ranks have written");
  add_common_flags(logs_app, common, false);
  logs_app->add_option("job", chosen->job, "JOB")->required();
  logs_app->add_option("rank", chosen->rank, "RANK, from 0; default: all, in rank order");
  logs_app->add_flag(
      "-f,--follow", chosen->follow,
      "Live, until the rank is over, or without RANK the job: the lines of all ranks "
      "as they are written, each behind its rank, '[7] line'");
  logs_app->add_flag("--stderr", chosen->standard_error, "Standard error instead of output");
  logs_app
      ->add_flag(
          "--build", chosen->build,
          "The log of the program's build instead: RANK's worker's; default: one that failed")
      ->excludes("--stderr", "--follow");
  commands.push_back({logs_app, [&common, chosen] { return logs(common, *chosen); }});

  struct Fetch {
    std::string job, output;
    bool overwrite = false;
  };
  auto options = std::make_shared<Fetch>();
  CLI::App* fetch_app = app.add_subcommand("fetch", "Bring a job's results here");
  add_common_flags(fetch_app, common, true);
  fetch_app->add_option("job", options->job, "JOB")->required();
  fetch_app->add_option("-o,--output", options->output, "Where to (default: pesc-JOB)")
      ->type_name("DIR");
  fetch_app->add_flag("--overwrite", options->overwrite,
                      "Into a directory that is not empty, over what is there");
  commands.push_back({fetch_app, [&common, options] {
                        return fetch(common, options->job, options->output, options->overwrite);
                      }});
}

}  // namespace pesc::cli
