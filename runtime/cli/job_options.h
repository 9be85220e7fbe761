// The flags of `run` and `submit` that describe a job.
#pragma once

#include <CLI/CLI.hpp>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "pesc/job.h"

namespace pesc::cli {

struct JobOptions {
  std::string repetitions = "1";
  std::string parameter_list;
  std::vector<std::string> parameters, files, archives, shared_files, collect, environment;
  std::string inject = "args";
  std::string cpus = "1", disk, gpus = "0", gpu_memory, min_compute_capability, priority = "0";
  std::vector<std::string> named;
  bool gpu_exclusive = false;
  std::string memory, time_limit, grace, output_limit, retries = "0", seed = "0";
  std::string name, room;
  std::string max_failures, job_time_limit, checkpoint_every;
  std::string build, build_time_limit;
  bool parallel = false, same_worker = false, no_second_attempts = false;
  bool no_auto_files = false;
  bool strict = false;
  std::vector<std::string> command;
};

void add_job_flags(CLI::App* app, JobOptions& options);

// The program and its arguments: what follows `--`, or, without that, the words among the flags.
absl::Status take_command(const std::optional<std::vector<std::string>>& after_dashes,
                          JobOptions& options);

// The job, or InvalidArgument naming the flag. `sent`: the files that travel without being asked
// for, to be said in one line.
absl::StatusOr<Job> make_job(const JobOptions& options, std::vector<std::string>& sent);

// A refusal of the job's description ("checkpoint_every: …") in the words of the command line
// ("--checkpoint-every: …").
absl::Status in_flags(const absl::Status& status);

}  // namespace pesc::cli
