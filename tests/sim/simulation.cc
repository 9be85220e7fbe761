#include "tests/sim/simulation.h"

#include <functional>
#include <memory>

#include "tests/sim/checkers/durability.h"
#include "tests/sim/checkers/liveness.h"
#include "tests/sim/coordinator_host.h"
#include "tests/sim/users.h"
#include "tests/sim/worker_host.h"

namespace pesc::sim {
namespace {

class Simulation {
 public:
  Simulation(const Scenario& scenario, const Bug& bug, Tracing tracing, bool check_invariants)
      : play_(scenario, bug, tracing != Tracing::off),
        coordinator_(play_),
        users_(play_, coordinator_) {
    play_.check_invariants = check_invariants;
    if (tracing == Tracing::print) play_.world.print_trace_at_once();
    for (const WorkerPlan& plan : scenario.workers) {
      workers_.push_back(std::make_unique<WorkerHost>(play_, coordinator_, plan, workers_.size()));
    }
  }

  PlayResult run();

 private:
  // Calls `fault` again and again, until the faults stop.
  void repeat(TimeMs mean_ms, std::function<void()> fault);
  void plan_faults();
  void heal();
  // Once a second after the faults: has everything ended?
  void watch(TimeMs deadline);
  WorkerHost& any_worker() {
    return *workers_[static_cast<size_t>(
        play_.world.random.between(0, static_cast<int64_t>(workers_.size()) - 1))];
  }

  Play play_;
  CoordinatorHost coordinator_;
  Users users_;
  std::vector<std::unique_ptr<WorkerHost>> workers_;
  bool done_ = false;
};

void Simulation::repeat(TimeMs mean_ms, std::function<void()> fault) {
  if (mean_ms == 0) return;
  play_.world.after(play_.world.random.wait(mean_ms), [this, mean_ms, fault] {
    if (play_.healed) return;
    fault();
    repeat(mean_ms, fault);
  });
}

void Simulation::plan_faults() {
  Random& random = play_.world.random;
  const FaultPlan& faults = play_.scenario.faults;
  repeat(faults.cut_ms, [this] { any_worker().cut_link(); });
  // Often for a little longer than a lease: then two attempts of a rank run at once.
  const auto lease_ms = static_cast<TimeMs>(play_.scenario.coordinator.lease_ms);
  repeat(faults.away_ms, [&, this, lease_ms] {
    any_worker().go_away(random.chance(0.6) ? lease_ms + random.between(0, 15'000)
                                            : random.between(1'000, 200'000));
  });
  repeat(faults.daemon_crash_ms,
         [&, this] { any_worker().crash_daemon(random.between(0, 60'000)); });
  repeat(faults.reboot_ms, [&, this] { any_worker().reboot(random.between(5'000, 120'000)); });
  repeat(faults.keeper_loss_ms, [this] { any_worker().lose_keeper(); });
  repeat(faults.drain_ms, [this] { any_worker().drain(); });
  repeat(faults.coordinator_crash_ms, [&, this] {
    coordinator_.crash();
    play_.world.after(random.between(0, random.chance(0.2) ? 120'000 : 3'000),
                      [this] { coordinator_.start(); });
  });
  for (auto& worker : workers_) {
    if (!worker->plan().leaves) continue;
    play_.world.after(random.between(0, faults.phase_ms), [&worker] { worker->vanish(); });
  }
}

void Simulation::heal() {
  play_.world.trace([] { return std::string("the faults stop"); });
  play_.healed = true;
  coordinator_.start();
  for (auto& worker : workers_) worker->heal();
  watch(play_.world.now() + time_to_end(play_.scenario));
}

void Simulation::watch(TimeMs deadline) {
  std::string unfinished = find_unended(play_.ledger, users_.accepted());
  if (unfinished.empty() && !users_.all_done()) unfinished = "promise 5: a user waits";
  if (unfinished.empty()) {
    for (const auto& worker : workers_) {
      if (unfinished.empty()) unfinished = worker->leftovers();
    }
  }
  if (unfinished.empty() && coordinator_.quiet()) {
    coordinator_.check_agreement();
    coordinator_.check_replay();
    done_ = true;
    return;
  }
  if (play_.world.now() >= deadline) {
    for (JobId id : users_.accepted()) unfinished += coordinator_.why(id);
    play_.world.fail(unfinished);
    return;
  }
  play_.world.after(1'000, [this, deadline] { watch(deadline); });
}

PlayResult Simulation::run() {
  const TimeMs begin = play_.world.now();
  coordinator_.start();
  for (auto& worker : workers_) worker->start_daemon();
  users_.start();
  plan_faults();
  play_.world.after(play_.scenario.faults.phase_ms, [this] { heal(); });
  while (!done_ && play_.world.run_one()) {
  }
  PlayResult result;
  result.failure = play_.world.failure();
  result.failed_at_ms = result.simulated_ms = play_.world.now() - begin;
  result.events = play_.world.events();
  result.trace.assign(play_.world.trace_lines().begin(), play_.world.trace_lines().end());
  return result;
}

}  // namespace

PlayResult play(uint64_t seed, const Bug& bug, Tracing tracing, bool check_invariants) {
  const Scenario scenario = make_scenario(seed);
  return Simulation(scenario, bug, tracing, check_invariants).run();
}

const std::vector<Bug>& known_bugs() {
  using C = coordinator::PlantedBug;
  using W = worker::PlantedBug;
  static const std::vector<Bug> bugs = {
      {.name = "none"},
      {.name = "commit_twice", .coordinator = C::commit_twice},
      {.name = "lose_requeue", .coordinator = C::lose_requeue},
      {.name = "overcommit_worker", .coordinator = C::overcommit_worker},
      {.name = "accept_revoked", .coordinator = C::accept_revoked},
      {.name = "forget_cancel", .coordinator = C::forget_cancel},
      {.name = "acknowledge_before_record", .coordinator = C::acknowledge_before_record},
      {.name = "reuse_attempt_number", .coordinator = C::reuse_attempt_number},
      {.name = "forget_before_acknowledged", .worker = W::forget_before_acknowledged},
      {.name = "start_beyond_cpus", .worker = W::start_beyond_cpus},
      {.name = "ignore_stop", .worker = W::ignore_stop},
      {.name = "release_before_commit", .release_before_commit = true},
  };
  return bugs;
}

}  // namespace pesc::sim
