// From messages to the public values.
#pragma once

#include "client/session.h"
#include "model/outcome.h"
#include "pesc/client.h"

namespace pesc::client {

struct FinalRank {
  RankResult result;
  BlobRef output;
};

pesc::JobStatus to_public(protocol::JobStatus::Reader status);
pesc::RankProgress to_public(protocol::RankProgress::Reader progress);
pesc::WorkerStatus to_public(protocol::WorkerStatus::Reader worker);
pesc::WhyLine to_public(protocol::WhyLine::Reader line);
FinalRank to_public(protocol::RankInfo::Reader rank);

}  // namespace pesc::client
