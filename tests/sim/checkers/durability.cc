#include "tests/sim/checkers/durability.h"

#include <fmt/format.h>

namespace pesc::sim {

std::string check_submit_answered(const Ledger& ledger, JobId id) {
  if (ledger.job(id) != nullptr || ledger.erased.contains(id)) return {};
  if (ledger.damaged.contains(id)) return {};
  return fmt::format("promise 1: job {} was accepted, but it is not durable", to_string(id));
}

std::string check_cancel_answered(const Ledger& ledger, JobId id) {
  const LedgerJob* job = ledger.job(id);
  if (job == nullptr) return {};
  if (job->stopped || job->finished) return {};
  return fmt::format("promise 1: the cancel of job {} was accepted, but it is not durable",
                     to_string(id));
}

std::string check_remove_answered(const Ledger& ledger, JobId id) {
  if (ledger.job(id) == nullptr) return {};
  return fmt::format("promise 1: the removal of job {} was accepted, but it is not durable",
                     to_string(id));
}

std::string check_acknowledged(const Ledger& ledger, const std::vector<AttemptKey>& keys,
                               const std::set<AttemptKey>& succeeded) {
  for (const AttemptKey& key : keys) {
    if (!ledger.settled(key, succeeded.contains(key))) {
      return fmt::format("promise 1: {} was acknowledged, but its end is not durable",
                         to_string(key));
    }
  }
  return {};
}

std::string check_leases_sent(const Ledger& ledger, const coordinator::SendUpdate& update) {
  for (const auto& lease : update.leases) {
    if (ledger.job(lease.key.job) == nullptr) continue;  // removed meanwhile
    if (ledger.attempt(lease.key) == nullptr) {
      return fmt::format("promise 1: a worker is told of {}, but the lease is not durable",
                         to_string(lease.key));
    }
  }
  return {};
}

std::string check_forgotten(const Ledger& ledger, const AttemptKey& key) {
  if (ledger.settled(key, false)) return {};
  return fmt::format("promise 1: a worker deleted {}, whose end is not durable and still wanted",
                     to_string(key));
}

namespace {

std::string check_job_agrees(const LedgerJob& job, const coordinator::Core& core, JobId id) {
  const auto view = core.job(id);
  if (!view) return "the core does not know job " + to_string(id);
  if (view->committed != job.finals) {
    return fmt::format("job {}: {} ranks are final, the core says {}", to_string(id), job.finals,
                       view->committed);
  }
  const bool core_finished = view->state != JobState::waiting && view->state != JobState::running;
  if (core_finished != job.finished || (job.finished && view->state != job.state)) {
    return fmt::format("job {}: durably {}, the core says {}", to_string(id),
                       job.finished ? to_string(job.state) : "unfinished", to_string(view->state));
  }
  for (uint32_t i = 0; i < job.ranks.size(); ++i) {
    const LedgerRank& rank = job.ranks[i];
    const RankState state = core.rank_state(id, i);
    const bool final = state != RankState::waiting && state != RankState::running;
    if (final != rank.final || (final && state != rank.state)) {
      return fmt::format("job {} rank {}: durably {}, the core says {}", to_string(id), i,
                         rank.final ? to_string(rank.state) : "not final", to_string(state));
    }
  }
  if (!(*view->spec == *job.spec)) return "the description of job " + to_string(id) + " changed";
  return {};
}

}  // namespace

std::string check_core_agrees(const Ledger& ledger, const coordinator::Core& core) {
  if (core.jobs().size() != ledger.jobs.size()) {
    return fmt::format("promise 1: {} jobs are durable, the core knows {}", ledger.jobs.size(),
                       core.jobs().size());
  }
  for (const auto& [id, job] : ledger.jobs) {
    std::string wrong = check_job_agrees(job, core, id);
    if (!wrong.empty()) return "promise 1: " + wrong;
  }
  return {};
}

}  // namespace pesc::sim
