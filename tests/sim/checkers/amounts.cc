#include "tests/sim/checkers/amounts.h"

#include <fmt/format.h>

#include <algorithm>

namespace pesc::sim {
namespace {

namespace co = coordinator;

std::string broken(const AttemptKey& key, const std::string& what) {
  return fmt::format("promise 6: {} {}", to_string(key), what);
}

uint64_t amount_of(const NamedResources& named, const std::string& name) {
  for (const auto& [one, milli] : named) {
    if (one == name) return milli;
  }
  return 0;
}

bool has(const Claim& claim, const std::string& uuid) {
  return std::find(claim.gpus.begin(), claim.gpus.end(), uuid) != claim.gpus.end();
}

uint32_t share_of(const Resources& asked) { return asked.gpus_milli % 1000; }

}  // namespace

Amounts::Amounts(const Scenario& scenario)
    : slack_ms_(2 * scenario.faults.longest_commit_ms + 1'000) {
  for (const WorkerPlan& worker : scenario.workers) {
    workers_[worker.id] = &worker;
    for (const Gpu& gpu : worker.gpus) told_[gpu.uuid] = {gpu, 0};
  }
}

void Amounts::close(const AttemptKey& key) {
  if (auto it = taken_.find(key); it != taken_.end()) open_[it->second.worker].erase(key);
}

void Amounts::close_rank(const Ledger& ledger, JobId job, uint32_t rank) {
  const LedgerRank* found = ledger.rank({job, rank, 0});
  if (found == nullptr) return;
  for (const auto& [number, attempt] : found->attempts) close({job, rank, number});
}

void Amounts::forget(JobId job) {
  for (auto& [worker, keys] : open_) {
    std::erase_if(keys, [&](const AttemptKey& key) { return key.job == job; });
  }
}

void Amounts::told(WorkerId, const std::vector<Gpu>& gpus, TimeMs now) {
  for (const Gpu& gpu : gpus) {
    GpuState& state = told_[gpu.uuid];
    if (state.gpu == gpu) continue;
    state = {gpu, now};
  }
}

std::string Amounts::check(const Ledger& ledger, const co::Record& record) {
  if (const auto* r = std::get_if<co::AttemptEnded>(&record)) {
    close(r->key);
    if (r->final) close_rank(ledger, r->key.job, r->key.rank);
    return {};
  }
  if (const auto* r = std::get_if<co::RanksCancelled>(&record)) {
    for (uint32_t i = r->first; i <= r->last; ++i) close_rank(ledger, r->job, i);
    return {};
  }
  const auto* r = std::get_if<co::AttemptLeased>(&record);
  if (r == nullptr) return {};
  if (r->key.attempt == ledger.rank(r->key)->last_attempt && !r->second) {
    close_rank(ledger, r->key.job, r->key.rank);
  }
  const WorkerPlan& worker = *workers_.at(r->worker);
  const Taken& taken =
      taken_[r->key] = {r->worker, r->claim, ledger.job(r->key.job)->spec->resources};
  open_[r->worker].insert(r->key);
  // What was given up for lost, and runs on, comes back whether there is room for it or not.
  if (!leased_.insert(r->key).second) return {};
  std::string wrong = check_claim(worker, r->key, taken);
  return wrong.empty() ? check_sum(worker, open_[r->worker], r->key, "is given") : wrong;
}

// What is given is what was asked for.
std::string Amounts::check_claim(const WorkerPlan& worker, const AttemptKey& key,
                                 const Taken& taken) const {
  const auto& [id, claim, asked] = taken;
  if (asked.memory_bytes > 0 && claim.memory_bytes != asked.memory_bytes) {
    return broken(key, "is not given the memory that it states");
  }
  const uint32_t gpus = asked.gpus_milli == 0 ? 0 : std::max(1u, asked.gpus_milli / 1000);
  if (claim.gpus.size() != gpus) {
    return broken(key, fmt::format("asks for {} GPUs, and gets {}", gpus, claim.gpus.size()));
  }
  if (gpus > 0 && asked.gpu_exclusive && !claim.gpu_alone) {
    return broken(key, "wants its GPUs for itself, and has to share them");
  }
  if (gpus > 0 && asked.gpu_memory_bytes > claim.gpu_memory_bytes) {
    return broken(key, "is given less GPU memory than it states");
  }
  for (const std::string& uuid : claim.gpus) {
    const auto gpu = std::find_if(worker.gpus.begin(), worker.gpus.end(),
                                  [&](const Gpu& one) { return one.uuid == uuid; });
    if (gpu == worker.gpus.end()) return broken(key, "gets a GPU that its worker does not have");
    if (gpu->compute_capability < asked.min_compute_capability) {
      return broken(key, "gets a GPU of too small a compute capability");
    }
  }
  return {};
}

template <class Keys>
std::string Amounts::check_sum(const WorkerPlan& worker, const Keys& keys, const AttemptKey& newest,
                               const char* what) const {
  const Taken& last = taken_.at(newest);
  uint64_t memory = 0, disk = 0;
  std::map<std::string, uint64_t> named;
  std::map<std::string, std::vector<const Taken*>> gpus;
  for (const AttemptKey& key : keys) {
    const auto it = taken_.find(key);
    if (it == taken_.end()) continue;  // of a job that the journal has lost
    memory += it->second.claim.memory_bytes;
    disk += it->second.asked.disk_bytes;
    for (const auto& [name, milli] : it->second.asked.named) named[name] += milli;
    for (const std::string& uuid : it->second.claim.gpus) gpus[uuid].push_back(&it->second);
  }
  const auto too_much = [&](const std::string& of, uint64_t used, uint64_t all) {
    return broken(
        newest, fmt::format("{} on {} with {} {} in use of {}", what, worker.name, used, of, all));
  };
  if (last.claim.memory_bytes > 0 && memory > worker.memory_bytes) {
    return too_much("bytes of memory", memory, worker.memory_bytes);
  }
  if (last.asked.disk_bytes > 0 && disk > worker.disk_bytes) {
    return too_much("bytes of disk", disk, worker.disk_bytes);
  }
  for (const auto& [name, milli] : last.asked.named) {
    const uint64_t all = amount_of(worker.named, name);
    if (named[name] > all) return too_much("thousandths of " + name, named[name], all);
  }
  for (const Gpu& gpu : worker.gpus) {
    if (!has(last.claim, gpu.uuid)) continue;
    const std::string wrong = check_gpu(gpu, gpus[gpu.uuid]);
    if (!wrong.empty()) return broken(newest, fmt::format("{} on {}, {}", what, gpu.uuid, wrong));
  }
  return {};
}

std::string Amounts::check_gpu(const Gpu& gpu, const std::vector<const Taken*>& on_it) const {
  uint64_t bytes = 0;
  uint32_t share = 0;
  bool alone = !gpu.reports_memory;
  for (const Taken* one : on_it) {
    bytes += one->claim.gpu_memory_bytes;
    share += share_of(one->asked);
    alone = alone || one->claim.gpu_alone;
  }
  if (alone && on_it.size() > 1) {
    return fmt::format(
        "which has {} ranks, {}", on_it.size(),
        gpu.reports_memory ? "one of them for itself" : "and cannot tell them apart");
  }
  if (bytes > gpu.memory_bytes) {
    return fmt::format("with {} bytes given of {}", bytes, gpu.memory_bytes);
  }
  return share <= 1000 ? "" : fmt::format("of which {} thousandths are given", share);
}

std::string Amounts::check_gpus(const co::Record& record, TimeMs now) const {
  const auto* r = std::get_if<co::AttemptLeased>(&record);
  if (r == nullptr || leased_.contains(r->key)) return {};
  for (const std::string& uuid : r->claim.gpus) {
    const auto it = told_.find(uuid);
    if (it == told_.end() || now - it->second.since < slack_ms_) continue;
    const Gpu& gpu = it->second.gpu;
    if (!gpu.trouble.empty()) return broken(r->key, uuid + " is out of service, and is given away");
    if (gpu.taken_bytes + r->claim.gpu_memory_bytes > gpu.memory_bytes) {
      return broken(r->key, uuid + " has less memory left than it is given: others use it");
    }
  }
  return {};
}

std::string Amounts::starts(WorkerId worker, const AttemptKey& key,
                            const std::vector<AttemptKey>& running) const {
  const WorkerPlan& plan = *workers_.at(worker);
  if (!taken_.contains(key)) return {};
  std::vector<AttemptKey> all = running;
  all.push_back(key);
  return check_sum(plan, all, key, "is started");
}

}  // namespace pesc::sim
