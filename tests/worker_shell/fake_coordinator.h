// A coordinator as the worker sees it, scripted by a test: real capabilities, no core.
#pragma once

#include <kj/async.h>

#include <functional>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "model/checkpoint.h"
#include "model/job_spec.h"
#include "model/outcome.h"
#include "pesc.capnp.h"
#include "protocol/codec.h"
#include "rpc/loop.h"

namespace pesc::worker {

class FakeCoordinator {
 public:
  explicit FakeCoordinator(rpc::Loop& loop) : loop_(loop) {}

  struct End {
    AttemptOutcome outcome;
    std::string output;  // packed
  };

  // What the worker is given as its session.
  protocol::WorkerSession::Client session();
  void add_blob(const std::string& bytes) { blobs_[sha256(bytes)] = bytes; }
  struct Terms {
    CheckpointRef checkpoint;
    bool hold = false;
    uint32_t local_rank = 0, local_world_size = 1;
  };
  void lease(const AttemptKey& key, const JobSpec& spec, const Terms& terms);
  void lease(const AttemptKey& key, const JobSpec& spec) { lease(key, spec, {}); }
  void start(const AttemptKey& key, const std::string& address, uint16_t port);
  void stop(const AttemptKey& key, EndReason reason);
  void pause(bool pause);
  std::string read_log(const AttemptKey& key, uint8_t stream);
  absl::StatusOr<uint16_t> pass_on(const BlobRef& blob, const std::string& ticket);
  // Lets go of the worker's sink, as the end of a connection does.
  void hang_up() { sink_.reset(); }

  // Run the loop until it is so; a minute is the guard against a hang.
  void wait_until(const std::function<bool()>& condition);
  const End& wait_for_end(const AttemptKey& key);
  bool has_progress(double fraction) const { return progress_.contains(fraction); }
  const std::string& blob(const Digest& digest) const { return blobs_.at(digest); }
  void forget_blobs() { blobs_.clear(); }
  bool has_blob(const Digest& digest) const { return blobs_.contains(digest); }
  // Another content under its name: what the disk or the way has done to it.
  void damage_blob(const Digest& digest) { blobs_.at(digest).front() ^= 1; }

  int attached = 0;
  bool acknowledge = true;
  bool reports_fail = false;
  uint64_t heartbeat_ms = 20;
  std::vector<std::string> warnings;
  bool passes_on = false;  // as said at the attach
  std::vector<AttemptKey> held_at_attach;
  std::map<AttemptKey, End> ends;
  std::map<AttemptKey, int> reported;  // how often
  std::map<Digest, int> reads;         // calls that asked for the blob
  uint64_t largest_write = 0;
  struct Saved {
    AttemptKey key;
    BlobRef manifest;
    uint64_t saved_ms = 0;
  };
  std::vector<Saved> checkpoints;  // in the order in which they came
  int refuse_checkpoints = 0;      // the next ones
  int uploaded = 0;                // blobs that came in pieces
  int unnamed_uploads = 0;         // and got their name at their end
  int dropped_uploads = 0;         // without an end
  bool takes_unnamed = true;       // false: as an older coordinator
  bool hold_writes = false;        // of unnamed ones: they wait in held_writes
  std::vector<kj::Own<kj::PromiseFulfiller<void>>> held_writes;
  uint64_t unnamed_limit = UINT64_MAX;  // more of one is refused
  int reports = 0;                      // heartbeats included
  bool hold_uploads = false;            // they wait in held_uploads
  std::vector<kj::Own<kj::PromiseFulfiller<void>>> held_uploads;
  std::map<AttemptKey, std::string> trouble;  // as last said
  std::map<AttemptKey, uint16_t> ready;       // held attempts, with their port
  std::string busy;                           // as last said
  bool paused = false;                        // said at the next attach

 private:
  class SessionServer;
  class BlobsServer;
  class UploadServer;
  void changed();
  void send(capnp::Request<protocol::WorkerSink::UpdateParams,
                           protocol::WorkerSink::UpdateResults>&& request);

  rpc::Loop& loop_;
  std::map<Digest, std::string> blobs_;
  std::optional<protocol::WorkerSink::Client> sink_;
  std::set<JobId> known_specs_;
  std::set<double> progress_;
  uint64_t update_number_ = 0;
  std::list<kj::Own<kj::PromiseFulfiller<void>>> waiting_;
};

}  // namespace pesc::worker
