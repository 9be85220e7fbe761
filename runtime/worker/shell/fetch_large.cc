// Large blobs: read ahead in chunks, appended in order; from another worker that has them, or is
// being given them, where there is one, and from the coordinator where not. Whatever goes wrong
// with a worker, what has come stays, and the rest comes from elsewhere.
#include <algorithm>
#include <utility>

#include "protocol/codec.h"
#include "rpc/log.h"
#include "runtime/worker/shell/async.h"
#include "runtime/worker/shell/clock.h"
#include "runtime/worker/shell/fetch.h"

namespace pesc::worker {
namespace {

constexpr uint32_t kChunkBytes = 1 << 20;
constexpr uint32_t kPassedChunkBytes = 512 << 10;  // each worker on the way waits for a whole one
constexpr size_t kReadsInFlight = 8;
// Memory of large fetches is this, times chunk, times reads in flight.
constexpr uint32_t kLargeAtOnce = 2;
constexpr size_t kPartials = 4;
// Checkpoints' chunks, of which hardly any is wanted twice, are not larger.
constexpr uint64_t kPassedAboveBytes = 4 << 20;
constexpr size_t kMostHolders = 4;                  // that are tried for one blob
constexpr int64_t kAgainAfterMs = 10 * 60 * 1'000;  // one that could not be reached

}  // namespace

struct Fetcher::Large {
  BlobRef blob;
  std::unique_ptr<blob::Store::Writer> writer;  // with the pool while it appends
  std::shared_ptr<PassOn::Arrival> arrival;     // null: it is not passed on
  kj::Maybe<kj::Own<HolderConnection>> holder;  // nothing: the coordinator gives it
  std::set<uint64_t> given_by;                  // workers whose bytes are in it
  std::set<uint64_t> left;                      // workers that are not asked for it again
  size_t holders = 0;                           // tried
  bool coordinator_only = false;
  uint64_t asked = 0;
  struct Read {
    uint64_t bytes;
    kj::Promise<std::string> data;
  };
  std::deque<Read> reads;

  // What was asked for and has not come is asked for again.
  void stop_reading() {
    reads.clear();
    holder = nullptr;
    asked = writer->written_bytes();
  }
};

void Fetcher::set_passing(HolderFinder* finder, PassOn* pass_on, PassingLimits limits) {
  finder_ = finder;
  pass_on_ = pass_on;
  limits_ = limits;
}

kj::Promise<void> Fetcher::large_slot() {
  if (large_running_ < kLargeAtOnce) {
    ++large_running_;
    return kj::READY_NOW;
  }
  auto paf = kj::newPromiseAndFulfiller<void>();
  waiting_for_slot_.push_back(kj::mv(paf.fulfiller));
  return kj::mv(paf.promise);
}

void Fetcher::release_large_slot() {
  if (waiting_for_slot_.empty()) {
    --large_running_;
    return;
  }
  waiting_for_slot_.front()->fulfill();
  waiting_for_slot_.pop_front();
}

void Fetcher::keep_partial(std::shared_ptr<Large> large) {
  partial_.push_back(std::move(large));
  if (partial_.size() > kPartials) partial_.pop_front();
}

absl::StatusOr<std::shared_ptr<Fetcher::Large>> Fetcher::begin_large(const BlobRef& blob) {
  const auto kept = std::find_if(partial_.begin(), partial_.end(),
                                 [&](const auto& p) { return p->blob == blob; });
  if (kept != partial_.end()) {
    std::shared_ptr<Large> large = *kept;
    partial_.erase(kept);
    large->holders = 0;
    return large;
  }
  auto large = std::make_shared<Large>();
  large->blob = blob;
  auto writer = cache_->store().begin(blob);
  if (!writer.ok()) return writer.status();
  large->writer = std::move(*writer);
  return large;
}

kj::Promise<void> Fetcher::fetch_large(const BlobRef& blob) {
  return large_slot().then([this, blob] {
    auto begun = begin_large(blob);
    if (!begun.ok()) {
      release_large_slot();
      kj::throwFatalException(rpc::to_exception(begun.status()));
    }
    std::shared_ptr<Large> large = *begun;
    pass_on_from_now(*large);
    return choose_source(large, 0)
        .then([this, large] { return pump(large); })
        .then([this, large] { large_ended(large, absl::OkStatus()); },
              [this, large](kj::Exception&& exception) {
                large_ended(large, rpc::to_status(exception));
                kj::throwFatalException(kj::mv(exception));
              });
  });
}

void Fetcher::large_ended(const std::shared_ptr<Large>& large, const absl::Status& status) {
  release_large_slot();
  large->stop_reading();
  large->arrival.reset();
  if (is_passed(large->blob)) finder_->fetched(large->blob.digest, status.ok());
  if (absl::IsUnavailable(status)) keep_partial(large);
}

// ---- from whom
// ----------------------------------------------------------------------------------

bool Fetcher::is_passed(const BlobRef& blob) const {
  return finder_ != nullptr && blob.size_bytes > kPassedAboveBytes;
}

void Fetcher::pass_on_from_now(Large& large) {
  if (pass_on_ == nullptr || !is_passed(large.blob)) return;
  large.arrival = pass_on_->arriving(large.blob);
  large.arrival->arrived(large.writer->written_bytes(), large.writer->prefix());
}

// Done when it is known; from then on `holder` says it. Fails never.
kj::Promise<void> Fetcher::choose_source(std::shared_ptr<Large> large, uint64_t failed) {
  large->stop_reading();
  if (!is_passed(large->blob) || large->coordinator_only || ++large->holders > kMostHolders) {
    return kj::READY_NOW;
  }
  const int64_t now = boot_ms();
  std::erase_if(unreachable_, [&](const auto& each) { return each.second < now; });
  std::set<uint64_t> without = wrong_;
  without.insert(large->left.begin(), large->left.end());
  for (const auto& [worker, until] : unreachable_) without.insert(worker);
  return finder_->find_holder(large->blob, without, failed)
      .then([this, large](std::optional<Holder> holder) -> kj::Promise<void> {
        if (!holder) return kj::READY_NOW;
        return open_holder(large, *holder);
      });
}

kj::Promise<void> Fetcher::open_holder(std::shared_ptr<Large> large, const Holder& holder) {
  return HolderConnection::open(loop_, holder, limits_.connect_ms)
      .then(
          [large](kj::Own<HolderConnection> opened) -> kj::Promise<void> {
            large->holder = kj::mv(opened);
            return kj::READY_NOW;
          },
          [this, large, worker = holder.worker](kj::Exception&& e) {
            unreachable_[worker] = boot_ms() + kAgainAfterMs;
            return leave(large, worker, rpc::to_status(e));
          });
}

kj::Promise<void> Fetcher::leave(std::shared_ptr<Large> large, uint64_t worker,
                                 const absl::Status& why) {
  rpc::log().info("event=worker_left blob={} worker={} at={} error=\"{}\"",
                  to_hex(large->blob.digest), worker, large->writer->written_bytes(),
                  std::string(why.message()));
  large->left.insert(worker);
  return choose_source(large, worker);
}

// ---- piece by piece
// -----------------------------------------------------------------------------

kj::Promise<std::string> Fetcher::read_piece(Large& large, uint64_t offset, uint32_t bytes) {
  KJ_IF_MAYBE (holder, large.holder) {
    return (*holder)->read(offset, bytes);
  }
  auto request = source_->readRequest();
  request.setDigest(protocol::as_data(large.blob.digest));
  request.setOffset(offset);
  request.setMaxBytes(bytes);
  return request.send().then(
      [](auto&& response) { return std::string(protocol::as_view(response.getData())); });
}

kj::Promise<void> Fetcher::pump(std::shared_ptr<Large> large) {
  uint64_t worker = 0;
  KJ_IF_MAYBE (holder, large->holder) {
    worker = (*holder)->worker();
  }
  const uint32_t chunk = worker != 0 ? kPassedChunkBytes : kChunkBytes;
  while (large->reads.size() < kReadsInFlight && large->asked < large->blob.size_bytes) {
    if (worker == 0 && !source_) {
      return rpc::to_exception(absl::UnavailableError("the connection to the coordinator is gone"));
    }
    const uint64_t bytes = std::min<uint64_t>(chunk, large->blob.size_bytes - large->asked);
    large->reads.push_back({bytes, read_piece(*large, large->asked, static_cast<uint32_t>(bytes))});
    large->asked += bytes;
  }
  if (large->reads.empty()) return finish(large);
  Large::Read read = std::move(large->reads.front());
  large->reads.pop_front();
  if (worker != 0) read.data = within_stall(kj::mv(read.data));
  return read.data.then(
      [this, large, worker, asked = read.bytes](std::string bytes) {
        return take_piece(large, worker, asked, std::move(bytes));
      },
      [this, large, worker](kj::Exception&& e) -> kj::Promise<void> {
        if (worker == 0) kj::throwFatalException(kj::mv(e));
        return leave(large, worker, rpc::to_status(e)).then([this, large] { return pump(large); });
      });
}

// That no byte comes is the sign of a worker that sleeps, or of a network that swallows.
kj::Promise<std::string> Fetcher::within_stall(kj::Promise<std::string> data) {
  auto late = loop_.timer().afterDelay(static_cast<int64_t>(limits_.stall_ms) * kj::MILLISECONDS);
  return data.exclusiveJoin(late.then([]() -> kj::Promise<std::string> {
    return rpc::to_exception(absl::UnavailableError("nothing has come for too long"));
  }));
}

kj::Promise<void> Fetcher::take_piece(std::shared_ptr<Large> large, uint64_t worker, uint64_t asked,
                                      std::string bytes) {
  const bool wrong_size = bytes.empty() || bytes.size() > asked;
  if (worker != 0 && (wrong_size || bytes.size() < asked)) {
    return leave(large, worker, absl::DataLossError("a piece of the wrong size"))
        .then([this, large] { return pump(large); });
  }
  if (wrong_size) {
    rpc::throw_if_error(absl::DataLossError("the coordinator sent a piece of the wrong size"));
  }
  if (bytes.size() < asked) {  // what was asked for beyond it no longer follows on
    large->reads.clear();
    large->asked = large->writer->written_bytes() + bytes.size();
  }
  if (worker != 0) large->given_by.insert(worker);
  return append(large, std::move(bytes));
}

kj::Promise<void> Fetcher::append(std::shared_ptr<Large> large, std::string bytes) {
  return blocking(loop_, [large, cache = cache_,
                          bytes = std::move(bytes)] { return large->writer->append(bytes); })
      .then([this, large](absl::Status status) {
        rpc::throw_if_error(status);
        if (large->arrival) {
          large->arrival->arrived(large->writer->written_bytes(), large->writer->prefix());
        }
        return pump(large);
      });
}

kj::Promise<void> Fetcher::finish(std::shared_ptr<Large> large) {
  return blocking(
             loop_,
             [large, cache = cache_]() -> absl::Status { return large->writer->finish().status(); })
      .then([this, large](absl::Status status) -> kj::Promise<void> {
        if (absl::IsDataLoss(status) && !large->given_by.empty()) return start_over(large);
        rpc::throw_if_error(status);
        return kj::READY_NOW;
      });
}

// Which of several workers it was cannot be known: none of them is asked again, for anything.
kj::Promise<void> Fetcher::start_over(std::shared_ptr<Large> large) {
  for (const uint64_t worker : large->given_by) {
    rpc::log().warn("event=wrong_bytes blob={} worker={} next=\"fetched from the coordinator\"",
                    to_hex(large->blob.digest), worker);
  }
  wrong_.merge(large->given_by);
  large->given_by.clear();
  large->coordinator_only = true;
  large->arrival.reset();
  auto writer = cache_->store().begin(large->blob);
  rpc::throw_if_error(writer.status());
  large->writer = std::move(*writer);
  pass_on_from_now(*large);
  return choose_source(large, 0).then([this, large] { return pump(large); });
}

}  // namespace pesc::worker
