// Large inputs of jobs, and which workers have them already, as far as is known. Not durable.
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "model/job_spec.h"

namespace pesc::coordinator {

inline constexpr uint64_t kLargeInputBytes = 16ull << 20;  // from then on it matters who has it

struct Worker;

// A large blob that jobs need, or all that one needs beside its largest ones.
struct LargeInput {
  BlobRef blob;
  uint64_t jobs = 0;        // that need it and go on
  uint64_t idle_since = 0;  // the turn when there was none any more
  std::map<WorkerId, Worker*> holders;
};

using JobInputs = std::vector<LargeInput*>;  // a few at most

// By blob and not by program: another program may work on the same data.
std::vector<BlobRef> large_inputs(const JobSpec& spec);

class Inputs {
 public:
  JobInputs of(const JobSpec& spec);  // until they are forgotten
  // What is known of them is kept, of those that were forgotten last: they come again.
  void forget(JobInputs& of_job);
  // `needed`: by how many jobs. Empty when all is well.
  std::string check(const std::map<Digest, uint64_t>& needed) const;

 private:
  std::map<Digest, LargeInput> all_;
  std::map<uint64_t, Digest> idle_;  // of no job that goes on; the oldest first
  uint64_t turns_ = 0;
};

void note_holder(const JobInputs& inputs, Worker& worker);
void drop_holder(const JobInputs& inputs, WorkerId worker);
uint64_t held_bytes(const JobInputs& inputs, WorkerId worker);
bool holds_all(const JobInputs& inputs, WorkerId worker);

}  // namespace pesc::coordinator
