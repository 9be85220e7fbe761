// The session with the coordinator: attached, lost, attached again, for ever. On the loop's thread.
#pragma once

#include <kj/async.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "model/ids.h"
#include "pesc.capnp.h"
#include "rpc/loop.h"
#include "runtime/worker/core/core.h"
#include "runtime/worker/shell/holder.h"
#include "runtime/worker/shell/pass_on.h"
#include "runtime/worker/shell/worker.h"

namespace pesc::worker {

// What the worker tells of itself.
struct SelfDescription {
  WorkerId id;
  std::string name, room, advertise, machine;
  uint32_t cpus_milli = 0;
  uint64_t memory_bytes = 0;
  std::vector<std::string> warnings;
  uint64_t disk_bytes = 0;
  NamedResources named;
  bool passes_on = false;
};

// What its ranks use together.
struct Measured {
  uint64_t memory_bytes = 0;
  uint32_t cpus_milli = 0;
};

struct LogChunk {
  std::string data;
  bool running = false;
};

class SessionDelegate {
 public:
  virtual ~SessionDelegate() = default;
  virtual std::vector<AttemptKey> holding() = 0;
  virtual std::vector<Gpu> gpus() = 0;  // as they are now
  virtual std::string busy() = 0;       // why the worker takes no new ranks; empty: it does
  virtual Measured measured() = 0;      // a few seconds ago at most
  virtual void on_connected(uint64_t heartbeat_ms, protocol::Blobs::Client blobs) = 0;
  virtual void on_disconnected() = 0;
  virtual void on_update(UpdateReceived update) = 0;
  virtual void on_pause(bool paused) = 0;  // a person's order; said at each attach
  virtual kj::Promise<LogChunk> read_log(const AttemptKey& key, uint8_t stream, uint64_t offset,
                                         uint32_t max_bytes) = 0;
  virtual absl::StatusOr<PassOn::Offer> pass_on(const BlobRef& blob, std::string_view ticket,
                                                const std::string& address) = 0;
};

class Session final : public HolderFinder, public kj::TaskSet::ErrorHandler {
 public:
  Session(rpc::Loop& loop, SessionSource source, SelfDescription self, SessionDelegate& delegate);
  ~Session() noexcept override;

  void start();
  void stop();  // no callback follows
  bool connected() const { return session_.has_value(); }

  struct Finished {
    AttemptKey key;
    AttemptOutcome outcome;
    std::string inline_output;
  };
  struct Answer {
    std::vector<AttemptKey> acknowledged;
    std::vector<UpdateReceived::Stop> stop;
  };
  // Fails with Unavailable when there is no session.
  kj::Promise<Answer> report(const std::vector<AttemptKey>& holding, uint64_t last_update,
                             const std::vector<Finished>& finished,
                             const std::vector<Progressed>& progress,
                             const std::vector<SendReport::Ready>& ready, const std::string& busy);
  kj::Promise<std::optional<Holder>> find_holder(const BlobRef& blob,
                                                 const std::set<uint64_t>& without,
                                                 uint64_t failed) override;
  void fetched(const Digest& digest, bool here) override;
  // All its blobs have been put. The checkpoint's number; 0: it is not wanted.
  kj::Promise<uint32_t> checkpoint(const AttemptKey& key, const BlobRef& manifest,
                                   const std::vector<BlobRef>& chunks, uint64_t saved_ms);

 private:
  class Sink;
  struct Link;
  void taskFailed(kj::Exception&& exception) override;
  void connect();
  kj::Promise<void> attach(protocol::WorkerSession::Client session);
  void fill(protocol::WorkerInfo::Builder info) const;
  void failed(const absl::Status& status);
  void lost(uint64_t generation, const std::string& why);
  void retry_later(bool slowly);
  template <typename T>
  kj::Promise<T> within(uint64_t limit_ms, kj::Promise<T> promise, const char* what);

  rpc::Loop& loop_;
  SessionSource source_;
  const SelfDescription self_;
  SessionDelegate& delegate_;
  std::optional<protocol::WorkerSession::Client> session_;
  std::shared_ptr<Link> link_;
  uint64_t generation_ = 0;
  std::vector<Gpu> told_gpus_;     // in this session
  bool knows_no_holders_ = false;  // this coordinator: it is older than such calls
  uint32_t failures_ = 0;
  std::string last_logged_;
  int64_t last_logged_ms_ = 0;
  std::minstd_rand random_{std::random_device()()};
  std::optional<kj::TaskSet> tasks_;
};

}  // namespace pesc::worker
