// What a rank needs beside cpus, what of it a worker has left, and what is learned of programs.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "model/job_spec.h"
#include "model/outcome.h"
#include "model/resources.h"

namespace pesc::coordinator {

// What one rank of a job is placed by: what the job states, and for the rest what is known of its
// program.
struct Need {
  uint32_t cpus_milli = 1000;
  uint64_t memory_bytes = 0;    // 0: nobody knows
  bool memory_learned = false;  // not stated: a worker that has less gives all it has
  uint64_t disk_bytes = 0;
  uint32_t gpus = 0;             // devices
  uint32_t gpu_share_milli = 0;  // of one; 0: as much of its cores as it gets
  uint64_t gpu_memory_bytes = 0;
  bool gpu_memory_learned = false;
  bool gpu_alone = false;  // also while nobody knows how much memory it takes
  ComputeCapability min_compute_capability = 0;
  // Workers and GPUs that have less were too small, for the program or this very rank. Only as long
  // as there are larger ones: sizes.cc.
  uint64_t least_memory_bytes = 0, least_gpu_bytes = 0;
  NamedResources named;
  std::vector<WorkerId> not_on;  // sorted: where its program could not be built
  auto operator<=>(const Need&) const = default;
};

// What attempts use of one GPU.
struct GpuUse {
  uint64_t bytes = 0;
  uint32_t share_milli = 0;
  uint32_t ranks = 0;
  uint32_t alone = 0;  // of these: want no other beside them
  bool operator==(const GpuUse&) const = default;
};

// Of a worker, beside cpus; `gpus` go with its list of GPUs.
struct Use {
  uint64_t memory_bytes = 0, disk_bytes = 0;
  std::map<std::string, uint64_t> named;
  std::vector<GpuUse> gpus;
  bool operator==(const Use&) const = default;
};

// What a worker has, beside cpus. A view of its WorkerInfo.
struct Capacity {
  uint64_t memory_bytes = 0, disk_bytes = 0;
  const std::vector<Gpu>* gpus = nullptr;
  const NamedResources* named = nullptr;
};

inline bool may_be_on(WorkerId worker, const Need& need) {
  return !std::binary_search(need.not_on.begin(), need.not_on.end(), worker);
}

// What it would be given; nothing: there is no room. `reserved_memory` is not to be had.
std::optional<Claim> claim(const Capacity& has, const Use& use, const Need& need,
                           uint64_t reserved_memory);
// What the worker lacks for such a rank even when nothing else is there: "8 GiB of memory (has 4
// GiB)"; empty: nothing. Cpus are not looked at.
std::string lacks(const Capacity& has, const Need& need);
// Adds or takes back what an attempt was given. A GPU that the worker does not have any more counts
// nowhere.
void add_use(const Capacity& has, Use& use, const Claim& claim, const Resources& asked);
void drop_use(const Capacity& has, Use& use, const Claim& claim, const Resources& asked);
// More is used than there is.
bool is_over(const Capacity& has, const Use& use);
// What is wrong with it; empty: nothing. GPUs: more memory than it has, two where one is alone…
std::string check_use(const Capacity& has, const Use& use);

// "a GPU", "2 GPUs with 8 GiB each"
std::string gpus_text(uint64_t count, const Need& need);

// ---- what is learned ----------------------------------------------------------------------------

// The peaks of all attempts of one program with one list of arguments: another size of the same
// problem is another program.
struct Learned {
  uint64_t memory_bytes = 0, gpu_memory_bytes = 0;
  bool gpu_known = false;  // at least one attempt has run to its end and was measured
  // Of attempts that succeeded, the smallest peak, a little less. Not durable.
  uint64_t least_memory_bytes = 0, least_gpu_bytes = 0;
  bool memory_starved = false, gpu_starved = false;  // one had all there was, and it was too little
  uint64_t version = 1;                              // grows when what ranks are placed by changes
  uint64_t jobs = 0;                                 // that refer to it
};

inline bool is_starved(const Learned& learned) {
  return learned.memory_starved || learned.gpu_starved;
}

Digest program_key(const JobSpec& spec);

// With a margin, and in steps: so what a rank is placed by changes seldom, and then settles.
uint64_t estimate(uint64_t peak_bytes);

void learn(Learned& learned, const AttemptOutcome& outcome, const Claim& claim);

Need need_of(const JobSpec& spec, const Learned* learned);

// It was placed with nothing in particular, or with all that the worker has.
inline bool had_all_memory(const Claim& claim, uint64_t worker_memory) {
  return claim.memory_bytes == 0 || claim.memory_bytes >= worker_memory;
}

// What the worker is to hold the attempt to: what was stated, else twice what was learned.
uint64_t memory_limit(const JobSpec& spec, const Claim& claim, uint64_t worker_memory);
// On each of its GPUs what it was given, where others may be beside it; 0: none.
uint64_t gpu_memory_limit(const Claim& claim);

}  // namespace pesc::coordinator
