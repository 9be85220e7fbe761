// pesc watch, logs, fetch.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>

#include "client/session.h"
#include "runtime/cli/cli.h"
#include "runtime/cli/report.h"
#include "runtime/cli/watcher.h"

namespace pesc::cli {
namespace {

struct Logs {
  std::string job;
  int64_t rank = -1;  // below 0: all
  bool follow = false, standard_error = false;
};

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

// One rank's output as it is, or each line of it with the rank's number before it.
class Printer {
 public:
  explicit Printer(std::optional<uint32_t> prefix) : prefix_(prefix) {}
  absl::Status print(std::string_view bytes) {
    offset_ += bytes.size();
    if (!prefix_) return write_out(bytes);
    while (!bytes.empty()) {
      if (line_begins_) {
        absl::Status status = write_out(fmt::format("{}: ", *prefix_));
        if (!status.ok()) return status;
      }
      size_t end = std::min(bytes.find('\n'), bytes.size() - 1) + 1;
      line_begins_ = bytes[end - 1] == '\n';
      absl::Status status = write_out(bytes.substr(0, end));
      if (!status.ok()) return status;
      bytes.remove_prefix(end);
    }
    return absl::OkStatus();
  }
  absl::Status end() { return line_begins_ ? absl::OkStatus() : write_out("\n"); }
  uint64_t offset() const { return offset_; }

 private:
  std::optional<uint32_t> prefix_;
  uint64_t offset_ = 0;
  bool line_begins_ = true;
};

// All of a rank's output that there is beyond what was printed. With `follow` a coordinator that
// does not answer is waited for, as long as it takes: what was printed is not printed again.
absl::Status print_more(Opened& opened, uint32_t rank, bool standard_error, bool follow,
                        Printer& printer) {
  absl::Status status;
  do {
    status = opened.job.stream_output(
        rank, [&](std::string_view bytes) { return printer.print(bytes); }, printer.offset(),
        standard_error);
  } while (follow && absl::IsUnavailable(status));
  if (status.ok() && fflush(stdout) != 0) return absl::CancelledError("");
  return status;
}

// A reader that went away needs no explanation.
int fail_unless_closed(const absl::Status& status) {
  return absl::IsCancelled(status) ? kSomeFailed : fail(status);
}

// One rank's log; with `follow`, until the rank is final.
int print_rank(Opened& opened, uint32_t rank, bool standard_error, bool follow) {
  Printer printer(std::nullopt);
  for (;;) {
    absl::StatusOr<RankResult> before = opened.job.rank(rank);
    if (follow && absl::IsUnavailable(before.status())) continue;
    if (!before.ok()) return fail(before.status());
    absl::Status status = print_more(opened, rank, standard_error, follow, printer);
    if (!status.ok()) return fail_unless_closed(status);
    bool running = before->state == State::waiting || before->state == State::running;
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
    Printer printer(rank);
    absl::Status status = print_more(opened, rank, standard_error, true, printer);
    if (status.ok()) status = printer.end();
    if (!status.ok()) return fail_unless_closed(status);
  }
}

int logs(const Common& common, const Logs& options) {
  absl::StatusOr<Opened> opened = open_job(common, options.job);
  if (!opened.ok()) return fail(opened.status());
  if (options.follow) {
    const std::string address = opened->client.session()->address();
    opened->client.session()->on_contact([address](bool answers) {
      say("the coordinator at " + address +
          (answers ? " answers again"
                   : " does not answer; waiting for it (the job goes on without us). Ctrl-C stops "
                     "following"));
    });
  }
  int code = options.rank < 0 ? print_all(*opened, options.standard_error, options.follow)
                              : print_rank(*opened, static_cast<uint32_t>(options.rank),
                                           options.standard_error, options.follow);
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
  logs_app->add_option("rank", chosen->rank, "RANK; default: all, in rank order")
      ->check(CLI::Range(int64_t{0}, int64_t{UINT32_MAX}));
  logs_app->add_flag("-f,--follow", chosen->follow, "Go on until the rank, or the job, is over");
  logs_app->add_flag("--stderr", chosen->standard_error, "Standard error instead of output");
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
