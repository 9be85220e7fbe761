// Brings blobs from the coordinator into the cache: each once, however many attempts wait for it.
// On the loop's thread.
#pragma once

#include <kj/async.h>
#include <kj/vector.h>

#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "model/ids.h"
#include "pesc.capnp.h"
#include "rpc/loop.h"
#include "runtime/worker/shell/cache.h"

namespace pesc::worker {

class Fetcher final : public kj::TaskSet::ErrorHandler {
 public:
  Fetcher(rpc::Loop& loop, std::shared_ptr<Cache> cache);
  ~Fetcher() noexcept;

  // Where to fetch from; nothing: wait until there is something again.
  void set_source(std::optional<protocol::Blobs::Client> source);

  // Done when all of them are in the cache. Fails with Unavailable (the connection went; what has
  // arrived of large blobs is kept for the next call), NotFound, DataLoss, ResourceExhausted.
  // They must be pinned.
  kj::Promise<void> ensure(std::vector<BlobRef> blobs);

 private:
  struct Large;
  struct SmallWait {
    BlobRef blob;
    kj::Own<kj::PromiseFulfiller<void>> fulfiller;
  };

  void taskFailed(kj::Exception&&) override {}
  kj::Promise<void> trim();
  kj::Promise<void> fetch_one(const BlobRef& blob);
  kj::Promise<void> with_source();

  kj::Promise<void> fetch_large(const BlobRef& blob);
  kj::Promise<void> pump(std::shared_ptr<Large> large);
  kj::Promise<void> append(std::shared_ptr<Large> large, std::string bytes);
  kj::Promise<void> large_slot();
  void release_large_slot();
  void keep_partial(std::shared_ptr<Large> large);

  kj::Promise<void> fetch_small(const BlobRef& blob);
  void flush_small();
  kj::Promise<void> read_batch(std::vector<BlobRef> batch);
  kj::Promise<void> store_batch(std::vector<BlobRef> batch, std::vector<std::string> contents);
  void fail_batch(const std::vector<BlobRef>& batch, kj::Exception&& exception);
  void settle(const Digest& digest, const absl::Status& status);

  rpc::Loop& loop_;
  std::shared_ptr<Cache> cache_;
  std::optional<protocol::Blobs::Client> source_;
  std::vector<kj::Own<kj::PromiseFulfiller<void>>> waiting_for_source_;
  std::map<Digest, kj::ForkedPromise<void>> in_flight_;
  std::deque<std::shared_ptr<Large>> partial_;
  std::deque<kj::Own<kj::PromiseFulfiller<void>>> waiting_for_slot_;
  uint32_t large_running_ = 0;
  std::map<Digest, SmallWait> small_;  // asked for, not answered
  std::deque<BlobRef> small_queue_;    // not even asked for
  uint32_t batches_ = 0;
  bool flush_planned_ = false;
  std::optional<kj::ForkedPromise<void>> trimming_;
  kj::TaskSet tasks_;
};

}  // namespace pesc::worker
