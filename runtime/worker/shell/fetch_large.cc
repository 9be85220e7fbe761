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
constexpr int64_t kAgainAfterMs = 10 * 60 * 1'000;  // one that is not asked for now
constexpr size_t kMostErrorBytes = 500;
constexpr uint64_t kNobody = 0;  // to do without it is to want none

// For a log line: what another worker says must not begin another line, or end its quotes.
std::string loggable(std::string_view text) {
  std::string safe(text.substr(0, kMostErrorBytes));
  for (char& c : safe) {
    if (static_cast<unsigned char>(c) < 0x20 || c == '"' || c == 0x7f) c = '?';
  }
  return safe;
}

}  // namespace

// All that the pool holds while it appends: whoever drops this last, a thread of the pool maybe,
// must not drop promises and connections with it. The writer goes before the store that it uses.
struct Fetcher::Writing {
  std::shared_ptr<Cache> cache;
  std::unique_ptr<blob::Store::Writer> writer;
};

struct Fetcher::Large {
  BlobRef blob;
  std::shared_ptr<Writing> writing;
  std::shared_ptr<PassOn::Arrival> arrival;     // null: it is not passed on
  kj::Maybe<kj::Own<HolderConnection>> holder;  // nothing: the coordinator gives it
  std::set<uint64_t> given_by;                  // workers whose bytes are in it
  std::set<uint64_t> left;                      // workers that are not asked for it again
  size_t holders = 0;                           // tried
  bool coordinator_only = false;
  int64_t waited_ms = 0;  // for this holder's pieces, since it was last judged
  uint64_t waited_bytes = 0;
  uint64_t asked = 0;
  struct Read {
    uint64_t bytes;
    kj::Promise<std::string> data;
  };
  std::deque<Read> reads;

  blob::Store::Writer& writer() const { return *writing->writer; }

  // What was asked for and has not come is asked for again.
  void stop_reading() {
    reads.clear();
    holder = nullptr;
    asked = writer().written_bytes();
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
  const absl::Status begun = begin_writing(*large);
  if (!begun.ok()) return begun;
  return large;
}

absl::Status Fetcher::begin_writing(Large& large) {
  auto writer = cache_->store().begin(large.blob);
  if (!writer.ok()) return writer.status();
  large.writing = std::make_shared<Writing>(Writing{cache_, std::move(*writer)});
  return absl::OkStatus();
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
  large.arrival->arrived(large.writer().written_bytes(), large.writer().prefix());
}

// Done when it is known; from then on `holder` says it. Fails never.
kj::Promise<void> Fetcher::choose_source(std::shared_ptr<Large> large, uint64_t failed) {
  large->stop_reading();
  if (!is_passed(large->blob)) return kj::READY_NOW;
  if (large->coordinator_only || ++large->holders > kMostHolders) {
    // Told all the same: a complaint counts, and who was left has a reader less.
    return finder_->find_holder(large->blob, std::set<uint64_t>{kNobody}, failed).ignoreResult();
  }
  const int64_t now = boot_ms();
  std::erase_if(avoided_, [&](const auto& each) { return each.second < now; });
  std::set<uint64_t> without = large->left;
  for (const auto& [worker, until] : avoided_) without.insert(worker);
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
            large->waited_ms = 0;
            large->waited_bytes = 0;
            return kj::READY_NOW;
          },
          [this, large, worker = holder.worker](kj::Exception&& e) {
            const absl::Status why = rpc::to_status(e);
            // One that has answered, but lost the blob or the ticket, may well have others.
            if (absl::IsUnavailable(why) || absl::IsDeadlineExceeded(why)) avoid(worker);
            return leave(large, worker, why);
          });
}

void Fetcher::avoid(uint64_t worker) { avoided_[worker] = boot_ms() + kAgainAfterMs; }

// That one is late is no reason to complain: it may wait itself, for whoever gives it the blob.
kj::Promise<void> Fetcher::leave(std::shared_ptr<Large> large, uint64_t worker,
                                 const absl::Status& why) {
  rpc::log().info("event=worker_left blob={} worker={} at={} error=\"{}\"",
                  to_hex(large->blob.digest), worker, large->writer().written_bytes(),
                  loggable(std::string(why.message())));
  large->left.insert(worker);
  return choose_source(large, absl::IsDeadlineExceeded(why) ? 0 : worker);
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
      [this, large, worker, asked = read.bytes, since = boot_ms()](std::string bytes) {
        large->waited_ms += boot_ms() - since;
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
    return rpc::to_exception(absl::DeadlineExceededError("nothing has come for too long"));
  }));
}

// One that gives a piece now and then never stalls, and would keep one of few slots for hours. Only
// the time counts that was spent waiting for it, not that of a slow disk here.
bool Fetcher::too_slow(Large& large, uint64_t bytes) const {
  large.waited_bytes += bytes;
  if (large.waited_ms < static_cast<int64_t>(limits_.judge_after_ms)) return false;
  const uint64_t wanted = static_cast<uint64_t>(std::max<int64_t>(large.waited_ms, 1)) *
                          limits_.least_bytes_per_s / 1'000;
  const bool slow = large.waited_bytes < wanted;
  large.waited_ms = 0;
  large.waited_bytes = 0;
  return slow;
}

kj::Promise<void> Fetcher::take_piece(std::shared_ptr<Large> large, uint64_t worker, uint64_t asked,
                                      std::string bytes) {
  const bool wrong_size = bytes.empty() || bytes.size() > asked;
  if (worker != 0 && (wrong_size || bytes.size() < asked)) {
    return leave(large, worker, absl::DataLossError("a piece of the wrong size"))
        .then([this, large] { return pump(large); });
  }
  if (worker != 0 && too_slow(*large, bytes.size())) {
    avoid(worker);
    return leave(large, worker, absl::DeadlineExceededError("it is too slow")).then([this, large] {
      return pump(large);
    });
  }
  if (wrong_size) {
    rpc::throw_if_error(absl::DataLossError("the coordinator sent a piece of the wrong size"));
  }
  if (bytes.size() < asked) {  // what was asked for beyond it no longer follows on
    large->reads.clear();
    large->asked = large->writer().written_bytes() + bytes.size();
  }
  if (worker != 0) large->given_by.insert(worker);
  return append(large, std::move(bytes));
}

kj::Promise<void> Fetcher::append(std::shared_ptr<Large> large, std::string bytes) {
  return blocking(loop_, [writing = large->writing,
                          bytes = std::move(bytes)] { return writing->writer->append(bytes); })
      .then([this, large](absl::Status status) {
        rpc::throw_if_error(status);
        if (large->arrival) {
          large->arrival->arrived(large->writer().written_bytes(), large->writer().prefix());
        }
        return pump(large);
      });
}

kj::Promise<void> Fetcher::finish(std::shared_ptr<Large> large) {
  return blocking(loop_,
                  [writing = large->writing] {
                    return absl::Status(writing->writer->finish().status());
                  })
      .then([this, large](absl::Status status) -> kj::Promise<void> {
        if (absl::IsDataLoss(status) && !large->given_by.empty()) return start_over(large);
        rpc::throw_if_error(status);
        return kj::READY_NOW;
      });
}

// Which of several workers it was cannot be known, nor whether it only gave on what it was given:
// none of them is asked for anything for a while. The coordinator is told of the last one.
kj::Promise<void> Fetcher::start_over(std::shared_ptr<Large> large) {
  uint64_t last = 0;
  KJ_IF_MAYBE (holder, large->holder) {
    last = (*holder)->worker();
  }
  for (const uint64_t worker : large->given_by) {
    rpc::log().warn("event=wrong_bytes blob={} worker={} next=\"fetched from the coordinator\"",
                    to_hex(large->blob.digest), worker);
    avoid(worker);
  }
  large->given_by.clear();
  large->coordinator_only = true;
  large->arrival.reset();
  rpc::throw_if_error(begin_writing(*large));
  pass_on_from_now(*large);
  return choose_source(large, last).then([this, large] { return pump(large); });
}

}  // namespace pesc::worker
