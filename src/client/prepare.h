// From the user's description of a job to a specification whose files are blobs.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "model/job_spec.h"
#include "pesc/client.h"
#include "pesc/job.h"

namespace pesc::client {

struct PreparedJob {
  JobSpec spec;
  std::map<Digest, std::filesystem::path> sources;  // where each blob's bytes are read from
};

// Reads and hashes every file. InvalidArgument or NotFound say which field or file and what to do.
absl::StatusOr<PreparedJob> prepare(const Job& job);

// Client::submit of what was prepared, for who has looked at it before: large files are hashed
// once. Aborted: one is no longer what it was then.
absl::StatusOr<JobHandle> submit(const Client& client, const PreparedJob& job,
                                 const std::string& id);

// The job's build makes the program: nothing has its name yet, below app_dir, or what has is a
// compiled one, of an earlier build here. (A script is rather what uses the thing that is built.)
bool builds_its_program(const Job& job);

// Two jobs with the same digest are the same job: what `pesc run --resume` compares.
Digest digest_of(const JobSpec& spec);

}  // namespace pesc::client
