// Who this worker is: 64 random bits in its state directory, with the machine they were made on,
// so that a copied state directory (a cloned disk) is told apart.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "model/ids.h"

namespace pesc::worker {

struct Machine {
  std::string id;  // /etc/machine-id; may be empty
  std::string boot_id;
  std::string hostname;
};
Machine this_machine();

struct WorkerIdentity {
  WorkerId id;
  std::string clone_warning;  // empty, or what was found and done
};

// Reads DIR/identity.json (0600), or makes it. A file that was made on another machine is replaced:
// two workers with one id would throw each other out of the coordinator for ever.
absl::StatusOr<WorkerIdentity> load_or_create_worker_identity(const std::filesystem::path& dir,
                                                              const Machine& machine);

// What there is to give to ranks: the cores of this process's affinity mask, the machine's memory
// within the cgroup's limit.
uint32_t available_cpus_milli();
uint64_t available_memory_bytes();
uint64_t free_disk_bytes(const std::filesystem::path& directory);  // 0: not known

// What a configuration promises beyond that, in words. More cores are given all the same: some want
// several ranks on one.
std::vector<std::string> promised_too_much(uint32_t cpus_milli, uint64_t memory_bytes,
                                           uint64_t disk_bytes,
                                           const std::filesystem::path& directory);

}  // namespace pesc::worker
