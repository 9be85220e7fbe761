#include "tests/sim/checkers/estimates.h"

#include <fmt/format.h>

#include <algorithm>

namespace pesc::sim {
namespace {

namespace co = coordinator;

constexpr uint64_t kLeast = 2ull << 20;  // estimates begin with a MiB

uint64_t with_margin(uint64_t peak) { return peak + peak / 4 + (peak + peak / 4) / 8 + kLeast; }

std::string broken(const AttemptKey& key, const std::string& what) {
  return fmt::format("estimates: {} {}", to_string(key), what);
}

}  // namespace

Estimates::Estimates(const Scenario& scenario) {
  gpus_are_quiet_ = scenario.faults.gpu_taken_ms == 0 && scenario.faults.damage_ms == 0;
  for (const WorkerPlan& worker : scenario.workers) {
    workers_[worker.id] = &worker;
    least_memory_ = std::min(least_memory_, worker.memory_bytes);
    for (const Gpu& gpu : worker.gpus) least_gpu_ = std::min(least_gpu_, gpu.memory_bytes);
  }
  for (const JobPlan& job : scenario.jobs) {
    std::string name = job.spec->program;
    for (const std::string& argument : job.spec->arguments) name += '\0' + argument;
    names_[job.id] = name;
    Program& program = programs_[name];
    program.peak_memory = std::max(program.peak_memory, job.peak_memory);
    program.peak_gpu = std::max(program.peak_gpu, job.peak_gpu);
    program.stable = program.stable && job.least_peak >= kStablePeaks;
    const Resources& asked = job.spec->resources;
    const bool states_less = asked.gpu_memory_bytes > 0 && asked.gpu_memory_bytes < job.peak_gpu;
    if (asked.gpus_milli > 0 && (job.least_peak < kStablePeaks || states_less)) {
      gpus_are_quiet_ = false;
    }
  }
}

Estimates::Program* Estimates::program_of(JobId job) {
  const auto it = names_.find(job);
  return it == names_.end() ? nullptr : &programs_.at(it->second);
}

void Estimates::learn(Program& program, const AttemptOutcome& outcome) {
  if (outcome.reason != EndReason::succeeded) return;
  program.memory = std::max(program.memory, outcome.max_rss_bytes);
  program.gpu = std::max(program.gpu, outcome.peak_gpu_bytes);
  ++program.ends;
  program.gpu_ends += outcome.peak_gpu_bytes > 0;
  program.gpu_measured = program.gpu_measured || outcome.peak_gpu_bytes > 0;
}

void Estimates::coordinator_started(const Ledger& ledger) {
  for (auto& [name, program] : programs_) {
    program.memory = program.gpu = 0;
    program.ends = program.gpu_ends = 0;
  }
  for (const auto& [id, job] : ledger.jobs) {
    Program* program = program_of(id);
    if (program == nullptr) continue;
    for (const LedgerRank& rank : job.ranks) {
      for (const auto& [number, attempt] : rank.attempts) {
        if (attempt.ended) learn(*program, attempt.outcome);
      }
    }
  }
}

std::string Estimates::check(const Ledger& ledger, const co::Record& record) {
  if (const auto* r = std::get_if<co::AttemptLeased>(&record)) return check_lease(ledger, *r);
  if (const auto* r = std::get_if<co::AttemptEnded>(&record)) return check_end(ledger, *r);
  return {};
}

std::string Estimates::check_lease(const Ledger& ledger, const co::AttemptLeased& r) {
  Program* program = program_of(r.key.job);
  // One that was given up for lost, and runs on, has what it had.
  if (program == nullptr || ledger.attempt(r.key) != nullptr) return {};
  const JobSpec& spec = *ledger.job(r.key.job)->spec;
  if (spec.resources.gpus_milli > 0) {
    if (std::string wrong = check_gpu(*program, spec, r); !wrong.empty()) return wrong;
    if (program->gpu_ends > 0) gpu_well_known_.insert(r.key);
  }
  if (spec.parallel || spec.resources.memory_bytes > 0) return {};
  const uint64_t all = workers_.at(r.worker)->memory_bytes;
  if (r.claim.memory_bytes < std::min(program->memory, all)) {
    return broken(r.key, fmt::format("is given {} bytes, and {} were measured of its program",
                                     r.claim.memory_bytes, program->memory));
  }
  // Where a worker is too small for it, nobody knows by how much.
  if (program->peak_memory <= least_memory_ &&
      r.claim.memory_bytes > with_margin(program->peak_memory)) {
    return broken(r.key, fmt::format("is given {} bytes, its program never uses more than {}",
                                     r.claim.memory_bytes, program->peak_memory));
  }
  // Where there is not enough for it, it may be given all there is.
  if (program->ends > 0 && program->stable && program->peak_memory <= all) {
    well_known_.insert(r.key);
  }
  return {};
}

std::string Estimates::check_gpu(const Program& program, const JobSpec& spec,
                                 const co::AttemptLeased& r) const {
  if (spec.resources.gpu_memory_bytes > 0) return {};
  if (!program.gpu_measured && !r.claim.gpu_alone) {
    return broken(r.key, "shares its GPU, and nobody knows what its program uses");
  }
  uint64_t all = UINT64_MAX;
  for (const Gpu& gpu : workers_.at(r.worker)->gpus) {
    const auto& uuids = r.claim.gpus;
    if (std::find(uuids.begin(), uuids.end(), gpu.uuid) == uuids.end()) continue;
    // The most that is asked for where something else has a part of it, as a screen has.
    all = std::min(all, gpu.memory_bytes - gpu.memory_bytes / 8);
  }
  if (r.claim.gpu_memory_bytes < std::min(program.gpu, all)) {
    return broken(r.key, fmt::format("is given {} bytes of its GPU, and {} were measured",
                                     r.claim.gpu_memory_bytes, program.gpu));
  }
  if (gpus_are_quiet_ && program.peak_gpu <= least_gpu_ &&
      r.claim.gpu_memory_bytes > with_margin(program.peak_gpu)) {
    return broken(r.key, fmt::format("is given {} bytes of its GPU, its program uses {} at most",
                                     r.claim.gpu_memory_bytes, program.peak_gpu));
  }
  return {};
}

std::string Estimates::check_end(const Ledger& ledger, const co::AttemptEnded& r) {
  Program* program = program_of(r.key.job);
  const LedgerAttempt* attempt = ledger.attempt(r.key);
  if (program == nullptr || attempt == nullptr) return {};
  // One that was given nothing in particular had all that its worker has.
  if (r.outcome.reason == EndReason::outgrew_estimate && attempt->claim.memory_bytes > 0 &&
      well_known_.contains(r.key)) {
    return broken(r.key, fmt::format("outgrew {} bytes, and its program is known",
                                     attempt->claim.memory_bytes));
  }
  if (r.outcome.reason == EndReason::gpu_out_of_memory && gpus_are_quiet_ &&
      program->peak_gpu <= least_gpu_ && gpu_well_known_.contains(r.key)) {
    return broken(r.key, "finds its GPU full, and all that uses it is known");
  }
  // Of one that was given up for lost nothing is learned, until the journal is read again.
  if (!attempt->ended) learn(*program, r.outcome);
  return {};
}

}  // namespace pesc::sim
