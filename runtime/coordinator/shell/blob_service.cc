#include "runtime/coordinator/shell/blob_service.h"

#include <cstring>
#include <deque>
#include <string>
#include <utility>
#include <vector>

#include "protocol/codec.h"
#include "runtime/coordinator/shell/promises.h"

namespace pesc::coordinator {
namespace {

constexpr size_t kMaxMissing = 200'000;
constexpr size_t kMaxReadMany = 10'000;
constexpr size_t kMaxQueuedWrites = 64;  // of one upload: the sender's window
constexpr uint64_t kReadOnLoopBytes =
    16 * 1024;  // smaller reads are quicker than a thread's wake-up

absl::Status full_disk(const absl::Status& status) {
  if (status.code() != absl::StatusCode::kResourceExhausted) return status;
  return absl::ResourceExhaustedError(
      "the coordinator's disk is full: " + std::string(status.message()) + "; free space there");
}

template <typename T>
T value_or_throw(absl::StatusOr<T> value) {
  rpc::throw_if_error(value.status());
  return std::move(*value);
}

// One blob that arrives in pieces: written in order, by one thread of the pool at a time. It gets
// its name at its end: the one that it was announced with, or just what it is.
class UploadServer final : public protocol::Upload::Server {
 public:
  UploadServer(std::shared_ptr<BlobAccess> access, std::shared_ptr<BlobHold> hold,
               std::optional<uint64_t> size_bytes, std::unique_ptr<blob::Store::Writer> writer)
      : access_(std::move(access)),
        hold_(std::move(hold)),
        size_bytes_(size_bytes),
        writer_(std::move(writer)) {}

  kj::Promise<void> write(WriteContext context) override {
    rpc::throw_if_error(access_->open_status());
    const auto params = context.getParams();
    const uint64_t offset = params.getOffset(), size = params.getData().size();
    rpc::throw_if_error(check(offset, size));
    expected_ += size;
    ++queued_;
    // Copied: the message may be gone, with its connection, while the pool writes.
    std::string bytes(protocol::as_view(params.getData()));
    context.releaseParams();  // its memory is the next one's
    return append(std::move(bytes));
  }

  kj::Promise<void> finish(FinishContext context) override {
    rpc::throw_if_error(access_->open_status());
    if (!writer_) {
      rpc::throw_if_error(absl::FailedPreconditionError("this upload has ended"));
    }
    if (size_bytes_ && expected_ != *size_bytes_) {
      rpc::throw_if_error(absl::DataLossError("an upload of " + std::to_string(*size_bytes_) +
                                              " bytes ended after " + std::to_string(expected_)));
    }
    finishing_ = true;
    return tail_.addBranch()
        .then([this] { return access_->no_erasing(); })
        .then([this] {
          return run_blocking(access_->loop(), [writer = writer_] { return writer->finish(); });
        })
        .then([this, context](absl::StatusOr<BlobRef> stored) mutable {
          writer_ = nullptr;
          rpc::throw_if_error(full_disk(stored.status()));
          access_->touched(stored->digest);
          hold_->add(stored->digest);
          protocol::encode(context.getResults().initBlob(), *stored);
          return access_->durable();
        })
        .attach(thisCap());
  }

 private:
  absl::Status check(uint64_t offset, uint64_t size) const {
    if (!writer_ || finishing_) return absl::FailedPreconditionError("this upload has ended");
    if (size > kMaxTransferBytes) {
      return absl::InvalidArgumentError("a write of more than 1 MiB");
    }
    if (offset != expected_) {
      return absl::InvalidArgumentError(
          "writes of an upload must follow each other: expected offset " +
          std::to_string(expected_) + ", got " + std::to_string(offset));
    }
    if (size_bytes_ && size > *size_bytes_ - expected_) {
      return absl::InvalidArgumentError("more bytes than the blob was announced with");
    }
    if (queued_ >= kMaxQueuedWrites) {
      return absl::ResourceExhaustedError("too many writes of one upload are in flight");
    }
    return absl::OkStatus();
  }

  kj::Promise<void> append(std::string bytes) {
    auto data = std::make_shared<std::string>(std::move(bytes));
    auto written = tail_.addBranch()
                       .then([this, data] {
                         return run_blocking(access_->loop(), [writer = writer_, data] {
                           return writer->append(*data);
                         });
                       })
                       .then([this](absl::Status status) {
                         --queued_;
                         rpc::throw_if_error(full_disk(status));
                       });
    tail_ = written.attach(thisCap()).fork();
    return tail_.addBranch();
  }

  std::shared_ptr<BlobAccess> access_;
  std::shared_ptr<BlobHold> hold_;
  const std::optional<uint64_t> size_bytes_;     // as announced
  std::shared_ptr<blob::Store::Writer> writer_;  // shared with the pool's thread
  uint64_t expected_ = 0;
  size_t queued_ = 0;
  bool finishing_ = false;
  kj::ForkedPromise<void> tail_ = kj::Promise<void>(kj::READY_NOW).fork();
};

class BlobsServer final : public protocol::Blobs::Server {
 public:
  BlobsServer(std::shared_ptr<BlobAccess> access, std::shared_ptr<BlobHold> hold)
      : access_(std::move(access)), hold_(std::move(hold)) {}

  kj::Promise<void> missing(MissingContext context) override {
    rpc::throw_if_error(access_->open_status());
    auto digests =
        value_or_throw(protocol::decode_digests(context.getParams().getDigests(), kMaxMissing));
    return access_->no_erasing().then([this, context, digests = std::move(digests)]() mutable {
      std::vector<uint32_t> missing;
      for (uint32_t i = 0; i < digests.size(); ++i) {
        if (access_->store().contains(digests[i])) {
          keep(digests[i]);
        } else {
          missing.push_back(i);
        }
      }
      auto out = context.getResults().initMissing(missing.size());
      for (uint32_t i = 0; i < missing.size(); ++i) out.set(i, missing[i]);
    });
  }

  kj::Promise<void> put(PutContext context) override {
    rpc::throw_if_error(access_->open_status());
    uint64_t bytes = 0;
    for (const auto blob : context.getParams().getBlobs()) bytes += blob.size();
    if (bytes > kMaxTransferBytes) {
      rpc::throw_if_error(absl::InvalidArgumentError(
          "more than 1 MiB in one call; blobs that large are uploaded in pieces"));
    }
    return access_->no_erasing().then([this, context]() mutable {
      for (const auto blob : context.getParams().getBlobs()) {
        absl::StatusOr<BlobRef> stored = access_->store().put(protocol::as_view(blob));
        rpc::throw_if_error(full_disk(stored.status()));
        keep(stored->digest);
      }
      return access_->durable();
    });
  }

  kj::Promise<void> upload(UploadContext context) override {
    rpc::throw_if_error(access_->open_status());
    const BlobRef blob = value_or_throw(protocol::decode(context.getParams().getBlob()));
    if (blob.empty()) {
      rpc::throw_if_error(absl::InvalidArgumentError("an upload of no blob"));
    }
    absl::StatusOr<std::unique_ptr<blob::Store::Writer>> writer = access_->store().begin(blob);
    rpc::throw_if_error(full_disk(writer.status()));
    context.getResults().setUpload(
        kj::heap<UploadServer>(access_, hold_, blob.size_bytes, std::move(*writer)));
    return kj::READY_NOW;
  }

  kj::Promise<void> begin(BeginContext context) override {
    rpc::throw_if_error(access_->open_status());
    const uint64_t size_bytes = context.getParams().getSizeBytes();
    if (size_bytes > 0 && access_->store().has_large_of(size_bytes)) return kj::READY_NOW;
    absl::StatusOr<std::unique_ptr<blob::Store::Writer>> writer =
        access_->store().begin(std::nullopt);
    rpc::throw_if_error(full_disk(writer.status()));
    context.getResults().setUpload(kj::heap<UploadServer>(
        access_, hold_, size_bytes > 0 ? std::optional(size_bytes) : std::nullopt,
        std::move(*writer)));
    return kj::READY_NOW;
  }

  kj::Promise<void> read(ReadContext context) override {
    rpc::throw_if_error(access_->open_status());
    const auto params = context.getParams();
    const Digest digest = value_or_throw(protocol::decode_digest(params.getDigest()));
    const uint64_t offset = params.getOffset();
    const uint64_t max = std::min<uint64_t>(params.getMaxBytes(), kMaxTransferBytes);
    context.releaseParams();
    const uint64_t size_bytes = access_->store().size_bytes(digest).value_or(0);
    if (std::min(max, size_bytes) <= kReadOnLoopBytes || offset >= size_bytes) {
      const std::string data = value_or_throw(access_->store().read(digest, offset, max));
      context.getResults().setData(protocol::as_data(data));
      return kj::READY_NOW;
    }
    const uint64_t wanted = std::min(max, size_bytes - offset);
    auto results = context.getResults(capnp::MessageSize{wanted / 8 + 16, 0});
    capnp::Data::Builder data = results.initData(static_cast<unsigned>(wanted));
    // What was stored a moment ago is in memory: it goes straight into the answer.
    if (access_->store().read_cached(digest, offset, reinterpret_cast<char*>(data.begin()),
                                     wanted)) {
      return kj::READY_NOW;
    }
    return run_blocking(access_->loop(),
                        [access = access_, digest, offset, wanted] {
                          return access->store().read(digest, offset, wanted);
                        })
        .then([context, data](absl::StatusOr<std::string> bytes) mutable {
          rpc::throw_if_error(bytes.status());
          if (bytes->size() != data.size()) {
            rpc::throw_if_error(absl::DataLossError("a blob is shorter than it was"));
          }
          std::memcpy(data.begin(), bytes->data(), bytes->size());
        });
  }

  kj::Promise<void> readMany(ReadManyContext context) override {
    rpc::throw_if_error(access_->open_status());
    auto digests =
        value_or_throw(protocol::decode_digests(context.getParams().getDigests(), kMaxReadMany));
    context.releaseParams();
    return run_blocking(access_->loop(),
                        [access = access_, digests = std::move(digests)] {
                          return read_first(access->store(), digests);
                        })
        .then([context](absl::StatusOr<std::vector<std::string>> blobs) mutable {
          rpc::throw_if_error(blobs.status());
          auto out = context.getResults().initBlobs(blobs->size());
          for (unsigned i = 0; i < blobs->size(); ++i) out.set(i, protocol::as_data((*blobs)[i]));
        });
  }

 private:
  static absl::StatusOr<std::vector<std::string>> read_first(const blob::Store& store,
                                                             const std::vector<Digest>& digests) {
    std::vector<std::string> blobs;
    uint64_t bytes = 0;
    for (const Digest& digest : digests) {
      const std::optional<uint64_t> size = store.size_bytes(digest);
      if (!size) return absl::NotFoundError("no blob " + to_hex(digest));
      if (*size > kMaxTransferBytes) {
        if (!blobs.empty()) break;
        return absl::InvalidArgumentError("blob " + to_hex(digest) +
                                          " is larger than 1 MiB: read it in pieces");
      }
      if (bytes + *size > kMaxTransferBytes) break;
      absl::StatusOr<std::string> data = store.read(digest, 0, *size);
      if (!data.ok()) return data.status();
      bytes += data->size();
      blobs.push_back(std::move(*data));
    }
    return blobs;
  }

  void keep(const Digest& digest) {
    access_->touched(digest);
    hold_->add(digest);
  }

  std::shared_ptr<BlobAccess> access_;
  std::shared_ptr<BlobHold> hold_;
};

}  // namespace

uint64_t digest_prefix(const Digest& digest) {
  uint64_t prefix = 0;
  std::memcpy(&prefix, digest.bytes.data(), sizeof prefix);
  return prefix;
}

protocol::Blobs::Client make_blobs(std::shared_ptr<BlobAccess> access,
                                   std::shared_ptr<BlobHold> hold) {
  return kj::heap<BlobsServer>(std::move(access), std::move(hold));
}

}  // namespace pesc::coordinator
