#include "runtime/worker/containment/group.h"

#include <errno.h>

#include <algorithm>

namespace pesc::containment {
namespace {

constexpr uint64_t kPeriodUs = 100'000;
constexpr uint64_t kLeastQuotaUs = 1'000;  // the kernel's
constexpr uint64_t kCleanBytes = 16 << 20;

const Place* find(const std::vector<Place>& places, bool Place::*what) {
  for (const Place& place : places) {
    if (place.*what) return &place;
  }
  return nullptr;
}

}  // namespace

Group::Group(Host& host, const std::vector<Place>& places, const std::string& name)
    : host_(host),
      places_(places),
      name_(name),
      memory_(find(places, &Place::memory)),
      cpu_(find(places, &Place::cpu)),
      processes_(find(places, &Place::processes)),
      usage_(find(places, &Place::usage)) {
  for (const Place& place : places) {
    if (place.version == 2) version2_ = place.directory + "/" + name;
    if (place.version == 1 && place.cpu) late_procs_ = path(place, "cgroup.procs");
    if (place.kill) kill_file_ = path(place, "cgroup.kill");
    if (!place.freeze) continue;
    (place.version == 2 ? freeze_file_ : freezer_state_) =
        path(place, place.version == 2 ? "cgroup.freeze" : "freezer.state");
  }
}

std::string Group::path(const Place& place, const char* file) const {
  return place.directory + "/" + name_ + "/" + file;
}

bool Group::make() {
  for (const Place& place : places_) {
    const int result = host_.make_directory(place.directory + "/" + name_);
    if (result == 0 || result == -EEXIST) continue;
    remove();
    return false;
  }
  if (memory_ != nullptr && memory_->version == 2) {
    // One that is killed for memory takes the others of its rank with it.
    host_.write(path(*memory_, "memory.oom.group"), "1");
  }
  return true;
}

bool Group::remove() {
  bool gone = true;
  for (const Place& place : places_) {
    const int result = host_.remove_directory(place.directory + "/" + name_);
    gone = gone && (result == 0 || result == -ENOENT);
  }
  return gone;
}

void Group::begin(const Limits& limits) {
  limits_ = limits;
  renew();
  tasks_.clear();
  for (const Place& place : places_) {
    // Each has its cost: those that bound nothing are left out.
    const bool needed = (place.memory && limits.memory_bytes != 0) ||
                        (place.processes && limits.processes != 0) || place.freeze;
    if (place.version == 1 && needed) tasks_.push_back(path(place, "tasks"));
  }
  if (used_ && counts_memory()) {
    if (memory_->version == 1)
      host_.write(peak_file_, path(*memory_, "memory.max_usage_in_bytes"), "0");
    if (memory_->version == 2) {
      std::string text;
      host_.read(peak_file_, path(*memory_, "memory.peak"), text);
      peak_before_ = number_in(text, "");
    }
  }
  used_ = true;
}

void Group::renew() {
  lost_ = false;
  if (memory_ != nullptr && memory_written_.value_or(0) != limits_.memory_bytes) write_memory();
  holds_memory_ = limits_.memory_bytes != 0 && memory_written_ == limits_.memory_bytes;
  if (cpu_ != nullptr) {
    write_cpus(limits_.cpus_milli);
    write_idle(limits_.idle);
    write_weight(limits_.cpus_milli);
  }
  if (processes_ != nullptr && processes_written_.value_or(0) != limits_.processes) {
    const std::string value = limits_.processes == 0 ? "max" : std::to_string(limits_.processes);
    if (host_.write(path(*processes_, "pids.max"), value) == 0) {
      processes_written_ = limits_.processes;
    }
  }
  holds_processes_ = limits_.processes != 0 && processes_written_ == limits_.processes;
}

void Group::lose_limits() {
  lost_ = true;
  memory_written_.reset();
  cpus_written_.reset();
  weight_written_.reset();
  processes_written_.reset();
  idle_written_ = holds_memory_ = holds_processes_ = false;
  oom_kills_before_ = 0;
}

void Group::write_memory() {
  const uint64_t bytes = limits_.memory_bytes;
  memory_written_.reset();
  if (memory_->version == 2) {
    host_.write(path(*memory_, "memory.swap.max"), bytes == 0 ? "max" : "0");
    const std::string value = bytes == 0 ? "max" : std::to_string(bytes);
    if (host_.write(path(*memory_, "memory.max"), value) == 0) memory_written_ = bytes;
    return;
  }
  // Memory and swap together may never be below memory: which goes first depends on the direction.
  const std::string value = bytes == 0 ? "-1" : std::to_string(bytes);
  const std::string limit = path(*memory_, "memory.limit_in_bytes");
  int set = host_.write(limit, value);
  const int both = host_.write(path(*memory_, "memory.memsw.limit_in_bytes"), value);
  if (set != 0) set = host_.write(limit, value);
  if (both == -ENOENT) host_.write(path(*memory_, "memory.swappiness"), bytes == 0 ? "60" : "0");
  if (set == 0) memory_written_ = bytes;
}

void Group::set_cpus(uint32_t cpus_milli) {
  if (holds_cpu()) write_cpus(cpus_milli);
}

void Group::write_cpus(uint32_t cpus_milli) {
  if (cpus_written_.value_or(0) == cpus_milli) return;
  const std::string quota = std::to_string(std::max(cpus_milli * kPeriodUs / 1000, kLeastQuotaUs));
  const int result =
      cpu_->version == 2
          ? host_.write(path(*cpu_, "cpu.max"),
                        (cpus_milli == 0 ? "max" : quota) + " " + std::to_string(kPeriodUs))
          : host_.write(path(*cpu_, "cpu.cfs_quota_us"), cpus_milli == 0 ? "-1" : quota);
  if (result == 0) cpus_written_ = cpus_milli;
}

// A group's own weight counts towards its neighbours, whatever the class of what is in it.
void Group::write_idle(bool idle) {
  if (idle_written_ == idle) return;
  idle_written_ = idle;
  weight_written_.reset();  // the kernel sets it back
  if (host_.write(path(*cpu_, "cpu.idle"), idle ? "1" : "0") == 0) return;
  // Before Linux 5.15: the least weight.
  if (cpu_->version == 2) host_.write(path(*cpu_, "cpu.weight"), idle ? "1" : "100");
  if (cpu_->version == 1) host_.write(path(*cpu_, "cpu.shares"), idle ? "2" : "1024");
}

// Where there is too little for all, each has its part.
void Group::write_weight(uint32_t cpus_milli) {
  constexpr uint32_t kCpu = 1000, kLeast = 10, kMost = 64 * kCpu;
  const uint32_t cpus = cpus_milli == 0 ? kCpu : std::clamp(cpus_milli, kLeast, kMost);
  if (limits_.idle || weight_written_.value_or(kCpu) == cpus) return;
  weight_written_ = cpus;
  const bool two = cpu_->version == 2;
  host_.write(path(*cpu_, two ? "cpu.weight" : "cpu.shares"),
              std::to_string(two ? cpus / 10 : cpus * 1024 / kCpu));
}

uint64_t Group::total_oom_kills() {
  if (!counts_memory()) return oom_kills_before_;
  std::string text;
  const char* file = memory_->version == 2 ? "memory.events" : "memory.oom_control";
  host_.read(kills_file_, path(*memory_, file), text);
  return std::max(number_in(text, "oom_kill"), oom_kills_before_);
}

uint64_t Group::total_cpu_us() {
  if (usage_ == nullptr) return cpu_us_before_;
  std::string text;
  if (usage_->version == 2) {
    host_.read(path(*usage_, "cpu.stat"), text);
    return std::max(number_in(text, "usage_usec"), cpu_us_before_);
  }
  host_.read(path(*usage_, "cpuacct.usage"), text);
  return std::max(number_in(text, "") / 1000, cpu_us_before_);
}

// The kernel's figure has what it keeps of files, too, which it would give back when memory is
// wanted. What is left of them at the end was there at most when it was highest.
uint64_t Group::peak_bytes() {
  if (!counts_memory()) return 0;
  std::string peak_text, text;
  const bool two = memory_->version == 2;
  host_.read(path(*memory_, two ? "memory.peak" : "memory.max_usage_in_bytes"), peak_text);
  host_.read(path(*memory_, "memory.stat"), text);
  const uint64_t peak = number_in(peak_text, "");
  if (peak <= peak_before_) return 0;  // a former attempt's
  const uint64_t files = number_in(text, two ? "file" : "total_cache");
  const uint64_t in_memory = number_in(text, two ? "shmem" : "total_shmem");
  return peak - std::min(peak, files - std::min(files, in_memory));
}

uint64_t Group::oom_kills() { return total_oom_kills() - oom_kills_before_; }

Usage Group::usage() {
  const uint64_t kills = total_oom_kills(), cpu_us = total_cpu_us();
  Usage result{cpu_us - cpu_us_before_, peak_bytes(), kills - oom_kills_before_};
  oom_kills_before_ = kills;
  cpu_us_before_ = cpu_us;
  return result;
}

void Group::pass_over(uint64_t cpu_us) {
  oom_kills_before_ = total_oom_kills();
  cpu_us_before_ += cpu_us;
}

bool Group::is_clean() {
  if (!counts_memory()) return true;
  std::string text;
  const char* file = memory_->version == 2 ? "memory.current" : "memory.usage_in_bytes";
  return host_.read(current_file_, path(*memory_, file), text) == 0 &&
         number_in(text, "") <= kCleanBytes;
}

}  // namespace pesc::containment
