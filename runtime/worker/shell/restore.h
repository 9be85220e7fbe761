// A checkpoint, brought into an attempt's checkpoint_dir before its start.
#pragma once

#include <kj/async.h>

#include <functional>
#include <memory>

#include "model/checkpoint.h"
#include "rpc/loop.h"
#include "runtime/worker/shell/attempt_dirs.h"
#include "runtime/worker/shell/cache.h"
#include "runtime/worker/shell/fetch.h"

namespace pesc::worker {

struct RestoreOrder {
  CheckpointRef checkpoint;
  AttemptPaths paths;  // made, and closed to the ranks
  std::shared_ptr<AttemptDirs> dirs;
  std::shared_ptr<Cache> cache;
  std::function<bool()> wanted;  // asked now and then; false: it ends with Cancelled
};

// Whether a checkpoint with this manifest could be restored.
absl::Status check_restorable(const CheckpointManifest& manifest, uint64_t manifest_bytes);

// Fails with InvalidArgument when the manifest makes no sense, else with what Fetcher::ensure() or
// the disk says. Room in the cache: a window, whatever the checkpoint's size. On the loop's thread;
// `fetcher` must outlive the promise.
kj::Promise<void> restore_checkpoint(rpc::Loop& loop, Fetcher& fetcher, RestoreOrder order);

}  // namespace pesc::worker
