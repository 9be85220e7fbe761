// Finds a running keeper, or starts one.
#pragma once

#include "absl/status/statusor.h"
#include "runtime/worker/keeper_client/keeper_client.h"

namespace pesc::worker {

// A connected socket, to be closed by the caller.
absl::StatusOr<int> connect_to_keeper(const KeeperClient::Options& options);

}  // namespace pesc::worker
