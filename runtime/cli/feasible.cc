#include "runtime/cli/feasible.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include "model/job_spec.h"
#include "runtime/cli/cli.h"

namespace pesc::cli {
namespace {

// One thing that a rank needs: how much of it a worker has, as a number that orders workers and as
// people read it.
struct Want {
  std::string need;
  double least = 0;
  std::function<double(const WorkerStatus&)> has;
  std::function<std::string(const WorkerStatus&)> text;
  bool shared = false;  // by as many ranks as fit, which is not known here
};

// 1: what is needed; less: the nearer to it, the better.
double suits(const JobResources& need, ComputeCapability least, const GpuStatus& gpu) {
  const auto part = [](double has, double wanted) { return has >= wanted ? 1.0 : has / wanted; };
  return part(double(gpu.memory_bytes), double(need.gpu_memory_bytes)) *
         part(parse_compute_capability(gpu.compute_capability).value_or(0), least);
}

// How many do. Of two workers that have too few, the one with a GPU that nearly does is the better,
// and then the one with more of any kind.
double suitable_gpus(const JobResources& need, const WorkerStatus& worker) {
  ComputeCapability least = 0;
  if (!need.min_compute_capability.empty()) {
    least = parse_compute_capability(need.min_compute_capability).value_or(0);
  }
  double count = 0;
  double nearest = 0;
  for (const GpuStatus& gpu : worker.gpus) {
    const double how_well = suits(need, least, gpu);
    if (how_well >= 1) {
      ++count;
    } else {
      nearest = std::max(nearest, how_well);
    }
  }
  return count + 0.8 * nearest + 0.001 * double(std::min<size_t>(worker.gpus.size(), 100));
}

std::string gpus_of(const WorkerStatus& worker) {
  std::string text;
  for (const GpuStatus& gpu : worker.gpus) {
    text += fmt::format("{}{} with {} and compute capability {}", text.empty() ? "" : ", ",
                        gpu.name, format_bytes(gpu.memory_bytes), gpu.compute_capability);
  }
  return text.empty() ? "no GPU" : text;
}

Want gpus_wanted(const JobResources& need) {
  const double count = std::max(1.0, std::ceil(need.gpus));
  std::string text = count == 1 ? "a GPU" : fmt::format("{:g} GPUs", count);
  if (need.gpu_memory_bytes > 0) text += " with " + format_bytes(need.gpu_memory_bytes);
  if (!need.min_compute_capability.empty()) {
    text += fmt::format("{} compute capability {}", need.gpu_memory_bytes > 0 ? " and" : " of",
                        need.min_compute_capability);
  }
  return {text, count, [need](const WorkerStatus& w) { return suitable_gpus(need, w); }, gpus_of,
          !need.gpu_exclusive};
}

std::vector<Want> wants_of(const JobResources& need) {
  std::vector<Want> wants;
  wants.push_back({fmt::format("{:g} cpus", need.cpus), need.cpus,
                   [](const WorkerStatus& w) { return w.cpus; },
                   [](const WorkerStatus& w) { return fmt::format("{:g}", w.cpus); }});
  const auto bytes = [&](uint64_t least, const char* what, uint64_t WorkerStatus::*has) {
    if (least == 0) return;
    wants.push_back({format_bytes(least) + " of " + what, double(least),
                     [has](const WorkerStatus& w) { return double(w.*has); },
                     [has](const WorkerStatus& w) { return format_bytes(w.*has); }});
  };
  bytes(need.memory_bytes, "memory", &WorkerStatus::memory_bytes);
  bytes(need.disk_bytes, "disk", &WorkerStatus::disk_bytes);
  for (const auto& [name, amount] : need.named) {
    const auto has = [name = name](const WorkerStatus& w) {
      const auto it = w.named.find(name);
      return it == w.named.end() ? 0.0 : it->second;
    };
    wants.push_back({fmt::format("{:g} of {}", amount, name), amount, has,
                     [has](const WorkerStatus& w) { return fmt::format("{:g}", has(w)); }});
  }
  if (need.gpus > 0) wants.push_back(gpus_wanted(need));
  return wants;
}

double ranks_at_once(const std::vector<Want>& wants, const WorkerStatus& worker) {
  double ranks = kMaxRepetitions;
  for (const Want& want : wants) {
    const double has = want.has(worker);
    if (want.shared && has >= want.least) continue;
    ranks = std::min(ranks, std::floor(has / want.least + 1e-9));
  }
  return ranks;
}

// The ranks of a parallel job run at the same time, or not at all.
std::optional<std::string> never_together(const Job& job, const std::vector<Want>& wants,
                                          const std::vector<const WorkerStatus*>& known) {
  double room = 0;
  for (const WorkerStatus* worker : known) {
    const double ranks = ranks_at_once(wants, *worker);
    room = job.same_worker ? std::max(room, ranks) : room + ranks;
  }
  if (room >= double(job.repetitions)) return std::nullopt;
  return fmt::format(
      "the {} ranks of a parallel job run at the same time; {} room for {:.0f}", job.repetitions,
      job.same_worker ? "the best of the workers known has" : "the workers known have", room);
}

}  // namespace

std::optional<std::string> never_fits(const Job& job, const std::vector<WorkerStatus>& workers) {
  std::vector<const WorkerStatus*> known;
  for (const WorkerStatus& worker : workers) {
    if (job.room.empty() || job.room == worker.room) known.push_back(&worker);
  }
  if (workers.empty()) return std::nullopt;
  if (known.empty()) return "no worker known is in the room '" + job.room + "'";
  const std::vector<Want> wants = wants_of(job.resources);
  const auto meets = [&](const WorkerStatus* worker) {
    return std::all_of(wants.begin(), wants.end(),
                       [&](const Want& want) { return want.has(*worker) >= want.least; });
  };
  if (std::any_of(known.begin(), known.end(), meets)) {
    return job.parallel ? never_together(job, wants, known) : std::nullopt;
  }
  for (const Want& want : wants) {
    const WorkerStatus& best = **std::max_element(
        known.begin(), known.end(),
        [&](const auto* a, const auto* b) { return want.has(*a) < want.has(*b); });
    if (want.has(best) >= want.least) continue;
    return fmt::format("a rank needs {}; the best of the workers known ({}) has {}", want.need,
                       best.name, want.text(best));
  }
  std::string all;
  for (const Want& want : wants) all += (all.empty() ? "" : " and ") + want.need;
  return "a rank needs " + all + "; no single one of the workers known has all of that";
}

// PCs may be off: what none of those known could run may still come. A coordinator that does not
// answer says so itself, when the job is submitted.
absl::Status check_someone_fits(Client& client, const Job& job, bool strict) {
  const absl::StatusOr<std::vector<WorkerStatus>> workers = client.workers();
  if (!workers.ok()) return absl::OkStatus();
  const std::optional<std::string> why = never_fits(job, *workers);
  if (!why) return absl::OkStatus();
  if (strict) return absl::FailedPreconditionError(*why + " (--strict)");
  say("warning: " + *why + "; the job waits until one comes that has it (--strict refuses it)");
  return absl::OkStatus();
}

}  // namespace pesc::cli
