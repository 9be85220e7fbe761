#include "tests/sim/planted.h"

#include <algorithm>

namespace pesc::sim {
namespace {

namespace co = coordinator;

bool vanishes(HostBug bug, const Ledger& ledger, const co::Record& record) {
  if (bug == HostBug::drain_not_written) return std::holds_alternative<co::WorkerDraining>(record);
  if (bug == HostBug::answer_without_saving) {
    return std::holds_alternative<co::CheckpointKept>(record);
  }
  if (bug != HostBug::place_gang_in_part) return false;
  const auto* leased = std::get_if<co::AttemptLeased>(&record);
  if (leased == nullptr || leased->key.rank == 0) return false;
  const LedgerJob* job = ledger.job(leased->key.job);
  return job != nullptr && job->spec->parallel && leased->key.rank + 1 == job->ranks.size();
}

}  // namespace

void mutate(HostBug bug, const Ledger& ledger, std::vector<co::Record>& records) {
  if (bug == HostBug::none) return;
  std::erase_if(records, [&](const co::Record& one) { return vanishes(bug, ledger, one); });
  for (co::Record& record : records) {
    if (auto* leased = std::get_if<co::AttemptLeased>(&record)) {
      if (bug == HostBug::lease_old_checkpoint && leased->checkpoint > 1) --leased->checkpoint;
    } else if (auto* dropped = std::get_if<co::CheckpointsDropped>(&record)) {
      if (bug == HostBug::drop_all_checkpoints) dropped->through += 100;
    }
  }
}

void mutate(HostBug bug, co::SendUpdate& update) {
  if (bug == HostBug::start_gang_early) {
    for (co::LeaseGrant& lease : update.leases) lease.hold = false;
  }
  if (bug == HostBug::another_port) {
    for (co::StartOrder& order : update.start) {
      order.master_port = static_cast<uint16_t>(order.master_port + order.key.rank);
    }
  }
}

const std::vector<Bug>& known_bugs() {
  using C = co::PlantedBug;
  using W = worker::PlantedBug;
  static const std::vector<Bug> bugs = {
      {.name = "none"},
      // Promise 1: acknowledged is durable.
      {.name = "acknowledge_before_record", .coordinator = C::acknowledge_before_record},
      {.name = "release_before_commit", .host = HostBug::release_before_commit},
      {.name = "disk_lies", .host = HostBug::disk_lies},
      {.name = "forget_last_record", .host = HostBug::forget_last_record},
      {.name = "flip_unnoticed", .host = HostBug::flip_unnoticed},
      {.name = "drain_not_written", .host = HostBug::drain_not_written},
      {.name = "forget_cancel", .coordinator = C::forget_cancel},
      // Promise 2: committed exactly once.
      {.name = "commit_twice", .coordinator = C::commit_twice},
      {.name = "accept_revoked", .coordinator = C::accept_revoked},
      {.name = "reuse_attempt_number", .coordinator = C::reuse_attempt_number},
      {.name = "forget_before_acknowledged", .worker = W::forget_before_acknowledged},
      // Promise 3: the coordinator's death stops nothing.
      {.name = "forget_open_leases", .host = HostBug::forget_open_leases},
      // Promises 4 and 5: nothing runs unowned, a job ends.
      {.name = "ignore_stop", .worker = W::ignore_stop},
      {.name = "lose_requeue", .coordinator = C::lose_requeue},
      // Promise 6: limits hold.
      {.name = "overcommit_worker", .coordinator = C::overcommit_worker},
      {.name = "start_beyond_cpus", .worker = W::start_beyond_cpus},
      {.name = "ignore_named", .coordinator = C::ignore_named},
      {.name = "share_exclusive", .coordinator = C::share_exclusive},
      {.name = "use_sick_gpu", .coordinator = C::use_sick_gpu},
      {.name = "first_gpu_always", .coordinator = C::first_gpu_always},
      {.name = "revoked_takes_nothing", .coordinator = C::revoked_takes_nothing, .seeds = 2000},
      // What is learned converges.
      {.name = "forget_peaks", .coordinator = C::forget_peaks},
      {.name = "estimates_grow", .coordinator = C::estimates_grow},
      // Fair shares.
      {.name = "one_user_first", .coordinator = C::one_user_first},
      // Checkpoints.
      {.name = "answer_without_saving", .host = HostBug::answer_without_saving},
      {.name = "lease_old_checkpoint", .host = HostBug::lease_old_checkpoint, .seeds = 1000},
      {.name = "drop_all_checkpoints", .host = HostBug::drop_all_checkpoints},
      {.name = "collect_kept_blobs", .host = HostBug::collect_kept_blobs},
      {.name = "begin_from_nothing", .host = HostBug::begin_from_nothing},
      {.name = "lost_without_time", .coordinator = C::lost_without_time, .seeds = 1000},
      // Second attempts.
      {.name = "forget_loser", .coordinator = C::forget_loser},
      {.name = "second_beside_itself", .coordinator = C::second_beside_itself, .seeds = 1000},
      // Gangs.
      {.name = "place_gang_in_part", .host = HostBug::place_gang_in_part},
      {.name = "start_gang_early", .host = HostBug::start_gang_early},
      {.name = "another_port", .host = HostBug::another_port},
  };
  return bugs;
}

}  // namespace pesc::sim
