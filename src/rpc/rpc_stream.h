// What stands between Cap'n Proto and a stream: reads ahead, so that a message costs one call and
// not two or three, and sends all messages of a turn of the loop together.
#pragma once

#include <kj/async-io.h>

#include <cstdint>
#include <memory>

#include "rpc/loop.h"

namespace pesc::rpc {

// Every failure of `inner` becomes a DISCONNECTED: a peer that closes TLS without a goodbye is gone
// like any other. What was written when the stream is destroyed is still sent, for a short while.
// `allowance`: how many bytes the peer may still send; UINT64_MAX, or none, is no bound.
kj::Own<kj::AsyncIoStream> make_rpc_stream(Loop& loop, kj::Own<kj::AsyncIoStream> inner,
                                           std::shared_ptr<uint64_t> allowance = nullptr);

}  // namespace pesc::rpc
