// What one seed plays: the machines, the jobs, how often what goes wrong.
#pragma once

#include <memory>
#include <set>
#include <string>
#include <vector>

#include "model/job_spec.h"
#include "runtime/coordinator/core/core.h"
#include "tests/sim/world.h"

namespace pesc::sim {

struct WorkerPlan {
  WorkerId id;
  std::string name, room;
  uint32_t cpus_milli = 1000;
  uint64_t memory_bytes = 1ull << 34, disk_bytes = 0;
  NamedResources named;
  std::vector<Gpu> gpus;
  double slowness = 1;      // what programs take there, of what they take elsewhere
  bool leaves = false;      // vanishes for ever some time
  bool black_hole = false;  // whatever is started there dies at once, until the faults stop
};

struct JobPlan {
  JobId id;
  std::string owner = "user";
  std::shared_ptr<const JobSpec> spec;
  TimeMs submit_at = 0;
  TimeMs cancel_at = 0;  // 0: not
  bool submit_twice = false;
  bool retry = false;
  bool remove = false;
  // How its ranks behave.
  TimeMs shortest_ms = 0, longest_ms = 0;
  double fails = 0, hangs = 0, refuses = 0, cannot_start = 0, large_output = 0;
  double floods = 0, outlives = 0, stragglers = 0;
  TimeMs unit_ms = 0;            // they save their work this often; 0: never
  bool marks = false;            // and say so
  bool saves_when_told = false;  // on SIGTERM too
  // One that begins from what it cannot read changes it a little, before it dies.
  bool scribbles = false;
  double corrupts = 0;  // an attempt whose saves nobody can read
  // What its ranks come to use: a part of the peak, from the least to all of it, each its own.
  uint64_t peak_memory = 0, peak_gpu = 0;
  double least_peak = 1;
  bool tells_progress = true;  // some say that they are half-way
  // Some of its ranks would run for ever: a user ends it when the faults stop.
  bool endless = false;
};

struct FaultPlan {
  TimeMs phase_ms = 300'000;  // faults stop after this
  // Mean times between faults of a kind; 0: none.
  TimeMs cut_ms = 0, away_ms = 0, coordinator_crash_ms = 0, daemon_crash_ms = 0, reboot_ms = 0,
         keeper_loss_ms = 0, drain_ms = 0, commit_crash_ms = 0, disk_full_ms = 0,
         sync_failure_ms = 0, worker_disk_full_ms = 0, sleep_ms = 0, wall_jump_ms = 0,
         order_drain_ms = 0, damage_ms = 0, owner_ms = 0, gpu_sick_ms = 0, gpu_taken_ms = 0;
  double power_fails = 0;   // a crash of the coordinator takes what was not synced
  double lose_message = 0;  // of a user's call: the request, or the answer
  double cut_in_call = 0;   // the link, while a result is being reported
  double prepare_fails = 0, pack_fails = 0, upload_fails = 0, save_fails = 0, restore_fails = 0,
         port_taken = 0;
  std::set<uint32_t> skipped;  // numbers of faults that do not come: to shrink a failure
  TimeMs longest_delay_ms = 50;
  TimeMs longest_commit_ms = 20;
};

struct Scenario {
  uint64_t seed = 0;
  coordinator::CoreConfig coordinator;
  std::vector<WorkerPlan> workers;
  std::vector<JobPlan> jobs;
  FaultPlan faults;
  bool shares_only = false;  // users who want more than there is, and nothing goes wrong
};

// Peaks that differ so little that none is beyond what was learned of another.
inline constexpr double kStablePeaks = 0.8;
// Of a rank, in every attempt.
double part_of_peak(const AttemptKey& key, const JobPlan& job);

Scenario make_scenario(uint64_t seed);
// What jobs ask for beside cpus, and workers have; who owns them: scenario_resources.cc.
void mix_resources(Random& random, Scenario& scenario);

}  // namespace pesc::sim
