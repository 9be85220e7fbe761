// What the public classes hold.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "client/convert.h"
#include "client/session.h"
#include "pesc/client.h"

namespace pesc {

struct Client::State {
  std::shared_ptr<client::Session> session;
};

struct JobHandle::State {
  std::shared_ptr<client::Session> session;
  JobId id;
  std::string id_text;
  // Set when the last handle is gone: what still calls back stops.
  std::shared_ptr<std::atomic<bool>> dropped = std::make_shared<std::atomic<bool>>(false);
  // Held while a callback runs, so that none does any more when the last handle is gone: what it
  // refers to may go right after. Recursive: a callback may drop its own handle.
  std::shared_ptr<std::recursive_mutex> calling = std::make_shared<std::recursive_mutex>();
  ~State() {
    std::lock_guard lock(*calling);
    *dropped = true;
  }
};

struct JobResult::State {
  std::shared_ptr<client::Session> session;
  JobId id;
  JobStatus status;
};

namespace client {

absl::StatusOr<std::vector<FinalRank>> read_ranks(Session& session, JobId id, uint32_t first,
                                                  uint32_t max);
absl::StatusOr<std::vector<RankResult>> read_all_ranks(Session& session, JobId id);
// OutOfRange: no such rank.
absl::StatusOr<FinalRank> read_rank(Session& session, JobId id, uint32_t rank);

// Reads what a rank writes while it runs and afterwards, in pieces. A rank that is started again
// writes from the beginning: that is noticed by the attempt's number.
class OutputReader {
 public:
  // Not called for the first attempt that is read. An error ends the reading.
  using Restarted = std::function<absl::Status(uint32_t before, uint32_t attempt)>;
  OutputReader(std::shared_ptr<Session> session, JobId id, uint32_t rank, bool standard_error,
               uint64_t offset = 0, uint32_t attempt = 0)
      : session_(std::move(session)),
        id_(id),
        rank_(rank),
        standard_error_(standard_error),
        offset_(offset),
        attempt_(attempt) {}
  // All that there is beyond what was given before; may be called again, after an error too. While
  // an attempt runs it is stayed with, though a second one has been started beside it.
  absl::Status read(const OutputSink& sink, const Restarted& restarted);

 private:
  std::shared_ptr<Session> session_;
  JobId id_;
  uint32_t rank_;
  bool standard_error_;
  uint64_t offset_;
  uint32_t attempt_;  // 0: nothing was read yet
};

// The log of the build of a job's program, as the rank's worker wrote it, or the first rank's that
// has one; a failed one first. NotFound: none has one (yet).
absl::StatusOr<std::string> read_build_log(const std::shared_ptr<Session>& session, JobId id,
                                           std::optional<uint32_t> rank);

// What `pesc fetch` and JobResult::save do. Ranks that are not final yet are left for a later call
// into the same directory.
struct FetchReport {
  uint32_t ranks = 0;                    // written by this call
  uint32_t missing = 0;                  // not final yet
  std::vector<std::string> uncollected;  // of the first rank that left some
  uint32_t uncollected_rank = 0;
};
absl::StatusOr<FetchReport> fetch(const std::shared_ptr<Session>& session, JobId id,
                                  const std::string& directory, const SaveOptions& options);
// OK when `directory` can take the results of the job: empty, missing (it is made), or the job's
// own. `id` empty: any job's refused. Called before a long run starts rather than after it.
absl::Status claim_directory(const std::string& directory, const std::string& id,
                             const SaveOptions& options);

}  // namespace client
}  // namespace pesc
