#include "runtime/worker/owner/owner_table.h"

#include <functional>
#include <map>
#include <string_view>

#include "model/job_spec.h"

namespace pesc::worker::owner {
namespace {

constexpr uint64_t kMinute = 60'000, kDay = 24 * 60 * kMinute;
constexpr uint64_t kVacateAfterMs = 5 * kMinute;

absl::Status wrong(const std::string& where, const std::string& what) {
  return absl::InvalidArgumentError(where + " " + what);
}

absl::Status read_percent(const toml::node& node, const std::string& where, uint32_t least,
                          uint32_t& percent) {
  const auto number = node.value_exact<int64_t>();
  if (!number || *number < int64_t{least} || *number > 100) {
    return wrong(where, "must be a whole number of percent, from " + std::to_string(least) +
                            " to 100, without quotes");
  }
  percent = static_cast<uint32_t>(*number);
  return absl::OkStatus();
}

absl::Status read_duration(const toml::node& node, const std::string& where, uint64_t least_ms,
                           uint64_t most_ms, uint64_t& ms) {
  const auto text = node.value_exact<std::string>();
  if (!text) return wrong(where, "must be a duration in quotes, such as \"15m\"");
  auto parsed = parse_duration_ms(*text);
  if (!parsed.ok()) return wrong(where + ":", std::string(parsed.status().message()));
  if (*parsed < least_ms || *parsed > most_ms) {
    return wrong(where, "must be from " + format_duration_ms(least_ms) + " to " +
                            format_duration_ms(most_ms) + ", not " + *text);
  }
  ms = *parsed;
  return absl::OkStatus();
}

absl::Status read_texts(const toml::node& node, const std::string& where,
                        std::vector<std::string>& texts) {
  const toml::array* array = node.as_array();
  if (array == nullptr) return wrong(where, "must be a list: [\"…\", \"…\"]");
  texts.clear();
  for (const toml::node& one : *array) {
    const auto text = one.value_exact<std::string>();
    if (!text || text->empty() || text->find('\0') != text->npos) {
      return wrong(where, "must have texts in quotes only, none of them empty");
    }
    texts.push_back(*text);
  }
  return absl::OkStatus();
}

template <typename T>
absl::Status read_choice(const toml::node& node, const std::string& where,
                         const std::vector<std::pair<std::string_view, T>>& choices, T& chosen) {
  const auto text = node.value_exact<std::string>();
  std::string known;
  for (const auto& [name, value] : choices) {
    if (text && *text == name) {
      chosen = value;
      return absl::OkStatus();
    }
    known += (known.empty() ? "\"" : ", \"") + std::string(name) + "\"";
  }
  return wrong(where, "must be one of " + known);
}

absl::Status read_path(const toml::node& node, const std::string& where,
                       std::filesystem::path& path) {
  const auto text = node.value_exact<std::string>();
  if (!text || !text->starts_with('/')) return wrong(where, "must be an absolute path in quotes");
  path = *text;
  return absl::OkStatus();
}

absl::Status read_hours(const toml::node& node, const std::string& where,
                        std::vector<Span>& hours) {
  std::vector<std::string> texts;
  if (absl::Status read = read_texts(node, where, texts); !read.ok()) return read;
  if (texts.empty()) return wrong(where, "is empty: the worker would never work; leave it out");
  hours.clear();
  for (const std::string& text : texts) {
    auto spans = parse_hours(text);
    if (!spans.ok()) return wrong(where + ":", std::string(spans.status().message()));
    hours.insert(hours.end(), spans->begin(), spans->end());
  }
  return absl::OkStatus();
}

absl::Status read_vacate_after(const toml::node& node, const std::string& where,
                               std::optional<uint64_t>& after) {
  if (node.value_exact<std::string>() == "never") {
    after.reset();
    return absl::OkStatus();
  }
  uint64_t ms = 0;
  absl::Status read = read_duration(node, where, 0, 30 * kDay, ms);
  if (read.ok()) after = ms;
  return read;
}

using Reader = std::function<absl::Status(const toml::node&, const std::string&, Settings&)>;

const std::map<std::string_view, Reader>& readers() {
  static const std::map<std::string_view, Reader> all = {
      {"enabled",
       [](const toml::node& node, const std::string& where, Settings& s) {
         const auto value = node.value_exact<bool>();
         if (!value) return wrong(where, "must be true or false");
         s.policy.watching = *value;
         return absl::OkStatus();
       }},
      {"cpu_limit", [](const toml::node& node, const std::string& where,
                       Settings& s) { return read_percent(node, where, 1, s.policy.cpu_limit); }},
      {"cpu_counts",
       [](const toml::node& node, const std::string& where, Settings& s) {
         return read_choice<CpuCounts>(node, where,
                                       {{"others", CpuCounts::others}, {"all", CpuCounts::all}},
                                       s.policy.cpu_counts);
       }},
      {"memory_limit",
       [](const toml::node& node, const std::string& where, Settings& s) {
         return read_percent(node, where, 1, s.policy.memory_limit);
       }},
      {"gpu_memory_limit",
       [](const toml::node& node, const std::string& where, Settings& s) {
         return read_percent(node, where, 1, s.policy.gpu_memory_limit);
       }},
      {"when_present",
       [](const toml::node& node, const std::string& where, Settings& s) {
         return read_choice<WhenPresent>(node, where,
                                         {{"throttle", WhenPresent::throttle},
                                          {"freeze", WhenPresent::freeze},
                                          {"vacate", WhenPresent::vacate},
                                          {"ignore", WhenPresent::ignore}},
                                         s.policy.when_present);
       }},
      {"throttle_percent",
       [](const toml::node& node, const std::string& where, Settings& s) {
         return read_percent(node, where, 1, s.policy.throttle_percent);
       }},
      {"vacate_after",
       [](const toml::node& node, const std::string& where, Settings& s) {
         return read_vacate_after(node, where, s.policy.vacate_after_ms);
       }},
      {"idle_after",
       [](const toml::node& node, const std::string& where, Settings& s) {
         return read_duration(node, where, 10'000, 7 * kDay, s.policy.idle_after_ms);
       }},
      {"resume_after",
       [](const toml::node& node, const std::string& where, Settings& s) {
         return read_duration(node, where, 0, kDay, s.policy.resume_after_ms);
       }},
      {"hours", [](const toml::node& node, const std::string& where,
                   Settings& s) { return read_hours(node, where, s.policy.hours); }},
      {"outside_hours",
       [](const toml::node& node, const std::string& where, Settings& s) {
         return read_choice<OutsideHours>(
             node, where, {{"freeze", OutsideHours::freeze}, {"vacate", OutsideHours::vacate}},
             s.policy.outside_hours);
       }},
      {"ignore_users", [](const toml::node& node, const std::string& where,
                          Settings& s) { return read_texts(node, where, s.policy.ignore_users); }},
      {"presence_command", [](const toml::node& node, const std::string& where,
                              Settings& s) { return read_texts(node, where, s.presence_command); }},
      {"presence_every",
       [](const toml::node& node, const std::string& where, Settings& s) {
         return read_duration(node, where, 1'000, kDay, s.presence_every_ms);
       }},
      {"pause_file", [](const toml::node& node, const std::string& where,
                        Settings& s) { return read_path(node, where, s.pause_file); }},
      {"root", [](const toml::node& node, const std::string& where,
                  Settings& s) { return read_path(node, where, s.root); }},
  };
  return all;
}

}  // namespace

absl::Status read_owner_table(const toml::table& table, const std::string& where,
                              Settings& settings) {
  settings.policy.watching = true;
  for (const auto& [key, node] : table) {
    const std::string name(std::string_view{key});
    const std::string at = where + ": the key \"owner." + name + "\"";
    const auto reader = readers().find(name);
    if (reader == readers().end()) {
      std::string known;
      for (const auto& [each, ignored] : readers()) {
        known += (known.empty() ? "" : ", ") + std::string(each);
      }
      return wrong(at, "is not known; those of [owner] are " + known);
    }
    if (absl::Status read = reader->second(node, at, settings); !read.ok()) return read;
  }
  if (settings.policy.when_present == WhenPresent::vacate && !table.contains("vacate_after")) {
    settings.policy.vacate_after_ms = kVacateAfterMs;
  }
  if (settings.policy.when_present == WhenPresent::vacate && !settings.policy.vacate_after_ms) {
    return wrong(where + ": owner.vacate_after = \"never\"",
                 "contradicts owner.when_present = \"vacate\"");
  }
  return absl::OkStatus();
}

}  // namespace pesc::worker::owner
