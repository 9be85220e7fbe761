#include "runtime/worker/shell/output_sender.h"

#include <signal.h>

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <system_error>
#include <utility>

#include "protocol/codec.h"

namespace pesc::worker {
namespace {

constexpr size_t kChunkBytes = 1024 * 1024;
constexpr size_t kWindow = 4;  // sent and not answered
constexpr size_t kQueued = 2;  // packed and not sent

}  // namespace

// Between the thread that packs and the loop that sends.
class OutputSender::Channel {
 public:
  // `wake` may be called on any thread.
  explicit Channel(std::function<void()> wake) : wake_(std::move(wake)) {}

  absl::Status add(std::string_view bytes) {
    while (!bytes.empty()) {
      if (filling_.capacity() < kChunkBytes) filling_.reserve(kChunkBytes);
      const size_t fits = std::min(bytes.size(), kChunkBytes - filling_.size());
      filling_.append(bytes.substr(0, fits));
      bytes.remove_prefix(fits);
      if (filling_.size() < kChunkBytes) break;
      if (absl::Status status = hand_over(); !status.ok()) return status;
    }
    return absl::OkStatus();
  }

  absl::Status end() {
    if (!filling_.empty()) {
      if (absl::Status status = hand_over(); !status.ok()) return status;
    }
    {
      std::lock_guard lock(mutex_);
      ended_ = true;
    }
    wake_();
    return absl::OkStatus();
  }

  // Nothing is taken any more: whoever packs is told why.
  void close(absl::Status why) {
    std::lock_guard lock(mutex_);
    if (closed_.ok()) closed_ = std::move(why);
    queue_.clear();
    room_.notify_all();
  }

  std::optional<std::string> take() {
    std::lock_guard lock(mutex_);
    if (queue_.empty()) return std::nullopt;
    std::string piece = std::move(queue_.front());
    queue_.pop_front();
    room_.notify_all();
    return piece;
  }

  bool drained() {
    std::lock_guard lock(mutex_);
    return ended_ && queue_.empty();
  }

 private:
  absl::Status hand_over() {
    {
      std::unique_lock lock(mutex_);
      room_.wait(lock, [this] { return queue_.size() < kQueued || !closed_.ok(); });
      if (!closed_.ok()) return closed_;
      queue_.push_back(std::move(filling_));
    }
    filling_ = std::string();
    wake_();
    return absl::OkStatus();
  }

  const std::function<void()> wake_;
  std::string filling_;  // of the thread that packs
  std::mutex mutex_;
  std::condition_variable room_;
  std::deque<std::string> queue_;
  bool ended_ = false;
  absl::Status closed_;
};

// What thread and loop know of one output.
struct OutputSender::Ended {
  absl::StatusOr<blob::PackReport> report = absl::UnknownError("not packed");
  kj::Own<kj::PromiseFulfiller<void>> packed;  // of the loop's thread
};

// On the loop's thread.
class OutputSender::Sending final : public kj::TaskSet::ErrorHandler {
 public:
  Sending(std::shared_ptr<Channel> channel, protocol::Blobs::Client blobs)
      : channel_(std::move(channel)),
        upload_(blobs.beginRequest().send().getUpload()),
        tasks_(*this) {}
  ~Sending() noexcept { channel_->close(absl::CancelledError("the output is not sent any more")); }

  kj::Promise<BlobRef> named() {
    auto paf = kj::newPromiseAndFulfiller<BlobRef>();
    named_ = kj::mv(paf.fulfiller);
    return kj::mv(paf.promise);
  }

  void step() {
    while (!failed_ && in_flight_ < kWindow) {
      std::optional<std::string> piece = channel_->take();
      if (!piece) break;
      auto request = upload_.writeRequest(capnp::MessageSize{piece->size() / 8 + 32, 0});
      request.setOffset(offset_);
      request.setData(protocol::as_data(*piece));
      offset_ += piece->size();
      ++in_flight_;
      tasks_.add(request.send().ignoreResult().then([this] {
        --in_flight_;
        step();
      }));
    }
    if (failed_ || finishing_ || in_flight_ > 0 || !channel_->drained()) return;
    finishing_ = true;
    tasks_.add(upload_.finishRequest().send().then([this](auto&& response) {
      absl::StatusOr<BlobRef> blob = protocol::decode(response.getBlob());
      rpc::throw_if_error(blob.status());
      if (blob->empty() || blob->size_bytes != offset_) {
        rpc::throw_if_error(absl::InternalError("the coordinator has named another blob"));
      }
      named_->fulfill(*std::move(blob));
    }));
  }

 private:
  void taskFailed(kj::Exception&& exception) override {
    failed_ = true;
    absl::Status why = rpc::to_status(exception);
    if (exception.getType() == kj::Exception::Type::UNIMPLEMENTED) {
      why = absl::UnimplementedError("the coordinator is an older one");
    }
    channel_->close(why);
    if (named_->isWaiting()) named_->reject(rpc::to_exception(why));
  }

  std::shared_ptr<Channel> channel_;
  protocol::Upload::Client upload_;
  uint64_t offset_ = 0;
  size_t in_flight_ = 0;
  bool finishing_ = false, failed_ = false;
  kj::Own<kj::PromiseFulfiller<BlobRef>> named_;
  kj::TaskSet tasks_;
};

OutputSender::~OutputSender() { end(); }

void OutputSender::end() {
  if (channel_ == nullptr) return;
  channel_->close(absl::CancelledError("the output is not wanted any more"));
  if (thread_.joinable()) thread_.join();
  channel_.reset();
  ended_.reset();
  order_ = nullptr;
}

void OutputSender::cancel(const PackOrder* order) {
  if (channel_ == nullptr || order_ != order) return;
  channel_->close(absl::CancelledError("the output is not wanted any more"));
}

kj::Promise<absl::StatusOr<PackedOutput>> OutputSender::send(std::shared_ptr<const PackOrder> order,
                                                             protocol::Blobs::Client blobs) {
  // The thread may wake a sending that has gone: only the loop looks whether it is there.
  auto sending = std::make_shared<std::weak_ptr<Sending>>();
  auto channel = std::make_shared<Channel>([&loop = loop_, sending] {
    loop.post([sending] {
      if (auto there = sending->lock()) there->step();
    });
  });
  auto sender = std::make_shared<Sending>(channel, kj::mv(blobs));
  *sending = sender;
  auto ended = std::make_shared<Ended>();
  auto paf = kj::newPromiseAndFulfiller<void>();
  ended->packed = kj::mv(paf.fulfiller);
  kj::Promise<BlobRef> named = sender->named();
  channel_ = channel;
  ended_ = ended;
  order_ = order.get();
  const auto work = [&loop = loop_, order, channel, ended] {
    ended->report =
        pack_attempt_into(*order, [&](std::string_view bytes) { return channel->add(bytes); });
    if (ended->report.ok()) {
      if (absl::Status last = channel->end(); !last.ok()) ended->report = last;
    }
    loop.post([ended] { ended->packed->fulfill(); });
  };
  // The host program's signals are its own: this thread takes none.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  absl::Status started;
  try {
    thread_ = std::thread(work);
  } catch (const std::system_error& e) {
    started = absl::ResourceExhaustedError(std::string("no thread can be had: ") + e.what());
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (!started.ok()) {
    end();
    return absl::StatusOr<PackedOutput>(started);
  }
  return paf.promise
      .then([ended, named = kj::mv(named)]() mutable -> kj::Promise<BlobRef> {
        if (!ended->report.ok()) return rpc::to_exception(ended->report.status());
        return kj::mv(named);
      })
      .then(
          [this, ended, sender](BlobRef blob) -> absl::StatusOr<PackedOutput> {
            end();
            PackedOutput output;
            output.blob = blob;
            output.uncollected = std::move(ended->report->uncollected);
            return output;
          },
          [this, sender](kj::Exception&& e) -> absl::StatusOr<PackedOutput> {
            end();
            return rpc::to_status(e);
          });
}

}  // namespace pesc::worker
