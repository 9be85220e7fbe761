#include "runtime/worker/shell/daemon_options.h"

#include <toml++/toml.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>

#include "model/job_spec.h"
#include "rpc/credentials.h"
#include "runtime/common/state_dir.h"
#include "runtime/worker/owner/owner_table.h"
#include "runtime/worker/shell/run_as.h"

namespace pesc::worker {
namespace {

const char* const kLogLevels[] = {"trace", "debug", "info", "warn", "error", "off"};

struct Texts {
  std::string coordinator, state, memory, room, name, advertise, run_as, join_file, cache,
      containment, detached_limit, log_level, config;
  double cpus = 0;
  std::vector<std::string> gpus;
  bool pause = false, resume = false, pass_on = false;
};

absl::Status set_cpus(double cpus, const std::string& where, Options& options) {
  if (!(cpus >= 0.001) || cpus * 1000 > kMaxCpusMilli) {
    return absl::InvalidArgumentError(where + " must be a number of cores, from 0.001 to 100000");
  }
  options.cpus_milli = static_cast<uint32_t>(std::lround(cpus * 1000));
  return absl::OkStatus();
}

absl::Status set_bytes(const std::string& text, const std::string& where, uint64_t& bytes) {
  absl::StatusOr<uint64_t> parsed = parse_bytes(text);
  if (!parsed.ok()) {
    return absl::InvalidArgumentError(where + ": " + std::string(parsed.status().message()));
  }
  bytes = *parsed;
  return absl::OkStatus();
}

absl::Status set_duration(const std::string& text, const std::string& where, uint64_t& ms) {
  if (text == "0" || text == "never") {
    ms = 0;
    return absl::OkStatus();
  }
  absl::StatusOr<uint64_t> parsed = parse_duration_ms(text);
  if (!parsed.ok()) {
    return absl::InvalidArgumentError(where + ": " + std::string(parsed.status().message()));
  }
  constexpr uint64_t kLeastMs = 60'000, kMostMs = 10ull * 365 * 24 * 3'600'000;
  if (*parsed < kLeastMs || *parsed > kMostMs) {
    return absl::InvalidArgumentError(where +
                                      " must be from 1m to 3650d; 0 means that there is no limit");
  }
  ms = *parsed;
  return absl::OkStatus();
}

absl::Status check_log_level(const std::string& level) {
  for (const char* known : kLogLevels) {
    if (level == known) return absl::OkStatus();
  }
  return absl::InvalidArgumentError("the log level \"" + level +
                                    "\" is none of trace, debug, info, warn, error, off");
}

absl::Status set_containment(const std::string& text, const std::string& where, Options& options) {
  const std::optional<containment::Mode> mode = containment::parse_mode(text);
  if (!mode) {
    return absl::InvalidArgumentError(where + ": \"" + text +
                                      "\" is none of auto, cgroup2, cgroup1, none");
  }
  options.containment = *mode;
  return absl::OkStatus();
}

absl::Status set_idle_priority(const toml::node& node, const std::string& where,
                               DaemonOptions& options) {
  if (node.value_exact<std::string>() == "auto") {
    options.idle_priority.reset();
  } else if (const auto value = node.value_exact<bool>()) {
    options.idle_priority = *value;
  } else {
    return absl::InvalidArgumentError(where + " must be true, false or \"auto\"");
  }
  return absl::OkStatus();
}

absl::Status set_gpus(const std::vector<std::string>& words, const std::string& where,
                      Options& options) {
  absl::StatusOr<GpuSettings> settings = parse_gpu_settings(words);
  if (!settings.ok()) {
    return absl::InvalidArgumentError(where + ": " + std::string(settings.status().message()));
  }
  if (options.gpus) settings->nvml_library = options.gpus->nvml_library;
  options.gpus = *std::move(settings);
  return absl::OkStatus();
}

absl::Status set_gpus(const toml::node& node, const std::string& where, Options& options) {
  std::vector<std::string> words;
  if (const auto text = node.value_exact<std::string>()) {
    words.push_back(*text);
  } else if (const toml::array* list = node.as_array()) {
    for (const toml::node& item : *list)
      words.push_back(item.value_exact<std::string>().value_or(""));
  } else {
    return absl::InvalidArgumentError(where + " must be \"auto\", \"none\" or a list of UUIDs");
  }
  return set_gpus(words, where, options);
}

// [resources]: names and amounts, what ranks may ask for with --resource.
absl::Status set_resources(const toml::node& node, const std::string& where, Options& options) {
  const toml::table* table = node.as_table();
  if (table == nullptr) return absl::InvalidArgumentError(where + " is a table: write [resources]");
  for (const auto& [key, value] : *table) {
    const std::string name(std::string_view{key});
    const std::optional<double> amount = value.value<double>();
    if (!is_resource_name(name) || !amount || !(*amount >= 0.001) ||
        *amount > double(kMaxNamedMilli) / 1000) {
      return absl::InvalidArgumentError(
          where + "." + name +
          " must be a name of letters, digits, '_', '-' or '.', and a number "
          "from 0.001: how much of it this machine has");
    }
    options.named.emplace_back(name, static_cast<uint64_t>(std::llround(*amount * 1000)));
  }
  std::sort(options.named.begin(), options.named.end());
  if (options.named.size() > kMaxNamedResources) {
    return absl::InvalidArgumentError(where + " has more than " +
                                      std::to_string(kMaxNamedResources) + " names");
  }
  return absl::OkStatus();
}

constexpr const char* kTextKeys[] = {"nvml_library",   "memory",      "cache",     "disk",
                                     "detached_limit", "containment", "log_level", "state"};

absl::Status apply_key(std::string_view key, const toml::node& node, const std::string& path,
                       DaemonOptions& options) {
  const std::string where = path + ": the key \"" + std::string(key) + "\"";
  if (key == "cpus") {
    const std::optional<double> cpus = node.value<double>();
    if (!cpus) return absl::InvalidArgumentError(where + " must be a number");
    return set_cpus(*cpus, where, options.worker);
  }
  if (key == "resources") return set_resources(node, where, options.worker);
  if (key == "owner") {
    if (!node.is_table()) return absl::InvalidArgumentError(where + " is a table: write [owner]");
    return owner::read_owner_table(*node.as_table(), path, *options.worker.owner);
  }
  if (key == "idle_priority") return set_idle_priority(node, where, options);
  if (key == "gpus") return set_gpus(node, where, options.worker);
  if (key == "pass_on") {
    const std::optional<bool> pass_on = node.value_exact<bool>();
    if (!pass_on) return absl::InvalidArgumentError(where + " must be true or false");
    options.worker.pass_on = *pass_on;
    return absl::OkStatus();
  }
  std::string* target = key == "coordinator" ? &options.coordinator
                        : key == "join_file" ? &options.join_file
                        : key == "room"      ? &options.worker.room
                        : key == "name"      ? &options.worker.name
                        : key == "advertise" ? &options.worker.advertise
                        : key == "run_as"    ? &options.worker.run_as
                                             : nullptr;
  const auto is_key = [&](const char* known) { return key == known; };
  if (target == nullptr && std::none_of(std::begin(kTextKeys), std::end(kTextKeys), is_key)) {
    return absl::InvalidArgumentError(
        where +
        " is not known; the keys are coordinator, state, cpus, memory, room, name, "
        "advertise, run_as, join_file, cache, containment, detached_limit, log_level, "
        "idle_priority, gpus, nvml_library, disk, pass_on, and the tables [owner] and [resources]");
  }
  const std::optional<std::string> text = node.value_exact<std::string>();
  if (!text) return absl::InvalidArgumentError(where + " must be a text in quotes");
  if (key == "nvml_library") {
    if (!options.worker.gpus) options.worker.gpus.emplace();
    options.worker.gpus->nvml_library = *text;
    return absl::OkStatus();
  }
  if (key == "memory") return set_bytes(*text, where, options.worker.memory_bytes);
  if (key == "cache") return set_bytes(*text, where, options.worker.cache_limit_bytes);
  if (key == "disk") return set_bytes(*text, where, options.worker.disk_bytes);
  if (key == "detached_limit") {
    return set_duration(*text, where, options.worker.detached_limit_ms);
  }
  if (key == "containment") return set_containment(*text, where, options.worker);
  if (key == "log_level") {
    options.log_level = *text;
    return check_log_level(*text);
  }
  if (key == "state") {
    options.worker.state_dir = *text;
    return absl::OkStatus();
  }
  *target = *text;
  return absl::OkStatus();
}

void add_flags(CLI::App& app, Texts& texts) {
  app.add_option("--coordinator", texts.coordinator, "the coordinator: HOST[:PORT] or a join file");
  app.add_option("--state", texts.state, "directory for the worker's state (local disk)");
  app.add_option("--cpus", texts.cpus, "cores to offer; default: all of this machine's");
  app.add_option("--memory", texts.memory, "memory to offer, e.g. 12GiB; default: all of it");
  app.add_option("--gpus", texts.gpus, "GPUs to offer: auto (the default), none, or UUIDs")
      ->delimiter(',');
  app.add_option("--room", texts.room, "room this worker belongs to");
  app.add_option("--name", texts.name, "name shown to people; default: the host's name");
  app.add_option("--advertise", texts.advertise, "address other workers reach this one at");
  app.add_option("--run-as", texts.run_as, "user the ranks run as (the worker must be root)");
  app.add_option("--join-file", texts.join_file, "join file made by `pesc join-file worker`");
  app.add_option("--cache", texts.cache, "bound of the inputs' cache, e.g. 20GiB");
  app.add_flag("--pass-on,!--no-pass-on", texts.pass_on,
               "fetch large blobs from other workers that have them, and give them on, on a port "
               "that is open while somebody may come; default: no");
  app.add_option("--containment", texts.containment,
                 "what holds ranks to their limits: auto, cgroup2, cgroup1 or none; default: auto");
  app.add_option("--detached-limit", texts.detached_limit,
                 "how long ranks run on without the coordinator, e.g. 12h; default: 7d, 0: for "
                 "ever");
  app.add_option("--config", texts.config, "TOML file with the same settings");
  app.add_flag("--pause", texts.pause,
               "not a new worker: the one with this state directory freezes its ranks and takes no "
               "more, until --resume; for whoever sits at the machine");
  app.add_flag("--resume", texts.resume, "ends --pause")->excludes("--pause");
  app.add_option("--log-level", texts.log_level, "trace, debug, info, warn, error or off");
}

absl::Status apply_texts(const CLI::App& app, const Texts& texts, DaemonOptions& options) {
  if (app.count("--cpus") > 0) {
    absl::Status set = set_cpus(texts.cpus, "--cpus", options.worker);
    if (!set.ok()) return set;
  }
  if (!texts.memory.empty()) {
    absl::Status set = set_bytes(texts.memory, "--memory", options.worker.memory_bytes);
    if (!set.ok()) return set;
  }
  if (!texts.gpus.empty()) {
    absl::Status set = set_gpus(texts.gpus, "--gpus", options.worker);
    if (!set.ok()) return set;
  }
  if (!texts.cache.empty()) {
    absl::Status set = set_bytes(texts.cache, "--cache", options.worker.cache_limit_bytes);
    if (!set.ok()) return set;
  }
  if (app.count("--pass-on") > 0) options.worker.pass_on = texts.pass_on;
  if (!texts.containment.empty()) {
    absl::Status set = set_containment(texts.containment, "--containment", options.worker);
    if (!set.ok()) return set;
  }
  if (!texts.detached_limit.empty()) {
    absl::Status set =
        set_duration(texts.detached_limit, "--detached-limit", options.worker.detached_limit_ms);
    if (!set.ok()) return set;
  }
  if (!texts.state.empty()) options.worker.state_dir = texts.state;
  const auto choose = [](const std::string& given, std::string& target) {
    if (!given.empty()) target = given;
  };
  choose(texts.coordinator, options.coordinator);
  choose(texts.room, options.worker.room);
  choose(texts.name, options.worker.name);
  choose(texts.advertise, options.worker.advertise);
  choose(texts.run_as, options.worker.run_as);
  choose(texts.join_file, options.join_file);
  choose(texts.log_level, options.log_level);
  return check_log_level(options.log_level);
}

}  // namespace

absl::Status read_config(const std::string& path, DaemonOptions& options) {
  absl::StatusOr<std::string> text = common::read_small_file(path);
  if (!text.ok()) {
    return absl::InvalidArgumentError("--config: " + std::string(text.status().message()));
  }
  try {
    const toml::table table = toml::parse(*text, path);
    for (const auto& [key, node] : table) {
      const std::string name(std::string_view{key});
      absl::Status applied = apply_key(name, node, path, options);
      if (!applied.ok()) return applied;
    }
  } catch (const toml::parse_error& e) {
    return absl::InvalidArgumentError(path + ":" + std::to_string(e.source().begin.line) + ": " +
                                      std::string(e.description()));
  }
  return absl::OkStatus();
}

absl::StatusOr<DaemonOptions> parse_daemon_options(const std::vector<std::string>& arguments) {
  CLI::App app("Runs ranks for a PESC coordinator.", "pesc-worker");
  Texts texts;
  add_flags(app, texts);
  app.set_version_flag("--version", "pesc-worker " PESC_VERSION);
  DaemonOptions options;
  options.worker.owner.emplace();
  options.worker.gpus.emplace();
  try {
    std::vector<std::string> reversed(arguments.rbegin(), arguments.rend());
    app.parse(std::move(reversed));
  } catch (const CLI::CallForHelp&) {
    options.exit_code = 0;
    options.text = app.help();
    return options;
  } catch (const CLI::CallForVersion&) {
    options.exit_code = 0;
    options.text = "pesc-worker " PESC_VERSION "\n";
    return options;
  } catch (const CLI::Error& e) {
    return absl::InvalidArgumentError(std::string(e.what()) + "; see pesc-worker --help");
  }
  if (!texts.config.empty()) {
    absl::Status read = read_config(texts.config, options);
    if (!read.ok()) return read;
  }
  absl::Status applied = apply_texts(app, texts, options);
  if (!applied.ok()) return applied;
  if (texts.pause || texts.resume) options.set_pause = texts.pause;
  options.worker.idle_priority =
      options.idle_priority.value_or(options.worker.owner->policy.watching);
  const bool root = ::geteuid() == 0;
  if (options.worker.state_dir.empty()) {
    // root's home is closed to the user that ranks run as.
    options.worker.state_dir =
        root ? std::filesystem::path("/var/lib/pesc/worker") : rpc::user_state_dir() / "worker";
  }
  return options;
}

}  // namespace pesc::worker
