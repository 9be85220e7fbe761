// The directories of attempts that are over, for the next attempts of the same job: on a disk,
// making five directories and deleting them again costs more than all else that a short rank needs.
//
// Only a job's own attempts get them, with its inputs in place, and for a minute those of a job
// that has the same inputs; a directory of which anything cannot be made as it was is not kept. On
// the loop's thread; tidy() anywhere.
#pragma once

#include <map>
#include <optional>
#include <vector>

#include "model/ids.h"
#include "runtime/worker/shell/attempt_dirs.h"
#include "runtime/worker/shell/inputs.h"

namespace pesc::worker {

struct SpareDir {
  AttemptPaths paths;
  PlacedInputs placed;
};

// Deletes what the attempt left beside its inputs: a few small files. False when it left more, when
// an input, an owner or a mode is another than before, or in doubt: then the directory is of no
// use. The attempt's processes are gone, and its root is closed to others.
// `thorough`: for another job, perhaps another person's. What a rank may have forged (the times of
// its directories) is not believed.
bool tidy(const SpareDir& dir, const AttemptDirs& dirs, bool thorough = false);

class SpareDirs {
 public:
  // Those beyond `limit` are given back, to be deleted.
  explicit SpareDirs(size_t limit) : limit_(limit) {}

  std::optional<SpareDir> take(JobId job);
  [[nodiscard]] std::vector<SpareDir> keep(JobId job, SpareDir dir);
  // The job has no attempts here any more.
  [[nodiscard]] std::vector<SpareDir> drop(JobId job);
  size_t size() const { return size_; }

 private:
  const size_t limit_;
  size_t size_ = 0;
  std::map<JobId, std::vector<SpareDir>> dirs_;
};

}  // namespace pesc::worker
