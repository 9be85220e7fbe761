// Between the keeper's messages and the worker's values.
#pragma once

#include "keeper.capnp.h"
#include "runtime/worker/keeper_client/keeper_client.h"

namespace pesc::worker {

AttemptKey to_key(protocol::keeper::Key::Reader key);
KeptExit to_kept_exit(protocol::keeper::Exit::Reader exit);
KeptAttempt to_kept_attempt(protocol::keeper::Attempt::Reader attempt);
void encode(const LaunchRequest& request, protocol::keeper::Start::Builder start);

}  // namespace pesc::worker
