// What can be seen of a machine and its people without asking a daemon: files below /proc, /run and
// /dev, each under a root that is a parameter. Nothing here blocks for long or writes.
//
// One reading of all of it takes well below a millisecond on a PC (docs/owner.md has figures).
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/worker/owner/policy.h"

namespace pesc::worker::owner {

// ---- load ---------------------------------------------------------------------------------------

// Clock ticks since the machine started, all processors together.
struct CpuTicks {
  uint64_t busy = 0, total = 0;
};
std::optional<CpuTicks> parse_cpu(std::string_view proc_stat);
std::optional<double> parse_memory_percent(std::string_view proc_meminfo);  // in use

// What a tree of processes has used so far, those of its processes included that have ended: in the
// ticks of /proc/stat. Grows as long as the tree's root lives. `looked_at`: processes.
uint64_t tree_cpu_ticks(pid_t root, size_t* looked_at = nullptr);
uint64_t own_cpu_ticks();  // of this process
// The same, and the memory that the processes below the root have of their own now.
struct TreeUse {
  uint64_t cpu_ticks = 0, own_bytes = 0;
};
TreeUse tree_use(pid_t root);

// Shares of the machine between two readings.
class CpuProbe {
 public:
  explicit CpuProbe(std::filesystem::path root) : root_(std::move(root)) {}
  // `own`: ticks of everything that is PESC's; less than before: something of it is not seen any
  // more, and counts as nothing.
  void read(uint64_t own, std::optional<double>& all, std::optional<double>& others);

 private:
  const std::filesystem::path root_;
  std::optional<CpuTicks> last_;
  uint64_t last_own_ = 0;
};

std::optional<double> memory_percent(const std::filesystem::path& root);

// ---- people -------------------------------------------------------------------------------------

struct Login {
  std::string user;
  std::string terminal;    // "tty2", "pts/3"; empty: none that is known
  bool graphical = false;  // its input is not that of a terminal
  bool active = true;      // of several at one screen, the one that is shown
  pid_t leader = 0;        // 0: not known
  std::optional<uid_t> uid;
  int64_t since_unix_ms = 0;  // 0: not known
};

std::vector<Login> parse_utmp(std::string_view bytes);
// A file of /run/systemd/sessions. Nothing: not a person's, or on its way out.
std::optional<Login> parse_logind_session(std::string_view text);

// Everybody who is logged in, and how long ago they gave input. `input_unix_ms`: when somebody last
// used a keyboard or mouse; nothing: such input is not seen here, and whoever is at the screen
// counts as busy with it.
std::vector<Presence> people(const std::filesystem::path& root, int64_t now_unix_ms,
                             std::optional<int64_t> input_unix_ms);
std::filesystem::path utmp_path(const std::filesystem::path& root);

// ---- what there is, for `pesc doctor` and the log
// -------------------------------------------------

struct Sight {
  std::string subject;
  bool seen = false;
  std::string text;
};
std::vector<Sight> what_is_seen(const std::filesystem::path& root);

}  // namespace pesc::worker::owner
