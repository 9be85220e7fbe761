// The RPC front for workers: sessions come and go, results are taken into the store before the core
// hears of them.
#include <kj/async.h>

#include <set>
#include <utility>

#include "protocol/codec.h"
#include "rpc/log.h"
#include "runtime/coordinator/shell/clock.h"
#include "runtime/coordinator/shell/messages.h"
#include "runtime/coordinator/shell/promises.h"
#include "runtime/coordinator/shell/service.h"

namespace pesc::coordinator {
namespace {

constexpr size_t kMaxHolding = 1'000'000;
constexpr size_t kMaxProgressText = 1'000;
constexpr size_t kMaxWithout = 1'000;
constexpr size_t kMaxCertificateBytes = 8'192;

template <typename T>
T value_or_throw(absl::StatusOr<T> value) {
  rpc::throw_if_error(value.status());
  return std::move(*value);
}

void encode_stops(capnp::List<protocol::StopRequest>::Builder out,
                  const std::vector<StopRequest>& stops) {
  for (unsigned i = 0; i < stops.size(); ++i) {
    protocol::encode(out[i], protocol::Stop{stops[i].key, stops[i].reason});
  }
}

class WorkerSessionServer final : public protocol::WorkerSession::Server,
                                  public WorkerLink,
                                  private kj::TaskSet::ErrorHandler {
 public:
  WorkerSessionServer(std::shared_ptr<Service> service, std::string peer_address)
      : service_(std::move(service)),
        peer_address_(std::move(peer_address)),
        hold_(service_->new_hold()),
        tasks_(*this) {}

  ~WorkerSessionServer() noexcept override { close("the connection is gone"); }

  kj::Promise<void> attach(AttachContext context) override;
  kj::Promise<void> report(ReportContext context) override;
  kj::Promise<void> checkpoint(CheckpointContext context) override;
  kj::Promise<void> blobs(BlobsContext context) override {
    context.getResults().setBlobs(make_blobs(service_, hold_));
    return kj::READY_NOW;
  }

  kj::Promise<void> findHolder(FindHolderContext context) override;
  kj::Promise<void> fetched(FetchedContext context) override;

  const BlobHolder::About& about() const override { return about_; }
  kj::Promise<HolderOffer> pass_on(const BlobRef& blob, const std::string& ticket) override;
  void update(SendUpdate update) override;
  void close(const std::string& reason) override;
  kj::Promise<std::pair<std::string, bool>> read_log(const AttemptKey& key, uint8_t stream,
                                                     uint64_t offset, uint32_t max_bytes) override;
  TimeMs last_heard() const override { return last_heard_; }
  const std::string& peer_address() const override { return peer_address_; }

 private:
  void taskFailed(kj::Exception&& exception) override {
    close("it cannot be reached: " + std::string(rpc::to_status(exception).message()));
  }
  void check_open() const;
  void attached();
  void send(const SendUpdate& update);
  void note_busy(const std::string& busy);
  kj::Promise<void> take_report(ReportContext context);
  kj::Promise<void> take_checkpoint(CheckpointContext context);
  absl::Status check_checkpoint(const CheckpointOffered& offered) const;
  void let_go(const CheckpointOffered& offered);
  FinishedAttempt take_result(protocol::FinishedAttempt::Reader in);

  std::shared_ptr<Service> service_;
  std::string peer_address_;
  std::shared_ptr<BlobHold> hold_;
  kj::Maybe<protocol::WorkerSink::Client> sink_;
  std::string name_, busy_;
  BlobHolder::About about_;
  uint64_t session_ = 0;       // 0: not attached
  bool answered_ = false;      // the worker has been told that it is attached
  std::string closed_reason_;  // empty: open
  TimeMs last_heard_ = 0;
  std::vector<SendUpdate> held_back_;  // until it has been told
  std::set<JobId> known_jobs_;         // whose specification the worker has been sent
  kj::TaskSet tasks_;
};

void WorkerSessionServer::check_open() const {
  rpc::throw_if_error(service_->open_status());
  if (!closed_reason_.empty()) {
    rpc::throw_if_error(
        absl::UnavailableError("this session is over: " + closed_reason_ + "; connect again"));
  }
}

kj::Promise<void> WorkerSessionServer::attach(AttachContext context) {
  check_open();
  if (session_ != 0) {
    rpc::throw_if_error(absl::FailedPreconditionError("this session is attached already"));
  }
  const auto params = context.getParams();
  WorkerAttached event;
  event.info = value_or_throw(decode_worker_info(params.getInfo()));
  event.holding = value_or_throw(protocol::decode_list(params.getHolding(), kMaxHolding));
  // Where the other ranks of a gang find its rank 0.
  if (event.info.advertise.empty()) event.info.advertise = peer_address_;
  if (!params.hasSink()) rpc::throw_if_error(absl::InvalidArgumentError("attach without a sink"));
  sink_ = params.getSink();
  about_ = {event.info.id.value, event.info.advertise, params.getInfo().getPassesOn(),
            rpc::is_loopback({peer_address_, 0})};
  context.releaseParams();
  name_ = event.info.name;
  last_heard_ = boottime_ms();
  session_ = service_->open_worker(this);
  event.session = session_;
  event.unix_ms = unix_ms();
  return service_->ask<AnswerAttach>(std::move(event))
      .then(
          [this, context](AnswerAttach answer) mutable {
            if (!answer.status.ok()) close(std::string(answer.status.message()));
            rpc::throw_if_error(answer.status);
            check_open();
            auto results = context.getResults();
            results.setLeaseMs(service_->options().core.lease_ms);
            results.setHeartbeatMs(service_->options().core.heartbeat_ms);
            encode_stops(results.initStop(answer.stop.size()), answer.stop);
            results.setPaused(answer.paused);
            rpc::log().info("event=worker_attached worker=\"{}\" address={} session={}",
                            loggable(name_), peer_address_, session_);
            // Leases follow the answer: a worker knows that it is attached before it is given any.
            // Not evalLast: that waits for a moment without other work, which may never come.
            tasks_.add(kj::evalLater([this] { attached(); }));
          },
          [this](kj::Exception&& exception) {
            close(std::string(rpc::to_status(exception).message()));
            kj::throwFatalException(kj::mv(exception));
          });
}

void WorkerSessionServer::attached() {
  answered_ = true;
  for (const SendUpdate& update : std::exchange(held_back_, {})) send(update);
}

void WorkerSessionServer::update(SendUpdate update) {
  if (!closed_reason_.empty()) return;
  if (answered_) {
    send(update);
  } else {
    held_back_.push_back(std::move(update));
  }
}

// Not waited for: updates are pipelined, and numbered, and the next report says which were seen.
void WorkerSessionServer::send(const SendUpdate& update) {
  KJ_IF_MAYBE (sink, sink_) {
    auto request = sink->updateRequest();
    request.setNumber(update.number);
    auto leases = request.initLeases(update.leases.size());
    for (unsigned i = 0; i < update.leases.size(); ++i) {
      const LeaseGrant& grant = update.leases[i];
      protocol::encode(leases[i].initKey(), grant.key);
      const bool first = known_jobs_.insert(grant.key.job).second;
      leases[i].setHasSpec(first);
      if (first) protocol::encode(leases[i].initSpec(), *grant.spec);
      if (grant.checkpoint.number != 0) {
        protocol::encode(leases[i].initCheckpoint(), grant.checkpoint);
      }
      leases[i].setHold(grant.hold);
      leases[i].setLocalRank(grant.local_rank);
      leases[i].setLocalWorldSize(grant.local_world_size);
      leases[i].setMemoryLimitBytes(grant.memory_limit_bytes);
      leases[i].setGpuMemoryLimitBytes(grant.gpu_memory_limit_bytes);
      if (!grant.gpus.empty()) {
        auto gpus = leases[i].initGpus(static_cast<unsigned>(grant.gpus.size()));
        for (unsigned g = 0; g < gpus.size(); ++g) gpus.set(g, grant.gpus[g]);
      }
    }
    encode_stops(request.initStop(update.stop.size()), update.stop);
    auto start = request.initStart(update.start.size());
    for (unsigned i = 0; i < update.start.size(); ++i) {
      protocol::encode(start[i].initKey(), update.start[i].key);
      start[i].setMasterAddr(update.start[i].master_addr);
      start[i].setMasterPort(update.start[i].master_port);
    }
    if (update.paused) {
      request.setPause(*update.paused ? protocol::PauseOrder::PAUSE : protocol::PauseOrder::RESUME);
    }
    tasks_.add(request.send().ignoreResult());
  }
}

void WorkerSessionServer::note_busy(const std::string& busy) {
  if (busy == busy_) return;
  busy_ = busy;
  rpc::log().info("event=worker_busy worker=\"{}\" busy=\"{}\"", loggable(name_), loggable(busy));
}

void WorkerSessionServer::close(const std::string& reason) {
  if (!closed_reason_.empty()) return;
  closed_reason_ = reason;
  held_back_.clear();
  sink_ = nullptr;
  if (session_ == 0) return;
  rpc::log().info("event=worker_detached worker=\"{}\" session={} reason=\"{}\"", loggable(name_),
                  session_, loggable(reason));
  service_->close_worker(session_);
  service_->post(WorkerDetached{session_});
}

kj::Promise<void> WorkerSessionServer::report(ReportContext context) {
  check_open();
  if (session_ == 0) {
    rpc::throw_if_error(absl::FailedPreconditionError("a worker attaches before it reports"));
  }
  last_heard_ = boottime_ms();
  if (service_->erasing() && context.getParams().getFinished().size() > 0) {
    return service_->no_erasing().then([this, context] { return take_report(context); });
  }
  return take_report(context);
}

kj::Promise<void> WorkerSessionServer::take_report(ReportContext context) {
  check_open();
  const auto params = context.getParams();
  WorkerReported event;
  event.session = session_;
  event.last_update = params.getLastUpdate();
  event.unix_ms = unix_ms();
  event.busy = busy_text(params.getBusy());
  event.holding = value_or_throw(protocol::decode_list(params.getHolding(), kMaxHolding));
  event.measured = {params.getMemoryMeasuredBytes(), params.getCpusMeasuredMilli()};
  if (params.getGpusChanged()) event.gpus = value_or_throw(protocol::decode(params.getGpus()));
  for (const auto finished : params.getFinished()) {
    event.finished.push_back(take_result(finished));
  }
  for (const auto in : params.getProgress()) {
    AttemptProgress progress;
    progress.key = value_or_throw(protocol::decode(in.getKey()));
    progress.fraction = in.getFraction();
    if (!(progress.fraction >= 0 && progress.fraction <= 1)) progress.fraction = -1;  // NaN too
    progress.text = protocol::as_view(in.getText()).substr(0, kMaxProgressText);
    progress.trouble = protocol::as_view(in.getTrouble()).substr(0, kMaxProgressText);
    event.progress.push_back(std::move(progress));
  }
  for (const auto in : params.getReady()) {
    event.ready.push_back({value_or_throw(protocol::decode(in.getKey())), in.getMasterPort()});
  }
  context.releaseParams();
  const std::string busy = event.busy;
  std::vector<Digest> outputs;
  for (const FinishedAttempt& finished : event.finished) {
    if (!finished.outcome.output.empty()) outputs.push_back(finished.outcome.output.digest);
  }
  return service_->ask<AnswerReport>(std::move(event))
      .then([this, context, busy, outputs = std::move(outputs)](AnswerReport answer) mutable {
        rpc::throw_if_error(answer.status);
        note_busy(busy);
        for (const Digest& output : outputs)
          hold_->remove(output);  // its job's life is its own now
        auto results = context.getResults();
        protocol::encode_list(results.initAcknowledged(answer.acknowledged.size()),
                              answer.acknowledged);
        encode_stops(results.initStop(answer.stop.size()), answer.stop);
      });
}

kj::Promise<void> WorkerSessionServer::checkpoint(CheckpointContext context) {
  check_open();
  if (session_ == 0) {
    rpc::throw_if_error(
        absl::FailedPreconditionError("a worker attaches before it offers checkpoints"));
  }
  last_heard_ = boottime_ms();
  if (service_->erasing()) {
    return service_->no_erasing().then([this, context] { return take_checkpoint(context); });
  }
  return take_checkpoint(context);
}

kj::Promise<void> WorkerSessionServer::take_checkpoint(CheckpointContext context) {
  check_open();
  const auto params = context.getParams();
  CheckpointOffered event;
  event.session = session_;
  event.key = value_or_throw(protocol::decode(params.getKey()));
  event.manifest = value_or_throw(protocol::decode(params.getManifest()));
  event.chunks = std::make_shared<const std::vector<BlobRef>>(
      value_or_throw(protocol::decode_list(params.getChunks(), kMaxCheckpointChunks)));
  event.saved_ms = params.getSavedMs();
  event.unix_ms = unix_ms();
  context.releaseParams();
  rpc::throw_if_error(check_checkpoint(event));
  for (const BlobRef& chunk : *event.chunks) {
    service_->touched(chunk.digest);
    hold_->add(chunk.digest);
  }
  service_->touched(event.manifest.digest);
  hold_->add(event.manifest.digest);
  return service_->ask<AnswerCheckpoint>(event).then(
      [this, event, context](AnswerCheckpoint answer) mutable {
        rpc::throw_if_error(answer.status);
        let_go(event);
        if (answer.number == 0) service_->unwanted(event);
        context.getResults().setNumber(answer.number);
      });
}

// ---- blobs that workers pass on
// -----------------------------------------------------------------

kj::Promise<void> WorkerSessionServer::findHolder(FindHolderContext context) {
  check_open();
  if (session_ == 0) {
    rpc::throw_if_error(
        absl::FailedPreconditionError("a worker attaches before it looks for blobs"));
  }
  last_heard_ = boottime_ms();
  const auto params = context.getParams();
  const BlobRef blob = value_or_throw(protocol::decode(params.getBlob()));
  if (blob.empty() || service_->store().size_bytes(blob.digest) != blob.size_bytes) {
    rpc::throw_if_error(absl::NotFoundError("no blob " + to_hex(blob.digest)));
  }
  if (params.getWithout().size() > kMaxWithout) {
    rpc::throw_if_error(absl::InvalidArgumentError("too many workers to do without"));
  }
  std::set<uint64_t> without;
  for (const uint64_t worker : params.getWithout()) without.insert(worker);
  const uint64_t failed = params.getFailed();
  context.releaseParams();
  return service_->passing()
      .find(session_, blob, std::move(without), failed)
      .then([context](std::optional<HolderOffer> offer) mutable {
        if (!offer) return;
        auto holder = context.getResults().initHolder();
        holder.setWorker(offer->worker);
        holder.setAddress(offer->address);
        holder.setPort(offer->port);
        holder.setCertificate(offer->certificate_pem);
        holder.setTicket(protocol::as_data(offer->ticket));
      });
}

kj::Promise<void> WorkerSessionServer::fetched(FetchedContext context) {
  check_open();
  const auto params = context.getParams();
  const Digest digest = value_or_throw(protocol::decode_digest(params.getDigest()));
  const bool here = params.getHere();
  if (session_ != 0 && (!here || service_->store().contains(digest))) {
    service_->passing().fetched(session_, digest, here);
  }
  return kj::READY_NOW;
}

kj::Promise<HolderOffer> WorkerSessionServer::pass_on(const BlobRef& blob,
                                                      const std::string& ticket) {
  KJ_IF_MAYBE (sink, sink_) {
    auto request = sink->passOnRequest();
    protocol::encode(request.initBlob(), blob);
    request.setTicket(protocol::as_data(ticket));
    request.setAddress(about_.address);
    return request.send().then([about = about_, ticket](auto&& response) {
      const std::string_view certificate(response.getCertificate().cStr());
      if (response.getPort() == 0 || certificate.size() > kMaxCertificateBytes) {
        rpc::throw_if_error(absl::InvalidArgumentError("a worker offers a blob, but not where"));
      }
      if (certificate.empty() != rpc::is_loopback({about.address, 0})) {
        rpc::throw_if_error(absl::InvalidArgumentError(
            "a worker offers a blob without TLS to other machines, or with it to its own"));
      }
      return HolderOffer{about.worker, about.address, response.getPort(), std::string(certificate),
                         ticket};
    });
  }
  return rpc::to_exception(absl::UnavailableError("the worker is gone"));
}

// A record that names it is committed, or never will be: the session has nothing to hold any more.
void WorkerSessionServer::let_go(const CheckpointOffered& offered) {
  for (const BlobRef& chunk : *offered.chunks) hold_->remove(chunk.digest);
  hold_->remove(offered.manifest.digest);
}

absl::Status WorkerSessionServer::check_checkpoint(const CheckpointOffered& offered) const {
  if (offered.manifest.empty()) {
    return absl::InvalidArgumentError("a checkpoint without a manifest");
  }
  auto here = [&](const BlobRef& blob) {
    return service_->store().size_bytes(blob.digest) == blob.size_bytes;
  };
  const BlobRef* missing = here(offered.manifest) ? nullptr : &offered.manifest;
  for (const BlobRef& chunk : *offered.chunks) {
    if (!here(chunk)) missing = &chunk;
  }
  if (missing == nullptr) return absl::OkStatus();
  return absl::FailedPreconditionError("the checkpoint of " + to_string(offered.key) +
                                       " names the blob " + to_hex(missing->digest) +
                                       ", which is not here: upload it first");
}

// The output a result names is in the store when this returns.
FinishedAttempt WorkerSessionServer::take_result(protocol::FinishedAttempt::Reader in) {
  FinishedAttempt finished;
  finished.key = value_or_throw(protocol::decode(in.getKey()));
  finished.outcome = value_or_throw(protocol::decode(in.getOutcome()));
  const BlobRef& output = finished.outcome.output;
  const std::string_view bytes = protocol::as_view(in.getInlineOutput());
  auto refuse = [&](const std::string& why) {
    rpc::throw_if_error(
        absl::InvalidArgumentError("the output of " + to_string(finished.key) + " " + why));
  };
  if (bytes.size() > kMaxInlineBytes) refuse("is too large to come inline: upload it");
  if (!bytes.empty()) {
    const absl::StatusOr<BlobRef> stored = service_->store().put(bytes);
    if (stored.status().code() == absl::StatusCode::kResourceExhausted) {
      rpc::throw_if_error(absl::ResourceExhaustedError(
          "the coordinator's disk is full: " + std::string(stored.status().message()) +
          "; free space there, the result is sent again by itself"));
    }
    rpc::throw_if_error(stored.status());
    if (*stored != output) refuse("does not match its digest");
    service_->touched(stored->digest);
  } else if (!output.empty()) {
    if (service_->store().size_bytes(output.digest) != output.size_bytes) {
      refuse("(blob " + to_hex(output.digest) + ") is not in the store: upload it first");
    }
    service_->touched(output.digest);
  }
  return finished;
}

kj::Promise<std::pair<std::string, bool>> WorkerSessionServer::read_log(const AttemptKey& key,
                                                                        uint8_t stream,
                                                                        uint64_t offset,
                                                                        uint32_t max_bytes) {
  KJ_IF_MAYBE (sink, sink_) {
    auto request = sink->readLogRequest();
    protocol::encode(request.initKey(), key);
    request.setStream(stream);
    request.setOffset(offset);
    request.setMaxBytes(max_bytes);
    return request.send().then([](auto response) {
      return std::make_pair(std::string(protocol::as_view(response.getData())),
                            response.getRunning());
    });
  }
  return std::make_pair(std::string(), true);
}

}  // namespace

protocol::WorkerSession::Client make_worker_session(std::shared_ptr<Service> service,
                                                    std::string peer_address) {
  return kj::heap<WorkerSessionServer>(std::move(service), std::move(peer_address));
}

}  // namespace pesc::coordinator
