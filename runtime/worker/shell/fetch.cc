#include "runtime/worker/shell/fetch.h"

#include <utility>

#include "protocol/codec.h"
#include "runtime/worker/shell/async.h"

namespace pesc::worker {
namespace {

constexpr uint64_t kSmallBytes = 256 * 1024;
constexpr uint64_t kBatchBytes = 1 << 20;  // what readMany gives at most
constexpr size_t kBatchBlobs = 512;
constexpr uint32_t kBatches = 4;

}  // namespace

Fetcher::Fetcher(rpc::Loop& loop, std::shared_ptr<Cache> cache)
    : loop_(loop), cache_(std::move(cache)), tasks_(*this) {}
Fetcher::~Fetcher() noexcept = default;

void Fetcher::set_source(std::optional<protocol::Blobs::Client> source) {
  source_ = std::move(source);
  if (!source_) return;
  for (auto& waiting : std::exchange(waiting_for_source_, {})) waiting->fulfill();
}

kj::Promise<void> Fetcher::with_source() {
  if (source_) return kj::READY_NOW;
  auto paf = kj::newPromiseAndFulfiller<void>();
  waiting_for_source_.push_back(kj::mv(paf.fulfiller));
  return kj::mv(paf.promise);
}

// What is being evicted must be gone before anybody asks whether it is there.
kj::Promise<void> Fetcher::trim() {
  std::vector<Digest> victims = cache_->choose_victims();
  if (!victims.empty()) {
    kj::Promise<void> before =
        trimming_ ? trimming_->addBranch() : kj::Promise<void>(kj::READY_NOW);
    trimming_ = before
                    .then([this, victims = std::move(victims)]() mutable {
                      return blocking(loop_, [cache = cache_, victims = std::move(victims)] {
                        return cache->evict(victims);
                      });
                    })
                    .ignoreResult()
                    .fork();
  }
  return trimming_ ? trimming_->addBranch() : kj::Promise<void>(kj::READY_NOW);
}

kj::Promise<void> Fetcher::ensure(std::vector<BlobRef> blobs) {
  return trim().then([this, blobs = std::move(blobs)]() -> kj::Promise<void> {
    kj::Vector<kj::Promise<void>> fetches;
    for (const BlobRef& blob : blobs) {
      if (!cache_->contains(blob.digest)) fetches.add(fetch_one(blob));
    }
    if (fetches.empty()) return kj::READY_NOW;
    return kj::joinPromises(fetches.releaseAsArray());
  });
}

kj::Promise<void> Fetcher::fetch_one(const BlobRef& blob) {
  if (auto it = in_flight_.find(blob.digest); it != in_flight_.end()) {
    return it->second.addBranch();
  }
  kj::ForkedPromise<void> fetch =
      with_source()
          .then([this, blob] {
            return blob.size_bytes <= kSmallBytes ? fetch_small(blob) : fetch_large(blob);
          })
          .fork();
  kj::Promise<void> branch = fetch.addBranch();
  // KJ keeps a reference to a callback that is passed by name, so each is made in place.
  kj::Promise<void> cleanup = fetch.addBranch().then(
      [this, digest = blob.digest] { in_flight_.erase(digest); },
      [this, digest = blob.digest](kj::Exception&&) { in_flight_.erase(digest); });
  in_flight_.emplace(blob.digest, kj::mv(fetch));
  tasks_.add(kj::mv(cleanup));
  return branch;
}

// ---- small ones: many in one call
// -----------------------------------------------------------------

kj::Promise<void> Fetcher::fetch_small(const BlobRef& blob) {
  auto paf = kj::newPromiseAndFulfiller<void>();
  small_[blob.digest] = SmallWait{blob, kj::mv(paf.fulfiller)};
  small_queue_.push_back(blob);
  if (!flush_planned_) {
    flush_planned_ = true;
    // Not evalLast: that waits for a moment without other work, which a busy loop may never have.
    tasks_.add(kj::evalLater([this] {
      flush_planned_ = false;
      flush_small();
    }));
  }
  return kj::mv(paf.promise);
}

void Fetcher::flush_small() {
  while (batches_ < kBatches && !small_queue_.empty()) {
    std::vector<BlobRef> batch;
    uint64_t bytes = 0;
    while (!small_queue_.empty() && batch.size() < kBatchBlobs &&
           bytes + small_queue_.front().size_bytes <= kBatchBytes) {
      bytes += small_queue_.front().size_bytes;
      batch.push_back(small_queue_.front());
      small_queue_.pop_front();
    }
    ++batches_;
    tasks_.add(read_batch(std::move(batch)).then([this] {
      --batches_;
      flush_small();
    }));
  }
}

kj::Promise<void> Fetcher::read_batch(std::vector<BlobRef> batch) {
  if (!source_) {
    fail_batch(batch, rpc::to_exception(
                          absl::UnavailableError("the connection to the coordinator is gone")));
    return kj::READY_NOW;
  }
  auto request = source_->readManyRequest();
  auto digests = request.initDigests(static_cast<unsigned>(batch.size()));
  for (unsigned i = 0; i < digests.size(); ++i) {
    digests.set(i, protocol::as_data(batch[i].digest));
  }
  return request.send()
      .then([](auto&& response) {
        std::vector<std::string> contents;
        for (auto bytes : response.getBlobs()) contents.emplace_back(protocol::as_view(bytes));
        return contents;
      })
      .then(
          [this, batch](std::vector<std::string> contents) -> kj::Promise<void> {
            return store_batch(batch, std::move(contents));
          },
          [this, batch](kj::Exception&& exception) -> kj::Promise<void> {
            // One that is missing must not fail the others: each for itself.
            if (batch.size() > 1 && absl::IsNotFound(rpc::to_status(exception))) {
              kj::Vector<kj::Promise<void>> singles;
              for (const BlobRef& blob : batch) singles.add(read_batch({blob}));
              return kj::joinPromises(singles.releaseAsArray());
            }
            fail_batch(batch, kj::mv(exception));
            return kj::READY_NOW;
          });
}

kj::Promise<void> Fetcher::store_batch(std::vector<BlobRef> batch,
                                       std::vector<std::string> contents) {
  if (contents.empty() || contents.size() > batch.size()) {
    fail_batch(batch,
               rpc::to_exception(absl::DataLossError("the coordinator answered with other blobs")));
    return kj::READY_NOW;
  }
  for (size_t i = contents.size(); i < batch.size(); ++i) small_queue_.push_back(batch[i]);
  batch.resize(contents.size());
  return blocking(loop_,
                  [batch, contents = std::move(contents), cache = cache_] {
                    std::vector<absl::Status> results;
                    for (size_t i = 0; i < batch.size(); ++i) {
                      if (contents[i].size() != batch[i].size_bytes ||
                          sha256(contents[i]) != batch[i].digest) {
                        results.push_back(absl::DataLossError("blob " + to_hex(batch[i].digest) +
                                                              " did not arrive as it should"));
                      } else {
                        results.push_back(cache->store().put(contents[i]).status());
                      }
                    }
                    return results;
                  })
      .then([this, batch](std::vector<absl::Status> results) {
        for (size_t i = 0; i < batch.size(); ++i) settle(batch[i].digest, results[i]);
      });
}

void Fetcher::settle(const Digest& digest, const absl::Status& status) {
  auto it = small_.find(digest);
  if (it == small_.end()) return;
  auto fulfiller = kj::mv(it->second.fulfiller);
  small_.erase(it);
  if (status.ok()) {
    fulfiller->fulfill();
  } else {
    fulfiller->reject(rpc::to_exception(status));
  }
}

void Fetcher::fail_batch(const std::vector<BlobRef>& batch, kj::Exception&& exception) {
  const absl::Status status = rpc::to_status(exception);
  for (const BlobRef& blob : batch) settle(blob.digest, status);
}

}  // namespace pesc::worker
