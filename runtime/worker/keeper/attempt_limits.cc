// What an attempt may use: by its cgroup, and where that does not hold it by looking at it.
// First, as in the keeper's other files: what Asio allocates with depends on what came before it.
// clang-format off
#include "runtime/worker/keeper/attempt.h"
// clang-format on

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <span>

namespace pesc::keeper {
namespace {

using std::chrono::milliseconds;

// The directories of a cgroup cost more to make than a short program costs to run. Where the peak
// of one attempt hides that of the next, what ran for longer gets new ones.
constexpr milliseconds kShort{1'000};
// What was shorter is measured by what was reaped.
constexpr milliseconds kMeasured{50};
// One user's processes count together, whatever rank they are of.
constexpr uint64_t kMaxUserProcesses = 16'384;

pid_t* scratch_pids() {
  static pid_t pids[kTreeCapacity];
  return pids;
}

std::string in_words(uint64_t bytes) {
  constexpr uint64_t kMiB = 1 << 20, kGiB = 1 << 30;
  char text[32];
  if (bytes >= kGiB) {
    snprintf(text, sizeof(text), "%.1f GiB", static_cast<double>(bytes) / kGiB);
  } else {
    snprintf(text, sizeof(text), "%.1f MiB", static_cast<double>(bytes) / kMiB);
  }
  return text;
}

// A small file of /proc, whole; empty when it cannot be read.
std::string read_small(const char* path) {
  const int file = ::open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) return {};
  char buffer[4096];
  const ssize_t size = ::read(file, buffer, sizeof(buffer));
  ::close(file);
  return {buffer, size > 0 ? static_cast<size_t>(size) : 0};
}

void write_text(const std::string& path, const std::string& text) {
  const int file = ::open(path.c_str(), O_WRONLY | O_CLOEXEC);
  if (file < 0) return;
  [[maybe_unused]] const ssize_t written = ::write(file, text.data(), text.size());
  ::close(file);
}

struct Resident {
  uint64_t all = 0;  // with what it maps of files, and what it shares counted whole
  uint64_t own = 0;
};

Resident resident(pid_t pid) {
  char path[64];
  snprintf(path, sizeof(path), "/proc/%d/statm", pid);
  unsigned long size = 0, pages = 0, shared = 0;
  if (sscanf(read_small(path).c_str(), "%lu %lu %lu", &size, &pages, &shared) < 3) return {};
  static const auto kPage = static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  return {pages * kPage, (pages - std::min(pages, shared)) * kPage};
}

// What it has of its own and its part of what it shares, without files. The kernel looks at each of
// its pages for that.
uint64_t fair_bytes(pid_t pid) {
  char path[64];
  snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", pid);
  const std::string text = read_small(path);
  uint64_t bytes = 0;
  bool found = false;
  for (const char* name : {"\nPss_Anon:", "\nPss_Shmem:"}) {
    const size_t at = text.find(name);
    if (at == text.npos) continue;
    found = true;
    bytes += ::strtoull(text.c_str() + at + strlen(name), nullptr, 10) * 1024;
  }
  return found ? bytes : resident(pid).own;
}

}  // namespace

void Attempt::enter_containment() {
  containment::Limits limits = limits_;
  // A bound that cannot be reached costs all the same.
  if (limits.cpus_milli >= around_.cpus_milli) limits_.cpus_milli = limits.cpus_milli = 0;
  if (around_.containment) group_ = around_.containment->take(limits);
  plan_->enter(group_);
  if (group_ == nullptr || !group_->holds_cpu()) {
    cores_ = around_.cores.take(limits.cpus_milli);
    plan_->bind_to(cores_);
  }
  LaunchPlan& plan = plan_->plan;
  const bool others = plan.run_as && plan.uid != 0 && plan.uid != ::geteuid();
  if (others && limits.processes != 0 && (group_ == nullptr || !group_->holds_processes())) {
    plan.process_limit = std::max<uint64_t>(
        limits.processes,
        std::min(uint64_t{limits.processes} * (around_.cpus_milli / 1000), kMaxUserProcesses));
  }
}

// What they start from then on is in it as well; what they start meanwhile is found by another
// look.
void Attempt::enter_late() {
  if (entered_late_ || !contained() || group_->late_procs().empty()) return;
  entered_late_ = true;
  constexpr int kLooks = 4;
  std::vector<pid_t> entered;
  for (int look = 0; look < kLooks; ++look) {
    const long count = collect_tree(shim_, scratch_pids(), kTreeCapacity);
    const size_t before = entered.size();
    for (const pid_t pid : std::span(scratch_pids(), static_cast<size_t>(count))) {
      if (std::find(entered.begin(), entered.end(), pid) != entered.end()) continue;
      entered.push_back(pid);
      write_text(group_->late_procs(), std::to_string(pid));
    }
    if (entered.size() == before) return;
  }
}

void Attempt::leave_containment(bool clean) {
  around_.cores.give_back(cores_, limits_.cpus_milli);
  cores_.clear();
  if (group_ == nullptr) return;
  if (!clean && !group_->kill_file().empty()) {
    write_text(group_->kill_file(), "1");  // nobody else ends what has been left in it
  }
  const bool measurable = elapsed() < kShort || group_->measures_anew();
  const bool reuse = clean && (slot_ == nullptr || contained()) && measurable;
  around_.containment->give_back(group_, reuse);
  group_ = nullptr;
}

bool Attempt::contained() const {
  return group_ != nullptr && slot_ != nullptr && slot_->report.contained != 0;
}

bool Attempt::memory_is_held() const { return contained() && group_->holds_memory(); }

bool Attempt::may_multiply() const {
  return limits_.processes != 0 && !(contained() && group_->holds_processes());
}

Attempt::Watch Attempt::watch_needed() const {
  if (state_ != State::running || !is_up() || stop_reason_) return Watch::not_needed;
  if (limits_.memory_bytes == 0) {
    return contained() && group_->counts_memory() ? Watch::not_needed : Watch::now_and_then;
  }
  if (!memory_is_held()) return Watch::often;
  return group_->kills_one_by_one() ? Watch::often : Watch::not_needed;
}

void Attempt::look_at_usage() {
  if (memory_is_held()) {
    // Version 1 ends one process of the rank; without it the others may wait for ever.
    if (group_->oom_kills() == 0) return;
    return stop(EndReason::out_of_memory,
                "the kernel killed a process of it: it needed more than its memory limit of " +
                    in_words(limits_.memory_bytes),
                milliseconds(0));
  }
  pid_t* pids = scratch_pids();
  const long count = collect_tree(shim_, pids, kTreeCapacity);
  if (may_multiply() && static_cast<uint64_t>(count) > limits_.processes) {
    return stop(EndReason::signal,
                "ended: it had more than " + std::to_string(limits_.processes) + " processes",
                milliseconds(0));
  }
  uint64_t bytes = 0, at_most = 0;
  for (long i = 0; i < count; ++i) {
    const Resident of_one = resident(pids[i]);
    bytes += of_one.own;
    at_most += of_one.all;
  }
  if (limits_.memory_bytes != 0 && at_most > limits_.memory_bytes) {
    bytes = 0;
    for (long i = 0; i < count; ++i) bytes += fair_bytes(pids[i]);
  }
  sampled_peak_bytes_ = std::max(sampled_peak_bytes_, bytes);
  if (limits_.memory_bytes == 0 || bytes <= limits_.memory_bytes) return;
  stop(EndReason::out_of_memory,
       "ended: it used " + in_words(bytes) + " of memory, more than its limit of " +
           in_words(limits_.memory_bytes),
       milliseconds(0));
}

void Attempt::measure() {
  const Report& report = slot_->report;
  end_.survivors = report.survivors;
  end_.written_bytes = report.written_bytes;
  end_.max_rss_bytes = std::max(report.max_rss_bytes, sampled_peak_bytes_);
  uint64_t cpu_us = report.cpu_us;
  if (contained() && (elapsed() >= kMeasured || report.wait_status != 0)) {
    const containment::Usage usage = group_->usage();
    cpu_us = std::max(cpu_us, usage.cpu_us);
    end_.max_rss_bytes = std::max(end_.max_rss_bytes, usage.peak_bytes);
    oom_kills_ = usage.oom_kills;
  } else if (contained()) {
    group_->pass_over(cpu_us);
  }
  end_.cpu_ms = cpu_us / 1000;
}

// Of a failure that nobody asked for. `killed`: by a SIGKILL, which only the kernel or a person
// sends.
void Attempt::blame_memory(bool killed) {
  if (stop_reason_) return;
  if (oom_kills_ > 0) {
    end_.reason = EndReason::out_of_memory;
    end_.detail = limits_.memory_bytes == 0
                      ? "the kernel killed it for want of memory"
                      : "the kernel killed it: it needed more than its memory limit of " +
                            in_words(limits_.memory_bytes);
    end_.detail += " (it had " + in_words(end_.max_rss_bytes) + ")";
  } else if (killed && around_.oom.killed_lately()) {
    end_.reason = EndReason::out_of_memory;
    end_.detail = "killed, probably because the machine ran out of memory";
  }
}

}  // namespace pesc::keeper
