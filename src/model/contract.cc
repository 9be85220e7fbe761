#include "model/contract.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <map>

#include "model/placeholders.h"
#include "model/text.h"

namespace pesc {
namespace {

constexpr std::array<std::string_view, 8> kPlaceholders = {
    "rank",       "world_size",  "app_dir",     "checkpoint_dir",
    "output_dir", "master_addr", "master_port", "seed"};
constexpr std::string_view kParametersOpen = "parameters[";
constexpr size_t kMaxEventTextBytes = 256;

std::string joined_lines(const std::vector<std::string>& lines) {
  std::string text;
  for (size_t i = 0; i < lines.size(); ++i) {
    if (i > 0) text += '\n';
    text += lines[i];
  }
  return text;
}

void add_contract_arguments(const JobSpec& spec, const AttemptKey& key, const AttemptPlace& place,
                            std::vector<std::string>& argv) {
  const auto add = [&argv](const char* flag, std::string value) {
    argv.emplace_back(flag);
    argv.push_back(std::move(value));
  };
  add("--app_dir", place.app_dir);
  add("--checkpoint_dir", place.checkpoint_dir);
  add("--output_dir", place.output_dir);
  add("--rank", std::to_string(key.rank));
  add("--world_size", std::to_string(spec.repetitions));
  add("--master_addr", place.master_addr);
  add("--master_port", std::to_string(place.master_port));
  if (spec.parameters.empty()) return;
  argv.emplace_back("--parameters");
  argv.insert(argv.end(), spec.parameters.begin(), spec.parameters.end());
}

using Variables = std::map<std::string, std::string, std::less<>>;

void add_contract_variables(const JobSpec& spec, const AttemptKey& key, const AttemptPlace& place,
                            Variables& variables) {
  variables["PESC_APP_DIR"] = place.app_dir;
  variables["PESC_CHECKPOINT_DIR"] = place.checkpoint_dir;
  variables["PESC_OUTPUT_DIR"] = place.output_dir;
  variables["PESC_RANK"] = std::to_string(key.rank);
  variables["PESC_WORLD_SIZE"] = std::to_string(spec.repetitions);
  variables["PESC_MASTER_ADDR"] = place.master_addr;
  variables["PESC_MASTER_PORT"] = std::to_string(place.master_port);
  variables["PESC_PARAMETERS"] = joined_lines(spec.parameters);
  variables["PESC_JOB"] = to_string(key.job);
  variables["PESC_ATTEMPT"] = std::to_string(key.attempt);
  variables["PESC_SEED"] = std::to_string(rank_seed(spec.seed, key.rank));
  variables["PESC_EVENTS"] = place.events_file;
  if (!spec.parallel) return;
  // As PyTorch and others read them.
  variables["RANK"] = std::to_string(key.rank);
  variables["WORLD_SIZE"] = std::to_string(spec.repetitions);
  variables["LOCAL_RANK"] = std::to_string(place.local_rank);
  variables["LOCAL_WORLD_SIZE"] = std::to_string(place.local_world_size);
  variables["MASTER_ADDR"] = place.master_addr;
  variables["MASTER_PORT"] = std::to_string(place.master_port);
}

std::vector<std::string> make_environment(const JobSpec& spec, const AttemptKey& key,
                                          const AttemptPlace& place, const BaseEnvironment& base) {
  Variables variables;
  variables["PATH"] = base.path.empty() ? "/usr/local/bin:/usr/bin:/bin" : base.path;
  if (!base.home.empty()) variables["HOME"] = base.home;
  if (!base.lang.empty()) variables["LANG"] = base.lang;
  variables["TMPDIR"] = place.temporary_dir;
  variables["PYTHONUNBUFFERED"] = "1";
  if (spec.parallel && spec.inject != Inject::none && !place.network_interface.empty()) {
    // Else Gloo, TensorPipe and NCCL take the address of the host's name, which on many machines is
    // a loopback one.
    for (const char* name : {"GLOO_SOCKET_IFNAME", "TP_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"}) {
      variables[name] = place.network_interface;
    }
  }
  for (const auto& [name, value] : spec.environment) variables[name] = value;
  if (spec.inject != Inject::none) add_contract_variables(spec, key, place, variables);

  std::vector<std::string> environment;
  environment.reserve(variables.size());
  for (const auto& [name, value] : variables) environment.push_back(name + "=" + value);
  return environment;
}

std::string_view take_word(std::string_view& text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  const size_t end = std::min(text.find_first_of(" \t"), text.size());
  const std::string_view word = text.substr(0, end);
  text.remove_prefix(end);
  return word;
}

std::optional<double> finite_number(std::string_view text) {
  if (!text.empty() && text.front() == '+') text.remove_prefix(1);
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || !std::isfinite(value)) {
    return std::nullopt;
  }
  return value;
}

// What a program says is shown on terminals: no control characters, and not without end.
std::string shown_text(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  std::string shown(cut_utf8(text, kMaxEventTextBytes));
  for (char& c : shown) {
    if (static_cast<unsigned char>(c) < 0x20 || static_cast<unsigned char>(c) == 0x7f) c = ' ';
  }
  return shown;
}

std::optional<RankEvent> progress_event(std::string_view rest) {
  const std::optional<double> fraction = finite_number(take_word(rest));
  // Sums of steps end a rounding error beyond 1; 42 is a misunderstanding, not a fraction.
  constexpr double kRounding = 1e-3;
  if (!fraction || *fraction < -kRounding || *fraction > 1 + kRounding) return std::nullopt;
  return RankEvent{RankEvent::Kind::progress, std::min(1.0, std::max(0.0, *fraction)),
                   shown_text(rest)};
}

std::optional<RankEvent> metric_event(std::string_view rest) {
  const std::string name = shown_text(take_word(rest));
  const std::optional<double> value = finite_number(take_word(rest));
  if (name.empty() || !value || !take_word(rest).empty()) return std::nullopt;
  return RankEvent{RankEvent::Kind::metric, *value, name};
}

}  // namespace

uint64_t rank_seed(uint64_t job_seed, uint32_t rank) {
  uint64_t z = job_seed + (uint64_t{rank} + 1) * 0x9e3779b97f4a7c15ull;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return z ^ (z >> 31);
}

bool is_placeholder(std::string_view name) {
  return std::find(kPlaceholders.begin(), kPlaceholders.end(), name) != kPlaceholders.end();
}

std::optional<uint64_t> parameter_index(std::string_view name) {
  if (name.size() < kParametersOpen.size() + 2 || !name.starts_with(kParametersOpen) ||
      name.back() != ']') {
    return std::nullopt;
  }
  const std::string_view digits =
      name.substr(kParametersOpen.size(), name.size() - kParametersOpen.size() - 1);
  uint64_t index = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), index);
  if (error != std::errc() || end != digits.data() + digits.size()) return std::nullopt;
  return index;
}

std::string expand_placeholders(std::string_view text, const JobSpec& spec, uint32_t rank,
                                const AttemptPlace& place) {
  std::string result;
  result.reserve(text.size());
  const auto value = [&](std::string_view name) {
    if (name == "rank") {
      result += std::to_string(rank);
    } else if (name == "world_size") {
      result += std::to_string(spec.repetitions);
    } else if (name == "app_dir") {
      result += place.app_dir;
    } else if (name == "checkpoint_dir") {
      result += place.checkpoint_dir;
    } else if (name == "output_dir") {
      result += place.output_dir;
    } else if (name == "master_addr") {
      result += place.master_addr;
    } else if (name == "master_port") {
      result += std::to_string(place.master_port);
    } else if (name == "seed") {
      result += std::to_string(rank_seed(spec.seed, rank));
    } else {
      const std::optional<uint64_t> index = name == kParameterOfRank ? rank : parameter_index(name);
      if (!index || *index >= spec.parameters.size()) return false;
      result += spec.parameters[*index];
    }
    return true;
  };
  scan_placeholders(
      text, [&](std::string_view literal) { result += literal; }, value);
  return result;
}

Command make_command(const JobSpec& spec, const AttemptKey& key, const AttemptPlace& place,
                     const BaseEnvironment& base) {
  Command command;
  command.argv.reserve(spec.arguments.size() + spec.parameters.size() + 16);
  command.argv.push_back(spec.program);
  for (const std::string& argument : spec.arguments) {
    command.argv.push_back(expand_placeholders(argument, spec, key.rank, place));
  }
  if (spec.inject == Inject::args) add_contract_arguments(spec, key, place, command.argv);
  command.environment = make_environment(spec, key, place, base);
  return command;
}

std::optional<RankEvent> parse_event_line(std::string_view line) {
  while (!line.empty() && (line.back() == '\n' || line.back() == '\r')) line.remove_suffix(1);
  const std::string_view kind = take_word(line);
  if (kind == "progress") return progress_event(line);
  if (kind == "metric") return metric_event(line);
  if (kind == "checkpoint" && take_word(line).empty()) {
    return RankEvent{RankEvent::Kind::checkpoint, 0, ""};
  }
  return std::nullopt;
}

}  // namespace pesc
