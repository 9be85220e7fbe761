// Whose machine it is: what a worker may do, from what is seen of the machine and its people. A
// deterministic machine: no clock, thread or I/O. Not thread-safe.
//
// Whoever owns the machine comes first at once, and ranks go on only after it has been quiet for a
// while: every reason ends `resume_after_ms` after it was seen last, so that nothing flaps.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace pesc::worker::owner {

using TimeMs = int64_t;

inline constexpr uint32_t kMinutesOfWeek = 7 * 24 * 60;

enum class WhenPresent : uint8_t { throttle, freeze, vacate, ignore };
enum class OutsideHours : uint8_t { freeze, vacate };
// Whose use of the processors the limit is for. A worker takes no more ranks than it offers cpus,
// so its own ones say nothing about how busy the machine is for others.
enum class CpuCounts : uint8_t { others, all };

// Minutes of the week, local time, from Monday 00:00; to `to`, exclusive, over Sunday's midnight
// when that is not greater than `from`.
struct Span {
  uint32_t from = 0, to = 0;
  bool operator==(const Span&) const = default;
};

struct Config {
  bool watching = false;           // false: nothing counts but being paused
  uint32_t cpu_limit = 70;         // percent of the machine; 100: none
  uint32_t memory_limit = 90;      // percent of the machine's; 100: none
  uint32_t gpu_memory_limit = 70;  // percent of a GPU's, by others; 100: none
  CpuCounts cpu_counts = CpuCounts::others;
  WhenPresent when_present = WhenPresent::throttle;
  uint32_t throttle_percent = 10;
  // Of somebody's presence: then ranks go elsewhere. Nothing: never.
  std::optional<uint64_t> vacate_after_ms;
  uint64_t idle_after_ms = 15 * 60'000;  // without input somebody counts as gone
  uint64_t resume_after_ms = 15'000;
  std::vector<Span> hours;  // empty: always
  OutsideHours outside_hours = OutsideHours::vacate;
  std::vector<std::string> ignore_users;
};

// "Mon-Fri 19:00-07:00", "Sat,Sun", "daily 22:00-06:00": one span for each day it begins on.
absl::StatusOr<std::vector<Span>> parse_hours(std::string_view text);
bool within(const std::vector<Span>& hours, uint32_t minute_of_week);

// Somebody who uses the machine: a login, or hands on its keyboard.
struct Presence {
  std::string user;   // empty: not known
  std::string place;  // "tty2", "pts/3", "input"
  uint64_t idle_ms = 0;
};

enum class CommandVerdict : uint8_t { none, present, absent, failed };  // of presence_command

struct GpuUse {
  std::string uuid;
  double percent = 0;  // of its memory, by others
};

// What is not known is nothing, and changes nothing.
struct Sample {
  std::optional<double> cpu_others, cpu_all;  // percent of the machine, since the last one
  std::optional<double> memory;               // percent in use
  std::vector<GpuUse> gpus;
  std::vector<Presence> people;
  CommandVerdict command = CommandVerdict::none;
  std::string command_error;
  uint32_t minute_of_week = 0;
  bool paused_by_order = false, paused_here = false;
};

// In order: what comes later wins.
enum class Mode : uint8_t { run, throttle, freeze, vacate };
std::string_view to_string(Mode mode);

struct Verdict {
  std::string busy;  // why no rank may be started; empty: ranks may
  Mode mode = Mode::run;
  uint32_t throttle_percent = 100;     // of its cpus, while mode is throttle
  std::vector<std::string> full_gpus;  // take no new ranks
  bool operator==(const Verdict&) const = default;
};

class Policy {
 public:
  explicit Policy(Config config) : config_(std::move(config)) {}

  const Verdict& step(const Sample& sample, TimeMs now);
  const Verdict& verdict() const { return verdict_; }
  // Who was seen, for the log of this machine: it goes nowhere else.
  const std::string& seen() const { return seen_; }

 private:
  // On as soon as `now` is bad; off when it has been well for a while.
  struct Latch {
    bool on = false;
    TimeMs since = 0;
    std::optional<TimeMs> well_since;
    void update(bool bad, TimeMs now, uint64_t hold_ms);
  };
  // An average over some seconds: a moment's burst is no reason.
  struct Average {
    std::optional<double> value;
    TimeMs at = 0;
    void add(double sample, TimeMs now);
  };

  void look_at_load(const Sample& sample, TimeMs now);
  void look_at_people(const Sample& sample, TimeMs now);
  void look_at_gpus(const Sample& sample);
  void judge(const Sample& sample, TimeMs now);
  void judge_presence(TimeMs now);
  void add(Mode mode, const std::string& reason);

  const Config config_;
  Verdict verdict_;
  std::string seen_;
  Average cpu_;
  Latch cpu_full_, memory_full_, present_;
  bool command_present_ = false;  // as it said last
  std::vector<std::string> full_gpus_;
};

}  // namespace pesc::worker::owner
