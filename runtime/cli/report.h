// What is said of a job when it is over.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "client/state.h"
#include "pesc/pesc.h"

namespace pesc::cli {

// Fetches, and says once which files were left behind.
absl::StatusOr<client::FetchReport> fetch_job(Client& client, const std::string& id,
                                              const std::string& directory,
                                              const SaveOptions& options, bool quiet);

// What to do after a job was stopped early. `directory`: of an embedded run's results.
std::string advice_after_stop(bool embedded, const std::string& id, const std::string& directory);
// One line for the job, and the reasons of its failures.
// `paused_ms`: when nothing of it ran because the run was interrupted, and gone on with later.
void report_end(Client& client, const JobStatus& status, const std::string& directory, bool json,
                uint64_t paused_ms = 0);
// From submission to the end, or to now, without the pauses.
uint64_t elapsed_ms(const JobStatus& status, int64_t now_unix_ms, uint64_t paused_ms);
// An error about a directory, with the flag that names another one.
absl::Status other_directory(const absl::Status& status);

// Says what a job that does not move waits for. Does not block.
void say_why_it_waits(Client client, const std::string& id);

int64_t now_unix_ms();

struct Statistics {
  uint32_t ranks = 0;  // that have run to their end
  double min_seconds = 0, median_seconds = 0, mean_seconds = 0, max_seconds = 0;
  double sequential_seconds = 0;  // the sum: what one machine, one at a time, would have taken
  double elapsed_seconds = 0;
  double speed_up = 0;
  std::vector<std::pair<std::string, uint32_t>> ranks_per_worker;
};
Statistics statistics_of(const JobStatus& status, const std::vector<RankResult>& ranks,
                         int64_t now_unix_ms, uint64_t paused_ms = 0);

std::vector<std::string> statistics_lines(const Statistics& statistics);

// Work done again, as a share of all work done. 0 when there was none.
double redone_share(const AttemptTally& tally);
// "attempts that did not count: 3 worker_lost, 1 exit_code"; empty when all did.
std::string failed_attempts_line(const AttemptTally& tally);
// What `pesc stats` says of attempts, checkpoints, second attempts and gangs: what there was.
std::vector<std::string> tally_lines(const AttemptTally& tally);

}  // namespace pesc::cli
