// What stands between Cap'n Proto and a stream: reads ahead, so that a message costs one call and
// not two or three, and sends all messages of a turn of the loop together.
#pragma once

#include <kj/async-io.h>

#include "rpc/loop.h"

namespace pesc::rpc {

// Every failure of `inner` becomes a DISCONNECTED: a peer that closes TLS without a goodbye is gone
// like any other. What was written when the stream is destroyed is still sent, for a short while.
kj::Own<kj::AsyncIoStream> make_rpc_stream(Loop& loop, kj::Own<kj::AsyncIoStream> inner);

}  // namespace pesc::rpc
