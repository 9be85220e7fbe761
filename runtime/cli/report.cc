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

namespace {

void say_reasons(Client& client, const std::string& id) {
  absl::StatusOr<std::vector<WhyLine>> why = client.why(id);
  if (!why.ok()) return;
  constexpr size_t kShown = 5;
  for (size_t i = 0; i < std::min(why->size(), kShown); ++i) {
    const WhyLine& each = (*why)[i];
    say(fmt::format("  {} {}: {}", each.count == 1 ? "rank" : "ranks", each.ranks, each.reason));
  }
  if (why->size() > kShown) say(fmt::format("  … and {} more reasons", why->size() - kShown));
}

}  // namespace

std::string advice_after_stop(bool embedded, const std::string& id, const std::string& directory) {
  // An embedded coordinator ends with this process: no other command can ask it anything.
  if (embedded) {
    return "once that is mended, the same command with --resume -o " + directory +
           " runs them again";
  }
  return "`pesc why " + id + "` says what they died of; once that is mended, `pesc retry " + id +
         "` runs them again";
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
  // One that its user has cancelled has state `cancelled`: nothing is to be mended.
  const bool stopped = !status.detail.empty() && status.state == State::failed;
  if (status.failed > 0 || stopped) say_reasons(client, status.id);
  if (stopped) say(advice_after_stop(client.embedded(), status.id, directory));
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

std::vector<std::string> statistics_lines(const Statistics& s) {
  if (s.ranks == 0) {
    return {"no rank has run to its end yet", fmt::format("elapsed: {:.3f} s", s.elapsed_seconds)};
  }
  std::vector<std::string> lines = {
      fmt::format("ranks that ran to their end: {}", s.ranks),
      fmt::format("seconds of a rank: min {:.3f}, median {:.3f}, mean {:.3f}, max {:.3f}",
                  s.min_seconds, s.median_seconds, s.mean_seconds, s.max_seconds),
      fmt::format("one after the other: {:.3f} s; elapsed: {:.3f} s; speed-up {:.2f}",
                  s.sequential_seconds, s.elapsed_seconds, s.speed_up)};
  for (const auto& [worker, count] : s.ranks_per_worker) {
    lines.push_back(fmt::format("  {:>8} ranks on {}", count, worker));
  }
  return lines;
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
    std::string line = fmt::format("work done again: {:.3f} s", tally.redone_seconds);
    // Of a job that has nothing to show yet it would be all.
    if (tally.useful_seconds > 0) {
      line += fmt::format(", {:.1f} % of all work", 100 * redone_share(tally));
    }
    lines.push_back(line);
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
