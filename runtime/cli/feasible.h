// Whether any worker that the coordinator knows could run a rank of a job.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "pesc/client.h"
#include "pesc/job.h"

namespace pesc::cli {

// What a rank needs that no known worker has, and the best that there is: "a rank needs 8 cpus; the
// largest worker known (pc-3) has 4". Nothing: one could run it, or none is known at all. What is
// in use now, a GPU in trouble too, may be free later.
std::optional<std::string> never_fits(const Job& job, const std::vector<WorkerStatus>& workers);

// Warns of that, or with `strict` refuses.
absl::Status check_someone_fits(Client& client, const Job& job, bool strict);

}  // namespace pesc::cli
