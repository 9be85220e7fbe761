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

// What a worker or the coordinator says of "the worker" is said of this machine when both are in
// this process. Only PESC's own words: what programs wrote stays.
std::string of_this_machine(std::string text);
void say_this_machine(pesc::JobStatus& status);
void say_this_machine(pesc::RankResult& rank);
void say_this_machine(pesc::WhyLine& line);

pesc::JobStatus to_public(protocol::JobStatus::Reader status);
pesc::RankProgress to_public(protocol::RankProgress::Reader progress);
pesc::WorkerStatus to_public(protocol::WorkerStatus::Reader worker);
pesc::WhyLine to_public(protocol::WhyLine::Reader line);
FinalRank to_public(protocol::RankInfo::Reader rank);

}  // namespace pesc::client
