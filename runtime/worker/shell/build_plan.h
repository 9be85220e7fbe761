// A job's build command: what tells one build from another, and how it is run.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "model/contract.h"
#include "model/job_spec.h"
#include "model/resources.h"
#include "runtime/worker/shell/attempt_dirs.h"

namespace pesc::worker {

// Where its programs are looked for: the job's PATH, else the worker's with CUDA's directory at its
// end, where NVIDIA's installers put nvcc and no daemon's PATH has it.
std::string build_search_path(const JobSpec& spec, const BaseEnvironment& base);

// What would build it: every word of the command that names a program of that PATH, and the usual
// compilers and makers, each with its real path, size and time; the machine's architecture and C
// library. Blocks.
std::string toolchain_print(std::string_view command, const std::string& search_path);

// Equal sources, command, environment, toolchain and GPU capability: equal keys.
Digest build_key(const JobSpec& spec, std::string_view toolchain, ComputeCapability capability);

std::vector<std::string> build_argv(const JobSpec& spec);

// A rank's clean environment and what the job adds. `gpus`: the variables that give it GPUs.
std::vector<std::string> build_environment(const JobSpec& spec, const BaseEnvironment& base,
                                           const AttemptPaths& paths, ComputeCapability capability,
                                           const std::vector<std::string>& gpus);

// The last lines of a log that say something, as one, at most 600 bytes.
std::string last_lines(std::string_view log);

}  // namespace pesc::worker
