// What is too large to travel inline, to the coordinator. On the loop's thread.
#pragma once

#include <kj/async.h>

#include <string>

#include "model/ids.h"
#include "pesc.capnp.h"
#include "rpc/loop.h"

namespace pesc::worker {

// Done when it is durable there. After a failure: simply again, from the start. Memory: a window
// of 4 MiB.
kj::Promise<void> upload_file(rpc::Loop& loop, protocol::Blobs::Client blobs, BlobRef blob,
                              std::string path);
// The same for a part of a file, from `offset`; the caller has asked whether it is missing.
kj::Promise<void> upload_piece(rpc::Loop& loop, protocol::Blobs::Client blobs, BlobRef blob,
                               std::string path, uint64_t offset);

}  // namespace pesc::worker
