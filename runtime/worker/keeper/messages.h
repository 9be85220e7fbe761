// What the keeper says.
#pragma once

#include "keeper.capnp.h"
#include "runtime/worker/keeper/attempt.h"

namespace pesc::keeper {

void fill_key(protocol::keeper::Key::Builder builder, const AttemptKey& key);
AttemptKey to_key(protocol::keeper::Key::Reader key);
void fill_exit(protocol::keeper::Exit::Builder builder, const Attempt& attempt);
void fill_attempt(protocol::keeper::Attempt::Builder builder, const Attempt& attempt);

}  // namespace pesc::keeper
