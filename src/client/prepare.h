// From the user's description of a job to a specification whose files are blobs.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "blob/hash.h"
#include "model/job_spec.h"
#include "pesc/client.h"
#include "pesc/job.h"

namespace pesc::client {

struct PreparedJob {
  JobSpec spec;
  std::map<Digest, std::filesystem::path> sources;  // where each blob's bytes are read from
  // Large files that nobody has hashed yet, by what stands for their digest in `spec` until they
  // are sent: they get their name then, and must be what they are now.
  std::map<Digest, blob::ChangeCheck> unnamed;
};

// When large files are hashed: at once, where the job's digest is wanted, or by the coordinator,
// while they are sent, which takes half the time.
enum class Naming { now, when_sent };

// Reads and hashes every file. InvalidArgument or NotFound say which field or file and what to do.
absl::StatusOr<PreparedJob> prepare(const Job& job, Naming naming = Naming::now);

// Client::submit of what was prepared, for who has looked at it before: large files are hashed
// once. Afterwards all of them have their names. Aborted: one is no longer what it was then.
absl::StatusOr<JobHandle> submit(const Client& client, PreparedJob& job, const std::string& id);

// What stood for the file's digest is its digest from now on.
void rename_blob(PreparedJob& job, const Digest& stand_in, const BlobRef& blob);

// The job's build makes the program: nothing has its name yet, below app_dir, or what has is a
// compiled one, of an earlier build here. (A script is rather what uses the thing that is built.)
bool builds_its_program(const Job& job);

// Two jobs with the same digest are the same job: what `pesc run --resume` compares. Of a job whose
// files all have their names.
Digest digest_of(const JobSpec& spec);

}  // namespace pesc::client
