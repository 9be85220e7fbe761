// A coordinator in this process, a scripted worker, and the calls of a user, each run to its end.
#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>

#include <deque>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "protocol/codec.h"
#include "rpc/loop.h"
#include "runtime/coordinator/shell/coordinator.h"
#include "runtime/coordinator/shell/service.h"

namespace pesc::coordinator::testing {

class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    std::string name = (std::filesystem::temp_directory_path() / "pesc-shell-XXXXXX").string();
    path_ = mkdtemp(name.data());
  }
  ~TemporaryDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path operator/(std::string_view name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

inline JobSpec simple_spec(uint32_t repetitions) {
  JobSpec spec;
  spec.name = "a job";
  spec.program = "true";
  spec.repetitions = repetitions;
  spec.output_limit_bytes = kDefaultOutputLimitBytes;
  return spec;
}

// Runs a call to its end: its response, or the status it failed with.
template <typename T>
auto outcome_of(rpc::Loop& loop, kj::Promise<T> promise) {
  using Kept = std::shared_ptr<std::decay_t<T>>;
  return loop.wait(promise.then(
      [](T&& value) -> absl::StatusOr<Kept> {
        return std::make_shared<std::decay_t<T>>(kj::mv(value));
      },
      [](kj::Exception&& e) -> absl::StatusOr<Kept> { return rpc::to_status(e); }));
}

template <typename Request>
absl::Status status_of(rpc::Loop& loop, Request&& request) {
  return loop.wait(request.send().ignoreResult().then(
      []() { return absl::OkStatus(); },
      [](kj::Exception&& e) -> absl::Status { return rpc::to_status(e); }));
}

struct Lease {
  AttemptKey key;
  std::optional<JobSpec> spec;
  CheckpointRef checkpoint;
  bool hold = false;
  uint32_t local_rank = 0, local_world_size = 0;
};

// What a worker's sink has been told, and a way to wait for it.
struct Inbox {
  std::deque<Lease> leases;
  std::vector<AttemptKey> holding;
  std::vector<protocol::Stop> stops;
  std::vector<StartOrder> starts;
  uint64_t last_update = 0;
  std::string log = "a line\n";
  bool gone = false;
  // Asked to pass a blob on: the tickets, and what is answered.
  std::vector<std::string> tickets;
  uint16_t port = 4711;  // 0: it does not have the blob
  std::string certificate = "its certificate";
  absl::Status cannot_pass_on;
  kj::Maybe<kj::Own<kj::PromiseFulfiller<void>>> waiting;

  void told() {
    KJ_IF_MAYBE (fulfiller, waiting) {
      (*fulfiller)->fulfill();
      waiting = nullptr;
    }
  }
  kj::Promise<void> news() {
    auto paf = kj::newPromiseAndFulfiller<void>();
    waiting = kj::mv(paf.fulfiller);
    return kj::mv(paf.promise);
  }
};

class Sink final : public protocol::WorkerSink::Server {
 public:
  explicit Sink(std::shared_ptr<Inbox> inbox) : inbox_(std::move(inbox)) {}
  ~Sink() noexcept {
    inbox_->gone = true;
    inbox_->told();
  }
  kj::Promise<void> update(UpdateContext context) override {
    const auto params = context.getParams();
    inbox_->last_update = params.getNumber();
    for (const auto in : params.getLeases()) {
      Lease lease{protocol::decode(in.getKey()).value(), std::nullopt};
      if (in.getHasSpec()) lease.spec = protocol::decode(in.getSpec()).value();
      lease.checkpoint = protocol::decode(in.getCheckpoint()).value();
      lease.hold = in.getHold();
      lease.local_rank = in.getLocalRank();
      lease.local_world_size = in.getLocalWorldSize();
      inbox_->holding.push_back(lease.key);
      inbox_->leases.push_back(std::move(lease));
    }
    for (const auto in : params.getStop()) inbox_->stops.push_back(protocol::decode(in).value());
    for (const auto in : params.getStart()) {
      inbox_->starts.push_back({protocol::decode(in.getKey()).value(),
                                std::string(in.getMasterAddr().cStr()), in.getMasterPort()});
    }
    inbox_->told();
    return kj::READY_NOW;
  }
  kj::Promise<void> readLog(ReadLogContext context) override {
    context.getResults().setData(protocol::as_data(inbox_->log));
    context.getResults().setRunning(true);
    return kj::READY_NOW;
  }
  kj::Promise<void> passOn(PassOnContext context) override {
    inbox_->tickets.emplace_back(protocol::as_view(context.getParams().getTicket()));
    inbox_->told();
    rpc::throw_if_error(inbox_->cannot_pass_on);
    if (inbox_->port == 0) rpc::throw_if_error(absl::NotFoundError("no such blob"));
    context.getResults().setPort(inbox_->port);
    const bool tls = !rpc::is_loopback({context.getParams().getAddress().cStr(), 0});
    context.getResults().setCertificate(tls ? inbox_->certificate : "");
    return kj::READY_NOW;
  }

 private:
  std::shared_ptr<Inbox> inbox_;
};

class FakeWorker {
 public:
  FakeWorker(rpc::Loop& loop, protocol::WorkerSession::Client session, uint64_t id = 7,
             uint32_t cpus = 2)
      : loop_(loop), session_(kj::mv(session)), id_(id), cpus_(cpus) {}

  absl::Status attach() {
    auto request = session_.attachRequest();
    auto info = request.initInfo();
    info.setId(id_);
    info.setName(protocol::as_data("fake-" + std::to_string(id_)));
    info.setCpusMilli(cpus_ * 1000);
    info.setMemoryBytes(1 << 30);
    info.setPassesOn(passes_on);
    info.setAdvertise(advertise);
    protocol::encode_list(request.initHolding(inbox->holding.size()), inbox->holding);
    request.setSink(kj::heap<Sink>(inbox));
    return status_of(loop_, request);
  }

  Lease next_lease() {
    while (inbox->leases.empty()) {
      if (inbox->gone) throw std::runtime_error("the session ended while a lease was awaited");
      loop_.wait(inbox->news());
    }
    Lease lease = std::move(inbox->leases.front());
    inbox->leases.pop_front();
    return lease;
  }

  // Waits until the sink has been told something new.
  void news() { loop_.wait(inbox->news()); }

  // Puts manifest and chunks, and offers them: the checkpoint's number.
  absl::StatusOr<uint32_t> save(const AttemptKey& key, const std::string& manifest,
                                const std::vector<std::string>& chunks) {
    auto put = session_.blobsRequest().send().getBlobs().putRequest();
    std::vector<std::string> blobs = chunks;
    blobs.push_back(manifest);
    protocol::encode(put.initBlobs(blobs.size()), blobs);
    if (absl::Status status = status_of(loop_, put); !status.ok()) return status;
    return offer(key, manifest, chunks);
  }
  absl::StatusOr<uint32_t> offer(const AttemptKey& key, const std::string& manifest,
                                 const std::vector<std::string>& chunks) {
    auto request = session_.checkpointRequest();
    protocol::encode(request.initKey(), key);
    protocol::encode(request.initManifest(), BlobRef{sha256(manifest), manifest.size()});
    std::vector<BlobRef> refs;
    for (const std::string& chunk : chunks) refs.push_back({sha256(chunk), chunk.size()});
    protocol::encode_list(request.initChunks(refs.size()), refs);
    request.setSavedMs(4'000);
    using Answer = capnp::Response<protocol::WorkerSession::CheckpointResults>;
    auto response = outcome_of(loop_, kj::Promise<Answer>(request.send()));
    if (!response.ok()) return response.status();
    return (*response)->getNumber();
  }

  // Reports that held attempts are prepared; rank 0 has found that port.
  absl::Status ready(const std::vector<AttemptKey>& keys, uint16_t port) {
    auto request = session_.reportRequest();
    protocol::encode_list(request.initHolding(inbox->holding.size()), inbox->holding);
    request.setLastUpdate(inbox->last_update);
    auto out = request.initReady(keys.size());
    for (unsigned i = 0; i < keys.size(); ++i) {
      protocol::encode(out[i].initKey(), keys[i]);
      out[i].setMasterPort(keys[i].rank == 0 ? port : 0);
    }
    return status_of(loop_, request);
  }

  absl::Status report(const AttemptKey& key, AttemptOutcome outcome, const std::string& output) {
    return report_all({{key, std::move(outcome)}}, {output});
  }
  // Reports results with their outputs inline; what is acknowledged is no longer held.
  absl::Status report_all(const std::vector<std::pair<AttemptKey, AttemptOutcome>>& results,
                          const std::vector<std::string>& outputs) {
    auto request = session_.reportRequest();
    protocol::encode_list(request.initHolding(inbox->holding.size()), inbox->holding);
    request.setLastUpdate(inbox->last_update);
    auto finished = request.initFinished(results.size());
    for (unsigned i = 0; i < results.size(); ++i) {
      protocol::encode(finished[i].initKey(), results[i].first);
      protocol::encode(finished[i].initOutcome(), results[i].second);
      if (!outputs[i].empty()) finished[i].setInlineOutput(protocol::as_data(outputs[i]));
    }
    auto response = outcome_of(loop_, kj::Promise<Response>(request.send()));
    if (!response.ok()) return response.status();
    for (const auto acknowledged : (*response)->getAcknowledged()) {
      std::erase(inbox->holding, protocol::decode(acknowledged).value());
    }
    return absl::OkStatus();
  }
  // Takes the next lease and lets it succeed with that output.
  AttemptKey succeed(const std::string& output) {
    const Lease lease = next_lease();
    EXPECT_EQ(report(lease.key, success(output), output), absl::OkStatus());
    return lease.key;
  }

  static AttemptOutcome success(const std::string& output) {
    AttemptOutcome outcome;
    outcome.started_unix_ms = 1'700'000'000'000;
    outcome.duration_ms = 5'000;
    if (!output.empty()) outcome.output = {sha256(output), output.size()};
    return outcome;
  }
  static AttemptOutcome failure(int exit_code, const std::string& detail) {
    AttemptOutcome outcome = success("");
    outcome.reason = EndReason::exit_code;
    outcome.exit_code = exit_code;
    outcome.detail = detail;
    return outcome;
  }

  protocol::WorkerSession::Client& session() { return session_; }
  std::shared_ptr<Inbox> inbox = std::make_shared<Inbox>();
  bool passes_on = false;
  std::string advertise;

 private:
  using Response = capnp::Response<protocol::WorkerSession::ReportResults>;
  rpc::Loop& loop_;
  protocol::WorkerSession::Client session_;
  uint64_t id_;
  uint32_t cpus_;
};

class FakeUser {
 public:
  FakeUser(rpc::Loop& loop, protocol::UserSession::Client session)
      : loop_(loop), session_(kj::mv(session)) {}

  absl::Status submit(JobId id, const JobSpec& spec) {
    auto request = session_.submitRequest();
    request.setId(id.value);
    protocol::encode(request.initSpec(), spec);
    return status_of(loop_, request);
  }
  auto status(JobId id) {
    auto request = session_.statusRequest();
    request.setId(id.value);
    return outcome_of(
        loop_, kj::Promise<capnp::Response<protocol::UserSession::StatusResults>>(request.send()));
  }
  auto follow(JobId id, uint64_t revision, uint32_t committed, uint32_t max_wait_ms = 30'000) {
    auto request = session_.followRequest();
    request.setId(id.value);
    request.setRevision(revision);
    request.setCommitted(committed);
    request.setMaxWaitMs(max_wait_ms);
    return outcome_of(
        loop_, kj::Promise<capnp::Response<protocol::UserSession::FollowResults>>(request.send()));
  }
  auto ranks(JobId id, uint32_t first, uint32_t max) {
    auto request = session_.ranksRequest();
    request.setId(id.value);
    request.setFirst(first);
    request.setMax(max);
    return outcome_of(
        loop_, kj::Promise<capnp::Response<protocol::UserSession::RanksResults>>(request.send()));
  }
  std::vector<std::string> why(JobId id) {
    auto request = session_.whyRequest();
    request.setId(id.value);
    std::vector<std::string> lines;
    auto response = loop_.wait(request.send());
    for (const auto line : response.getLines()) {
      lines.push_back(std::string(line.getRanks().cStr()) + ": " +
                      std::string(protocol::as_view(line.getReason())));
    }
    return lines;
  }
  absl::Status cancel(JobId id) { return simple(session_.cancelRequest(), id); }
  absl::Status remove(JobId id) { return simple(session_.removeRequest(), id); }
  absl::Status retry(JobId id) { return simple(session_.retryRequest(), id); }
  std::vector<JobId> jobs() {
    auto request = session_.jobsRequest();
    request.setMax(100);
    std::vector<JobId> ids;
    auto response = loop_.wait(request.send());
    for (const auto job : response.getJobs()) ids.push_back(JobId{job.getId()});
    return ids;
  }
  protocol::Blobs::Client blobs() { return session_.blobsRequest().send().getBlobs(); }
  bool has_blob(const std::string& bytes) {
    auto request = blobs().missingRequest();
    protocol::encode(request.initDigests(1), std::vector<Digest>{sha256(bytes)});
    return loop_.wait(request.send()).getMissing().size() == 0;
  }
  // Unlike has_blob() this does not hold it.
  bool can_read(const std::string& bytes) {
    auto request = blobs().readRequest();
    request.setDigest(protocol::as_data(sha256(bytes)));
    request.setMaxBytes(100);
    return status_of(loop_, request).ok();
  }
  absl::StatusOr<uint32_t> drain(const std::string& worker, bool drain = true) {
    auto request = session_.drainRequest();
    request.setWorker(worker);
    request.setDrain(drain);
    using Answer = capnp::Response<protocol::UserSession::DrainResults>;
    auto response = outcome_of(loop_, kj::Promise<Answer>(request.send()));
    if (!response.ok()) return response.status();
    return (*response)->getAttempts();
  }
  // State and trouble of the only worker.
  std::pair<std::string, std::string> worker() {
    auto response = loop_.wait(session_.workersRequest().send());
    const auto one = response.getWorkers()[0];
    return {one.getState().cStr(), one.getTrouble().cStr()};
  }
  absl::Status put(const std::string& bytes) {
    auto request = blobs().putRequest();
    protocol::encode(request.initBlobs(1), std::vector<std::string>{bytes});
    return status_of(loop_, request);
  }
  // Follows a job until it ends; returns the ranks in the order they came.
  std::vector<uint32_t> follow_to_the_end(JobId id) {
    std::vector<uint32_t> ranks;
    uint64_t revision = 0;
    while (true) {
      auto news = follow(id, revision, uint32_t(ranks.size()));
      if (!news.ok()) {
        ADD_FAILURE() << news.status();
        return ranks;
      }
      revision = (*news)->getStatus().getRevision();
      for (const auto rank : (*news)->getFinished()) ranks.push_back(rank.getRank());
      const auto state = static_cast<JobState>((*news)->getStatus().getState());
      const bool ended = state != JobState::waiting && state != JobState::running;
      if (ended && ranks.size() == (*news)->getStatus().getCommitted()) return ranks;
    }
  }
  protocol::UserSession::Client& session() { return session_; }

 private:
  template <typename Request>
  absl::Status simple(Request request, JobId id) {
    request.setId(id.value);
    return status_of(loop_, request);
  }
  rpc::Loop& loop_;
  protocol::UserSession::Client session_;
};

// A coordinator on a directory of its own, which it can be opened on again.
class Lab {
 public:
  Lab() { options.state_dir = dir / "state"; }
  ~Lab() { close(); }

  absl::Status open() {
    auto opened = Coordinator::open(loop, options);
    if (!opened.ok()) return opened.status();
    coordinator = std::move(*opened);
    return absl::OkStatus();
  }
  void close() {
    if (!coordinator) return;
    loop.wait(coordinator->shutdown());
    coordinator = nullptr;
  }
  // Lets everything that is ready happen: calls within one process never leave KJ's own loop.
  void let_others() {
    auto paf = kj::newPromiseAndFulfiller<void>();
    loop.post([&] { paf.fulfiller->fulfill(); });
    loop.wait(kj::mv(paf.promise));
  }
  FakeUser user(const std::string& name = "ann", rpc::Role role = rpc::Role::user) {
    return {loop, coordinator->user_session({role, name})};
  }
  FakeWorker worker(uint64_t id = 7, uint32_t cpus = 2) {
    return {loop, coordinator->worker_session("192.0.2.7"), id, cpus};
  }

  TemporaryDirectory dir;
  rpc::Loop loop;
  Options options;
  std::unique_ptr<Coordinator> coordinator;
};

}  // namespace pesc::coordinator::testing
