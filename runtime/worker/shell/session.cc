#include "runtime/worker/shell/session.h"

#include <kj/debug.h>

#include <algorithm>
#include <utility>

#include "asio/post.hpp"
#include "protocol/codec.h"
#include "rpc/log.h"
#include "runtime/worker/shell/clock.h"

namespace pesc::worker {
namespace {

constexpr uint64_t kAnswerLimitMs = 30'000;
constexpr uint64_t kBackoffFirstMs = 200;
constexpr uint64_t kBackoffMostMs = 10'000;
constexpr uint64_t kBackoffRefusedMs = 30'000;  // only a person can mend it
constexpr int64_t kLogAgainMs = 5 * 60 * 1000;
constexpr uint32_t kMaxLogBytes = 1 << 20;
constexpr size_t kMaxAddressBytes = 1'024;

bool only_a_person_can_mend(const absl::Status& status) {
  return absl::IsUnauthenticated(status) || absl::IsPermissionDenied(status) ||
         absl::IsFailedPrecondition(status) || absl::IsInvalidArgument(status);
}

}  // namespace

// What the coordinator holds of us outlives the session: it finds nothing then.
struct Session::Link {
  Session* session = nullptr;
};

class Session::Sink final : public protocol::WorkerSink::Server {
 public:
  Sink(std::shared_ptr<Link> link, uint64_t generation)
      : link_(std::move(link)), generation_(generation) {}

  // The connection's end releases the coordinator's hold on this: the quickest sign there is.
  ~Sink() noexcept {
    if (link_->session == nullptr) return;
    asio::post(link_->session->loop_.io(), [link = link_, generation = generation_] {
      if (link->session != nullptr) link->session->lost(generation, "the connection ended");
    });
  }

  kj::Promise<void> update(UpdateContext context) override {
    Session& session = current();
    auto params = context.getParams();
    UpdateReceived update;
    update.number = params.getNumber();
    for (auto lease : params.getLeases()) update.leases.push_back(decode_lease(lease));
    for (auto in : params.getStop()) {
      auto stop = protocol::decode(in);
      rpc::throw_if_error(stop.status());
      update.stop.push_back({stop->key, stop->reason});
    }
    for (auto in : params.getStart()) {
      auto key = protocol::decode(in.getKey());
      rpc::throw_if_error(key.status());
      const std::string_view address(in.getMasterAddr().cStr());
      if (address.size() > kMaxAddressBytes || in.getMasterPort() == 0) {
        rpc::throw_if_error(absl::InvalidArgumentError("a start order without address or port"));
      }
      update.start.push_back({*key, std::string(address), in.getMasterPort()});
    }
    if (params.getPause() != protocol::PauseOrder::UNCHANGED) {
      session.delegate_.on_pause(params.getPause() == protocol::PauseOrder::PAUSE);
    }
    session.delegate_.on_update(std::move(update));
    return kj::READY_NOW;
  }

  kj::Promise<void> readLog(ReadLogContext context) override {
    Session& session = current();
    auto params = context.getParams();
    auto key = protocol::decode(params.getKey());
    rpc::throw_if_error(key.status());
    const uint32_t max_bytes = std::min(params.getMaxBytes(), kMaxLogBytes);
    return session.delegate_.read_log(*key, params.getStream(), params.getOffset(), max_bytes)
        .then([context](LogChunk chunk) mutable {
          auto results = context.getResults();
          results.setData(protocol::as_data(chunk.data));
          results.setRunning(chunk.running);
        });
  }

  kj::Promise<void> passOn(PassOnContext context) override {
    Session& session = current();
    auto params = context.getParams();
    auto blob = protocol::decode(params.getBlob());
    rpc::throw_if_error(blob.status());
    const std::string address(params.getAddress().cStr());
    if (address.size() > kMaxAddressBytes) {
      rpc::throw_if_error(absl::InvalidArgumentError("that is no address"));
    }
    auto offer = session.delegate_.pass_on(*blob, protocol::as_view(params.getTicket()), address);
    rpc::throw_if_error(offer.status());
    context.getResults().setPort(offer->port);
    context.getResults().setCertificate(offer->certificate_pem);
    return kj::READY_NOW;
  }

 private:
  Session& current() {
    if (link_->session == nullptr || link_->session->generation_ != generation_) {
      rpc::throw_if_error(absl::UnavailableError("this session of the worker has ended"));
    }
    return *link_->session;
  }

  UpdateReceived::Lease decode_lease(protocol::Lease::Reader in) {
    auto key = protocol::decode(in.getKey());
    rpc::throw_if_error(key.status());
    std::shared_ptr<const JobSpec>& known = specs_[key->job];
    if (in.getHasSpec()) {
      auto spec = protocol::decode(in.getSpec());
      absl::Status status = spec.ok() ? validate(*spec) : spec.status();
      if (status.ok()) {
        known = std::make_shared<const JobSpec>(*std::move(spec));
      } else {
        // Left out: the core gives the lease back and says so.
        rpc::log().error("event=job_refused job={} error=\"{}\"", to_string(key->job),
                         std::string(status.message()));
      }
    }
    UpdateReceived::Lease lease{*key, known};
    if (in.hasCheckpoint() && in.getCheckpoint().getNumber() != 0) {
      auto checkpoint = protocol::decode(in.getCheckpoint());
      rpc::throw_if_error(checkpoint.status());
      lease.checkpoint = *checkpoint;
    }
    lease.hold = in.getHold();
    lease.local_rank = in.getLocalRank();
    lease.local_world_size = in.getLocalWorldSize();
    lease.grant.memory_limit_bytes = in.getMemoryLimitBytes();
    lease.grant.gpu_memory_limit_bytes = in.getGpuMemoryLimitBytes();
    for (const auto gpu : in.getGpus()) lease.grant.gpus.emplace_back(gpu.cStr());
    return lease;
  }

  std::shared_ptr<Link> link_;
  const uint64_t generation_;
  std::map<JobId, std::shared_ptr<const JobSpec>> specs_;
};

Session::Session(rpc::Loop& loop, SessionSource source, SelfDescription self,
                 SessionDelegate& delegate)
    : loop_(loop),
      source_(std::move(source)),
      self_(std::move(self)),
      delegate_(delegate),
      link_(std::make_shared<Link>()) {
  link_->session = this;
  tasks_.emplace(*this);
}

Session::~Session() noexcept { stop(); }

void Session::start() { connect(); }

void Session::stop() {
  link_->session = nullptr;
  tasks_.reset();
  session_.reset();
}

void Session::taskFailed(kj::Exception&& exception) {
  rpc::log().warn("event=session_task_failed error=\"{}\"", exception.getDescription().cStr());
}

template <typename T>
kj::Promise<T> Session::within(uint64_t limit_ms, kj::Promise<T> promise, const char* what) {
  return promise.exclusiveJoin(loop_.timer()
                                   .afterDelay(static_cast<int64_t>(limit_ms) * kj::MILLISECONDS)
                                   .then([what]() -> kj::Promise<T> {
                                     return KJ_EXCEPTION(DISCONNECTED,
                                                         "the coordinator does not answer", what);
                                   }));
}

void Session::connect() {
  tasks_->add(
      kj::evalNow([this] {
        return source_();
      }).then([this](protocol::WorkerSession::Client session) {
          return attach(kj::mv(session));
        }).catch_([this](kj::Exception&& e) { failed(rpc::to_status(e)); }));
}

void Session::fill(protocol::WorkerInfo::Builder info) const {
  info.setId(self_.id.value);
  info.setName(protocol::as_data(self_.name));
  info.setRoom(protocol::as_data(self_.room));
  info.setCpusMilli(self_.cpus_milli);
  info.setMemoryBytes(self_.memory_bytes);
  info.setAdvertise(self_.advertise);
  info.setSoftware("pesc " PESC_VERSION);
  info.setMachine(self_.machine);
  info.setDiskBytes(self_.disk_bytes);
  info.setPassesOn(self_.passes_on);
  protocol::encode(info.initNamed(static_cast<unsigned>(self_.named.size())), self_.named);
  auto gpus = info.initGpus(static_cast<unsigned>(told_gpus_.size()));
  for (unsigned i = 0; i < gpus.size(); ++i) protocol::encode(gpus[i], told_gpus_[i]);
  auto warnings = info.initWarnings(static_cast<unsigned>(self_.warnings.size()));
  for (unsigned i = 0; i < warnings.size(); ++i) warnings.set(i, self_.warnings[i]);
}

kj::Promise<void> Session::attach(protocol::WorkerSession::Client session) {
  const uint64_t generation = ++generation_;
  auto request = session.attachRequest();
  told_gpus_ = delegate_.gpus();
  fill(request.initInfo());
  request.getInfo().setBusy(protocol::as_data(delegate_.busy()));
  const std::vector<AttemptKey> holding = delegate_.holding();
  protocol::encode_list(request.initHolding(static_cast<unsigned>(holding.size())), holding);
  request.setSink(kj::heap<Sink>(link_, generation));
  kj::Promise<capnp::Response<protocol::WorkerSession::AttachResults>> answer = request.send();
  return within(kAnswerLimitMs, kj::mv(answer), "attach")
      .then([this, session](auto&& response) mutable {
        auto stops = protocol::decode_list(response.getStop());
        rpc::throw_if_error(stops.status());
        session_ = session;
        knows_no_holders_ = false;
        if (failures_ > 0 || last_logged_.empty()) rpc::log().info("event=attached");
        last_logged_ = "attached";
        delegate_.on_connected(response.getHeartbeatMs(), session.blobsRequest().send().getBlobs());
        delegate_.on_pause(response.getPaused());
        UpdateReceived update;
        for (const protocol::Stop& stop : *stops) update.stop.push_back({stop.key, stop.reason});
        if (!update.stop.empty()) delegate_.on_update(std::move(update));
      });
}

void Session::failed(const absl::Status& status) {
  const std::string message(status.message());
  const int64_t now = boot_ms();
  if (message != last_logged_ || now - last_logged_ms_ >= kLogAgainMs) {
    rpc::log().warn(
        "event=no_coordinator code={} error=\"{}\" next=\"it is tried again by itself\"",
        absl::StatusCodeToString(status.code()), message);
    last_logged_ = message;
    last_logged_ms_ = now;
  }
  retry_later(only_a_person_can_mend(status));
}

void Session::lost(uint64_t generation, const std::string& why) {
  if (generation != generation_ || !session_) return;
  session_.reset();
  ++generation_;  // a late word of the old session is not listened to
  rpc::log().warn("event=connection_lost reason=\"{}\"", why);
  last_logged_ = why;
  delegate_.on_disconnected();
  retry_later(false);
}

void Session::retry_later(bool slowly) {
  const uint64_t most = slowly ? kBackoffRefusedMs : kBackoffMostMs;
  const uint64_t grown = kBackoffFirstMs << std::min<uint32_t>(failures_, 10);
  const uint64_t base = slowly ? most : std::min(grown, most);
  ++failures_;
  // A lab's workers must not all come back in the same moment.
  const uint64_t delay = base / 2 + random_() % (base / 2 + 1);
  tasks_->add(loop_.timer().afterDelay(static_cast<int64_t>(delay) * kj::MILLISECONDS).then([this] {
    connect();
  }));
}

kj::Promise<Session::Answer> Session::report(const std::vector<AttemptKey>& holding,
                                             uint64_t last_update,
                                             const std::vector<Finished>& finished,
                                             const std::vector<Progressed>& progress,
                                             const std::vector<SendReport::Ready>& ready,
                                             const std::string& busy) {
  if (!session_) {
    return rpc::to_exception(absl::UnavailableError("there is no session with a coordinator"));
  }
  auto request = session_->reportRequest();
  protocol::encode_list(request.initHolding(static_cast<unsigned>(holding.size())), holding);
  request.setLastUpdate(last_update);
  auto ends = request.initFinished(static_cast<unsigned>(finished.size()));
  for (unsigned i = 0; i < ends.size(); ++i) {
    protocol::encode(ends[i].initKey(), finished[i].key);
    protocol::encode(ends[i].initOutcome(), finished[i].outcome);
    ends[i].setInlineOutput(protocol::as_data(finished[i].inline_output));
  }
  auto steps = request.initProgress(static_cast<unsigned>(progress.size()));
  for (unsigned i = 0; i < steps.size(); ++i) {
    protocol::encode(steps[i].initKey(), progress[i].key);
    steps[i].setFraction(progress[i].fraction);
    steps[i].setText(protocol::as_data(progress[i].text));
    steps[i].setTrouble(protocol::as_data(progress[i].trouble));
  }
  std::optional<std::vector<Gpu>> telling;  // told when it is answered
  if (std::vector<Gpu> gpus = delegate_.gpus(); gpus != told_gpus_) {
    request.setGpusChanged(true);
    auto list = request.initGpus(static_cast<unsigned>(gpus.size()));
    for (unsigned i = 0; i < list.size(); ++i) protocol::encode(list[i], gpus[i]);
    telling = std::move(gpus);
  }
  auto held = request.initReady(static_cast<unsigned>(ready.size()));
  for (unsigned i = 0; i < held.size(); ++i) {
    protocol::encode(held[i].initKey(), ready[i].key);
    held[i].setMasterPort(ready[i].master_port);
  }
  request.setBusy(protocol::as_data(busy));
  const Measured measured = delegate_.measured();
  request.setMemoryMeasuredBytes(measured.memory_bytes);
  request.setCpusMeasuredMilli(measured.cpus_milli);
  kj::Promise<capnp::Response<protocol::WorkerSession::ReportResults>> answer = request.send();
  return within(kAnswerLimitMs, kj::mv(answer), "report")
      .then(
          [this, generation = generation_, telling](auto&& response) mutable -> Answer {
            if (generation != generation_) {
              rpc::throw_if_error(absl::UnavailableError("this session of the worker has ended"));
            }
            failures_ = 0;
            if (telling) told_gpus_ = std::move(*telling);
            auto keys = protocol::decode_list(response.getAcknowledged());
            rpc::throw_if_error(keys.status());
            auto stops = protocol::decode_list(response.getStop());
            rpc::throw_if_error(stops.status());
            Answer result{*std::move(keys), {}};
            for (const protocol::Stop& stop : *stops) {
              result.stop.push_back({stop.key, stop.reason});
            }
            return result;
          },
          [this, generation = generation_](kj::Exception&& e) -> Answer {
            if (e.getType() == kj::Exception::Type::DISCONNECTED) {
              lost(generation, std::string(rpc::to_status(e).message()));
            }
            kj::throwFatalException(kj::mv(e));
          });
}

kj::Promise<uint32_t> Session::checkpoint(const AttemptKey& key, const BlobRef& manifest,
                                          const std::vector<BlobRef>& chunks, uint64_t saved_ms) {
  if (!session_) {
    return rpc::to_exception(absl::UnavailableError("there is no session with a coordinator"));
  }
  auto request = session_->checkpointRequest();
  protocol::encode(request.initKey(), key);
  protocol::encode(request.initManifest(), manifest);
  protocol::encode_list(request.initChunks(static_cast<unsigned>(chunks.size())), chunks);
  request.setSavedMs(saved_ms);
  kj::Promise<capnp::Response<protocol::WorkerSession::CheckpointResults>> answer = request.send();
  return within(kAnswerLimitMs, kj::mv(answer), "checkpoint").then([](auto&& response) {
    return response.getNumber();
  });
}

// ---- who else has a blob
// ------------------------------------------------------------------------

kj::Promise<std::optional<Holder>> Session::find_holder(const BlobRef& blob,
                                                        const std::set<uint64_t>& without,
                                                        uint64_t failed) {
  if (!session_ || knows_no_holders_) return std::optional<Holder>();
  auto request = session_->findHolderRequest();
  protocol::encode(request.initBlob(), blob);
  auto list = request.initWithout(static_cast<unsigned>(without.size()));
  unsigned i = 0;
  for (const uint64_t worker : without) list.set(i++, worker);
  request.setFailed(failed);
  kj::Promise<capnp::Response<protocol::WorkerSession::FindHolderResults>> answer = request.send();
  return within(kAnswerLimitMs, kj::mv(answer), "findHolder")
      .then(
          [](auto&& response) -> std::optional<Holder> {
            const auto in = response.getHolder();
            if (in.getWorker() == 0) return std::nullopt;
            return Holder{in.getWorker(), std::string(in.getAddress().cStr()), in.getPort(),
                          std::string(in.getCertificate().cStr()),
                          std::string(protocol::as_view(in.getTicket()))};
          },
          [this, generation = generation_](kj::Exception&& e) -> std::optional<Holder> {
            // Whatever is wrong, the coordinator itself has it.
            if (e.getType() == kj::Exception::Type::UNIMPLEMENTED && generation == generation_) {
              knows_no_holders_ = true;
            }
            return std::nullopt;
          });
}

void Session::fetched(const Digest& digest, bool here) {
  if (!session_ || knows_no_holders_) return;
  auto request = session_->fetchedRequest();
  request.setDigest(protocol::as_data(digest));
  request.setHere(here);
  tasks_->add(request.send().ignoreResult().catch_([](kj::Exception&&) {}));
}

}  // namespace pesc::worker
