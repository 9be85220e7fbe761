#include "tests/worker_shell/fake_coordinator.h"

#include <gtest/gtest.h>
#include <kj/debug.h>

#include <algorithm>
#include <asio/post.hpp>

namespace pesc::worker {

class FakeCoordinator::UploadServer final : public protocol::Upload::Server {
 public:
  UploadServer(FakeCoordinator& fake, std::optional<BlobRef> blob) : fake_(fake), blob_(blob) {}
  ~UploadServer() noexcept(false) {
    if (!finished_) ++fake_.dropped_uploads;
  }
  kj::Promise<void> write(WriteContext context) override {
    auto params = context.getParams();
    KJ_REQUIRE(params.getOffset() == bytes_.size(), "out of order");
    if (!blob_ && bytes_.size() >= fake_.unnamed_limit) {
      rpc::throw_if_error(absl::ResourceExhaustedError("the coordinator's disk is full"));
    }
    bytes_.append(protocol::as_view(params.getData()));
    fake_.largest_write = std::max<uint64_t>(fake_.largest_write, params.getData().size());
    if (blob_ || !fake_.hold_writes) return kj::READY_NOW;
    auto paf = kj::newPromiseAndFulfiller<void>();
    fake_.held_writes.push_back(kj::mv(paf.fulfiller));
    fake_.changed();
    return kj::mv(paf.promise);
  }
  kj::Promise<void> finish(FinishContext context) override {
    finished_ = true;
    const BlobRef blob = blob_.value_or(BlobRef{sha256(bytes_), bytes_.size()});
    KJ_REQUIRE(bytes_.size() == blob.size_bytes && sha256(bytes_) == blob.digest);
    fake_.blobs_[blob.digest] = bytes_;
    ++(blob_ ? fake_.uploaded : fake_.unnamed_uploads);
    fake_.changed();
    protocol::encode(context.getResults().initBlob(), blob);
    if (!fake_.hold_uploads) return kj::READY_NOW;
    auto paf = kj::newPromiseAndFulfiller<void>();
    fake_.held_uploads.push_back(kj::mv(paf.fulfiller));
    fake_.blobs_.erase(blob.digest);  // not durable yet: a second asker is told that it is missing
    fake_.changed();
    return paf.promise.then(
        [this, digest = blob.digest, bytes = bytes_] { fake_.blobs_[digest] = bytes; });
  }

 private:
  FakeCoordinator& fake_;
  const std::optional<BlobRef> blob_;  // nothing: it is named at its end
  std::string bytes_;
  bool finished_ = false;
};

class FakeCoordinator::BlobsServer final : public protocol::Blobs::Server {
 public:
  explicit BlobsServer(FakeCoordinator& fake) : fake_(fake) {}

  kj::Promise<void> missing(MissingContext context) override {
    auto digests = protocol::decode_digests(context.getParams().getDigests(), 1000);
    rpc::throw_if_error(digests.status());
    std::vector<uint32_t> missing;
    for (uint32_t i = 0; i < digests->size(); ++i) {
      if (!fake_.blobs_.contains((*digests)[i])) missing.push_back(i);
    }
    auto out = context.getResults().initMissing(static_cast<unsigned>(missing.size()));
    for (unsigned i = 0; i < out.size(); ++i) out.set(i, missing[i]);
    return kj::READY_NOW;
  }

  kj::Promise<void> put(PutContext context) override {
    size_t bytes = 0;
    for (auto blob : context.getParams().getBlobs()) {
      fake_.add_blob(std::string(protocol::as_view(blob)));
      bytes += blob.size();
    }
    KJ_REQUIRE(bytes <= 1 << 20);
    return kj::READY_NOW;
  }

  kj::Promise<void> upload(UploadContext context) override {
    auto blob = protocol::decode(context.getParams().getBlob());
    rpc::throw_if_error(blob.status());
    context.getResults().setUpload(kj::heap<UploadServer>(fake_, *blob));
    return kj::READY_NOW;
  }

  kj::Promise<void> begin(BeginContext context) override {
    if (!fake_.takes_unnamed) {
      kj::throwFatalException(KJ_EXCEPTION(UNIMPLEMENTED, "an older coordinator"));
    }
    context.getResults().setUpload(kj::heap<UploadServer>(fake_, std::nullopt));
    return kj::READY_NOW;
  }

  kj::Promise<void> read(ReadContext context) override {
    auto params = context.getParams();
    const std::string& bytes = find(params.getDigest());
    KJ_REQUIRE(params.getOffset() <= bytes.size() && params.getMaxBytes() <= 1 << 20);
    context.getResults().setData(protocol::as_data(
        std::string_view(bytes).substr(params.getOffset(), params.getMaxBytes())));
    return kj::READY_NOW;
  }

  // One fewer than asked for: a shorter list is allowed, and must not lose any.
  kj::Promise<void> readMany(ReadManyContext context) override {
    auto digests = context.getParams().getDigests();
    const unsigned count = std::max(1u, digests.size() - 1);
    auto out = context.getResults().initBlobs(count);
    for (unsigned i = 0; i < count; ++i) out.set(i, protocol::as_data(find(digests[i])));
    return kj::READY_NOW;
  }

 private:
  const std::string& find(capnp::Data::Reader in) {
    auto digest = protocol::decode_digest(in);
    rpc::throw_if_error(digest.status());
    auto it = fake_.blobs_.find(*digest);
    if (it == fake_.blobs_.end()) {
      rpc::throw_if_error(absl::NotFoundError("no blob " + to_hex(*digest)));
    }
    ++fake_.reads[*digest];
    return it->second;
  }

  FakeCoordinator& fake_;
};

class FakeCoordinator::SessionServer final : public protocol::WorkerSession::Server {
 public:
  explicit SessionServer(FakeCoordinator& fake) : fake_(fake) {}

  kj::Promise<void> attach(AttachContext context) override {
    auto params = context.getParams();
    auto holding = protocol::decode_list(params.getHolding());
    rpc::throw_if_error(holding.status());
    fake_.held_at_attach = *holding;
    fake_.passes_on = params.getInfo().getPassesOn();
    fake_.warnings.clear();
    for (auto warning : params.getInfo().getWarnings()) fake_.warnings.emplace_back(warning.cStr());
    fake_.sink_ = params.getSink();
    fake_.known_specs_.clear();
    ++fake_.attached;
    context.getResults().setHeartbeatMs(fake_.heartbeat_ms);
    context.getResults().setLeaseMs(60'000);
    context.getResults().setPaused(fake_.paused);
    fake_.busy = std::string(protocol::as_view(params.getInfo().getBusy()));
    fake_.changed();
    return kj::READY_NOW;
  }

  kj::Promise<void> report(ReportContext context) override {
    if (fake_.reports_fail) rpc::throw_if_error(absl::ResourceExhaustedError("the disk is full"));
    std::vector<AttemptKey> keys;
    ++fake_.reports;
    auto params = context.getParams();
    for (auto progress : params.getProgress()) {
      fake_.progress_.insert(progress.getFraction());
      auto key = protocol::decode(progress.getKey());
      rpc::throw_if_error(key.status());
      fake_.trouble[*key] = std::string(protocol::as_view(progress.getTrouble()));
    }
    for (auto finished : params.getFinished()) take(finished, keys);
    fake_.busy = std::string(protocol::as_view(params.getBusy()));
    fake_.ready.clear();
    for (auto held : params.getReady()) {
      auto key = protocol::decode(held.getKey());
      rpc::throw_if_error(key.status());
      fake_.ready[*key] = held.getMasterPort();
    }
    if (fake_.acknowledge) {
      protocol::encode_list(
          context.getResults().initAcknowledged(static_cast<unsigned>(keys.size())), keys);
    }
    fake_.changed();
    return kj::READY_NOW;
  }

  kj::Promise<void> checkpoint(CheckpointContext context) override {
    auto params = context.getParams();
    auto key = protocol::decode(params.getKey());
    rpc::throw_if_error(key.status());
    auto manifest = protocol::decode(params.getManifest());
    rpc::throw_if_error(manifest.status());
    auto chunks = protocol::decode_list(params.getChunks());
    rpc::throw_if_error(chunks.status());
    KJ_REQUIRE(fake_.blobs_.contains(manifest->digest));
    for (const BlobRef& chunk : *chunks) KJ_REQUIRE(fake_.blobs_.contains(chunk.digest));
    if (fake_.refuse_checkpoints > 0) {
      --fake_.refuse_checkpoints;
      rpc::throw_if_error(absl::ResourceExhaustedError("the disk is full"));
    }
    fake_.checkpoints.push_back({*key, *manifest, params.getSavedMs()});
    context.getResults().setNumber(static_cast<uint32_t>(fake_.checkpoints.size()));
    fake_.changed();
    return kj::READY_NOW;
  }

  kj::Promise<void> blobs(BlobsContext context) override {
    context.getResults().setBlobs(kj::heap<BlobsServer>(fake_));
    return kj::READY_NOW;
  }

 private:
  void take(protocol::FinishedAttempt::Reader finished, std::vector<AttemptKey>& keys) {
    auto key = protocol::decode(finished.getKey());
    rpc::throw_if_error(key.status());
    auto outcome = protocol::decode(finished.getOutcome());
    rpc::throw_if_error(outcome.status());
    End end{*outcome, std::string(protocol::as_view(finished.getInlineOutput()))};
    if (!outcome->output.empty() && end.output.empty()) {
      end.output = fake_.blobs_.at(outcome->output.digest);
    }
    if (!outcome->output.empty()) {
      EXPECT_EQ(sha256(end.output), outcome->output.digest);
    }
    fake_.ends[*key] = std::move(end);
    ++fake_.reported[*key];
    keys.push_back(*key);
  }

  FakeCoordinator& fake_;
};

protocol::WorkerSession::Client FakeCoordinator::session() {
  return kj::heap<SessionServer>(*this);
}

void FakeCoordinator::send(capnp::Request<protocol::WorkerSink::UpdateParams,
                                          protocol::WorkerSink::UpdateResults>&& request) {
  request.setNumber(++update_number_);
  loop_.detach(request.send().ignoreResult());
}

void FakeCoordinator::lease(const AttemptKey& key, const JobSpec& spec, const Terms& terms) {
  auto request = sink_->updateRequest();
  auto lease = request.initLeases(1)[0];
  protocol::encode(lease.initKey(), key);
  if (known_specs_.insert(key.job).second) {
    lease.setHasSpec(true);
    protocol::encode(lease.initSpec(), spec);
  }
  if (terms.checkpoint.number != 0) protocol::encode(lease.initCheckpoint(), terms.checkpoint);
  lease.setHold(terms.hold);
  lease.setLocalRank(terms.local_rank);
  lease.setLocalWorldSize(terms.local_world_size);
  send(kj::mv(request));
}

void FakeCoordinator::start(const AttemptKey& key, const std::string& address, uint16_t port) {
  auto request = sink_->updateRequest();
  auto order = request.initStart(1)[0];
  protocol::encode(order.initKey(), key);
  order.setMasterAddr(address.c_str());
  order.setMasterPort(port);
  send(kj::mv(request));
}

void FakeCoordinator::stop(const AttemptKey& key, EndReason reason) {
  auto request = sink_->updateRequest();
  protocol::encode(request.initStop(1)[0], protocol::Stop{key, reason});
  send(kj::mv(request));
}

void FakeCoordinator::pause(bool pause) {
  auto request = sink_->updateRequest();
  request.setPause(pause ? protocol::PauseOrder::PAUSE : protocol::PauseOrder::RESUME);
  send(kj::mv(request));
}

std::string FakeCoordinator::read_log(const AttemptKey& key, uint8_t stream) {
  auto request = sink_->readLogRequest();
  protocol::encode(request.initKey(), key);
  request.setStream(stream);
  request.setMaxBytes(1 << 16);
  // A turn through the poller: who asks again and again would else keep it from the worker.
  auto turn = kj::newPromiseAndFulfiller<void>();
  asio::post(loop_.io(), [&turn] { turn.fulfiller->fulfill(); });
  loop_.wait(kj::mv(turn.promise));
  auto response = loop_.wait(request.send());
  return std::string(protocol::as_view(response.getData()));
}

// The port where the blob is to be had from now on.
absl::StatusOr<uint16_t> FakeCoordinator::pass_on(const BlobRef& blob, const std::string& ticket) {
  auto request = sink_->passOnRequest();
  protocol::encode(request.initBlob(), blob);
  request.setTicket(protocol::as_data(ticket));
  request.setAddress("127.0.0.1");
  using Port = absl::StatusOr<uint16_t>;
  return loop_.wait(
      request.send().then([](auto&& answer) -> Port { return answer.getPort(); },
                          [](kj::Exception&& e) -> Port { return rpc::to_status(e); }));
}

void FakeCoordinator::changed() {
  for (auto& waiting : std::exchange(waiting_, {})) waiting->fulfill();
}

void FakeCoordinator::wait_until(const std::function<bool()>& condition) {
  while (!condition()) {
    auto paf = kj::newPromiseAndFulfiller<void>();
    waiting_.push_back(kj::mv(paf.fulfiller));
    loop_.wait(loop_.timer().timeoutAfter(60 * kj::SECONDS, kj::mv(paf.promise)));
  }
}

const FakeCoordinator::End& FakeCoordinator::wait_for_end(const AttemptKey& key) {
  wait_until([&] { return ends.contains(key); });
  return ends.at(key);
}

}  // namespace pesc::worker
