// One answer of `UserSession.follow`: how a job is, and which ranks have become final.
#pragma once

#include <vector>

#include "client/convert.h"
#include "client/session.h"
#include "model/ids.h"

namespace pesc::client {

// Asks not to be told of changes, but only of ranks that become final.
inline constexpr uint64_t kNoRevision = protocol::NO_REVISION;
inline constexpr uint32_t kFollowMs = 20'000;  // what one call waits at most

struct Followed {
  JobStatus status;
  uint64_t revision = 0;
  uint32_t committed = 0;
  std::vector<FinalRank> finished;
  std::vector<RankProgress> progress;
};

// On the loop's thread.
kj::Promise<Followed> follow(Session& session, UserSession& user, JobId id, uint64_t revision,
                             uint32_t committed, uint32_t wait_ms);

}  // namespace pesc::client
