// What a submission must satisfy. The client says it early; the coordinator trusts nobody.
#include <algorithm>

#include "model/job_spec.h"
#include "model/placeholders.h"
#include "model/text.h"

namespace pesc {
namespace {

constexpr size_t kMaxNameBytes = 256;
constexpr size_t kMaxProgramBytes = 4096;
constexpr size_t kMaxCollect = 1'000;
constexpr uint32_t kMaxRetries = 1'000'000;
constexpr uint64_t kMaxTimeLimitMs = 10ull * 366 * 24 * 3'600 * 1'000;
constexpr uint64_t kMaxGraceMs = 24ull * 3'600 * 1'000;
constexpr uint64_t kMaxBytes = 1ull << 60;
// A directory of an attempt, or a number, is at most this long when it replaces a placeholder.
constexpr size_t kPlaceholderBytes = 1'024;

absl::Status bad(const std::string& message) { return absl::InvalidArgumentError(message); }
std::string number(uint64_t value) { return std::to_string(value); }
bool has_nul(std::string_view text) { return text.find('\0') != std::string_view::npos; }

absl::Status check_shown_name(std::string_view field, std::string_view name) {
  if (name.size() > kMaxNameBytes) {
    return bad(std::string(field) + ": longer than " + number(kMaxNameBytes) +
               " bytes: use a shorter one");
  }
  if (has_control_character(name)) {
    return bad(std::string(field) + ": " + in_quotes(name) +
               " contains a control character: use printable text");
  }
  return absl::OkStatus();
}

absl::Status check_strings(std::string_view field, const std::vector<std::string>& values) {
  if (values.size() > kMaxArguments) {
    return bad(std::string(field) + ": " + number(values.size()) + " of them, at most " +
               number(kMaxArguments) + " are possible: put them into a file");
  }
  for (size_t i = 0; i < values.size(); ++i) {
    if (values[i].size() > kMaxArgumentBytes) {
      return bad(std::string(field) + ": number " + number(i + 1) + " is longer than " +
                 number(kMaxArgumentBytes) + " bytes: put it into a file");
    }
    if (has_nul(values[i])) {
      return bad(std::string(field) + ": number " + number(i + 1) +
                 " contains a NUL byte, which no command line can carry: put it into a file");
    }
  }
  return absl::OkStatus();
}

// The arguments once their placeholders are replaced: a short one can become very long.
absl::Status check_expanded(const JobSpec& spec, size_t& command_bytes) {
  for (size_t i = 0; i < spec.arguments.size(); ++i) {
    size_t bytes = 0;
    std::string unknown_parameter;
    const auto value = [&](std::string_view name) {
      // A value per rank: there must be one for the last rank too.
      const std::optional<uint64_t> index =
          name == kParameterOfRank ? spec.repetitions - 1 : parameter_index(name);
      if (!index) {
        if (!is_placeholder(name)) return false;
        bytes += kPlaceholderBytes;
      } else if (*index < spec.parameters.size()) {
        bytes += spec.parameters[*index].size();
      } else {
        unknown_parameter = name;
      }
      return true;
    };
    scan_placeholders(
        spec.arguments[i], [&](std::string_view literal) { bytes += literal.size(); }, value);
    if (!unknown_parameter.empty()) {
      return bad("arguments: {" + unknown_parameter + "} in number " + number(i + 1) +
                 ", but there are " + number(spec.parameters.size()) +
                 " parameters (counted from 0): add parameters, or write {{ and }} for braces");
    }
    if (bytes > kMaxArgumentBytes && bytes > spec.arguments[i].size()) {
      return bad("arguments: number " + number(i + 1) +
                 " becomes too long when its placeholders are replaced: use fewer of them");
    }
    command_bytes += std::max(bytes, spec.arguments[i].size());
  }
  return absl::OkStatus();
}

absl::Status check_parameters(const JobSpec& spec, size_t& command_bytes) {
  size_t bytes = 0;
  for (size_t i = 0; i < spec.parameters.size(); ++i) {
    if (spec.parameters[i].find('\n') != std::string::npos && spec.inject != Inject::none) {
      return bad("parameters: number " + number(i + 1) +
                 " contains a line break, but PESC_PARAMETERS has one value per line: put it into "
                 "a file");
    }
    bytes += spec.parameters[i].size() + 1;
  }
  // The kernel's bound for one variable of the environment is that for one argument.
  if (bytes > kMaxArgumentBytes && spec.inject != Inject::none) {
    return bad("parameters: " + number(bytes) + " bytes in all, at most " +
               number(kMaxArgumentBytes) +
               " fit one variable of the environment: put them into a "
               "file");
  }
  command_bytes += 2 * bytes;
  return absl::OkStatus();
}

absl::Status check_environment(const JobSpec& spec, size_t& command_bytes) {
  if (spec.environment.size() > kMaxArguments) {
    return bad("environment: more than " + number(kMaxArguments) +
               " variables: put them into a file");
  }
  for (const auto& [name, value] : spec.environment) {
    if (name.empty()) return bad("environment: a variable has no name: write NAME=value");
    if (name.find('=') != std::string::npos || has_nul(name)) {
      return bad("environment: " + in_quotes(name) +
                 " is not a variable's name: leave out '=' and NUL bytes");
    }
    if (has_nul(value)) {
      return bad("environment: the value of " + in_quotes(name) +
                 " contains a NUL byte: put it into a file");
    }
    if (name.size() + value.size() > kMaxArgumentBytes) {
      return bad("environment: " + in_quotes(name) + " is longer than " +
                 number(kMaxArgumentBytes) + " bytes: put the value into a file");
    }
    command_bytes += name.size() + value.size() + 2;
  }
  return absl::OkStatus();
}

absl::Status check_command(const JobSpec& spec) {
  if (absl::Status status = check_strings("arguments", spec.arguments); !status.ok()) return status;
  if (absl::Status status = check_strings("parameters", spec.parameters); !status.ok()) {
    return status;
  }
  size_t bytes = spec.program.size();
  if (absl::Status status = check_expanded(spec, bytes); !status.ok()) return status;
  if (absl::Status status = check_parameters(spec, bytes); !status.ok()) return status;
  if (absl::Status status = check_environment(spec, bytes); !status.ok()) return status;
  if (bytes > kMaxCommandBytes) {
    return bad("arguments: with parameters and environment they take " + number(bytes) +
               " bytes, at most " + number(kMaxCommandBytes) + " are possible: use a file");
  }
  return absl::OkStatus();
}

absl::Status check_file(const FileRef& file) {
  if (file.kind > FileKind::directory) {
    return bad("files: " + in_quotes(file.path) +
               " is of an unknown kind: use the same version of "
               "PESC on both sides");
  }
  const absl::StatusOr<std::string> path = normalise_relative_path(file.path);
  if (!path.ok()) return bad("files: " + std::string(path.status().message()));
  if (*path != file.path) {
    return bad("files: " + in_quotes(file.path) + " is not normalised: write " + in_quotes(*path));
  }
  if ((file.mode & ~0777u) != 0) {
    return bad("files: " + in_quotes(file.path) +
               " has a mode beyond rwxrwxrwx: drop its set-id and sticky bits");
  }
  if (file.kind == FileKind::directory) {
    if (file.blob.empty() && file.blob.size_bytes == 0) return absl::OkStatus();
    return bad("files: the directory " + in_quotes(file.path) +
               " comes with content: give its files "
               "one by one");
  }
  if (file.blob.empty()) {
    return bad("files: " + in_quotes(file.path) + " has no content digest: submit it again");
  }
  if (file.blob.size_bytes > kMaxBytes) {
    return bad("files: the size of " + in_quotes(file.path) + " is absurd: submit it again");
  }
  return absl::OkStatus();
}

// Paths in app_dir: each once, and none both a file and a directory that another one needs.
absl::Status check_paths(const std::vector<FileRef>& files) {
  std::vector<const FileRef*> placed;
  for (const FileRef& file : files) {
    if (file.kind != FileKind::archive) placed.push_back(&file);
  }
  // '/' sorts before everything, so that what is below a path follows it directly.
  const auto less = [](const FileRef* a, const FileRef* b) {
    return std::lexicographical_compare(
        a->path.begin(), a->path.end(), b->path.begin(), b->path.end(), [](char x, char y) {
          const auto rank = [](char c) { return c == '/' ? 0 : int{static_cast<uint8_t>(c)} + 1; };
          return rank(x) < rank(y);
        });
  };
  std::sort(placed.begin(), placed.end(), less);
  for (size_t i = 1; i < placed.size(); ++i) {
    const FileRef& before = *placed[i - 1];
    const FileRef& file = *placed[i];
    if (file.path == before.path) {
      return bad("files: " + in_quotes(file.path) + " is given twice: give it once");
    }
    if (before.kind != FileKind::directory && file.path.size() > before.path.size() &&
        file.path.starts_with(before.path) && file.path[before.path.size()] == '/') {
      return bad("files: " + in_quotes(before.path) + " is a file, and " + in_quotes(file.path) +
                 " needs it to be a directory: rename one of them");
    }
  }
  return absl::OkStatus();
}

absl::Status check_files(const JobSpec& spec) {
  if (spec.files.size() > kMaxFiles) {
    return bad("files: " + number(spec.files.size()) + " of them, at most " + number(kMaxFiles) +
               " are possible: pack them into an archive");
  }
  for (const FileRef& file : spec.files) {
    if (absl::Status status = check_file(file); !status.ok()) return status;
  }
  return check_paths(spec.files);
}

absl::Status check_program(const JobSpec& spec) {
  const std::string& program = spec.program;
  if (program.empty()) return bad("program: it is empty: name the program to run");
  if (program.size() > kMaxProgramBytes) {
    return bad("program: longer than " + number(kMaxProgramBytes) + " bytes: use a shorter path");
  }
  if (has_nul(program)) return bad("program: it contains a NUL byte: rename the program");
  if (program.front() == '/' || program.find('/') == std::string::npos) return absl::OkStatus();
  const absl::StatusOr<std::string> path = normalise_relative_path(program);
  if (!path.ok()) return bad("program: " + std::string(path.status().message()));
  const bool found =
      std::any_of(spec.files.begin(), spec.files.end(), [&path](const FileRef& file) {
        // What an archive holds is known only when it is unpacked.
        return file.kind == FileKind::archive ||
               (file.kind != FileKind::directory && file.path == *path);
      });
  if (found || !spec.build.empty()) return absl::OkStatus();
  return bad("program: " + in_quotes(program) +
             " is not among the job's files: add it to files, or name a program of the worker "
             "without '/' or with its absolute path");
}

absl::Status check_collect(const JobSpec& spec) {
  if (spec.collect.size() > kMaxCollect) {
    return bad("collect: more than " + number(kMaxCollect) + " patterns: use ** for a tree");
  }
  for (const std::string& pattern : spec.collect) {
    const absl::StatusOr<std::string> path = normalise_relative_path(pattern);
    if (!path.ok()) return bad("collect: " + std::string(path.status().message()));
  }
  return absl::OkStatus();
}

absl::Status check_gpus(const Resources& need) {
  const bool gpus = need.gpus_milli > 0;
  if (need.gpus_milli > kMaxGpusMilli) {
    return bad("resources.gpus: use at most " + number(kMaxGpusMilli / 1000));
  }
  if (need.gpus_milli > 1000 && need.gpus_milli % 1000 != 0) {
    return bad("resources.gpus: a part of one GPU (0.25) or whole ones (2): nothing between");
  }
  if (need.gpu_memory_bytes > kMaxBytes) {
    return bad("resources.gpu_memory_bytes: " + format_bytes(need.gpu_memory_bytes) +
               " is more than any GPU has");
  }
  if (need.gpu_exclusive && need.gpus_milli % 1000 != 0) {
    return bad("resources.gpu_exclusive: a part of a GPU is not exclusive: ask for gpus 1");
  }
  if (!gpus &&
      (need.gpu_memory_bytes > 0 || need.gpu_exclusive || need.min_compute_capability > 0)) {
    return bad("resources.gpus: say how many GPUs a rank needs, beside what they must have");
  }
  return absl::OkStatus();
}

absl::Status check_named(const NamedResources& named) {
  if (named.size() > kMaxNamedResources) {
    return bad("resources.named: more than " + number(kMaxNamedResources));
  }
  for (size_t i = 0; i < named.size(); ++i) {
    const auto& [name, milli] = named[i];
    if (!is_resource_name(name)) {
      return bad("resources.named: " + in_quotes(name) +
                 " is no name: use letters, digits, '_', '-' and '.', at most 64");
    }
    if (milli == 0 || milli > kMaxNamedMilli) {
      return bad("resources.named: " + name + ": use 0.001 to " + number(kMaxNamedMilli / 1000));
    }
    if (i > 0 && named[i - 1].first >= name) {
      return bad("resources.named: " + name + " is given twice, or the names are not sorted");
    }
  }
  return absl::OkStatus();
}

absl::Status check_resources(const JobSpec& spec) {
  const Resources& need = spec.resources;
  if (need.cpus_milli == 0 || need.cpus_milli > kMaxCpusMilli) {
    return bad("resources.cpus: use 0.001 to " + number(kMaxCpusMilli / 1000) + " cores");
  }
  if (need.memory_bytes > kMaxBytes) {
    return bad("resources.memory_bytes: " + format_bytes(need.memory_bytes) +
               " is more than any machine has: state what one rank needs");
  }
  if (need.disk_bytes > kMaxBytes) {
    return bad("resources.disk_bytes: " + format_bytes(need.disk_bytes) +
               " is more than any disk has: state what one rank needs");
  }
  if (spec.priority < -kMaxPriority || spec.priority > kMaxPriority) {
    return bad("priority: use " + std::to_string(-kMaxPriority) + " to " +
               std::to_string(kMaxPriority));
  }
  if (absl::Status status = check_gpus(need); !status.ok()) return status;
  return check_named(need.named);
}

absl::Status check_limits(const JobSpec& spec) {
  if (spec.repetitions == 0 || spec.repetitions > kMaxRepetitions) {
    return bad("repetitions: " + number(spec.repetitions) + " is not possible: use 1 to " +
               number(kMaxRepetitions));
  }
  if (spec.inject > Inject::none) return bad("inject: unknown value: use args, env or none");
  if (absl::Status status = check_resources(spec); !status.ok()) return status;
  if (spec.retries > kMaxRetries) {
    return bad("retries: " + number(spec.retries) + " is too many: use at most " +
               number(kMaxRetries));
  }
  if (spec.time_limit_ms > kMaxTimeLimitMs) {
    return bad("time_limit: longer than ten years: use less, or 0 for none");
  }
  if (spec.grace_ms > kMaxGraceMs) return bad("grace: longer than a day: use less");
  if (spec.job_time_limit_ms > kMaxTimeLimitMs) {
    return bad("job_time_limit: longer than ten years: use less, or 0 for none");
  }
  if (spec.checkpoint_every_ms != 0 && spec.checkpoint_every_ms < kMinCheckpointEveryMs) {
    return bad("checkpoint_every: " + format_duration_ms(spec.checkpoint_every_ms) +
               " is too often: use at least " + format_duration_ms(kMinCheckpointEveryMs) +
               ", or 0 to save only when the program says so");
  }
  if (spec.checkpoint_every_ms > kMaxTimeLimitMs) {
    return bad("checkpoint_every: longer than ten years: use less, or 0 for none");
  }
  if (spec.output_limit_bytes > kMaxBytes) {
    return bad("output_limit_bytes: " + format_bytes(spec.output_limit_bytes) +
               " is more than any disk has: use less");
  }
  return absl::OkStatus();
}

absl::Status check_build(const JobSpec& spec) {
  if (spec.build.size() > kMaxArgumentBytes) {
    return bad("build: longer than " + number(kMaxArgumentBytes) + " bytes: put it into a script");
  }
  if (has_nul(spec.build)) return bad("build: it contains a NUL byte: put it into a script");
  if (!spec.build.empty() && spec.build.find_first_not_of(" \t\r\n") == std::string::npos) {
    return bad("build: it is blank: name the command that builds the program, or leave it out");
  }
  if (spec.build.empty() && spec.build_time_limit_ms != 0) {
    return bad("build_time_limit: nothing is built: set build too, or leave it out");
  }
  if (spec.build_time_limit_ms > kMaxTimeLimitMs) {
    return bad("build_time_limit: longer than ten years: use less");
  }
  return absl::OkStatus();
}

absl::Status check_gang(const JobSpec& spec) {
  if (spec.same_worker && !spec.parallel) {
    return bad("same_worker: it is for parallel jobs: set parallel too, or leave it out");
  }
  if (spec.parallel && spec.repetitions > kMaxGangRanks) {
    return bad("repetitions: a parallel job has at most " + number(kMaxGangRanks) + " ranks, not " +
               number(spec.repetitions) + ": run it with fewer, or without parallel");
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status validate(const JobSpec& spec) {
  if (absl::Status status = check_shown_name("name", spec.name); !status.ok()) return status;
  if (absl::Status status = check_shown_name("room", spec.room); !status.ok()) return status;
  if (absl::Status status = check_limits(spec); !status.ok()) return status;
  if (absl::Status status = check_gang(spec); !status.ok()) return status;
  if (absl::Status status = check_build(spec); !status.ok()) return status;
  if (absl::Status status = check_files(spec); !status.ok()) return status;
  if (absl::Status status = check_program(spec); !status.ok()) return status;
  if (absl::Status status = check_command(spec); !status.ok()) return status;
  return check_collect(spec);
}

}  // namespace pesc
