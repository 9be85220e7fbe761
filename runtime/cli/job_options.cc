#include "runtime/cli/job_options.h"

#include <charconv>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <string_view>
#include <utility>

#include "client/prepare.h"
#include "model/job_spec.h"

namespace pesc::cli {
namespace {

namespace fs = std::filesystem;

absl::Status bad(const std::string& flag, const std::string& value, const std::string& expected) {
  return absl::InvalidArgumentError(flag + " '" + value + "': " + expected);
}

absl::Status number(const std::string& flag, const std::string& text, uint64_t low, uint64_t high,
                    uint64_t& out) {
  const char* end = text.data() + text.size();
  auto [stop, error] = std::from_chars(text.data(), end, out);
  if (error != std::errc() || stop != end || out < low || out > high) {
    return bad(flag, text,
               "give a whole number from " + std::to_string(low) + " to " + std::to_string(high));
  }
  return absl::OkStatus();
}

absl::Status from_status(const std::string& flag, const absl::Status& status) {
  return absl::InvalidArgumentError(flag + ": " + std::string(status.message()));
}

absl::Status duration(const std::string& flag, const std::string& text,
                      std::chrono::milliseconds& out) {
  if (text.empty()) return absl::OkStatus();
  absl::StatusOr<uint64_t> ms = parse_duration_ms(text);
  if (!ms.ok()) return from_status(flag, ms.status());
  out = std::chrono::milliseconds(*ms);
  return absl::OkStatus();
}

absl::Status bytes(const std::string& flag, const std::string& text, uint64_t& out) {
  if (text.empty()) return absl::OkStatus();
  absl::StatusOr<uint64_t> size = parse_bytes(text);
  if (!size.ok()) return from_status(flag, size.status());
  out = *size;
  return absl::OkStatus();
}

// Somebody who writes 8 means gigabytes. The kernel ends what has so few bytes before it has begun,
// in ways that do not say so.
constexpr uint64_t kLeastBytes = 64 << 10;

absl::Status size_of_rank(const std::string& flag, const std::string& text, uint64_t& out) {
  absl::Status status = bytes(flag, text, out);
  if (!status.ok() || out == 0 || out >= kLeastBytes) return status;
  return bad(flag, text,
             "that is " + format_bytes(out) + ", too little for any program: add a unit, as in 2G");
}

absl::Status cpus(const std::string& text, double& out) {
  const char* end = text.data() + text.size();
  auto [stop, error] = std::from_chars(text.data(), end, out);
  if (error != std::errc() || stop != end || !std::isfinite(out) || out < 0.001 || out > 100'000) {
    return bad("--cpus", text, "give a number of cores from 0.001 to 100000, such as 1 or 0.5");
  }
  return absl::OkStatus();
}

absl::Status max_failures(const std::string& text, uint32_t& out) {
  if (text.empty()) return absl::OkStatus();
  if (text == "none") {
    out = kNoMaxFailures;
    return absl::OkStatus();
  }
  uint64_t count = 0;
  absl::Status status = number("--max-failures", text, 1, kMaxRepetitions, count);
  if (!status.ok()) return bad("--max-failures", text, "give a number of ranks from 1, or none");
  out = static_cast<uint32_t>(count);
  return status;
}

std::vector<std::string> split_commas(const std::string& text) {
  std::vector<std::string> parts;
  if (text.empty()) return parts;
  size_t from = 0;
  for (size_t comma; (comma = text.find(',', from)) != std::string::npos; from = comma + 1) {
    parts.push_back(text.substr(from, comma - from));
  }
  parts.push_back(text.substr(from));
  return parts;
}

absl::Status environment(const std::vector<std::string>& given, Job& job) {
  for (const std::string& entry : given) {
    size_t equals = entry.find('=');
    std::string name = entry.substr(0, equals);
    if (name.empty()) return bad("--env", entry, "give NAME or NAME=VALUE");
    if (equals != std::string::npos) {
      job.environment[name] = entry.substr(equals + 1);
      continue;
    }
    const char* value = getenv(name.c_str());
    if (value == nullptr) {
      return bad("--env", entry, "is not set here; set it, or give NAME=VALUE");
    }
    job.environment[name] = value;
  }
  return absl::OkStatus();
}

// An argument that is an existing file below the current directory: it travels, and is found at the
// same relative path in the rank's working directory.
bool is_file_below_here(const std::string& argument) {
  if (argument.empty() || argument[0] == '-') return false;
  fs::path path = fs::path(argument).lexically_normal();
  if (path.is_absolute() || path.empty() || *path.begin() == ".." || path == ".") return false;
  std::error_code error;
  return fs::is_regular_file(path, error);
}

void add_automatic_files(const JobOptions& options, Job& job, std::vector<std::string>& sent) {
  if (options.no_auto_files) {
    job.send_program = false;
    return;
  }
  std::error_code error;
  if (job.program.find('/') != std::string::npos) {
    // One that is not here may be in an archive or among the files: then it need not travel.
    bool elsewhere = !fs::exists(job.program, error) &&
                     (!job.archives.empty() || !job.files.empty()) &&
                     fs::path(job.program).is_relative();
    job.send_program = !elsewhere && !client::builds_its_program(job);
    if (job.send_program) sent.push_back(job.program);
  }
  auto given = [&](const std::string& path) {
    auto same = [&](const std::string& other) {
      return fs::path(other).lexically_normal() == fs::path(path).lexically_normal();
    };
    return std::any_of(job.files.begin(), job.files.end(), same) ||
           std::any_of(job.shared_files.begin(), job.shared_files.end(), same) ||
           std::any_of(job.archives.begin(), job.archives.end(), same) || same(job.program);
  };
  for (const std::string& argument : job.arguments) {
    if (!is_file_below_here(argument) || given(argument)) continue;
    job.files.push_back(argument);
    sent.push_back(argument);
  }
}

}  // namespace

void add_job_flags(CLI::App* app, JobOptions& o) {
  app->add_option("-n,--repetitions", o.repetitions, "How many times to run the program (ranks)")
      ->type_name("N");
  app->add_option("--parameters", o.parameter_list, "Values every rank is given, comma-separated")
      ->type_name("A,B,…");
  app->add_option("--parameter", o.parameters, "One such value; repeatable, may contain commas")
      ->type_name("V")
      ->expected(1)
      ->take_all();
  app->add_option("--file", o.files, "A file or directory each rank gets; repeatable")
      ->type_name("PATH")
      ->expected(1)
      ->take_all();
  app->add_option("--archive", o.archives, "An archive unpacked into app_dir; repeatable")
      ->type_name("PATH")
      ->expected(1)
      ->take_all();
  app->add_option("--shared-file", o.shared_files,
                  "A file of which each worker keeps one read-only copy; repeatable")
      ->type_name("PATH")
      ->expected(1)
      ->take_all();
  app->add_option(
         "--build", o.build,
         "A shell command that makes the program from the files, once on each worker, e.g. "
         "\"nvcc -O3 sim.cu -o sim\" or make")
      ->type_name("COMMAND");
  app->add_option("--build-time-limit", o.build_time_limit, "Longest build on one worker (30m)")
      ->type_name("TIME");
  app->add_option("--collect", o.collect,
                  "Files of the working directory that come back as well (*, ?, **); repeatable")
      ->type_name("GLOB")
      ->expected(1)
      ->take_all();
  app->add_option("--inject", o.inject,
                  "How the program learns its rank: args (arguments and environment), env, none")
      ->type_name("HOW");
  app->add_option("--env", o.environment, "Add to the ranks' environment; repeatable")
      ->type_name("NAME[=VALUE]")
      ->expected(1)
      ->take_all();
  app->add_option("--cpus", o.cpus, "Cores of one rank, fractions too")->type_name("N");
  app->add_option("--memory", o.memory, "Memory of one rank, e.g. 2G")->type_name("SIZE");
  app->add_option("--disk", o.disk, "Disk of one rank, e.g. 10G: it is placed by it")
      ->type_name("SIZE");
  app->add_option("--gpus", o.gpus,
                  "GPUs of one rank; ranks share one as long as their memory fits. A part (0.25) "
                  "bounds how many share it")
      ->type_name("N");
  app->add_option("--gpu-memory", o.gpu_memory,
                  "Memory of one rank on each GPU; default: as its program is seen to take")
      ->type_name("SIZE");
  app->add_flag("--gpu-exclusive", o.gpu_exclusive, "Share the GPUs with nobody");
  app->add_option("--min-compute-capability", o.min_compute_capability,
                  "The least a GPU must have, e.g. 8.0")
      ->type_name("X.Y");
  app->add_option("--resource", o.named,
                  "What workers declare in their configuration, e.g. licence=1; repeatable")
      ->type_name("NAME[=AMOUNT]")
      ->expected(1)
      ->take_all();
  app->add_option("--priority", o.priority,
                  "Among your own jobs that wait, the higher comes first (-1000 to 1000)")
      ->type_name("N");
  app->add_option("--time-limit", o.time_limit, "Longest run of one rank, e.g. 90s, 2h")
      ->type_name("TIME");
  app->add_option("--grace", o.grace, "From SIGTERM to SIGKILL when a rank is stopped (10s)")
      ->type_name("TIME");
  app->add_option("--output-limit", o.output_limit,
                  "Bound on a rank's standard output, and on its standard error (1G)")
      ->type_name("SIZE");
  app->add_option("--job-time-limit", o.job_time_limit,
                  "Longest time from submission to the job's end, e.g. 12h")
      ->type_name("TIME");
  app->add_option("--max-failures", o.max_failures,
                  "Stop the job when N ranks have failed for good; none: never. Default: when its "
                  "first 20 attempts all fail within a second")
      ->type_name("N");
  app->add_option("--checkpoint-every", o.checkpoint_every,
                  "Save checkpoint_dir at this interval too, not only when the program says so")
      ->type_name("TIME");
  app->add_flag("--parallel", o.parallel,
                "All ranks run at the same time, all or none, and restart together");
  app->add_flag("--same-worker", o.same_worker, "With --parallel: all ranks on one worker");
  app->add_flag("--no-second-attempts", o.no_second_attempts,
                "Never start a second attempt of a slow rank near the job's end");
  app->add_option("--retries", o.retries, "Further tries for a rank whose program fails")
      ->type_name("N");
  app->add_option("--seed", o.seed, "The job's seed: PESC_SEED of each rank follows from it")
      ->type_name("N");
  app->add_option("--name", o.name, "A name for people; default: the program's")->type_name("NAME");
  app->add_option("--room", o.room, "Run only on workers of this room")->type_name("ROOM");
  app->add_flag("--strict", o.strict,
                "Refuse a job that no worker known could run, instead of a warning");
  app->add_flag("--no-auto-files", o.no_auto_files,
                "Send neither the program nor arguments that are files; they are there already");
  app->add_option("command", o.command, "-- PROGRAM ARGUMENTS…")->type_name("");
}

absl::Status take_command(const std::optional<std::vector<std::string>>& after_dashes,
                          JobOptions& options) {
  if (!after_dashes) return absl::OkStatus();
  if (!options.command.empty()) {
    return absl::InvalidArgumentError(
        "'" + options.command.front() +
        "' was not expected before `--`: the program and its arguments "
        "come after it");
  }
  options.command = *after_dashes;
  return absl::OkStatus();
}

absl::Status in_flags(const absl::Status& status) {
  // What has no flag, or several, is named as it is.
  static constexpr std::pair<std::string_view, std::string_view> kFlags[] = {
      {"name", "--name"},
      {"room", "--room"},
      {"repetitions", "--repetitions"},
      {"parameters", "--parameters"},
      {"collect", "--collect"},
      {"inject", "--inject"},
      {"environment", "--env"},
      {"resources.cpus", "--cpus"},
      {"resources.memory_bytes", "--memory"},
      {"resources.disk_bytes", "--disk"},
      {"resources.gpus", "--gpus"},
      {"resources.gpu_memory_bytes", "--gpu-memory"},
      {"resources.gpu_exclusive", "--gpu-exclusive"},
      {"resources.named", "--resource"},
      {"priority", "--priority"},
      {"retries", "--retries"},
      {"time_limit", "--time-limit"},
      {"grace", "--grace"},
      {"job_time_limit", "--job-time-limit"},
      {"output_limit_bytes", "--output-limit"},
      {"max_failures", "--max-failures"},
      {"checkpoint_every", "--checkpoint-every"},
      {"parallel", "--parallel"},
      {"same_worker", "--same-worker"},
      {"build", "--build"},
      {"build_time_limit", "--build-time-limit"},
  };
  const std::string message(status.message());
  const size_t colon = message.find(": ");
  if (status.ok() || colon == std::string::npos) return status;
  for (const auto& [field, flag] : kFlags) {
    if (message.compare(0, colon, field) != 0) continue;
    return absl::Status(status.code(), std::string(flag) + message.substr(colon));
  }
  return status;
}

namespace {

absl::Status gpus(const std::string& text, double& out) {
  const char* end = text.data() + text.size();
  auto [stop, error] = std::from_chars(text.data(), end, out);
  const bool whole = out == std::floor(out);
  if (error != std::errc() || stop != end || !(out >= 0) || out > 1000 || (out > 1 && !whole)) {
    return bad("--gpus", text, "give a whole number, or a part of one such as 0.5");
  }
  return absl::OkStatus();
}

absl::Status priority(const std::string& text, int32_t& out) {
  const char* end = text.data() + text.size();
  auto [stop, error] = std::from_chars(text.data(), end, out);
  if (error != std::errc() || stop != end || out < -kMaxPriority || out > kMaxPriority) {
    return bad("--priority", text, "give a whole number from -1000 to 1000");
  }
  return absl::OkStatus();
}

absl::Status named(const std::vector<std::string>& texts, std::map<std::string, double>& out) {
  for (const std::string& text : texts) {
    absl::StatusOr<std::pair<std::string, uint64_t>> one = parse_named_resource(text);
    if (!one.ok()) return from_status("--resource", one.status());
    if (!out.emplace(one->first, one->second / 1000.0).second) {
      return bad("--resource", text, one->first + " is given twice");
    }
  }
  return absl::OkStatus();
}

absl::Status resources(const JobOptions& o, Job& job) {
  JobResources& need = job.resources;
  absl::Status status = cpus(o.cpus, need.cpus);
  if (status.ok()) status = size_of_rank("--memory", o.memory, need.memory_bytes);
  if (status.ok()) status = size_of_rank("--disk", o.disk, need.disk_bytes);
  if (status.ok()) status = gpus(o.gpus, need.gpus);
  if (status.ok()) status = size_of_rank("--gpu-memory", o.gpu_memory, need.gpu_memory_bytes);
  if (status.ok()) status = named(o.named, need.named);
  if (status.ok()) status = priority(o.priority, job.priority);
  if (!status.ok()) return status;
  need.gpu_exclusive = o.gpu_exclusive;
  need.min_compute_capability = o.min_compute_capability;
  if (!o.min_compute_capability.empty()) {
    absl::StatusOr<ComputeCapability> least = parse_compute_capability(o.min_compute_capability);
    if (!least.ok()) return from_status("--min-compute-capability", least.status());
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Job> make_job(const JobOptions& o, std::vector<std::string>& sent) {
  Job job;
  if (o.command.empty()) {
    return absl::InvalidArgumentError(
        "no program is named: end the line with -- PROGRAM ARGUMENTS…");
  }
  job.program = o.command.front();
  job.arguments.assign(o.command.begin() + 1, o.command.end());
  uint64_t repetitions = 1, retries = 0;
  absl::Status status = number("--repetitions", o.repetitions, 1, kMaxRepetitions, repetitions);
  if (status.ok()) status = number("--retries", o.retries, 0, 1'000'000, retries);
  if (status.ok()) status = number("--seed", o.seed, 0, UINT64_MAX, job.seed);
  if (status.ok()) status = resources(o, job);
  if (status.ok()) status = bytes("--output-limit", o.output_limit, job.output_limit_bytes);
  if (status.ok()) status = duration("--time-limit", o.time_limit, job.time_limit);
  if (status.ok()) status = duration("--grace", o.grace, job.grace);
  if (status.ok()) status = duration("--job-time-limit", o.job_time_limit, job.job_time_limit);
  if (status.ok()) {
    status = duration("--checkpoint-every", o.checkpoint_every, job.checkpoint_every);
  }
  if (status.ok()) {
    status = duration("--build-time-limit", o.build_time_limit, job.build_time_limit);
  }
  if (status.ok()) status = max_failures(o.max_failures, job.max_failures);
  if (status.ok()) status = environment(o.environment, job);
  if (!status.ok()) return status;
  if (o.inject == "args") {
    job.inject = Inject::args;
  } else if (o.inject == "env") {
    job.inject = Inject::env;
  } else if (o.inject == "none") {
    job.inject = Inject::none;
  } else {
    return bad("--inject", o.inject, "is one of args, env, none");
  }
  job.repetitions = static_cast<uint32_t>(repetitions);
  job.retries = static_cast<uint32_t>(retries);
  job.parameters = split_commas(o.parameter_list);
  job.parameters.insert(job.parameters.end(), o.parameters.begin(), o.parameters.end());
  job.files = o.files;
  job.archives = o.archives;
  job.shared_files = o.shared_files;
  job.collect = o.collect;
  job.build = o.build;
  job.name = o.name;
  job.room = o.room;
  job.parallel = o.parallel;
  job.same_worker = o.same_worker;
  job.second_attempts = !o.no_second_attempts;
  add_automatic_files(o, job, sent);
  return job;
}

}  // namespace pesc::cli
