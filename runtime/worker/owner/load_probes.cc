// How busy the machine is, and with what.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdio>

#include "runtime/worker/owner/probes.h"
#include "runtime/worker/owner/read_text.h"

namespace pesc::worker::owner {
namespace {

constexpr size_t kMostProcesses = 20'000;  // of a tree: a fork bomb must not stop the worker

std::string_view next_word(std::string_view& text) {
  const size_t begin = std::min(text.find_first_not_of(' '), text.size());
  const size_t end = std::min(text.find(' ', begin), text.size());
  const std::string_view word = text.substr(begin, end - begin);
  text.remove_prefix(end);
  return word;
}

std::optional<uint64_t> number_of(std::string_view word) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
  if (error != std::errc() || end != word.data() + word.size()) return std::nullopt;
  return value;
}

// Of "MemTotal:       16318412 kB".
std::optional<uint64_t> meminfo_value(std::string_view text, std::string_view key) {
  const size_t at = text.find(key);
  if (at == text.npos || (at > 0 && text[at - 1] != '\n')) return std::nullopt;
  std::string_view rest = text.substr(at + key.size());
  return number_of(next_word(rest));
}

// utime, stime, cutime and cstime of /proc/PID/stat; the name in brackets may have anything in it.
uint64_t ticks_of(std::string_view stat) {
  const size_t bracket = stat.rfind(')');
  if (bracket == stat.npos) return 0;
  std::string_view rest = stat.substr(bracket + 1);
  for (int field = 3; field < 14; ++field) next_word(rest);
  uint64_t ticks = 0;
  for (int field = 14; field < 18; ++field) ticks += number_of(next_word(rest)).value_or(0);
  return ticks;
}

// Of "SIZE RESIDENT SHARED …", in pages: without files, and without what it shares.
uint64_t own_bytes_of(pid_t pid) {
  char path[64];
  std::snprintf(path, sizeof path, "/proc/%d/statm", pid);
  const auto text = read_text(path);
  if (!text) return 0;
  std::string_view rest = *text;
  next_word(rest);
  const uint64_t resident = number_of(next_word(rest)).value_or(0);
  const uint64_t shared = number_of(next_word(rest)).value_or(0);
  static const auto kPage = static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  return (resident - std::min(resident, shared)) * kPage;
}

template <typename Each>
uint64_t walk_tree(pid_t root, size_t& looked_at, Each each) {
  std::vector<pid_t> pids = {root};
  uint64_t ticks = 0;
  char path[64];
  // Children of threads other than the first are missed where the keeper's tree has such: a
  // program's threads that fork. Those count as others' until they are waited for.
  for (size_t i = 0; i < pids.size() && pids.size() < kMostProcesses; ++i) {
    std::snprintf(path, sizeof path, "/proc/%d/stat", pids[i]);
    const auto stat = read_text(path);
    if (!stat) continue;
    each(pids[i]);
    ticks += ticks_of(*stat);
    std::snprintf(path, sizeof path, "/proc/%d/task/%d/children", pids[i], pids[i]);
    const auto children = read_text(path);
    if (!children) continue;
    for (std::string_view rest = *children;;) {
      const auto pid = number_of(next_word(rest));
      if (!pid) break;
      pids.push_back(static_cast<pid_t>(*pid));
    }
  }
  looked_at = pids.size();
  return ticks;
}

}  // namespace

std::optional<CpuTicks> parse_cpu(std::string_view text) {
  if (!text.starts_with("cpu ")) return std::nullopt;
  std::string_view line = text.substr(4, text.find('\n') - 4);
  CpuTicks ticks;
  // user nice system idle iowait irq softirq steal; guest is in user already. Waiting for a disk is
  // idle, and what another virtual machine took was nobody's here.
  for (int field = 0; field < 8; ++field) {
    const auto value = number_of(next_word(line));
    if (!value) {
      if (field < 4) return std::nullopt;
      break;
    }
    ticks.total += *value;
    if (field != 3 && field != 4 && field != 7) ticks.busy += *value;
  }
  return ticks;
}

std::optional<double> parse_memory_percent(std::string_view text) {
  const auto total = meminfo_value(text, "MemTotal:"), free = meminfo_value(text, "MemAvailable:");
  if (!total || !free || *total == 0 || *free > *total) return std::nullopt;
  return 100.0 * static_cast<double>(*total - *free) / static_cast<double>(*total);
}

std::optional<double> memory_percent(const std::filesystem::path& root) {
  const auto text = read_text(root / "proc/meminfo");
  return text ? parse_memory_percent(*text) : std::nullopt;
}

uint64_t own_cpu_ticks() {
  const auto stat = read_text("/proc/self/stat");
  return stat ? ticks_of(*stat) : 0;
}

TreeUse tree_use(pid_t root) {
  TreeUse use;
  size_t looked_at = 0;
  use.cpu_ticks = walk_tree(root, looked_at, [&](pid_t pid) {
    if (pid != root) use.own_bytes += own_bytes_of(pid);
  });
  return use;
}

uint64_t tree_cpu_ticks(pid_t root, size_t* looked_at) {
  size_t looked = 0;
  const uint64_t ticks = walk_tree(root, looked, [](pid_t) {});
  if (looked_at != nullptr) *looked_at = looked;
  return ticks;
}

void CpuProbe::read(uint64_t own, std::optional<double>& all, std::optional<double>& others) {
  const auto text = read_text(root_ / "proc/stat");
  const auto ticks = text ? parse_cpu(*text) : std::nullopt;
  if (!ticks) return;
  const auto last = std::exchange(last_, ticks);
  const uint64_t last_own = std::exchange(last_own_, own);
  // The kernel's counters can go back by a tick or two.
  if (!last || ticks->total <= last->total || ticks->busy < last->busy) return;
  const double total = static_cast<double>(ticks->total - last->total);
  const double busy = static_cast<double>(ticks->busy - last->busy);
  const double mine = own > last_own ? static_cast<double>(own - last_own) : 0;
  all = std::clamp(100 * busy / total, 0.0, 100.0);
  others = std::clamp(100 * (busy - mine) / total, 0.0, 100.0);
}

}  // namespace pesc::worker::owner
