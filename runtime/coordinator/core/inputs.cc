// Ranks that share large inputs go where these are. Known from leases: whoever is given one fetches
// what it lacks. It is a preference among workers that have a cpu free, and never more: a worker
// may have evicted what it is believed to have.
#include "runtime/coordinator/core/inputs.h"

#include <algorithm>
#include <utility>

#include "runtime/coordinator/core/state.h"

namespace pesc::coordinator {
namespace {

constexpr size_t kMostAlone = 3;             // of a job; the rest counts as one
constexpr size_t kMaxHolders = 32;           // of one input: enough to choose among
constexpr size_t kMaxIdle = 1'000;           // inputs of no job that goes on
constexpr uint64_t kMostBytes = 1ull << 40;  // of one blob: a sum of what clients say stays a sum

bool has_large(const JobSpec& spec) {
  uint64_t bytes = 0;
  for (const FileRef& file : spec.files) {
    if (file.blob.size_bytes >= kLargeInputBytes - bytes) return true;
    bytes += file.blob.size_bytes;
  }
  return false;
}

}  // namespace

std::vector<BlobRef> large_inputs(const JobSpec& spec) {
  if (!has_large(spec)) return {};
  std::vector<BlobRef> blobs;
  for (const FileRef& file : spec.files) {
    if (file.blob.empty()) continue;
    blobs.push_back({file.blob.digest, std::min(file.blob.size_bytes, kMostBytes)});
  }
  std::sort(blobs.begin(), blobs.end(), [](const BlobRef& a, const BlobRef& b) {
    return a.size_bytes != b.size_bytes ? a.size_bytes > b.size_bytes : a.digest < b.digest;
  });
  blobs.erase(std::unique(blobs.begin(), blobs.end()), blobs.end());
  std::vector<BlobRef> large;
  BlobRef rest;
  std::string names;
  for (const BlobRef& blob : blobs) {
    if (large.size() < kMostAlone && blob.size_bytes >= kLargeInputBytes) {
      large.push_back(blob);
    } else {
      rest.size_bytes += blob.size_bytes;
      names.append(blob.digest.bytes.begin(), blob.digest.bytes.end());
    }
  }
  if (rest.size_bytes >= kLargeInputBytes) large.push_back({sha256(names), rest.size_bytes});
  return large;
}

JobInputs Inputs::of(const JobSpec& spec) {
  JobInputs of_job;
  for (const BlobRef& blob : large_inputs(spec)) {
    LargeInput& input = all_[blob.digest];
    if (input.jobs++ == 0) idle_.erase(input.idle_since);
    input.blob = blob;
    of_job.push_back(&input);
  }
  return of_job;
}

void Inputs::forget(JobInputs& of_job) {
  for (LargeInput* input : std::exchange(of_job, {})) {
    if (--input->jobs > 0) continue;
    input->idle_since = ++turns_;
    idle_.emplace(input->idle_since, input->blob.digest);
  }
  while (idle_.size() > kMaxIdle) {
    all_.erase(idle_.begin()->second);
    idle_.erase(idle_.begin());
  }
}

std::string Inputs::check(const std::map<Digest, uint64_t>& needed) const {
  size_t idle = 0;
  for (const auto& [digest, input] : all_) {
    const auto jobs = needed.find(digest);
    if (input.jobs != (jobs == needed.end() ? 0 : jobs->second)) return "an input's jobs differ";
    if (input.holders.size() > kMaxHolders) return "an input has too many holders";
    if (input.jobs > 0) continue;
    ++idle;
    if (!idle_.contains(input.idle_since)) return "an input of no job is kept for ever";
  }
  return idle == idle_.size() && idle <= kMaxIdle ? "" : "too many inputs of no job are kept";
}

// One that is away keeps its place until another needs it: it keeps its cache too.
void note_holder(const JobInputs& inputs, Worker& worker) {
  for (LargeInput* input : inputs) {
    auto& holders = input->holders;
    if (holders.size() >= kMaxHolders && !holders.contains(worker.info.id)) {
      const auto away = std::find_if(holders.begin(), holders.end(),
                                     [](const auto& entry) { return !entry.second->attached; });
      if (away == holders.end()) continue;
      holders.erase(away);
    }
    holders.emplace(worker.info.id, &worker);
  }
}

void drop_holder(const JobInputs& inputs, WorkerId worker) {
  for (LargeInput* input : inputs) input->holders.erase(worker);
}

uint64_t held_bytes(const JobInputs& inputs, WorkerId worker) {
  uint64_t bytes = 0;
  for (const LargeInput* input : inputs) {
    if (input->holders.contains(worker)) bytes += input->blob.size_bytes;
  }
  return bytes;
}

bool holds_all(const JobInputs& inputs, WorkerId worker) {
  return std::all_of(inputs.begin(), inputs.end(),
                     [&](const LargeInput* input) { return input->holders.contains(worker); });
}

// After a restore: of those whose leases are open. Others are known again when they get one.
void Core::State::know_holders(Job& job) {
  if (job.inputs.empty()) job.inputs = inputs.of(*job.spec);
  if (job.inputs.empty()) return;
  for (const auto& [rank, active] : job.active) {
    for (const OpenAttempt& open : active.open) note_holder(job.inputs, workers.at(open.worker));
  }
}

// With cpus free now: the one that lacks least, and of equal ones that with most free.
Worker* Core::State::choose_holder(const Job& job, const Demand& demand, WorkerId avoid) {
  Worker* best = nullptr;
  uint64_t most = 0;
  for (const LargeInput* input : job.inputs) {
    for (const auto& [id, worker] : input->holders) {
      // Where attempts fail at once others are not drawn to: that they do well elsewhere must show.
      if (id == avoid || !worker->indexed || worker->streak > 0) continue;
      const int64_t free = unreserved(*worker);
      if (free < int64_t(demand.need.cpus_milli)) continue;
      const uint64_t bytes = held_bytes(job.inputs, id);
      if (bytes < most || (bytes == most && free <= unreserved(*best))) continue;
      if (!has_room(*worker, demand)) continue;
      best = worker;
      most = bytes;
    }
  }
  return best;
}

std::vector<WorkerId> Core::State::holders_of(const Job& job) const {
  std::set<std::tuple<uint64_t, int64_t, WorkerId>> holders;
  for (const LargeInput* input : job.inputs) {
    for (const auto& [id, worker] : input->holders) {
      if (!worker->indexed || worker->streak > 0) continue;
      holders.emplace(UINT64_MAX - held_bytes(job.inputs, id), -unreserved(*worker), id);
    }
  }
  std::vector<WorkerId> ids;
  for (const auto& [bytes, free, id] : holders) ids.push_back(id);
  return ids;
}

std::string Core::State::check_inputs() const {
  std::map<Digest, uint64_t> needed;
  for (const auto& [id, job] : jobs) {
    if (job.inputs.size() != (job.learned == nullptr ? 0 : large_inputs(*job.spec).size())) {
      return to_string(id) + ": its inputs are not known, or for too long";
    }
    for (const LargeInput* input : job.inputs) {
      ++needed[input->blob.digest];
      for (const auto& [holder, worker] : input->holders) {
        if (worker != &workers.at(holder)) return to_string(id) + ": a stranger has its inputs";
      }
    }
  }
  return inputs.check(needed);
}

}  // namespace pesc::coordinator
