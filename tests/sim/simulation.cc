#include "tests/sim/simulation.h"

#include <fmt/format.h>

#include <functional>
#include <map>
#include <memory>

#include "tests/sim/checkers/drains.h"
#include "tests/sim/checkers/durability.h"
#include "tests/sim/checkers/liveness.h"
#include "tests/sim/coordinator_host.h"
#include "tests/sim/users.h"
#include "tests/sim/worker_host.h"

namespace pesc::sim {
namespace {

// From a drain's order, in a world without faults, until its worker is empty.
constexpr TimeMs kDrainBoundMs = 180'000;

class Simulation {
 public:
  Simulation(const Scenario& scenario, const Bug& bug, Tracing tracing, bool check_invariants)
      : play_(scenario, bug, tracing != Tracing::off),
        fault_random_(scenario.seed ^ 0xFA017ull),
        coordinator_(play_),
        users_(play_, coordinator_) {
    SqliteVfs::seed(scenario.seed);
    play_.check_invariants = check_invariants;
    if (tracing == Tracing::print) play_.world.print_trace_at_once();
    for (const WorkerPlan& plan : scenario.workers) {
      workers_.push_back(std::make_unique<WorkerHost>(play_, coordinator_, plan, workers_.size()));
    }
    play_.uninterrupted.runs = [this](WorkerId id, const AttemptKey& key) {
      for (const auto& worker : workers_) {
        if (worker->plan().id == id) return worker->runs(key);
      }
      return false;
    };
  }

  PlayResult run();

 private:
  // Calls `fault` again and again, until the faults stop. What is drawn for faults is drawn from a
  // generator of their own: one that is left out does not change when the others come.
  void repeat(TimeMs mean_ms, std::function<void(Random&)> fault);
  void plan_faults();
  void plan_worker_faults();
  void plan_coordinator_faults();
  void heal();
  void order_drain(const std::string& worker, bool drain);
  void end_drains();
  // Once a second after the faults: has everything ended?
  void watch(TimeMs deadline);
  WorkerHost& any_worker(Random& random) {
    return *workers_[static_cast<size_t>(
        random.between(0, static_cast<int64_t>(workers_.size()) - 1))];
  }

  Play play_;
  Random fault_random_;
  uint32_t faults_ = 0;
  CoordinatorHost coordinator_;
  Users users_;
  std::vector<std::unique_ptr<WorkerHost>> workers_;
  std::map<std::string, uint64_t> last_orders_;  // to drain, or not to: by worker
  bool drains_over_ = false;
  bool done_ = false;
};

void Simulation::repeat(TimeMs mean_ms, std::function<void(Random&)> fault) {
  if (mean_ms == 0) return;
  // Its times and choices are its own: they do not depend on what else happens.
  auto random = std::make_shared<Random>(fault_random_.next());
  auto next = std::make_shared<std::function<void()>>();
  *next = [this, mean_ms, fault, random, weak = std::weak_ptr(next)] {
    play_.world.after(random->wait(mean_ms), [this, fault, random, self = weak.lock()] {
      if (play_.healed) return;
      const uint32_t number = faults_++;
      Random choices(random->next());
      if (!play_.scenario.faults.skipped.contains(number)) fault(choices);
      if (self != nullptr) (*self)();
    });
  };
  (*next)();
}

void Simulation::plan_faults() {
  plan_worker_faults();
  plan_coordinator_faults();
  for (auto& worker : workers_) {
    if (!worker->plan().leaves) continue;
    play_.world.after(fault_random_.between(0, play_.scenario.faults.phase_ms),
                      [&worker] { worker->vanish(); });
  }
  repeat(play_.scenario.faults.owner_ms, [this](Random& random) {
    const TimeMs stay_ms = random.between(1'000, 120'000);
    any_worker(random).owner_comes(stay_ms, random.chance(0.3));
  });
  repeat(play_.scenario.faults.gpu_sick_ms,
         [this](Random& random) { any_worker(random).trouble_gpu(random); });
  repeat(play_.scenario.faults.gpu_taken_ms,
         [this](Random& random) { any_worker(random).take_gpu(random); });
}

void Simulation::plan_worker_faults() {
  const FaultPlan& faults = play_.scenario.faults;
  repeat(faults.cut_ms, [this](Random& random) { any_worker(random).cut_link(); });
  // Often for a little longer than a lease: then two attempts of a rank run at once.
  const auto lease_ms = static_cast<TimeMs>(play_.scenario.coordinator.lease_ms);
  repeat(faults.away_ms, [this, lease_ms](Random& random) {
    any_worker(random).go_away(random.chance(0.6) ? lease_ms + random.between(0, 15'000)
                                                  : random.between(1'000, 200'000));
  });
  repeat(faults.daemon_crash_ms,
         [this](Random& random) { any_worker(random).crash_daemon(random.between(0, 60'000)); });
  repeat(faults.reboot_ms,
         [this](Random& random) { any_worker(random).reboot(random.between(5'000, 120'000)); });
  repeat(faults.keeper_loss_ms, [this](Random& random) { any_worker(random).lose_keeper(); });
  repeat(faults.drain_ms, [this](Random& random) { any_worker(random).drain(); });
  repeat(faults.worker_disk_full_ms,
         [this](Random& random) { any_worker(random).fill_disk(random.between(1'000, 60'000)); });
  repeat(faults.order_drain_ms, [this](Random& random) {
    const std::string name = any_worker(random).plan().name;
    order_drain(name, true);
    play_.world.after(random.between(1'000, 120'000), [this, name, again = random.chance(0.7)] {
      if (again && !play_.healed) order_drain(name, false);
    });
  });
}

void Simulation::plan_coordinator_faults() {
  const FaultPlan& faults = play_.scenario.faults;
  auto down_ms = [](Random& random) {
    return random.between(0, random.chance(0.2) ? 120'000 : 3'000);
  };
  repeat(faults.coordinator_crash_ms, [this, down_ms, &faults](Random& random) {
    coordinator_.crash(random.chance(faults.power_fails));
    play_.world.after(down_ms(random), [this] { coordinator_.start(); });
  });
  repeat(faults.commit_crash_ms, [this, down_ms, &faults](Random& random) {
    coordinator_.crash_in_next_commit(random.chance(faults.power_fails), down_ms(random));
  });
  repeat(faults.disk_full_ms,
         [this](Random& random) { coordinator_.fill_disk(random.between(1'000, 60'000)); });
  repeat(faults.sync_failure_ms, [this](Random&) { coordinator_.fail_syncs(); });
  repeat(faults.damage_ms, [this, down_ms](Random& random) {
    coordinator_.damage_at_next_start();
    coordinator_.crash(false);
    play_.world.after(down_ms(random), [this] { coordinator_.start(); });
  });
  repeat(faults.sleep_ms, [this](Random& random) {
    const TimeMs by = random.between(1'000, 3'600'000);
    if (random.chance(0.4)) return coordinator_.jump_clock(by);
    any_worker(random).jump_clock(by);
  });
  repeat(faults.wall_jump_ms, [this](Random& random) {
    const TimeMs by = random.between(-7'200'000, 7'200'000);
    if (random.chance(0.5)) return coordinator_.jump_wall_clock(by);
    any_worker(random).jump_wall_clock(by);
  });
}

void Simulation::order_drain(const std::string& worker, bool drain) {
  const uint64_t request = coordinator_.next_request();
  last_orders_[worker] = request;
  coordinator_.call(request, coordinator::WorkerDrained{request, worker, drain},
                    [this, worker, drain, request](const absl::Status& status, uint32_t) {
                      // The next order may be in the same transaction.
                      if (!status.ok() || last_orders_[worker] != request) return;
                      for (const auto& one : workers_) {
                        if (one->plan().name != worker) continue;
                        play_.expect(check_drain_answered(play_.ledger, one->plan().id, drain));
                      }
                    });
}

void Simulation::heal() {
  play_.world.trace([] { return std::string("the faults stop"); });
  play_.healed = true;
  coordinator_.heal();
  for (auto& worker : workers_) worker->heal();
  play_.world.after(kDrainBoundMs, [this] {
    for (const auto& worker : workers_) {
      if (worker->gone()) continue;
      play_.expect(check_drained_empty(play_.ledger, worker->plan().id, worker->plan().name,
                                       worker->held()));
    }
    drains_over_ = true;
  });
  watch(play_.world.now() + kDrainBoundMs + time_to_end(play_.scenario));
}

// Workers that were left draining are taken back, that every job can end.
void Simulation::end_drains() {
  for (const auto& worker : workers_) {
    if (play_.ledger.draining.contains(worker->plan().id)) {
      order_drain(worker->plan().name, false);
    }
  }
}

void Simulation::watch(TimeMs deadline) {
  std::vector<AttemptKey> running;
  for (const auto& worker : workers_) {
    const std::vector<AttemptKey> here = worker->running();
    running.insert(running.end(), here.begin(), here.end());
  }
  play_.expect(play_.seconds.check_running(play_.ledger, running, play_.world.now()));
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
  if (drains_over_) end_drains();
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
  result.faults = faults_;
  result.totals = play_.totals;
  result.trace.assign(play_.world.trace_lines().begin(), play_.world.trace_lines().end());
  return result;
}

}  // namespace

PlayResult play(const Scenario& scenario, const Bug& bug, Tracing tracing, bool check_invariants) {
  return Simulation(scenario, bug, tracing, check_invariants).run();
}

}  // namespace pesc::sim
