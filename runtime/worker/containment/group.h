// The cgroup of one attempt: one directory in each hierarchy that does a part of the work.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "runtime/worker/containment/host.h"

namespace pesc::containment {

struct Limits {
  uint64_t memory_bytes = 0;  // 0: none
  uint32_t cpus_milli = 0;    // 0: none
  uint32_t processes = 0;     // threads count as well; 0: none
  bool idle = false;          // what is not idle goes before it
  bool operator==(const Limits&) const = default;
};

struct Usage {
  uint64_t cpu_us = 0;
  // The most memory at one time that was not a file's: a lower bound where files were read as well.
  uint64_t peak_bytes = 0;
  uint64_t oom_kills = 0;
};

// A directory in which groups are made, and what the hierarchy is used for.
struct Place {
  std::string directory;
  int version = 2;
  bool memory = false, cpu = false, processes = false, freeze = false, kill = false, usage = false;
};

class Group {
 public:
  Group(Host& host, const std::vector<Place>& places, const std::string& name);
  // False: one of the directories cannot be made (and then there is none).
  bool make();
  // False: one of them is not empty yet.
  bool remove();

  // For the next attempt: its limits, and its own figures from now on.
  void begin(const Limits& limits);
  // Writes the limits anew: somebody has taken their files away meanwhile.
  void renew();
  // Their files are gone.
  void lose_limits();

  // How a process gets in: as it is made (version 2; empty: no such), or by writing "0" to each of
  // the `tasks`, which it does itself: one that moves a thread of its own needs no lock of the
  // kernel's, where one that moves another process waits for all forks of the machine.
  const std::string& version2() const { return version2_; }
  const std::vector<std::string>& tasks() const { return tasks_; }
  // Version 1's cpu controller costs a short program a tenth of what it costs to run, so it is
  // entered late: the ids of its processes are written to this. Empty: there is nothing to enter.
  const std::string& late_procs() const { return late_procs_; }
  // Empty: there is no such.
  const std::string& freeze_file() const { return freeze_file_; }      // version 2: "1", "0"
  const std::string& freezer_state() const { return freezer_state_; }  // version 1
  const std::string& kill_file() const { return kill_file_; }          // "1"

  bool holds_memory() const { return holds_memory_; }
  // Its memory is counted, whether it has a limit or not.
  bool counts_memory() const {
    return memory_ != nullptr && !lost_ && (memory_->version == 2 || limits_.memory_bytes != 0);
  }
  bool kills_one_by_one() const { return memory_ != nullptr && memory_->version == 1; }
  bool holds_cpu() const { return cpu_ != nullptr && !lost_; }
  bool holds_processes() const { return holds_processes_; }
  // For a while another share than its limit.
  void set_cpus(uint32_t cpus_milli);
  const Limits& limits() const { return limits_; }

  uint64_t oom_kills();
  Usage usage();  // since begin()
  // Instead of that, for one too short to be worth the reading: so much was told by others.
  void pass_over(uint64_t cpu_us);
  // Its peak can be set back, so that the next attempt's is known whatever this one's was.
  bool measures_anew() const { return memory_ == nullptr || memory_->version == 1; }
  // Little of what was charged to it is left, so that another attempt may have it.
  bool is_clean();

 private:
  std::string path(const Place& place, const char* file) const;
  void write_memory();
  void write_cpus(uint32_t cpus_milli);
  void write_idle(bool idle);
  void write_weight(uint32_t cpus_milli);
  uint64_t total_oom_kills();
  uint64_t total_cpu_us();
  uint64_t peak_bytes();

  Host& host_;
  const std::vector<Place>& places_;
  std::string name_;
  const Place *memory_ = nullptr, *cpu_ = nullptr, *processes_ = nullptr, *usage_ = nullptr;
  std::string version2_, late_procs_, freeze_file_, freezer_state_, kill_file_;
  std::vector<std::string> tasks_;
  Limits limits_;
  // As they were written last; nothing: as the kernel makes them.
  std::optional<uint64_t> memory_written_;
  std::optional<uint32_t> cpus_written_, weight_written_, processes_written_;
  bool idle_written_ = false, used_ = false, lost_ = false;
  bool holds_memory_ = false, holds_processes_ = false;
  KeptFile kills_file_, peak_file_, current_file_;
  uint64_t oom_kills_before_ = 0, cpu_us_before_ = 0, peak_before_ = 0;
};

}  // namespace pesc::containment
