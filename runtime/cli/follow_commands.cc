// pesc watch, logs, fetch.
#include <fmt/format.h>
#include <unistd.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "runtime/cli/cli.h"
#include "runtime/cli/report.h"
#include "runtime/cli/watcher.h"

namespace pesc::cli {
namespace {

struct Opened {
  Client client;
  JobHandle job;
};

absl::StatusOr<Opened> open_job(const Common& common, const std::string& text) {
  absl::StatusOr<Client> client = connect(common);
  if (!client.ok()) return client.status();
  absl::StatusOr<std::string> id = resolve_job(*client, text);
  if (!id.ok()) return id.status();
  absl::StatusOr<JobHandle> job = client->attach(*id);
  if (!job.ok()) return job.status();
  return Opened{*std::move(client), *std::move(job)};
}

int watch_job(const Common& common, const std::string& text) {
  absl::StatusOr<Opened> opened = open_job(common, text);
  if (!opened.ok()) return fail(opened.status());
  Watched watched = watch(opened->job, false,
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

bool write_all(std::string_view bytes) {
  return fwrite(bytes.data(), 1, bytes.size(), stdout) == bytes.size() && fflush(stdout) == 0;
}

// One rank's log; with `follow`, until the rank is final.
int print_rank(Opened& opened, uint32_t rank, bool standard_error, bool follow) {
  uint64_t offset = 0;
  for (;;) {
    absl::StatusOr<RankResult> before = opened.job.rank(rank);
    if (!before.ok()) return fail(before.status());
    absl::StatusOr<std::string> bytes = opened.job.read_output(rank, offset, standard_error);
    if (!bytes.ok()) return fail(bytes.status());
    if (!write_all(*bytes)) return kSomeFailed;
    offset += bytes->size();
    bool running = before->state == State::waiting || before->state == State::running;
    if (!bytes->empty() && running) continue;  // more may be there already
    if (!follow || !running) return kSucceeded;
    usleep(200'000);
  }
}

// Every rank's, in rank order; with `follow`, in the order they end, each line with its rank.
int print_all(Opened& opened, bool standard_error, bool follow) {
  if (!follow) {
    absl::StatusOr<JobStatus> status = opened.job.status();
    if (!status.ok()) return fail(status.status());
    for (uint32_t rank = 0; rank < status->repetitions; ++rank) {
      if (int code = print_rank(opened, rank, standard_error, false); code != 0) return code;
    }
    return kSucceeded;
  }
  for (;;) {
    absl::StatusOr<std::optional<RankResult>> next = opened.job.next_result();
    if (!next.ok()) return fail(next.status());
    if (!next->has_value()) return kSucceeded;
    uint32_t rank = (*next)->rank;
    absl::StatusOr<std::string> bytes = opened.job.read_output(rank, 0, standard_error);
    if (!bytes.ok()) return fail(bytes.status());
    for (size_t from = 0; from < bytes->size();) {
      size_t end = std::min(bytes->find('\n', from), bytes->size());
      if (!write_all(fmt::format("{}: {}\n", rank, bytes->substr(from, end - from)))) {
        return kSomeFailed;
      }
      from = end + 1;
    }
  }
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

  struct Logs {
    std::string job;
    int64_t rank = -1;
    bool follow = false, standard_error = false;
  };
  auto logs = std::make_shared<Logs>();
  CLI::App* logs_app = app.add_subcommand("logs", "Print what ranks have written");
  add_common_flags(logs_app, common, false);
  logs_app->add_option("job", logs->job, "JOB")->required();
  logs_app->add_option("rank", logs->rank, "RANK; default: all, in rank order")
      ->check(CLI::Range(int64_t{0}, int64_t{UINT32_MAX}));
  logs_app->add_flag("-f,--follow", logs->follow, "Go on until the rank, or the job, is over");
  logs_app->add_flag("--stderr", logs->standard_error, "Standard error instead of output");
  commands.push_back({logs_app, [&common, logs] {
                        absl::StatusOr<Opened> opened = open_job(common, logs->job);
                        if (!opened.ok()) return fail(opened.status());
                        if (logs->rank < 0) {
                          return print_all(*opened, logs->standard_error, logs->follow);
                        }
                        return print_rank(*opened, static_cast<uint32_t>(logs->rank),
                                          logs->standard_error, logs->follow);
                      }});

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
