// What the jobs of a scenario ask for beside cpus, what its workers have, and whose they are. Every
// job can run on the workers that stay: else it would never end.
#include <algorithm>
#include <iterator>

#include "tests/sim/scenario.h"

namespace pesc::sim {
namespace {

constexpr uint64_t kMiB = 1ull << 20, kGiB = 1ull << 30;
constexpr const char* kOwners[] = {"user", "ann", "bob"};
constexpr uint32_t kCapabilities[] = {501, 700, 806, 900};
constexpr int64_t kGpuSizes[] = {2, 6, 12};

template <class T, size_t N>
T any_of(Random& random, const T (&values)[N]) {
  return values[static_cast<size_t>(random.between(0, int64_t(N) - 1))];
}

uint64_t bytes_between(Random& random, uint64_t low, uint64_t high) {
  return static_cast<uint64_t>(random.between(int64_t(low / kMiB), int64_t(high / kMiB))) * kMiB;
}

void equip(Random& random, WorkerPlan& worker, bool with_gpus) {
  worker.memory_bytes = bytes_between(random, 4 * kGiB, 32 * kGiB);
  worker.disk_bytes = bytes_between(random, 10 * kGiB, 100 * kGiB);
  if (random.chance(0.5)) worker.named.emplace_back("bandwidth", random.between(1, 10) * 250);
  if (random.chance(0.4)) worker.named.emplace_back("licence", random.between(1, 3) * 1000);
  if (!with_gpus || random.chance(0.3)) return;
  const int64_t count = random.between(1, 3);
  const bool reports = random.chance(0.7);
  for (int64_t i = 0; i < count; ++i) {
    Gpu gpu;
    gpu.uuid = "GPU-" + worker.name + "-" + std::to_string(i);
    gpu.name = "simulated";
    gpu.compute_capability = any_of(random, kCapabilities);
    gpu.memory_bytes = static_cast<uint64_t>(any_of(random, kGpuSizes)) * kGiB;
    gpu.reports_memory = reports;
    worker.gpus.push_back(std::move(gpu));
  }
}

uint64_t amount_of(const NamedResources& named, const std::string& name) {
  for (const auto& [one, milli] : named) {
    if (one == name) return milli;
  }
  return 0;
}

// How many such ranks fit on the worker for sure, when nothing else is there.
uint64_t slots(const WorkerPlan& worker, const JobPlan& job, const JobSpec& spec) {
  if (worker.leaves || (!spec.room.empty() && spec.room != worker.room)) return 0;
  const Resources& asked = spec.resources;
  uint64_t most = worker.cpus_milli / std::max(1u, asked.cpus_milli);
  const uint64_t memory = std::max(asked.memory_bytes, job.peak_memory);
  if (memory > 0) most = std::min(most, worker.memory_bytes / memory);
  if (asked.disk_bytes > 0) most = std::min(most, worker.disk_bytes / asked.disk_bytes);
  for (const auto& [name, milli] : asked.named) {
    most = std::min(most, amount_of(worker.named, name) / milli);
  }
  if (asked.gpus_milli == 0) return most;
  const auto serves = [&](const Gpu& gpu) {
    return gpu.compute_capability >= asked.min_compute_capability &&
           gpu.memory_bytes >= std::max(asked.gpu_memory_bytes, job.peak_gpu);
  };
  const auto gpus = std::count_if(worker.gpus.begin(), worker.gpus.end(), serves);
  return std::min(most, uint64_t(gpus) / std::max(1u, asked.gpus_milli / 1000));
}

bool can_run(const Scenario& scenario, const JobPlan& job, const JobSpec& spec) {
  uint64_t all = 0, most = 0;
  for (const WorkerPlan& worker : scenario.workers) {
    all += slots(worker, job, spec);
    most = std::max(most, slots(worker, job, spec));
  }
  if (!spec.parallel) return most > 0;
  return (spec.same_worker ? most : all) >= spec.repetitions;
}

void ask_memory(Random& random, const WorkerPlan& host, JobPlan& job, Resources& asked) {
  job.peak_memory = bytes_between(random, kMiB, host.memory_bytes / (random.chance(0.5) ? 2 : 8));
  job.least_peak = random.chance(0.6) ? kStablePeaks : 0.05;
  if (random.chance(0.4)) return;
  asked.memory_bytes = job.peak_memory;
  // Those that state too little are ended.
  if (random.chance(0.1)) asked.memory_bytes -= job.peak_memory / 10;
}

void ask_gpus(Random& random, const WorkerPlan& host, JobPlan& job, Resources& asked) {
  if (host.gpus.empty()) return;
  const auto count = static_cast<int64_t>(host.gpus.size());
  const Gpu& gpu = host.gpus[static_cast<size_t>(random.between(0, count - 1))];
  asked.gpus_milli = static_cast<uint32_t>(random.chance(0.3) ? random.between(1, 4) * 250
                                                              : random.between(1, count) * 1000);
  job.peak_gpu = bytes_between(random, 16 * kMiB, gpu.memory_bytes / (random.chance(0.7) ? 4 : 1));
  if (random.chance(0.3)) asked.gpu_memory_bytes = job.peak_gpu;
  asked.gpu_exclusive = asked.gpus_milli >= 1000 && random.chance(0.25);
  if (random.chance(0.3)) asked.min_compute_capability = gpu.compute_capability;
}

// Its ranks differ in what they use, and so does what they ask for.
void mix_job(Random& random, Scenario& scenario, JobPlan& job) {
  const auto& host =
      scenario
          .workers[static_cast<size_t>(random.between(0, int64_t(scenario.workers.size()) - 1))];
  JobPlan mixed = job;
  auto spec = std::make_shared<JobSpec>(*job.spec);
  Resources& asked = spec->resources;
  if (random.chance(0.3)) {
    asked.cpus_milli = std::min(asked.cpus_milli, uint32_t(random.between(1, 15) * 100));
  }
  if (random.chance(0.6)) ask_memory(random, host, mixed, asked);
  if (random.chance(0.2)) asked.disk_bytes = bytes_between(random, kMiB, host.disk_bytes / 2);
  if (random.chance(0.25) && !host.named.empty()) {
    const auto& [name, milli] = host.named.front();
    asked.named.emplace_back(name, random.between(1, int64_t(milli) / 50) * 50);
  }
  if (random.chance(0.5)) ask_gpus(random, host, mixed, asked);
  spec->priority = random.chance(0.2) ? static_cast<int32_t>(random.between(-2, 2)) : 0;
  mixed.spec = std::move(spec);
  if (can_run(scenario, mixed, *mixed.spec)) job = std::move(mixed);
}

// Several users who all want more than there is.
void crowd(Random& random, Scenario& scenario) {
  scenario.shares_only = true;
  const TimeMs phase_ms = scenario.faults.phase_ms;
  const TimeMs delay_ms = std::min<TimeMs>(scenario.faults.longest_delay_ms, 100);
  scenario.faults = {.phase_ms = phase_ms, .longest_delay_ms = delay_ms};
  for (WorkerPlan& worker : scenario.workers) worker.leaves = worker.black_hole = false;
  const JobPlan like = scenario.jobs.front();
  const uint64_t seed = scenario.seed;
  scenario.jobs.clear();
  const auto count = static_cast<uint64_t>(random.between(2, 6));
  const TimeMs longest_ms = random.between(2'000, 15'000);
  const bool alike = random.chance(0.7);
  const auto cpus_milli = static_cast<uint32_t>(random.between(1, 4) * 250);
  for (uint64_t i = 0; i < count; ++i) {
    JobPlan job;
    job.id = {(seed << 32) + i + 1};
    job.owner = kOwners[i % std::size(kOwners)];
    auto spec = std::make_shared<JobSpec>(*like.spec);
    spec->name = "job " + std::to_string(i);
    spec->arguments = {"--number", std::to_string(i)};
    spec->repetitions = static_cast<uint32_t>(random.between(10, 60));
    spec->resources = {.cpus_milli = cpus_milli};
    if (!alike) spec->resources.cpus_milli = static_cast<uint32_t>(random.between(1, 4) * 250);
    spec->room.clear();
    spec->parallel = spec->same_worker = false;
    spec->time_limit_ms = spec->job_time_limit_ms = spec->checkpoint_every_ms = 0;
    job.shortest_ms = 600;
    job.longest_ms = longest_ms;
    job.submit_at = random.between(0, 30'000);
    job.spec = std::move(spec);
    scenario.jobs.push_back(std::move(job));
  }
}

// As two jobs of one user's who has changed his mind about how many he wants.
void share_programs(Random& random, Scenario& scenario) {
  for (JobPlan& job : scenario.jobs) {
    const JobPlan& first = scenario.jobs.front();
    if (&job == &first || !random.chance(0.3)) continue;
    auto spec = std::make_shared<JobSpec>(*job.spec);
    spec->arguments = first.spec->arguments;
    JobPlan same = job;
    same.peak_memory = first.peak_memory;
    same.peak_gpu = first.peak_gpu;
    same.least_peak = first.least_peak;
    if (!can_run(scenario, same, *spec)) continue;
    same.spec = std::move(spec);
    job = std::move(same);
  }
}

}  // namespace

double part_of_peak(const AttemptKey& key, const JobPlan& job) {
  Random random(key.job.value * 7'919 + key.rank);
  return job.least_peak + (1 - job.least_peak) * double(random.between(0, 1'000)) / 1'000;
}

void mix_resources(Random& random, Scenario& scenario) {
  if (random.chance(0.5)) {
    for (JobPlan& job : scenario.jobs) job.owner = any_of(random, kOwners);
  }
  if (random.chance(0.08)) return crowd(random, scenario);
  if (random.chance(0.4)) return;  // cpus alone
  const bool with_gpus = random.chance(0.6);
  for (WorkerPlan& worker : scenario.workers) equip(random, worker, with_gpus);
  for (JobPlan& job : scenario.jobs) mix_job(random, scenario, job);
  share_programs(random, scenario);
  if (!with_gpus) return;
  if (random.chance(0.4)) scenario.faults.gpu_sick_ms = random.between(20'000, 200'000);
  if (random.chance(0.3)) scenario.faults.gpu_taken_ms = random.between(20'000, 200'000);
}

}  // namespace pesc::sim
