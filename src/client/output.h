// What ranks write: the calls that the readers of one rank and of a whole job share.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "blob/pack.h"
#include "client/convert.h"
#include "client/follow.h"
#include "client/session.h"
#include "model/ids.h"

namespace pesc::client {

enum class Stream : uint8_t { output = 1, error = 2, build = 3 };
inline Stream stream_of(bool standard_error) {
  return standard_error ? Stream::error : Stream::output;
}

struct LiveOutput {
  std::string bytes;
  uint32_t attempt = 0;  // whose bytes they are; of a rank that is over: which one decided
};

// What is to be read of a rank that runs.
struct LiveRead {
  uint32_t rank = 0;
  uint32_t attempt = 0;  // which one, if it still runs; 0: the newest
  uint64_t offset = 0;
  uint32_t max_bytes = 0;
};

// The next bytes of a rank that runs; none when there are none yet, or when it runs no more. On the
// loop's thread.
kj::Promise<LiveOutput> read_live(UserSession& user, JobId id, const LiveRead& read, Stream stream);

// Of a rank that is over, from `offset` on, out of `source`: its whole output, packed. NotFound: it
// has none of that stream.
absl::Status stream_packed(const blob::ByteSource& source, bool standard_error, uint64_t offset,
                           const OutputSink& sink);

// The output of all ranks of a job while it runs: what running ranks write, as they write it, and
// of those that are over the rest, in the order in which they ended. However many ranks a job has,
// a bounded number of calls is under way, and what is kept are two numbers of each rank that runs.
class JobOutput {
 public:
  struct Listener {
    // Of a rank that runs: whole lines, ended by '\n' or '\r', unless one is longer than
    // kLongestLine.
    std::function<absl::Status(uint32_t rank, std::string_view bytes)> bytes;
    // What follows is another attempt's, from its beginning.
    std::function<absl::Status(uint32_t rank, uint32_t before, uint32_t attempt)> restarted;
  };
  static constexpr uint32_t kLongestLine = 64 * 1024;

  JobOutput(std::shared_ptr<Session> session, JobId id, bool standard_error, Listener listener)
      : session_(std::move(session)),
        id_(id),
        standard_error_(standard_error),
        listener_(std::move(listener)) {}
  // Blocks until the job is over and all of it was given. A coordinator that does not answer is
  // waited for. An error of the listener's ends it.
  absl::Status follow();

 private:
  struct Live {
    uint64_t offset = 0;
    uint32_t attempt = 0;  // 0: nothing was read yet
    int64_t not_before_ms = 0;
  };
  struct Piece;

  absl::StatusOr<Followed> ask();
  absl::Status finish(const std::vector<FinalRank>& ranks);
  absl::Status finish(const FinalRank& rank, const blob::ByteSource& source);
  absl::Status look();
  absl::StatusOr<std::vector<uint32_t>> running();
  absl::StatusOr<std::vector<Piece>> read(const std::vector<uint32_t>& ranks);
  absl::Status take(const Piece& piece);

  std::shared_ptr<Session> session_;
  JobId id_;
  bool standard_error_;
  Listener listener_;
  uint64_t revision_ = 0;
  uint32_t seen_ = 0;       // of the ranks that are final
  bool first_ = true;       // nothing was asked yet
  bool runs_ = false;       // a rank does
  bool more_ = false;       // more ranks are final than were told at once
  int64_t look_at_ms_ = 0;  // at running ranks
  int64_t look_at_all_ms_ = 0;
  uint32_t cursor_ = 0;       // the first of them that is looked at
  std::set<uint32_t> again_;  // had more than was read
  std::map<uint32_t, Live> live_;
};

}  // namespace pesc::client
