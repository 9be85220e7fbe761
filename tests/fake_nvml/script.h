// What the fake driver is told to be: a text file, read again at each call, so that a test changes
// it while programs run. One statement per line, # begins a comment:
//
//   driver 535.129.03
//   gpu GPU-1 memory=12G [reserved=256M] [used=100M] [capability=8.6] [name=NVIDIA_RTX_3060]
//       [temperature=50] [utilization=7] [ecc=0] [mode=default|exclusive|prohibited]
//       [reports=yes|no|unsupported|hidden]   processes: with memory, without, not listed, empty
//       [pids=+1000]                          as another PID namespace sees them
//       [lost]                                has fallen off the bus
//   mig MIG-1 parent=GPU-1 memory=5G …        a part of one: the same words
//   process GPU-1 pid=123 bytes=100M [graphics]
//   xid GPU-1 79                              told to those who listen when it is added
//   fail nvmlDeviceGetMemoryInfo 999 [GPU-1]  that call answers so; a * ends a prefix
//   hang nvmlDeviceGetMemoryInfo /a/fifo      until somebody opens it for writing and closes it
//   down 9                                    nvmlInit_v2 answers so, and nothing else works
//   count 100000                              of GPUs, whatever there are
//   entry_bytes 32                            of processes, as the first drivers of R535 did
//   directory /path                           of the programs' memory; default: FILE.d
//
// `_` in a name stands for a space. Programs say what they use in DIRECTORY/UUID/PID; where ranks
// are another user's, DIRECTORY is made beforehand, with mode 777. Several workers on one machine
// share a script, and each is told its own GPUs (pesc-worker --gpus UUID).
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace fake_nvml {

struct Process {
  uint32_t pid = 0;
  uint64_t bytes = 0;
  bool graphics = false;
};

struct Gpu {
  std::string uuid, name = "Fake GPU", parent, reports = "yes", mode = "default";
  uint64_t memory = 0, reserved = 0, used = 0, ecc = 0;
  int major = 8, minor = 6;
  unsigned temperature = 40, utilization = 0;
  int64_t pid_offset = 0;
  bool lost = false;
  std::vector<Process> processes;  // the script's own
  std::vector<uint64_t> xids;
};

struct Failure {
  std::string call, uuid;
  int code = 999;
};

struct Script {
  std::string driver = "535.129.03", directory, error;
  std::vector<Gpu> gpus;  // MIG devices too
  std::vector<Failure> failures;
  std::map<std::string, std::string> hangs;  // call, fifo
  std::optional<int> down;
  std::optional<unsigned> count;
  unsigned entry_bytes = 24;

  const Gpu* find(const std::string& uuid) const;
  std::vector<const Gpu*> wholes() const;
  std::vector<const Gpu*> parts_of(const std::string& uuid) const;
};

Script read_script(const std::string& path);
std::optional<uint64_t> parse_size(const std::string& text);  // "1328M"

// Of the programs' directory; entries of processes that have ended are left out.
std::vector<Process> running_programs(const Script& script, const std::string& uuid);
uint64_t sum_of(const std::vector<Process>& processes);
uint64_t start_time(uint32_t pid);  // 0: there is no such process

}  // namespace fake_nvml
