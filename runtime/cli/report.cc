#include "runtime/cli/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <thread>

#include "model/job_spec.h"
#include "runtime/cli/cli.h"

namespace pesc::cli {

absl::StatusOr<client::FetchReport> fetch_job(Client& client, const std::string& id,
                                              const std::string& directory,
                                              const SaveOptions& options, bool quiet) {
  absl::StatusOr<JobId> job = parse_job_id(id);
  if (!job.ok()) return job.status();
  absl::Status claimed = client::claim_directory(directory, id, options);
  if (!claimed.ok()) return other_directory(claimed);
  absl::StatusOr<client::FetchReport> report =
      client::fetch(client.session(), *job, directory, options);
  if (!report.ok() || quiet || report->uncollected.empty()) return report;
  std::string names;
  for (const std::string& name : report->uncollected) names += (names.empty() ? "" : ", ") + name;
  say(
      fmt::format("rank {} left files in its working directory that did not come back: {} "
                  "(--collect GLOB brings them, or write them to PESC_OUTPUT_DIR)",
                  report->uncollected_rank, names));
  return report;
}

int64_t now_unix_ms() {
  using namespace std::chrono;
  return duration_cast<milliseconds>(system_clock::now().time_since_epoch()).count();
}

absl::Status other_directory(const absl::Status& status) {
  return absl::Status(status.code(), std::string(status.message()) + " (-o DIR names one)");
}

uint64_t elapsed_ms(const JobStatus& status, int64_t now_unix_ms, uint64_t paused_ms) {
  int64_t end = status.finished_unix_ms != 0 ? status.finished_unix_ms : now_unix_ms;
  return std::max<int64_t>(0, end - status.submitted_unix_ms - static_cast<int64_t>(paused_ms));
}

void report_end(Client& client, const JobStatus& status, const std::string& directory, bool json,
                uint64_t paused_ms) {
  if (json) {
    fmt::print("{}\n", json_of(status));
    return;
  }
  uint64_t ms = elapsed_ms(status, status.finished_unix_ms, paused_ms);
  std::string line = fmt::format("{} of {} succeeded in {}", status.succeeded,
                                 count_ranks(status.repetitions), format_duration_ms(ms));
  if (status.failed > 0) line += fmt::format(", {} failed", status.failed);
  if (status.cancelled > 0) line += fmt::format(", {} cancelled", status.cancelled);
  if (!directory.empty()) line += "; results in " + directory;
  say(line);
  if (!status.detail.empty()) say(status.detail);
  if (status.failed == 0) return;
  absl::StatusOr<std::vector<WhyLine>> why = client.why(status.id);
  if (!why.ok()) return;
  constexpr size_t kShown = 5;
  for (size_t i = 0; i < std::min(why->size(), kShown); ++i) {
    const WhyLine& each = (*why)[i];
    say(fmt::format("  {} {}: {}", each.count == 1 ? "rank" : "ranks", each.ranks, each.reason));
  }
  if (why->size() > kShown) say(fmt::format("  … and {} more reasons", why->size() - kShown));
}

void say_why_it_waits(Client client, const std::string& id) {
  std::thread([client = std::move(client), id]() mutable {
    absl::StatusOr<std::vector<WhyLine>> why = client.why(id);
    if (!why.ok()) return;
    for (const WhyLine& line : *why) {
      if (line.state == State::waiting) say("still waiting: " + line.reason);
    }
  }).detach();
}

Statistics statistics_of(const JobStatus& status, const std::vector<RankResult>& ranks,
                         int64_t now_unix_ms, uint64_t paused_ms) {
  Statistics out;
  std::vector<double> seconds;
  std::map<std::string, uint32_t> workers;
  for (const RankResult& rank : ranks) {
    if (rank.state != State::succeeded && rank.state != State::failed) continue;
    seconds.push_back(rank.seconds);
    out.sequential_seconds += rank.seconds;
    ++workers[rank.worker];
  }
  out.ranks = static_cast<uint32_t>(seconds.size());
  out.elapsed_seconds = elapsed_ms(status, now_unix_ms, paused_ms) / 1000.0;
  out.ranks_per_worker.assign(workers.begin(), workers.end());
  if (seconds.empty()) return out;
  std::sort(seconds.begin(), seconds.end());
  size_t n = seconds.size();
  out.min_seconds = seconds.front();
  out.max_seconds = seconds.back();
  out.median_seconds = n % 2 == 1 ? seconds[n / 2] : (seconds[n / 2 - 1] + seconds[n / 2]) / 2;
  out.mean_seconds = out.sequential_seconds / static_cast<double>(n);
  if (out.elapsed_seconds > 0) out.speed_up = out.sequential_seconds / out.elapsed_seconds;
  return out;
}

double redone_share(const AttemptTally& tally) {
  const double all = tally.useful_seconds + tally.redone_seconds;
  return all > 0 ? tally.redone_seconds / all : 0;
}

std::string failed_attempts_line(const AttemptTally& tally) {
  std::string names;
  for (const auto& [reason, count] : tally.ended) {
    if (reason == "succeeded") continue;
    names += fmt::format("{}{} {}", names.empty() ? "" : ", ", count, reason);
  }
  return names.empty() ? "" : "attempts that did not count: " + names;
}

std::vector<std::string> tally_lines(const AttemptTally& tally) {
  std::vector<std::string> lines;
  const std::string failed = failed_attempts_line(tally);
  if (!failed.empty()) lines.push_back(failed);
  if (tally.redone_seconds > 0) {
    lines.push_back(fmt::format("work done again: {:.3f} s, {:.1f} % of all work",
                                tally.redone_seconds, 100 * redone_share(tally)));
  }
  if (tally.checkpoints > 0)
    lines.push_back(fmt::format("checkpoints saved: {}", tally.checkpoints));
  if (tally.second_attempts > 0) {
    lines.push_back(fmt::format("second attempts of slow ranks: {}, of which {} came first",
                                tally.second_attempts, tally.second_won));
  }
  if (tally.gang_starts > 0) {
    lines.push_back(fmt::format("starts of all ranks together: {}", tally.gang_starts));
  }
  return lines;
}

}  // namespace pesc::cli
