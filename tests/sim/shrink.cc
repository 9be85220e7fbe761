#include "tests/sim/shrink.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>
#include <vector>

namespace pesc::sim {
namespace {

constexpr uint32_t kMostPlays = 400;

struct Kind {
  const char* name;
  TimeMs FaultPlan::*every;
};
constexpr Kind kKinds[] = {
    {"cut", &FaultPlan::cut_ms},
    {"away", &FaultPlan::away_ms},
    {"coordinator crash", &FaultPlan::coordinator_crash_ms},
    {"crash in a commit", &FaultPlan::commit_crash_ms},
    {"daemon crash", &FaultPlan::daemon_crash_ms},
    {"reboot", &FaultPlan::reboot_ms},
    {"keeper loss", &FaultPlan::keeper_loss_ms},
    {"daemon drain", &FaultPlan::drain_ms},
    {"ordered drain", &FaultPlan::order_drain_ms},
    {"owner comes", &FaultPlan::owner_ms},
    {"coordinator's disk full", &FaultPlan::disk_full_ms},
    {"sync failure", &FaultPlan::sync_failure_ms},
    {"worker's disk full", &FaultPlan::worker_disk_full_ms},
    {"sleep", &FaultPlan::sleep_ms},
    {"wall clock jump", &FaultPlan::wall_jump_ms},
    {"flipped byte", &FaultPlan::damage_ms},
    {"GPU in trouble", &FaultPlan::gpu_sick_ms},
    {"GPU used by others", &FaultPlan::gpu_taken_ms},
};

struct Chance {
  const char* name;
  double FaultPlan::*of;
};
constexpr Chance kChances[] = {
    {"power fails", &FaultPlan::power_fails},   {"message lost", &FaultPlan::lose_message},
    {"cut in a call", &FaultPlan::cut_in_call}, {"prepare fails", &FaultPlan::prepare_fails},
    {"pack fails", &FaultPlan::pack_fails},     {"upload fails", &FaultPlan::upload_fails},
    {"save fails", &FaultPlan::save_fails},     {"restore fails", &FaultPlan::restore_fails},
    {"port taken", &FaultPlan::port_taken},
};

struct Habit {
  const char* name;
  double JobPlan::*of;
};
constexpr Habit kHabits[] = {
    {"fails", &JobPlan::fails},
    {"hangs", &JobPlan::hangs},
    {"refuses", &JobPlan::refuses},
    {"cannot start", &JobPlan::cannot_start},
    {"floods", &JobPlan::floods},
    {"outlives", &JobPlan::outlives},
    {"straggles", &JobPlan::stragglers},
    {"corrupts", &JobPlan::corrupts},
    {"large output", &JobPlan::large_output},
};

// "promise 5", "checkpoints", …: a smaller play must break the same.
std::string class_of(const std::string& failure) { return failure.substr(0, failure.find(':')); }

class Shrinker {
 public:
  Shrinker(const Scenario& scenario, const std::string& failure, const Replay& replay)
      : best_{scenario, 0}, class_(class_of(failure)), replay_(replay) {}

  Shrunk run() {
    for (int round = 0; round < 2; ++round) {
      jobs();
      kinds();
      habits();
      resources();
      shorter();
    }
    single_faults();
    return best_;
  }

 private:
  bool keeps(const Scenario& smaller) {
    if (best_.plays >= kMostPlays) return false;
    ++best_.plays;
    PlayResult result = replay_(smaller);
    if (result.failure.empty() || class_of(result.failure) != class_) return false;
    best_.scenario = smaller;
    faults_ = result.faults;
    return true;
  }

  void jobs() {
    for (size_t i = best_.scenario.jobs.size(); i-- > 0 && best_.scenario.jobs.size() > 1;) {
      Scenario smaller = best_.scenario;
      smaller.jobs.erase(smaller.jobs.begin() + static_cast<std::ptrdiff_t>(i));
      keeps(smaller);
    }
    for (size_t i = 0; i < best_.scenario.jobs.size(); ++i) {
      while (best_.scenario.jobs[i].spec->repetitions > 1) {
        Scenario smaller = best_.scenario;
        auto spec = std::make_shared<JobSpec>(*smaller.jobs[i].spec);
        spec->repetitions /= 2;
        smaller.jobs[i].spec = std::move(spec);
        if (!keeps(smaller)) break;
      }
    }
  }

  void kinds() {
    for (const Kind& kind : kKinds) {
      if (best_.scenario.faults.*kind.every == 0) continue;
      Scenario smaller = best_.scenario;
      smaller.faults.*kind.every = 0;
      keeps(smaller);
    }
    for (const Chance& chance : kChances) {
      if (best_.scenario.faults.*chance.of == 0) continue;
      Scenario smaller = best_.scenario;
      smaller.faults.*chance.of = 0;
      keeps(smaller);
    }
  }

  void habits() {
    for (size_t i = 0; i < best_.scenario.jobs.size(); ++i) {
      for (const Habit& habit : kHabits) {
        if (best_.scenario.jobs[i].*habit.of == 0) continue;
        Scenario smaller = best_.scenario;
        smaller.jobs[i].*habit.of = 0;
        keeps(smaller);
      }
    }
    for (size_t i = 0; i < best_.scenario.workers.size(); ++i) {
      if (!best_.scenario.workers[i].black_hole) continue;
      Scenario smaller = best_.scenario;
      smaller.workers[i].black_hole = false;
      keeps(smaller);
    }
  }

  // What jobs ask for beside cpus.
  void resources() {
    for (size_t i = 0; i < best_.scenario.jobs.size(); ++i) {
      Scenario smaller = best_.scenario;
      auto spec = std::make_shared<JobSpec>(*smaller.jobs[i].spec);
      spec->resources = {.cpus_milli = spec->resources.cpus_milli};
      if (spec->resources == smaller.jobs[i].spec->resources) continue;
      smaller.jobs[i].spec = std::move(spec);
      keeps(smaller);
    }
  }

  void shorter() {
    while (best_.scenario.faults.phase_ms > 2'000) {
      Scenario smaller = best_.scenario;
      smaller.faults.phase_ms = smaller.faults.phase_ms * 3 / 4;
      if (!keeps(smaller)) return;
    }
  }

  // Halves of the faults, then quarters, …, then one by one.
  void single_faults() {
    keeps(best_.scenario);
    for (uint32_t part = std::max(1u, faults_ / 2);; part /= 2) {
      for (uint32_t first = 0; first < faults_; first += part) {
        Scenario smaller = best_.scenario;
        for (uint32_t i = first; i < first + part; ++i) smaller.faults.skipped.insert(i);
        if (smaller.faults.skipped.size() > best_.scenario.faults.skipped.size()) keeps(smaller);
      }
      if (part <= 1) return;
    }
  }

  Shrunk best_;
  std::string class_;
  const Replay& replay_;
  uint32_t faults_ = 0;
};

std::string describe_resources(const JobPlan& job) {
  const Resources& asked = job.spec->resources;
  std::string text = ", of " + job.owner;
  if (asked.memory_bytes > 0) text += ", states " + format_bytes(asked.memory_bytes);
  if (job.peak_memory > 0) {
    text += fmt::format(", uses {:.0f} to 100 % of {}", 100 * job.least_peak,
                        format_bytes(job.peak_memory));
  }
  if (asked.disk_bytes > 0) text += ", disk " + format_bytes(asked.disk_bytes);
  for (const auto& [name, milli] : asked.named) {
    text += fmt::format(", {} {}", format_milli(milli), name);
  }
  if (asked.gpus_milli == 0) return text;
  return text + fmt::format(", {} GPUs{}, of each states {}, uses {}",
                            format_milli(asked.gpus_milli),
                            asked.gpu_exclusive ? " for itself" : "",
                            format_bytes(asked.gpu_memory_bytes), format_bytes(job.peak_gpu));
}

std::string describe_job(const JobPlan& job) {
  const JobSpec& spec = *job.spec;
  std::string text = fmt::format(
      "job {}: {} ranks of {} cpus (thousandths){}{}, {} to {} ms, retries {}, submitted at {} ms",
      job.id.value & 0xFFFF'FFFF, spec.repetitions, spec.resources.cpus_milli,
      spec.parallel ? ", a gang" : "", spec.room.empty() ? "" : ", room " + spec.room,
      job.shortest_ms, job.longest_ms, spec.retries, job.submit_at);
  if (job.unit_ms > 0) {
    text += fmt::format(", saves each {} ms{}", job.unit_ms, job.marks ? ", says so" : "");
  }
  text += describe_resources(job);
  if (spec.time_limit_ms > 0) text += fmt::format(", time limit {} ms", spec.time_limit_ms);
  if (job.cancel_at > 0) text += fmt::format(", cancelled at {} ms", job.cancel_at);
  for (const Habit& habit : kHabits) {
    if (job.*habit.of > 0) text += fmt::format(", {} {}", habit.name, job.*habit.of);
  }
  return text + "\n";
}

}  // namespace

Shrunk shrink(const Scenario& scenario, const std::string& failure, const Replay& replay) {
  return Shrinker(scenario, failure, replay).run();
}

std::string describe(const Scenario& scenario) {
  std::string text;
  for (const WorkerPlan& worker : scenario.workers) {
    text += fmt::format("worker {}: {} cpus (thousandths), {} of memory, {} of disk{}{}{}",
                        worker.name, worker.cpus_milli, format_bytes(worker.memory_bytes),
                        format_bytes(worker.disk_bytes),
                        worker.room.empty() ? "" : ", room " + worker.room,
                        worker.leaves ? ", leaves" : "", worker.black_hole ? ", black hole" : "");
    for (const auto& [name, milli] : worker.named) {
      text += fmt::format(", {} {}", format_milli(milli), name);
    }
    for (const Gpu& gpu : worker.gpus) {
      text += fmt::format(", a GPU of {}{}", format_bytes(gpu.memory_bytes),
                          gpu.reports_memory ? "" : " that cannot tell who uses it");
    }
    text += "\n";
  }
  for (const JobPlan& job : scenario.jobs) text += describe_job(job);
  text += scenario.shares_only ? "users who want more than there is; " : "";
  text += fmt::format("faults until {} ms:", scenario.faults.phase_ms);
  for (const Kind& kind : kKinds) {
    if (const TimeMs every = scenario.faults.*kind.every; every > 0) {
      text += fmt::format(" {} each {} ms;", kind.name, every);
    }
  }
  for (const Chance& chance : kChances) {
    if (const double of = scenario.faults.*chance.of; of > 0) {
      text += fmt::format(" {} {};", chance.name, of);
    }
  }
  if (!scenario.faults.skipped.empty()) {
    text += fmt::format(" {} of them left out", scenario.faults.skipped.size());
  }
  return text + "\n";
}

}  // namespace pesc::sim
