// pesc stats: where a job's ranks ran, how long, and what they took.
#include <fmt/format.h>

#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>

#include "runtime/cli/cli.h"
#include "runtime/cli/lanes.h"
#include "runtime/cli/report.h"
#include "runtime/cli/sizes.h"

namespace pesc::cli {
namespace {

using Json = nlohmann::ordered_json;

Json to_json(const AttemptTally& t) {
  return {{"ended", t.ended},
          {"useful_seconds", t.useful_seconds},
          {"redone_seconds", t.redone_seconds},
          {"redone_share", redone_share(t)},
          {"checkpoints", t.checkpoints},
          {"second_attempts", t.second_attempts},
          {"second_won", t.second_won},
          {"gang_starts", t.gang_starts}};
}

Json to_json(const Lanes& lanes) {
  Json out = Json::array();
  for (const Lane& lane : lanes.lanes) {
    out.push_back({{"worker", lane.worker},
                   {"gpu", lane.gpu},
                   {"ranks", lane.bars.size()},
                   {"at_once", lane.at_once},
                   {"seconds",
                    {{"min", lane.min_seconds},
                     {"median", lane.median_seconds},
                     {"mean", lane.mean_seconds},
                     {"max", lane.max_seconds}}},
                   {"busy_seconds", lane.busy_seconds},
                   {"gpu_memory_peak_bytes", lane.gpu_peak_bytes},
                   {"gpu_memory_at_once_bytes", lane.gpu_at_once_bytes},
                   {"at_once_over_time", lane.at_once_over_time}});
  }
  return out;
}

Json to_json(const Size& size) {
  Json out = {{"asked", nullptr}, {"measured", nullptr}, {"limit", nullptr}};
  if (size.asked) out["asked"] = *size.asked;
  if (size.measured) {
    out["measured"] = {{"min", size.measured->min},
                       {"median", size.measured->median},
                       {"max", size.measured->max}};
  }
  if (size.limit) out["limit"] = *size.limit;
  return out;
}

Json to_json(const Sizes& sizes) {
  return {{"cpus", to_json(sizes.cpus)},       {"memory_bytes", to_json(sizes.memory)},
          {"disk_bytes", to_json(sizes.disk)}, {"written_bytes", to_json(sizes.written)},
          {"gpus", to_json(sizes.gpus)},       {"gpu_memory_bytes", to_json(sizes.gpu_memory)}};
}

void print_json(const std::string& id, const Statistics& s, const Lanes& lanes, const Sizes& sizes,
                const AttemptTally& tally) {
  Json workers = Json::object();
  for (const auto& [worker, count] : s.ranks_per_worker) workers[worker] = count;
  Json out = {{"id", id},
              {"ranks", s.ranks},
              {"seconds",
               {{"min", s.min_seconds},
                {"median", s.median_seconds},
                {"mean", s.mean_seconds},
                {"max", s.max_seconds}}},
              {"ranks_per_worker", workers},
              {"sequential_seconds", s.sequential_seconds},
              {"elapsed_seconds", s.elapsed_seconds},
              {"speed_up", s.speed_up},
              {"attempts", to_json(tally)},
              {"first_start_unix_ms", lanes.from_ms},
              {"last_end_unix_ms", lanes.to_ms},
              {"lanes", to_json(lanes)},
              {"sizes", to_json(sizes)}};
  fmt::print("{}\n", dump(out));
}

absl::Status write_chart(const std::string& path, const Lanes& lanes, const JobStatus& job) {
  if (lanes.lanes.empty()) {
    return absl::FailedPreconditionError(
        "no rank has run to its end yet: there is nothing to draw, ask again later");
  }
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file << lanes_svg(lanes, fmt::format("{} ({})", job.name, job.id));
  file.close();
  if (file) return absl::OkStatus();
  return absl::InvalidArgumentError("the chart cannot be written to '" + path +
                                    "': name a file in a directory that is there and yours");
}

int stats(const Common& common, Client& client, const std::string& id, const std::string& chart) {
  absl::StatusOr<JobHandle> job = client.attach(id);
  if (!job.ok()) return fail(job.status());
  absl::StatusOr<JobStatus> status = job->status();
  if (!status.ok()) return fail(status.status());
  absl::StatusOr<Resources> asked = asked_by(client, id);
  if (!asked.ok()) return fail(asked.status());
  absl::StatusOr<std::vector<RankResult>> ranks = job->ranks();
  if (!ranks.ok()) return fail(ranks.status());
  const Statistics s = statistics_of(*status, *ranks, now_unix_ms());
  const Lanes lanes = lanes_of(*ranks);
  const Sizes sizes = sizes_of(*asked, *ranks);
  if (!chart.empty()) {
    const absl::Status written = write_chart(chart, lanes, *status);
    if (!written.ok()) return fail(written);
  }
  if (common.json) {
    print_json(id, s, lanes, sizes, status->tally);
    return kSucceeded;
  }
  for (const std::string& line : statistics_lines(s)) print_line(line);
  for (const std::string& line : tally_lines(status->tally)) print_line(line);
  if (s.ranks > 0) {
    for (const std::string& line : size_lines(sizes)) print_line(line);
  }
  for (const std::string& line : lane_lines(lanes)) print_line(line);
  return kSucceeded;
}

}  // namespace

void add_stats_command(CLI::App& app, Common& common, Commands& commands) {
  struct Options {
    std::string job, chart;
  };
  auto options = std::make_shared<Options>();
  CLI::App* command =
      app.add_subcommand("stats", "Durations, sizes, ranks per worker and GPU over time, speed-up");
  add_common_flags(command, common, true);
  command->add_option("job", options->job, "JOB: its id, a part of it, its name, or last")
      ->required();
  command->add_option("--chart", options->chart, "Draw which rank ran where and when into FILE")
      ->type_name("FILE.svg");
  commands.push_back({command, [&common, options] {
                        absl::StatusOr<Client> client = connect(common);
                        if (!client.ok()) return fail(client.status());
                        absl::StatusOr<std::string> id =
                            resolve_job(*client, options->job, Several::newest);
                        if (!id.ok()) return fail(id.status());
                        return stats(common, *client, *id, options->chart);
                      }});
}

}  // namespace pesc::cli
