#include "runtime/worker/owner/policy.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

namespace pesc::worker::owner {
namespace {

constexpr double kCpuAverageMs = 4'000;
// Below the limit by this much, in points, it is well again.
constexpr double kCpuSlack = 10, kMemorySlack = 5, kGpuSlack = 5;
constexpr uint32_t kMinutesOfDay = 24 * 60;
constexpr std::array<std::string_view, 7> kDays = {"mon", "tue", "wed", "thu", "fri", "sat", "sun"};

absl::Status bad_hours(std::string_view text, const std::string& why) {
  return absl::InvalidArgumentError("\"" + std::string(text) + "\" is no time of the week: " + why +
                                    "; write for example \"Mon-Fri 19:00-07:00\", \"Sat,Sun\" or "
                                    "\"daily 22:00-06:00\"");
}

std::string lowered(std::string_view text) {
  std::string result(text);
  for (char& c : result) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return result;
}

std::optional<uint32_t> day_of(std::string_view name) {
  for (uint32_t day = 0; day < kDays.size(); ++day) {
    if (name == kDays[day]) return day;
  }
  return std::nullopt;
}

// "07:00", "24:00".
std::optional<uint32_t> minute_of(std::string_view text) {
  if (text.size() != 5 || text[2] != ':') return std::nullopt;
  for (const size_t i : {0, 1, 3, 4}) {
    if (text[i] < '0' || text[i] > '9') return std::nullopt;
  }
  const auto two = [&](size_t at) {
    return static_cast<uint32_t>((text[at] - '0') * 10 + (text[at + 1] - '0'));
  };
  const uint32_t minute = two(0) * 60 + two(3);
  if (two(3) > 59 || minute > kMinutesOfDay) return std::nullopt;
  return minute;
}

// "mon-fri", "sat,sun", "daily". Empty: wrong.
std::vector<uint32_t> days_of(std::string_view text) {
  std::array<bool, 7> chosen{};
  if (text == "daily") chosen.fill(true);
  while (text != "daily" && !text.empty()) {
    const size_t comma = std::min(text.find(','), text.size());
    const std::string_view part = text.substr(0, comma);
    if (comma + 1 == text.size()) return {};  // ends with a comma
    text.remove_prefix(std::min(comma + 1, text.size()));
    const size_t dash = part.find('-');
    const auto first = day_of(part.substr(0, dash));
    const auto last = dash == part.npos ? first : day_of(part.substr(dash + 1));
    if (!first || !last) return {};
    for (uint32_t day = *first;; day = (day + 1) % 7) {
      chosen[day] = true;
      if (day == *last) break;
    }
  }
  std::vector<uint32_t> days;
  for (uint32_t day = 0; day < 7; ++day) {
    if (chosen[day]) days.push_back(day);
  }
  return days;
}

std::string percent_text(uint32_t percent) { return std::to_string(percent) + " %"; }

}  // namespace

absl::StatusOr<std::vector<Span>> parse_hours(std::string_view text) {
  const std::string lower = lowered(text);
  const size_t space = std::min(lower.find(' '), lower.size());
  const std::vector<uint32_t> days = days_of(std::string_view(lower).substr(0, space));
  if (days.empty()) {
    return bad_hours(text, "it begins with days: Mon Tue Wed Thu Fri Sat Sun, or daily");
  }
  uint32_t from = 0, to = kMinutesOfDay;
  if (space < lower.size()) {
    const std::string_view times = std::string_view(lower).substr(space + 1);
    const size_t dash = std::min(times.find('-'), times.size());
    const auto first = minute_of(times.substr(0, dash));
    const auto last = dash < times.size() ? minute_of(times.substr(dash + 1)) : std::nullopt;
    if (!first || !last || *first == kMinutesOfDay) {
      return bad_hours(text, "after the days comes HH:MM-HH:MM");
    }
    if (*first == *last) {
      return bad_hours(text, "it ends when it begins (a whole day is 00:00-24:00)");
    }
    from = *first;
    to = *last > *first ? *last : *last + kMinutesOfDay;
  }
  std::vector<Span> spans;
  for (const uint32_t day : days) {
    const uint32_t base = day * kMinutesOfDay;
    spans.push_back({base + from, (base + to) % kMinutesOfWeek});
  }
  return spans;
}

bool within(const std::vector<Span>& hours, uint32_t minute) {
  return hours.empty() || std::any_of(hours.begin(), hours.end(), [&](const Span& span) {
           if (span.from < span.to) return minute >= span.from && minute < span.to;
           return minute >= span.from || minute < span.to;
         });
}

std::string_view to_string(Mode mode) {
  switch (mode) {
    case Mode::run:
      return "run";
    case Mode::throttle:
      return "throttled";
    case Mode::freeze:
      return "frozen";
    case Mode::vacate:
      return "vacated";
  }
  return "run";
}

void Policy::Latch::update(bool bad, TimeMs now, uint64_t hold_ms) {
  if (bad) {
    if (!on) since = now;
    on = true;
    well_since.reset();
    return;
  }
  if (!on) return;
  if (!well_since) well_since = now;
  if (now - *well_since >= static_cast<TimeMs>(hold_ms)) on = false;
}

void Policy::Average::add(double sample, TimeMs now) {
  if (!value) {
    value = sample;
  } else {
    const double elapsed = static_cast<double>(std::max<TimeMs>(now - at, 0));
    *value += (sample - *value) * (1 - std::exp(-elapsed / kCpuAverageMs));
  }
  at = now;
}

const Verdict& Policy::step(const Sample& sample, TimeMs now) {
  if (config_.watching) {
    look_at_load(sample, now);
    look_at_people(sample, now);
    look_at_gpus(sample);
  }
  verdict_ = {};
  judge(sample, now);
  if (verdict_.mode != Mode::throttle) verdict_.throttle_percent = 100;
  return verdict_;
}

void Policy::look_at_load(const Sample& sample, TimeMs now) {
  const auto& cpu = config_.cpu_counts == CpuCounts::all ? sample.cpu_all : sample.cpu_others;
  if (cpu) cpu_.add(*cpu, now);
  if (cpu_.value && config_.cpu_limit < 100) {
    const double limit = config_.cpu_limit - (cpu_full_.on ? kCpuSlack : 0);
    cpu_full_.update(*cpu_.value > limit, now, config_.resume_after_ms);
  }
  if (sample.memory && config_.memory_limit < 100) {
    const double limit = config_.memory_limit - (memory_full_.on ? kMemorySlack : 0);
    memory_full_.update(*sample.memory > limit, now, config_.resume_after_ms);
  }
}

void Policy::look_at_people(const Sample& sample, TimeMs now) {
  // One that fails says nothing: what it said last holds, and nothing new is begun meanwhile.
  if (sample.command != CommandVerdict::failed) {
    command_present_ = sample.command == CommandVerdict::present;
  }
  const Presence* nearest = nullptr;
  for (const Presence& one : sample.people) {
    const auto& ignored = config_.ignore_users;
    if (std::find(ignored.begin(), ignored.end(), one.user) != ignored.end()) continue;
    if (one.idle_ms >= config_.idle_after_ms) continue;
    if (nearest == nullptr || one.idle_ms < nearest->idle_ms) nearest = &one;
  }
  if (nearest != nullptr) {
    seen_ = (nearest->user.empty() ? "somebody" : nearest->user) + " at " + nearest->place;
  } else {
    seen_ = command_present_ ? "presence_command says so" : "";
  }
  present_.update(nearest != nullptr || command_present_, now, config_.resume_after_ms);
}

void Policy::look_at_gpus(const Sample& sample) {
  if (config_.gpu_memory_limit >= 100) return;
  std::vector<std::string> full;
  for (const GpuUse& gpu : sample.gpus) {
    const bool was = std::find(full_gpus_.begin(), full_gpus_.end(), gpu.uuid) != full_gpus_.end();
    if (gpu.percent > config_.gpu_memory_limit - (was ? kGpuSlack : 0)) full.push_back(gpu.uuid);
  }
  full_gpus_ = std::move(full);
}

// The first reason is the one that is told: in order of how much it says.
void Policy::add(Mode mode, const std::string& reason) {
  if (verdict_.busy.empty()) verdict_.busy = reason;
  verdict_.mode = std::max(verdict_.mode, mode);
}

void Policy::judge(const Sample& sample, TimeMs now) {
  if (sample.paused_by_order) add(Mode::freeze, "paused by an administrator, its ranks are frozen");
  if (sample.paused_here) {
    add(Mode::freeze,
        "paused at the machine itself, its ranks are frozen (there, `pesc-worker --resume` ends "
        "it)");
  }
  if (!config_.watching) return;
  if (!within(config_.hours, sample.minute_of_week)) {
    const bool freeze = config_.outside_hours == OutsideHours::freeze;
    add(freeze ? Mode::freeze : Mode::vacate,
        std::string("outside its hours, its ranks ") + (freeze ? "are frozen" : "go elsewhere"));
  }
  if (present_.on && config_.when_present != WhenPresent::ignore) judge_presence(now);
  if (sample.command == CommandVerdict::failed) {
    add(Mode::run, "its presence_command fails: " + sample.command_error);
  }
  if (cpu_full_.on) {
    const bool all = config_.cpu_counts == CpuCounts::all;
    add(Mode::run, std::string(all ? "its processors are" : "others have its processors") +
                       " more than " + percent_text(config_.cpu_limit) + " in use");
  }
  if (memory_full_.on) {
    add(Mode::run, "its memory is more than " + percent_text(config_.memory_limit) + " in use");
  }
  verdict_.full_gpus = full_gpus_;
}

void Policy::judge_presence(TimeMs now) {
  const bool over = config_.vacate_after_ms &&
                    now - present_.since >= static_cast<TimeMs>(*config_.vacate_after_ms);
  if (over) return add(Mode::vacate, "its owner is here, its ranks go elsewhere");
  if (config_.when_present == WhenPresent::freeze) {
    return add(Mode::freeze, "its owner is here, its ranks are frozen");
  }
  verdict_.throttle_percent = config_.throttle_percent;
  add(Mode::throttle,
      "its owner is here, its ranks are throttled to " + percent_text(config_.throttle_percent));
}

}  // namespace pesc::worker::owner
