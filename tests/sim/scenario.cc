#include "tests/sim/scenario.h"

#include <algorithm>

namespace pesc::sim {
namespace {

constexpr const char* kRooms[] = {"", "red", "blue"};

// The first worker of a room stays; rooms always have one, so that their jobs can end.
std::vector<WorkerPlan> make_workers(Random& random) {
  std::vector<WorkerPlan> workers;
  const int64_t count = random.between(1, 5);
  const int64_t rooms = random.between(1, std::min<int64_t>(3, count));
  for (int64_t i = 0; i < count; ++i) {
    WorkerPlan plan;
    plan.id = {random.next()};
    plan.name = "w" + std::to_string(i);
    plan.room = kRooms[i % rooms];
    plan.cpus_milli = static_cast<uint32_t>(random.between(1, 4) * 1000);
    if (random.chance(0.2)) plan.cpus_milli += 500;
    plan.leaves = i >= rooms && random.chance(0.3);
    plan.black_hole = random.chance(0.06);
    workers.push_back(plan);
  }
  return workers;
}

void choose_durations(Random& random, JobPlan& job, uint32_t ranks) {
  if (ranks > 100 || random.chance(0.3)) {
    job.shortest_ms = 1;
    job.longest_ms = random.between(5, 400);
  } else if (random.chance(0.6)) {
    job.shortest_ms = 600;
    job.longest_ms = random.between(1'000, 20'000);
  } else {
    job.shortest_ms = 10'000;
    job.longest_ms = random.between(20'000, 150'000);
  }
}

// A gang, small enough for the workers that stay.
void choose_gang(Random& random, const Scenario& scenario, JobSpec& spec) {
  uint32_t slots = 0, most = 0;
  for (const WorkerPlan& worker : scenario.workers) {
    if (worker.leaves || (!spec.room.empty() && worker.room != spec.room)) continue;
    const uint32_t here = worker.cpus_milli / spec.resources.cpus_milli;
    slots += here;
    most = std::max(most, here);
  }
  if (slots == 0) return;
  spec.parallel = true;
  spec.same_worker = most > 0 && random.chance(0.3);
  const uint32_t bound = std::min<uint32_t>(spec.same_worker ? most : slots, 8);
  spec.repetitions = static_cast<uint32_t>(random.between(1, bound));
}

void choose_saves(Random& random, JobPlan& job, JobSpec& spec) {
  if (job.longest_ms < 5'000 || spec.repetitions > 50) return;
  job.unit_ms = random.between(500, std::max<TimeMs>(1'000, job.longest_ms / 4));
  job.marks = random.chance(0.6);
  job.saves_when_told = random.chance(0.7);
  if (random.chance(0.3)) job.corrupts = random.chance(0.2) ? 1.0 : 0.3;
  job.scribbles = random.chance(0.3);
  if (!job.marks || random.chance(0.3)) {
    spec.checkpoint_every_ms = static_cast<uint64_t>(random.between(1'000, 20'000));
  }
}

void choose_behaviour(Random& random, JobPlan& job, JobSpec& spec) {
  choose_durations(random, job, spec.repetitions);
  if (random.chance(0.5)) job.fails = random.chance(0.2) ? 0.9 : 0.15;
  if (random.chance(0.1)) job.cannot_start = 0.3;
  if (random.chance(0.07)) job.refuses = 1.0;
  if (random.chance(0.2)) job.large_output = 0.2;
  spec.retries = static_cast<uint32_t>(random.between(0, 3));
  spec.grace_ms = static_cast<uint64_t>(random.between(0, 3'000));
  if (random.chance(0.2)) job.outlives = 0.5;
  if (random.chance(0.1)) job.floods = 0.1;
  if (random.chance(0.3)) job.stragglers = 0.1;
  if (random.chance(0.15)) spec.max_failures = static_cast<uint32_t>(random.between(1, 4));
  if (random.chance(0.1)) {
    spec.job_time_limit_ms = static_cast<uint64_t>(random.between(20'000, 300'000));
  }
  spec.second_attempts = random.chance(0.7);
  if (random.chance(0.5)) choose_saves(random, job, spec);
  if (random.chance(0.25)) job.hangs = spec.repetitions > 50 ? 0.01 : 0.1;
  if (random.chance(0.5)) {
    spec.time_limit_ms = static_cast<uint64_t>(random.between(1'000, 60'000));
  } else {
    job.endless = job.hangs > 0;
  }
}

JobPlan make_job(Random& random, const Scenario& scenario, uint64_t number, bool large) {
  JobPlan job;
  job.id = {(scenario.seed << 32) + number + 1};
  auto spec = std::make_shared<JobSpec>();
  spec->name = "job " + std::to_string(number);
  spec->program = "./program";
  spec->files.push_back({"program", FileKind::file, {sha256("program"), 7}, 0755});
  // Large, so that placement looks for who has it. Not drawn: that would move all else.
  if ((scenario.seed + number) % 3 == 0) {
    const std::string data = "data " + std::to_string(number % 2);
    spec->files.push_back({data, FileKind::shared_file, {sha256(data), 1ull << 30}, 0644});
  }
  spec->seed = random.next();
  spec->arguments = {"--number", std::to_string(number), "no \xff UTF-8"};
  spec->repetitions = static_cast<uint32_t>(large                ? random.between(300, 1500)
                                            : random.chance(0.3) ? 1
                                                                 : random.between(2, 24));
  // Rooms are filled in order, so the first worker of each is there for good.
  const auto& host = scenario.workers[static_cast<size_t>(
      random.between(0, static_cast<int64_t>(scenario.workers.size()) - 1))];
  if (random.chance(0.4)) spec->room = host.room;
  uint32_t widest = 0;
  for (const WorkerPlan& worker : scenario.workers) {
    if (!worker.leaves && (spec->room.empty() || worker.room == spec->room)) {
      widest = std::max(widest, worker.cpus_milli);
    }
  }
  spec->resources.cpus_milli = static_cast<uint32_t>(
      random.chance(0.7) ? 1000 : random.between(1, std::max<int64_t>(1, widest / 500)) * 500);
  if (!large && random.chance(0.25)) choose_gang(random, scenario, *spec);
  choose_behaviour(random, job, *spec);
  job.submit_at = random.between(0, scenario.faults.phase_ms / 2);
  if (random.chance(0.2)) job.cancel_at = job.submit_at + random.between(0, 60'000);
  job.submit_twice = random.chance(0.3);
  job.retry = random.chance(0.3);
  job.remove = random.chance(0.2);
  job.spec = std::move(spec);
  return job;
}

TimeMs maybe(Random& random, double probability, TimeMs low, TimeMs high) {
  return random.chance(probability) ? random.between(low, high) : 0;
}

FaultPlan make_faults(Random& random) {
  FaultPlan faults;
  faults.phase_ms = random.between(60'000, 400'000);
  if (random.chance(0.05)) return faults;  // a quiet day
  faults.cut_ms = maybe(random, 0.7, 10'000, 120'000);
  faults.away_ms = maybe(random, 0.5, 20'000, 200'000);
  faults.coordinator_crash_ms = maybe(random, 0.5, 30'000, 200'000);
  faults.daemon_crash_ms = maybe(random, 0.5, 40'000, 200'000);
  faults.reboot_ms = maybe(random, 0.3, 100'000, 400'000);
  faults.keeper_loss_ms = maybe(random, 0.2, 100'000, 400'000);
  faults.drain_ms = maybe(random, 0.2, 60'000, 300'000);
  faults.commit_crash_ms = maybe(random, 0.4, 20'000, 120'000);
  faults.power_fails = random.chance(0.5) ? 0.6 : 0.0;
  faults.disk_full_ms = maybe(random, 0.2, 40'000, 200'000);
  faults.sync_failure_ms = maybe(random, 0.15, 40'000, 200'000);
  faults.worker_disk_full_ms = maybe(random, 0.2, 60'000, 300'000);
  faults.sleep_ms = maybe(random, 0.2, 60'000, 300'000);
  faults.wall_jump_ms = maybe(random, 0.2, 60'000, 300'000);
  faults.order_drain_ms = maybe(random, 0.25, 40'000, 200'000);
  faults.damage_ms = maybe(random, 0.06, 60'000, 200'000);
  faults.save_fails = random.chance(0.3) ? 0.2 : 0.0;
  faults.restore_fails = random.chance(0.2) ? 0.1 : 0.0;
  faults.port_taken = random.chance(0.3) ? 0.2 : 0.0;
  faults.lose_message = random.chance(0.5) ? 0.2 : 0.0;
  faults.cut_in_call = random.chance(0.4) ? 0.05 : 0.0;
  faults.prepare_fails = random.chance(0.4) ? 0.1 : 0.0;
  faults.pack_fails = random.chance(0.2) ? 0.05 : 0.0;
  faults.upload_fails = random.chance(0.4) ? 0.2 : 0.0;
  faults.longest_delay_ms = random.chance(0.2) ? 3'000 : random.between(1, 100);
  faults.longest_commit_ms = random.chance(0.2) ? 1'000 : random.between(0, 30);
  return faults;
}

}  // namespace

Scenario make_scenario(uint64_t seed) {
  // Its own generator: what the scenario is does not depend on how it is played.
  Random random(seed ^ 0x5CE4A210ull);
  Scenario scenario;
  scenario.seed = seed;
  scenario.workers = make_workers(random);
  scenario.faults = make_faults(random);
  scenario.coordinator.lease_ms = static_cast<uint64_t>(random.between(15'000, 60'000));
  scenario.coordinator.heartbeat_ms = static_cast<uint64_t>(random.between(2'000, 5'000));
  scenario.coordinator.set_aside_max_ms = static_cast<uint64_t>(random.between(60'000, 600'000));
  scenario.coordinator.keep_checkpoints = static_cast<uint32_t>(random.between(1, 4));
  scenario.coordinator.max_placements_per_step =
      static_cast<uint32_t>(random.chance(0.3) ? random.between(1, 8) : 512);
  const int64_t jobs = random.between(1, 4);
  const bool large = random.chance(0.06);
  for (int64_t i = 0; i < jobs; ++i) {
    scenario.jobs.push_back(make_job(random, scenario, static_cast<uint64_t>(i), large && i == 0));
  }
  // Of a generator of its own: what else a seed plays is as it was without owners.
  Random owners(seed ^ 0x0BE5C0DEull);
  scenario.faults.owner_ms = maybe(owners, 0.2, 30'000, 200'000);
  Random mixed(seed ^ 0x6E50C5ull);
  mix_resources(mixed, scenario);
  return scenario;
}

}  // namespace pesc::sim
