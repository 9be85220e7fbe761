#include "runtime/coordinator/core/resources.h"

#include <algorithm>
#include <bit>
#include <utility>

namespace pesc::coordinator {
namespace {

constexpr uint64_t kLeastLimit = 256ull << 20;  // above what was learned: small programs vary most

uint64_t named_of(const NamedResources& named, const std::string& name) {
  const auto it = std::lower_bound(named.begin(), named.end(), name,
                                   [](const auto& a, const std::string& b) { return a.first < b; });
  return it != named.end() && it->first == name ? it->second : 0;
}

bool fits_named(const Capacity& has, const Use& use, const NamedResources& need) {
  for (const auto& [name, milli] : need) {
    const auto used = use.named.find(name);
    const uint64_t taken = used == use.named.end() ? 0 : used->second;
    const uint64_t all = named_of(*has.named, name);
    if (taken > all || milli > all - taken) return false;
  }
  return true;
}

// What was learned asks for no more than there can be: of a GPU whose driver, or the screen of the
// machine's owner, always keeps a little, never for the whole.
uint64_t most_learned(const Gpu& gpu) {
  return gpu.memory_bytes - std::min(gpu.taken_bytes, gpu.memory_bytes / 8);
}

// There is room for one rank; `alone`: for it and nothing else.
bool fits_gpu(const Gpu& gpu, const GpuUse& use, const Need& need, bool alone) {
  if (!gpu.trouble.empty() || gpu.compute_capability < need.min_compute_capability) return false;
  if (use.alone > 0 || (alone && use.ranks > 0)) return false;
  if (gpu.memory_bytes < need.least_gpu_bytes) return false;
  if (use.share_milli + need.gpu_share_milli > 1000) return false;
  uint64_t bytes = need.gpu_memory_bytes;
  if (need.gpu_memory_learned) bytes = std::min(bytes, most_learned(gpu));
  const uint64_t taken = use.bytes + gpu.taken_bytes;
  return taken <= gpu.memory_bytes && bytes <= gpu.memory_bytes - taken;
}

// Those with the most memory left first, so that what grows has room.
bool choose_gpus(const Capacity& has, const Use& use, const Need& need, bool alone, Claim& claim) {
  std::vector<std::pair<int64_t, size_t>> fitting;
  for (size_t i = 0; i < has.gpus->size(); ++i) {
    const Gpu& gpu = (*has.gpus)[i];
    if (!alone && !gpu.reports_memory) continue;
    if (!fits_gpu(gpu, use.gpus[i], need, alone)) continue;
    const int64_t left = int64_t(gpu.memory_bytes) - int64_t(gpu.taken_bytes + use.gpus[i].bytes);
    fitting.emplace_back(-left, i);
  }
  if (fitting.size() < need.gpus) return false;
  std::sort(fitting.begin(), fitting.end());
  claim.gpu_alone = alone;
  claim.gpu_memory_bytes = need.gpu_memory_bytes;
  for (uint32_t i = 0; i < need.gpus; ++i) {
    const Gpu& gpu = (*has.gpus)[fitting[i].second];
    claim.gpus.push_back(gpu.uuid);
    if (need.gpu_memory_learned) {
      claim.gpu_memory_bytes = std::min(claim.gpu_memory_bytes, most_learned(gpu));
    }
  }
  return true;
}

// Where the driver does not tell who uses what, nobody could say whose fault a full GPU is: such a
// one is for one rank at a time, and comes after those that can be shared.
bool claim_gpus(const Capacity& has, const Use& use, const Need& need, Claim& claim) {
  return (!need.gpu_alone && choose_gpus(has, use, need, false, claim)) ||
         choose_gpus(has, use, need, true, claim);
}

uint32_t share_of(const Resources& asked) { return asked.gpus_milli < 1000 ? asked.gpus_milli : 0; }

template <typename Change>
void change_gpus(const Capacity& has, Use& use, const Claim& claim, Change change) {
  for (size_t i = 0; i < has.gpus->size() && !claim.gpus.empty(); ++i) {
    const std::string& uuid = (*has.gpus)[i].uuid;
    if (std::find(claim.gpus.begin(), claim.gpus.end(), uuid) != claim.gpus.end()) {
      change(use.gpus[i]);
    }
  }
}

// For people: "no GPU", "GPU-1 (A4000, 8.6, 15.7 GiB, 2 GiB of it taken by others)…"
std::string gpus_there(const Capacity& has) {
  constexpr size_t kMaxNamed = 4;
  std::string text;
  for (size_t i = 0; i < has.gpus->size(); ++i) {
    const Gpu& gpu = (*has.gpus)[i];
    if (i == kMaxNamed) {
      return text + " and " + std::to_string(has.gpus->size() - i) + " more";
    }
    text += (i == 0 ? "" : ", ") + gpu.name + " with " + format_bytes(gpu.memory_bytes) + " and " +
            format_compute_capability(gpu.compute_capability);
    if (gpu.taken_bytes > 0) {
      text += ", " + format_bytes(gpu.taken_bytes) + " of it taken by others";
    }
    if (!gpu.trouble.empty()) text += ", out of service: " + gpu.trouble;
  }
  return text.empty() ? "none" : text;
}

// In steps: what ranks are placed by changes seldom.
bool lower(uint64_t& least, uint64_t seen) {
  const uint64_t step = std::max<uint64_t>(std::bit_floor(seen) / 8, 1);
  const uint64_t rounded = seen - seen % step;
  if (rounded == 0 || (least != 0 && rounded >= least)) return false;
  least = rounded;
  return true;
}

bool raise(uint64_t& peak, uint64_t seen) {
  const uint64_t before = estimate(peak);
  peak = std::max(peak, seen);
  return estimate(peak) != before;
}

}  // namespace

std::optional<Claim> claim(const Capacity& has, const Use& use, const Need& need,
                           uint64_t reserved_memory) {
  Claim claim;
  if (has.memory_bytes < need.least_memory_bytes) return std::nullopt;
  claim.memory_bytes = need.memory_bytes;
  if (need.memory_learned) claim.memory_bytes = std::min(need.memory_bytes, has.memory_bytes);
  const uint64_t taken = use.memory_bytes + reserved_memory;
  if (claim.memory_bytes > 0 &&
      (taken > has.memory_bytes || claim.memory_bytes > has.memory_bytes - taken)) {
    return std::nullopt;
  }
  if (need.disk_bytes > 0 &&
      (use.disk_bytes > has.disk_bytes || need.disk_bytes > has.disk_bytes - use.disk_bytes)) {
    return std::nullopt;
  }
  if (!fits_named(has, use, need.named)) return std::nullopt;
  if (need.gpus > 0 && !claim_gpus(has, use, need, claim)) return std::nullopt;
  return claim;
}

std::string lacks(const Capacity& has, const Need& need) {
  Use nothing;
  nothing.gpus.resize(has.gpus->size());
  if (!need.memory_learned && need.memory_bytes > has.memory_bytes) {
    return format_bytes(need.memory_bytes) + " of memory (has " + format_bytes(has.memory_bytes) +
           ")";
  }
  if (need.least_memory_bytes > has.memory_bytes) {
    return "more memory (has " + format_bytes(has.memory_bytes) + ", which was too little before)";
  }
  if (need.disk_bytes > has.disk_bytes) {
    return format_bytes(need.disk_bytes) + " of disk (has " + format_bytes(has.disk_bytes) + ")";
  }
  for (const auto& [name, milli] : need.named) {
    const uint64_t all = named_of(*has.named, name);
    if (milli > all) {
      return format_milli(milli) + " of " + name + " (has " + format_milli(all) + ")";
    }
  }
  Claim unused;
  if (need.gpus == 0 || claim_gpus(has, nothing, need, unused)) return "";
  return gpus_text(need.gpus, need) + " (has " + gpus_there(has) + ")";
}

std::string gpus_text(uint64_t count, const Need& need) {
  std::string text = count == 1 ? "a GPU" : std::to_string(count) + " GPUs";
  std::string with;
  if (need.gpu_memory_bytes > 0) with = format_bytes(need.gpu_memory_bytes) + " free";
  if (need.min_compute_capability > 0) {
    with += (with.empty() ? "" : " and ") + std::string("compute capability ") +
            format_compute_capability(need.min_compute_capability);
  }
  return with.empty() ? text : text + " with " + with + (count == 1 ? "" : " each");
}

void add_use(const Capacity& has, Use& use, const Claim& claim, const Resources& asked) {
  use.memory_bytes += claim.memory_bytes;
  use.disk_bytes += asked.disk_bytes;
  for (const auto& [name, milli] : asked.named) use.named[name] += milli;
  change_gpus(has, use, claim, [&](GpuUse& gpu) {
    gpu.bytes += claim.gpu_memory_bytes;
    gpu.share_milli += share_of(asked);
    gpu.alone += claim.gpu_alone;
    ++gpu.ranks;
  });
}

void drop_use(const Capacity& has, Use& use, const Claim& claim, const Resources& asked) {
  use.memory_bytes -= claim.memory_bytes;
  use.disk_bytes -= asked.disk_bytes;
  for (const auto& [name, milli] : asked.named) {
    const auto it = use.named.find(name);
    if ((it->second -= milli) == 0) use.named.erase(it);
  }
  change_gpus(has, use, claim, [&](GpuUse& gpu) {
    gpu.bytes -= claim.gpu_memory_bytes;
    gpu.share_milli -= share_of(asked);
    gpu.alone -= claim.gpu_alone;
    --gpu.ranks;
  });
}

bool is_over(const Capacity& has, const Use& use) { return !check_use(has, use).empty(); }

std::string check_use(const Capacity& has, const Use& use) {
  if (use.memory_bytes > has.memory_bytes) return "was given more memory than it has";
  if (use.disk_bytes > has.disk_bytes) return "was given more disk than it has";
  for (const auto& [name, milli] : use.named) {
    if (milli > named_of(*has.named, name)) return "was given more " + name + " than it has";
  }
  for (size_t i = 0; i < use.gpus.size(); ++i) {
    const GpuUse& gpu = use.gpus[i];
    const std::string name = "GPU " + (*has.gpus)[i].uuid;
    if (gpu.bytes > (*has.gpus)[i].memory_bytes) return name + " was given more than its memory";
    if (gpu.share_milli > 1000) return name + " was given more than once over";
    if (gpu.alone > 0 && gpu.ranks > 1) return name + " is not left alone";
  }
  return "";
}

// The program's own bytes, or its name where it does not travel; and what it is told.
Digest program_key(const JobSpec& spec) {
  std::string key = spec.program;
  const auto add_file = [&](std::string_view name) {
    if (name.starts_with("./")) name.remove_prefix(2);
    for (const FileRef& file : spec.files) {
      if (file.path == name && file.kind != FileKind::directory) key += to_hex(file.blob.digest);
    }
  };
  add_file(spec.program);
  for (const std::string& argument : spec.arguments) {
    key += '\0';
    key += argument;
    add_file(argument);
  }
  if (spec.build.empty()) return sha256(key);
  key += '\0';
  key += spec.build;
  for (const FileRef& file : spec.files) key += file.path + to_hex(file.blob.digest);
  return sha256(key);
}

// A quarter more, rounded up to an eighth of its power of two.
uint64_t estimate(uint64_t peak_bytes) {
  if (peak_bytes == 0) return 0;
  const uint64_t wanted = std::max<uint64_t>(peak_bytes + peak_bytes / 4, 1 << 20);
  const uint64_t step = std::bit_floor(wanted) / 8;
  return (wanted + step - 1) / step * step;
}

void learn(Learned& learned, const AttemptOutcome& outcome, const Claim& claim) {
  uint64_t memory = outcome.max_rss_bytes, gpu = outcome.peak_gpu_bytes;
  // It would have used more: nobody knows how much. Of a GPU it was ended for what was measured.
  const uint64_t gpu_limit = gpu_memory_limit(claim);
  const bool of_gpu = gpu_limit > 0 && outcome.peak_gpu_bytes > gpu_limit;
  if (outcome.reason == EndReason::outgrew_estimate && !of_gpu) {
    memory = std::max(memory, 2 * claim.memory_bytes);
  }
  if (outcome.reason == EndReason::gpu_out_of_memory && !claim.gpu_alone) {
    gpu = std::max(gpu, claim.gpu_memory_bytes + claim.gpu_memory_bytes / 4);
  }
  const bool well = outcome.reason == EndReason::succeeded;
  if (well && lower(learned.least_memory_bytes, outcome.max_rss_bytes) && learned.memory_starved) {
    ++learned.version;
  }
  if (well && lower(learned.least_gpu_bytes, outcome.peak_gpu_bytes) && learned.gpu_starved) {
    ++learned.version;
  }
  bool changed = raise(learned.memory_bytes, memory);
  changed = raise(learned.gpu_memory_bytes, gpu) || changed;
  const bool measured = outcome.reason == EndReason::succeeded && outcome.peak_gpu_bytes > 0;
  if (measured && !learned.gpu_known) learned.gpu_known = changed = true;
  if (changed) ++learned.version;
}

Need need_of(const JobSpec& spec, const Learned* learned) {
  const Resources& asked = spec.resources;
  Need need;
  need.cpus_milli = asked.cpus_milli == 0 ? 1000 : asked.cpus_milli;
  need.disk_bytes = asked.disk_bytes;
  need.named = asked.named;
  need.memory_bytes = asked.memory_bytes;
  // Not of a gang: one that has run would never fit again if an estimate was too high for all of
  // it.
  if (asked.memory_bytes == 0 && !spec.parallel && learned != nullptr &&
      learned->memory_bytes > 0) {
    need.memory_bytes = estimate(learned->memory_bytes);
    need.memory_learned = true;
  }
  if (asked.memory_bytes == 0 && !spec.parallel && learned != nullptr && learned->memory_starved) {
    need.least_memory_bytes = learned->least_memory_bytes;
  }
  if (asked.gpus_milli == 0) return need;
  need.gpus = std::max<uint32_t>(asked.gpus_milli / 1000, 1);
  need.gpu_share_milli = share_of(asked);
  need.min_compute_capability = asked.min_compute_capability;
  need.gpu_alone = asked.gpu_exclusive;
  need.gpu_memory_bytes = asked.gpu_memory_bytes;
  if (asked.gpu_memory_bytes == 0 && learned != nullptr && learned->gpu_memory_bytes > 0) {
    need.gpu_memory_bytes = estimate(learned->gpu_memory_bytes);
    need.gpu_memory_learned = true;
  }
  if (asked.gpu_memory_bytes == 0 && !spec.parallel && learned != nullptr && learned->gpu_starved) {
    need.least_gpu_bytes = learned->least_gpu_bytes;
  }
  if (asked.gpu_memory_bytes == 0 && (learned == nullptr || !learned->gpu_known)) {
    need.gpu_alone = true;
  }
  return need;
}

// What is learned has a margin already, and nobody can take more of a GPU than there is.
uint64_t gpu_memory_limit(const Claim& claim) {
  return claim.gpus.empty() || claim.gpu_alone ? 0 : claim.gpu_memory_bytes;
}

uint64_t memory_limit(const JobSpec& spec, const Claim& claim, uint64_t worker_memory) {
  if (spec.resources.memory_bytes > 0) return spec.resources.memory_bytes;
  if (claim.memory_bytes == 0) return worker_memory;
  const uint64_t more = std::max(claim.memory_bytes, kLeastLimit);
  return std::min(claim.memory_bytes + more, worker_memory);
}

}  // namespace pesc::coordinator
