// What ranks asked for, what they were measured to take, and what they were held to.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "model/resources.h"
#include "pesc/pesc.h"

namespace pesc::cli {

struct Size {
  std::optional<double> asked;  // nothing: it was not stated
  struct Measured {
    double min = 0, median = 0, max = 0;
  };
  std::optional<Measured> measured;  // of ranks that ran to their end
  std::optional<double> limit;       // the highest; nothing: none but what the worker has
};

struct Sizes {
  Size cpus, memory, disk, written, gpus, gpu_memory;  // written: to files, over the whole time
};

absl::StatusOr<Resources> asked_by(Client& client, const std::string& job);
Sizes sizes_of(const Resources& asked, const std::vector<RankResult>& ranks);
std::vector<std::string> size_lines(const Sizes& sizes);

}  // namespace pesc::cli
