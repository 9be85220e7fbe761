// Brings blobs into the cache, each once, however many attempts wait for it: from the coordinator,
// large ones from other workers that have them (fetch_large.cc).
// On the loop's thread.
#pragma once

#include <kj/async.h>
#include <kj/vector.h>

#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "model/ids.h"
#include "pesc.capnp.h"
#include "rpc/loop.h"
#include "runtime/worker/shell/cache.h"
#include "runtime/worker/shell/holder.h"
#include "runtime/worker/shell/pass_on.h"

namespace pesc::worker {

// How long another worker is given before it is left for the next, or for the coordinator.
struct PassingLimits {
  uint64_t connect_ms = 2'000;
  uint64_t stall_ms = 10'000;  // without a piece
  // Slower than this, after that long a wait for its pieces.
  uint64_t least_bytes_per_s = 256 << 10;
  uint64_t judge_after_ms = 30'000;
};

class Fetcher final : public kj::TaskSet::ErrorHandler {
 public:
  Fetcher(rpc::Loop& loop, std::shared_ptr<Cache> cache);
  ~Fetcher() noexcept;

  // Where to fetch from; nothing: wait until there is something again.
  void set_source(std::optional<protocol::Blobs::Client> source);

  // Large blobs are asked for at other workers too; both outlive this. `pass_on`: and given on to
  // others from there, null: not.
  void set_passing(HolderFinder* finder, PassOn* pass_on, PassingLimits limits = {});

  // Done when all of them are in the cache. Fails with Unavailable (the connection went; what has
  // arrived of large blobs is kept for the next call), NotFound, DataLoss, ResourceExhausted.
  // They must be pinned.
  kj::Promise<void> ensure(std::vector<BlobRef> blobs);

 private:
  struct Writing;
  struct Large;
  struct SmallWait {
    BlobRef blob;
    kj::Own<kj::PromiseFulfiller<void>> fulfiller;
  };

  void taskFailed(kj::Exception&&) override {}
  kj::Promise<void> trim();
  kj::Promise<void> fetch_one(const BlobRef& blob);
  kj::Promise<void> with_source();

  // ---- fetch_large.cc
  kj::Promise<void> fetch_large(const BlobRef& blob);
  absl::StatusOr<std::shared_ptr<Large>> begin_large(const BlobRef& blob);
  absl::Status begin_writing(Large& large);
  void large_ended(const std::shared_ptr<Large>& large, const absl::Status& status);
  kj::Promise<void> large_slot();
  void release_large_slot();
  void keep_partial(std::shared_ptr<Large> large);
  bool is_passed(const BlobRef& blob) const;
  void pass_on_from_now(Large& large);
  kj::Promise<void> choose_source(std::shared_ptr<Large> large, uint64_t failed);
  kj::Promise<void> open_holder(std::shared_ptr<Large> large, const Holder& holder);
  void avoid(uint64_t worker);
  kj::Promise<void> leave(std::shared_ptr<Large> large, uint64_t worker, const absl::Status& why);
  kj::Promise<std::string> read_piece(Large& large, uint64_t offset, uint32_t bytes);
  kj::Promise<void> pump(std::shared_ptr<Large> large);
  kj::Promise<std::string> within_stall(kj::Promise<std::string> data);
  bool too_slow(Large& large, uint64_t bytes) const;
  kj::Promise<void> take_piece(std::shared_ptr<Large> large, uint64_t worker, uint64_t asked,
                               std::string bytes);
  kj::Promise<void> append(std::shared_ptr<Large> large, std::string bytes);
  kj::Promise<void> finish(std::shared_ptr<Large> large);
  kj::Promise<void> start_over(std::shared_ptr<Large> large);

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
  HolderFinder* finder_ = nullptr;
  PassOn* pass_on_ = nullptr;
  PassingLimits limits_;
  // Workers that are not asked for any blob, and until when: they could not be reached, were slow,
  // or gave bytes that were not the blob's.
  std::map<uint64_t, int64_t> avoided_;
  std::map<Digest, SmallWait> small_;  // asked for, not answered
  std::deque<BlobRef> small_queue_;    // not even asked for
  uint32_t batches_ = 0;
  bool flush_planned_ = false;
  std::optional<kj::ForkedPromise<void>> trimming_;
  kj::TaskSet tasks_;
};

}  // namespace pesc::worker
