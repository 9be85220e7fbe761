#include "bench/load/fake_workers.h"

#include <string>
#include <utility>

#include "protocol/codec.h"

namespace pesc::bench {
namespace {

constexpr uint32_t kAttachingAtOnce = 64;
// As a worker does (runtime/worker/core/reports.cc).
constexpr size_t kReportsInFlight = 3;
constexpr size_t kReportAttempts = 512;

}  // namespace

class FakeWorker {
 public:
  FakeWorker(FakeWorkers& all, uint32_t number) : all_(all), number_(number) {}

  kj::Promise<void> attach() {
    return log_in_worker(all_.loop_, all_.join_).then([this](WorkerLogin login) {
      connection_ = std::move(login.connection);
      session_ = kj::mv(login.session);
      auto request = session_->attachRequest();
      auto info = request.initInfo();
      info.setId(0xbe4c000000000000u + number_ + 1);
      info.setName(protocol::as_data("fake-" + std::to_string(number_)));
      info.setCpusMilli(all_.cpus_ * 1000);
      info.setMemoryBytes(64ull << 30);
      info.setDiskBytes(1ull << 40);
      info.setSoftware("bench");
      info.setMachine("bench/" + std::to_string(number_));
      request.setSink(kj::heap<Sink>(*this));
      return request.send().then([this](auto&& response) {
        all_.heartbeat_ms_ = response.getHeartbeatMs();
        next_beat_s_ = now_s() + static_cast<double>(all_.heartbeat_ms_) / 1000;
      });
    });
  }

  // As a worker does: each report is a heartbeat, and one that waits for its answer puts off
  // others.
  void beat(double now) {
    if (now >= next_beat_s_ && in_flight_ == 0) report();
  }

 private:
  class Sink final : public protocol::WorkerSink::Server {
   public:
    explicit Sink(FakeWorker& worker) : worker_(worker) {}
    kj::Promise<void> update(UpdateContext context) override {
      auto params = context.getParams();
      worker_.last_update_ = params.getNumber();
      for (auto lease : params.getLeases()) {
        auto key = protocol::decode(lease.getKey());
        rpc::throw_if_error(key.status());
        worker_.ended_.push_back(*key);
      }
      worker_.report_all();
      return kj::READY_NOW;
    }

   private:
    FakeWorker& worker_;
  };

  void report_all() {
    while (!ended_.empty() && in_flight_ < kReportsInFlight) report();
  }

  // What has ended, or that nothing has.
  void report() {
    const size_t count = std::min(ended_.size(), kReportAttempts);
    std::vector<AttemptKey> keys(ended_.end() - static_cast<ptrdiff_t>(count), ended_.end());
    ended_.resize(ended_.size() - count);
    auto request = session_->reportRequest();
    auto holding =
        request.initHolding(static_cast<unsigned>(ended_.size() + reported_.size() + keys.size()));
    unsigned at = 0;
    for (const auto& key : ended_) protocol::encode(holding[at++], key);
    for (const auto& [key, none] : reported_) protocol::encode(holding[at++], key);
    for (const auto& key : keys) protocol::encode(holding[at++], key);
    request.setLastUpdate(last_update_);
    auto finished = request.initFinished(static_cast<unsigned>(count));
    for (unsigned i = 0; i < count; ++i) {
      protocol::encode(finished[i].initKey(), keys[i]);
      AttemptOutcome outcome;
      outcome.started_unix_ms = 1'700'000'000'000 + keys[i].rank;
      outcome.duration_ms = 1;
      outcome.cpu_ms = 1;
      outcome.max_rss_bytes = 1 << 20;
      protocol::encode(finished[i].initOutcome(), outcome);
      reported_.emplace(keys[i], true);
    }
    ++in_flight_;
    ++all_.reports_;
    next_beat_s_ = now_s() + static_cast<double>(all_.heartbeat_ms_) / 1000;
    all_.loop_.detach(
        request.send().then([this](auto&& response) {
          --in_flight_;
          auto acknowledged = response.getAcknowledged();
          for (auto each : acknowledged) {
            auto key = protocol::decode(each);
            rpc::throw_if_error(key.status());
            reported_.erase(*key);
          }
          all_.count(acknowledged.size());
          report_all();
        }),
        [](absl::Status status) { give_up("a report failed: " + std::string(status.message())); });
  }

  FakeWorkers& all_;
  const uint32_t number_;
  std::unique_ptr<rpc::Connection> connection_;
  std::optional<protocol::WorkerSession::Client> session_;
  uint64_t last_update_ = 0;
  size_t in_flight_ = 0;
  double next_beat_s_ = 0;
  std::vector<AttemptKey> ended_;
  std::map<AttemptKey, bool> reported_;  // not acknowledged yet
};

FakeWorkers::FakeWorkers(rpc::Loop& loop, rpc::JoinFile join, uint32_t count, uint32_t cpus)
    : loop_(loop), join_(std::move(join)), cpus_(cpus) {
  workers_.reserve(count);
  for (uint32_t i = 0; i < count; ++i) workers_.push_back(std::make_unique<FakeWorker>(*this, i));
}

FakeWorkers::~FakeWorkers() = default;

kj::Promise<void> FakeWorkers::attach() {
  auto chains = kj::heapArrayBuilder<kj::Promise<void>>(kAttachingAtOnce);
  for (uint32_t i = 0; i < kAttachingAtOnce; ++i) chains.add(attach_next());
  return kj::joinPromises(chains.finish()).then([this] {
    beating_ = beat().eagerlyEvaluate([](kj::Exception&& e) {
      give_up(std::string("heartbeats: ") + e.getDescription().cStr());
    });
  });
}

kj::Promise<void> FakeWorkers::attach_next() {
  if (next_ >= workers_.size()) return kj::READY_NOW;
  return workers_[next_++]->attach().then([this] { return attach_next(); });
}

// Twenty times in a heartbeat's time it is looked whose is due.
kj::Promise<void> FakeWorkers::beat() {
  constexpr uint32_t kParts = 20;
  return loop_.timer()
      .afterDelay(static_cast<int64_t>(heartbeat_ms_) * kj::MILLISECONDS / kParts)
      .then([this] {
        const double now = now_s();
        for (const auto& worker : workers_) worker->beat(now);
        return beat();
      });
}

void FakeWorkers::count(uint64_t acknowledged) {
  acknowledged_ += acknowledged;
  if (acknowledged_ >= awaited_) {
    awaited_ = UINT64_MAX;
    fulfiller_->fulfill();
  }
}

kj::Promise<void> FakeWorkers::when(uint64_t acknowledged) {
  if (acknowledged_ >= acknowledged) return kj::READY_NOW;
  auto paf = kj::newPromiseAndFulfiller<void>();
  awaited_ = acknowledged;
  fulfiller_ = kj::mv(paf.fulfiller);
  return kj::mv(paf.promise);
}

}  // namespace pesc::bench
